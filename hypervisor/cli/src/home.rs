//! Where instances and images are kept.

use std::env;
use std::path::PathBuf;

/// The folder: `CHITON_HOME`; else `/var/lib/chiton` for root, and `chiton` among the user's data for
/// others.
pub(crate) fn home() -> PathBuf {
    if let Some(home) = env::var_os("CHITON_HOME").filter(|home| !home.is_empty()) {
        // It stays the same wherever this process goes.
        return std::path::absolute(&home).unwrap_or_else(|_| home.into());
    }
    if rustix::process::geteuid().is_root() {
        return "/var/lib/chiton".into();
    }
    let data = env::var_os("XDG_DATA_HOME")
        .filter(|data| !data.is_empty())
        .map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".local/share")));
    data.unwrap_or_else(env::temp_dir).join("chiton")
}

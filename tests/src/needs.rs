//! What some tests need of the machine.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;

/// Whether a program is there; if not, says so on standard output, for a test to skip itself.
///
/// # Panics
///
/// If it is not and `CHITON_STRICT` is set.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| File::open(folder.join(program)).is_ok()) {
        return true;
    }
    assert!(
        std::env::var_os("CHITON_STRICT").is_none(),
        "{program} is required here"
    );
    println!("SKIPPED: {program} is not installed");
    false
}

/// Whether there is `/bin/busybox`, a program that needs nothing else, to make images of; if not, says so on standard
/// output, for a test to skip itself.
///
/// # Panics
///
/// If there is not and `CHITON_STRICT` is set.
#[must_use]
pub fn busybox() -> bool {
    let there = Path::new("/bin/busybox").exists();
    if !there {
        assert!(
            std::env::var_os("CHITON_STRICT").is_none(),
            "busybox-static is required here"
        );
        println!("SKIPPED: there is no /bin/busybox");
    }
    there
}

/// A TCP port of the host that nobody uses.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

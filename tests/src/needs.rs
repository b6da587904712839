//! What some tests need of the machine.

use std::fmt::Display;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;

/// Says on standard output that a test, or a part of it, skips itself because there is no `what`.
///
/// # Panics
///
/// If `CHITON_STRICT` is set, and `CHITON_WITHOUT` does not name it.
pub fn skip(what: &str, why: impl Display) {
    let without = std::env::var("CHITON_WITHOUT").unwrap_or_default();
    assert!(
        std::env::var_os("CHITON_STRICT").is_none() || without.split(',').any(|known| known == what),
        "{what} is required here: {why}"
    );
    println!("SKIPPED: there is no {what}: {why}");
}

/// Whether a program is there; if not, says so on standard output, for a test to skip itself.
///
/// # Panics
///
/// As [`skip`].
#[must_use]
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| File::open(folder.join(program)).is_ok()) {
        return true;
    }
    skip(program, "it is not installed");
    false
}

/// Whether there is `/bin/busybox`, a program that needs nothing else, to make images of; if not, says so on standard
/// output, for a test to skip itself.
///
/// # Panics
///
/// As [`skip`].
#[must_use]
pub fn busybox() -> bool {
    let there = Path::new("/bin/busybox").exists();
    if !there {
        skip("busybox-static", "/bin/busybox is missing");
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

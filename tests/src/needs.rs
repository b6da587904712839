//! What some tests need of the machine.

use std::fmt::Display;
use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

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
#[must_use]
pub fn free_port() -> u16 {
    // Not one of those that the kernel gives away by itself. Each is looked at, and not listened at: a child that another
    // test starts just then would have a copy of the listener for a moment.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 100) as u16 * 100;
    loop {
        let port = 12_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            return port;
        }
    }
}

//! Standard error, written so that nobody who does not read it can stop a guest, or `chiton`.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How many bytes a pipe that polls writable takes for certain (`PIPE_BUF`).
const ATOMIC: usize = 4096;

/// Writes a line, waiting up to `patience` for room; false if it could not be written whole.
/// A standard error that is closed takes everything.
pub fn write_line(line: &str, patience: Duration) -> bool {
    let bytes = [line.as_bytes(), b"\n"].concat();
    let stderr = io::stderr();
    let deadline = Instant::now() + patience;
    bytes
        .chunks(ATOMIC)
        .all(|chunk| write_chunk(stderr.as_fd(), chunk, deadline))
}

fn write_chunk(fd: std::os::fd::BorrowedFd<'_>, mut chunk: &[u8], deadline: Instant) -> bool {
    while !chunk.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&timeout)) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) if !left.is_zero() => continue,
            _ => {}
        }
        match rustix::io::write(fd, chunk) {
            Ok(written) => chunk = chunk.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // Closed: there is nobody to tell.
            Err(_) => return true,
        }
    }
    true
}

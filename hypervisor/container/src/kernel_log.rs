//! The kernel's log, where it may be read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

/// More records than this are not looked through.
const MAX_RECORDS: usize = 10_000;

/// The log, from its oldest record on; none where it may not be read.
pub(crate) fn open() -> Option<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .ok()
}

/// Shows each record that has not been read yet, as the text of its first line, if the kernel itself wrote it.
pub(crate) fn each(log: &mut File, mut show: impl FnMut(&str)) {
    // One read gives one record, of at most 8 KiB (Documentation/ABI/testing/dev-kmsg).
    let mut buffer = [0; 8192];
    for _ in 0..MAX_RECORDS {
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if let Some(text) = of_kernel(&String::from_utf8_lossy(&buffer[..length])) {
                    show(text);
                }
            }
            // Records were overwritten before they were read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
}

/// The text of `PRIORITY,…;TEXT`. Anyone may write to the log, but not as the kernel: its facility is 0, so that its
/// priority is below 8.
pub(crate) fn of_kernel(record: &str) -> Option<&str> {
    let (head, rest) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    rest.lines().next().filter(|_| priority < 8)
}

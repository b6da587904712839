//! Which descriptors this process has, and which have been opened since.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// So many are asked about at once.
const ASKED: RawFd = 256;

/// The numbers of those that were open at a time.
pub(super) struct Descriptors {
    open: BTreeSet<RawFd>,
    /// Whether they are few: new ones, which have the lowest numbers that are free, are below [`ASKED`] then.
    few: bool,
}

impl Descriptors {
    /// Those that are open now.
    pub(super) fn now() -> io::Result<Self> {
        let asked = asked().filter(|open| open.len() < ASKED as usize / 2);
        let few = asked.is_some();
        let open = asked.map_or_else(listed, Ok)?;
        Ok(Self { open, few })
    }

    /// Those that are open now and were not then.
    pub(super) fn since(&self) -> io::Result<impl Iterator<Item = RawFd>> {
        // In the same way: what that did not see then is not new.
        let now = if self.few { asked() } else { Some(listed()?) };
        let now = now.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(now.into_iter().filter(|fd| !self.open.contains(fd)))
    }
}

/// By one call, which takes less than a look at each. None where a process may not have as many.
fn asked() -> Option<BTreeSet<RawFd>> {
    let mut asked: Vec<_> = (0..ASKED)
        .map(|fd| PollFd::from_borrowed_fd(named(fd), PollFlags::empty()))
        .collect();
    poll(&mut asked, Some(&Timespec::default())).ok()?;
    let is_open = |fd: &RawFd| !asked[*fd as usize].revents().contains(PollFlags::NVAL);
    Some((0..ASKED).filter(is_open).collect())
}

/// All of them, as the kernel lists them.
fn listed() -> io::Result<BTreeSet<RawFd>> {
    let numbers = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let mut open: BTreeSet<RawFd> = fs::read_dir("/proc/self/fd")?.flatten().filter_map(numbers).collect();
    // The one by which they were read was among them, and is closed.
    open.retain(|fd| rustix::io::fcntl_getfd(named(*fd)).is_ok());
    Ok(open)
}

fn named(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the numbers are used for a question only, whose answer says whether they are open.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_was_opened_since_is_found_in_both_ways_and_nothing_else() {
        // Tests beside this one open and close files too, with low numbers.
        let inherited = File::open("/").unwrap();
        for few in [true, false] {
            let open = if few { asked().unwrap() } else { listed().unwrap() };
            assert!(open.contains(&inherited.as_raw_fd()) && !open.contains(&-1));
            let before = Descriptors { open, few };
            let new = rustix::io::fcntl_dupfd_cloexec(&inherited, 200).unwrap();
            let since: Vec<_> = before.since().unwrap().collect();
            assert!(since.contains(&new.as_raw_fd()), "{since:?}");
            assert!(!since.contains(&inherited.as_raw_fd()), "{since:?}");
        }
    }
}

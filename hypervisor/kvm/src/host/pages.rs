//! Guest memory that goes back to the host.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use chiton_core::devices::{Pages, PagesError};
use chiton_shared::map::PAGE;
use chiton_shared::memory::Window;
use chiton_shared::virtio::balloon::Statistics;

use super::complaint::Complaint;
use crate::control::protocol::{BalloonState, BalloonStatistics};

/// Gives pages of [`Ram`](crate::Ram) back to the kernel.
pub(crate) struct KernelPages {
    pub(crate) complaint: Complaint,
    pub(crate) handle: Arc<BalloonHandle>,
    /// Memory is that of a snapshot's file, which would come back in the place of pages that are given up.
    pub(crate) of_file: bool,
}

/// What the host wants of the balloon, and what the guest says of it; both in pages.
#[derive(Debug, Default)]
pub(crate) struct BalloonHandle {
    target: AtomicU32,
    actual: AtomicU32,
    /// New statistics are wanted.
    wanted: AtomicBool,
    /// What came last, and when.
    statistics: Mutex<Option<(Statistics, Instant)>>,
}

impl BalloonHandle {
    /// The host would like to have so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let handle = Self::default();
        handle.set_target(bytes);
        handle
    }

    /// From now on it would like to have so many bytes; whole pages count.
    pub(crate) fn set_target(&self, bytes: u64) {
        let pages = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
        self.target.store(pages, Ordering::Relaxed);
    }

    pub(crate) fn state(&self) -> BalloonState {
        let bytes = |pages: &AtomicU32| u64::from(pages.load(Ordering::Relaxed)) * PAGE;
        let last = *self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        BalloonState {
            target: bytes(&self.target),
            actual: bytes(&self.actual),
            statistics: last.map(|(statistics, at)| BalloonStatistics::of(&statistics, at.elapsed())),
        }
    }

    /// The guest shall be asked for statistics when the device works on its queues next.
    pub(crate) fn ask_for_statistics(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }
}

impl Pages for KernelPages {
    fn release(&mut self, pages: Window<'_>) -> Result<(), PagesError> {
        let (place, len) = (pages.as_ptr().cast(), pages.len());
        let error = if self.of_file {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
            // SAFETY: a window of `Ram`: private memory, mapped while it is borrowed, and reached through windows only, to
            // which pages that turn to zeros are a change like any other. They stay mapped, to no file.
            let place = unsafe { libc::mmap(place, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
            (place == libc::MAP_FAILED).then(io::Error::last_os_error)
        } else {
            // SAFETY: as above, of anonymous memory.
            let done = unsafe { libc::madvise(place, len, libc::MADV_DONTNEED) };
            (done != 0).then(io::Error::last_os_error)
        };
        let Some(error) = error else { return Ok(()) };
        self.complaint
            .say(|| format!("cannot give {} bytes of guest memory back: {error}", pages.len()));
        Err(PagesError)
    }

    fn target(&self) -> u32 {
        self.handle.target.load(Ordering::Relaxed)
    }

    fn held(&mut self, pages: u32) {
        self.handle.actual.store(pages, Ordering::Relaxed);
    }

    fn wants_statistics(&mut self) -> bool {
        self.handle.wanted.swap(false, Ordering::Relaxed)
    }

    fn statistics(&mut self, statistics: &Statistics) {
        let mut last = self.handle.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((*statistics, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::Ram;
    use chiton_shared::memory::GuestMemory;

    #[test]
    fn released_pages_read_as_zeros_and_their_neighbours_do_not() {
        let ram = Ram::new(1 << 20).unwrap();
        ram.window(0, 12288).unwrap().write(0, &[1; 12288]);
        let complaint = Complaint::default();
        let mut pages = KernelPages {
            complaint: complaint.clone(),
            handle: Arc::default(),
            of_file: false,
        };
        pages.release(ram.window(4096, 4096).unwrap()).unwrap();
        let mut bytes = [0; 12288];
        ram.window(0, 12288).unwrap().read(0, &mut bytes);
        assert_eq!([bytes[4095], bytes[4096], bytes[8191], bytes[8192]], [1, 0, 0, 1]);
        assert!(pages.release(ram.window(1, 4096).unwrap()).is_err());
        assert!(complaint.take().is_some());
    }
}

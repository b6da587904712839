//! Guest memory that goes back to the host.

use std::io;

use chiton_core::devices::{Pages, PagesError};
use chiton_shared::memory::Window;

use super::complaint::Complaint;

/// Gives pages of [`Ram`](crate::Ram) back to the kernel.
pub(crate) struct KernelPages {
    pub(crate) complaint: Complaint,
}

impl Pages for KernelPages {
    fn release(&mut self, pages: Window<'_>) -> Result<(), PagesError> {
        // SAFETY: a window of `Ram`: private anonymous memory, mapped while it is borrowed, and
        // reached through windows only, to which pages that turn to zeros are a change like any
        // other.
        let done = unsafe { libc::madvise(pages.as_ptr().cast(), pages.len(), libc::MADV_DONTNEED) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        self.complaint
            .say(|| format!("cannot give {} bytes of guest memory back: {error}", pages.len()));
        Err(PagesError)
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
        };
        pages.release(ram.window(4096, 4096).unwrap()).unwrap();
        let mut bytes = [0; 12288];
        ram.window(0, 12288).unwrap().read(0, &mut bytes);
        assert_eq!([bytes[4095], bytes[4096], bytes[8191], bytes[8192]], [1, 0, 0, 1]);
        assert!(pages.release(ram.window(1, 4096).unwrap()).is_err());
        assert!(complaint.take().is_some());
    }
}

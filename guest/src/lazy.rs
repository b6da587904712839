//! A driver that is opened when it is first used, so that who does not use it pays nothing.

use crate::boot;
use crate::host::Doorbells;
use crate::queue::{Queue, QueueError};

/// A driver, once it is open, if there is a device for it.
pub(crate) struct Lazy<T> {
    opened: bool,
    driver: Option<T>,
}

impl<T> Lazy<T> {
    /// A driver that is not open yet.
    pub(crate) const fn new() -> Self {
        Self {
            opened: false,
            driver: None,
        }
    }

    /// The driver, if it is open.
    pub(crate) const fn opened(&mut self) -> Option<&mut T> {
        self.driver.as_mut()
    }

    /// The driver, opened for queue `queue` of the first device with this ID if that has not been
    /// tried before; `None` if there is no such device, or it could not be opened then.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if the host describes a queue that cannot be used.
    ///
    /// # Safety
    ///
    /// Nobody else may open this queue.
    pub(crate) unsafe fn get(
        &mut self,
        id: u32,
        queue: usize,
        open: impl FnOnce(Queue<'static, Doorbells>) -> T,
    ) -> Result<Option<&mut T>, QueueError> {
        if !self.opened {
            self.opened = true;
            if let Some(entry) = boot::devices(id).next() {
                // SAFETY: the boot page describes queues as the contract has it, and only this
                // opens the queue (the caller's promise), once.
                self.driver = Some(open(unsafe { Queue::open(entry, queue, Doorbells) }?));
            }
        }
        Ok(self.driver.as_mut())
    }
}

//! Random bytes fit for keys, from the host.

use chiton_shared::virtio::entropy::REQUEST;
use chiton_shared::virtio::id;
use chiton_shared::virtio::ring::Buffer;
use spin::Mutex;

use crate::host::{Doorbells, Host};
use crate::lazy::Lazy;
use crate::queue::{Queue, QueueError};

/// Why there are no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntropyError {
    /// The machine has no entropy device.
    #[error("entropy: this machine has no entropy device")]
    Missing,
    /// The device failed.
    #[error("entropy: {0}")]
    Device(#[from] QueueError),
    /// The device gave back a buffer without a byte in it.
    #[error("entropy: the device gave nothing")]
    Nothing,
}

static DEVICE: Mutex<Lazy<Queue<'static, Doorbells>>> = Mutex::new(Lazy::new());

/// Fills `to` with random bytes, and sleeps until that is done.
///
/// # Errors
///
/// Any [`EntropyError`]; `to` then holds anything.
pub fn fill(to: &mut [u8]) -> Result<(), EntropyError> {
    let mut device = DEVICE.lock();
    // SAFETY: nothing else opens this queue.
    let queue = unsafe { device.get(id::ENTROPY, REQUEST, |queue| queue) }?;
    fill_from(queue.ok_or(EntropyError::Missing)?, to)
}

/// Fills `to` from an entropy device's queue, which has nothing in flight.
///
/// # Errors
///
/// Any [`EntropyError`]; `to` then holds anything.
pub fn fill_from<H: Host>(queue: &mut Queue<'_, H>, to: &mut [u8]) -> Result<(), EntropyError> {
    let mut rest = to;
    while !rest.is_empty() {
        let len = rest.len().min(1 << 20);
        let buffer = Buffer::writable(rest.as_mut_ptr().expose_provenance() as u64, len as u32);
        // SAFETY: the bytes are borrowed until the chain has come back, or the queue is given up.
        unsafe { queue.add(&[buffer]) }?;
        let (_, written) = queue.wait()?;
        if written == 0 {
            return Err(EntropyError::Nothing);
        }
        // The queue has checked that this is no more than was asked for.
        rest = &mut rest[written as usize..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;
    use chiton_shared::memory::GuestMemory;

    #[test]
    fn a_device_that_gives_little_at_a_time_is_asked_again() {
        let machine = Machine::new(8, |chain, memory| {
            let buffer = chain.writable()[0];
            let len = buffer.len.min(3);
            memory
                .window(buffer.address, len as usize)?
                .write(0, &vec![0xAB; len as usize]);
            Some(len)
        });
        let mut bytes = [0; 10];
        fill_from(&mut machine.queue(), &mut bytes).unwrap();
        assert_eq!(bytes, [0xAB; 10]);
        assert_eq!((machine.kicks(), machine.waits()), (0, 4));
    }

    #[test]
    fn a_device_that_gives_nothing_is_an_error_and_no_endless_loop() {
        let machine = Machine::new(8, |_, _| Some(0));
        assert_eq!(fill_from(&mut machine.queue(), &mut [0; 4]), Err(EntropyError::Nothing));
    }
}

//! Entropy device (virtio 1.3 section 5.4): fills buffers with random bytes.

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;

use chiton_shared::memory::Window;
use chiton_shared::virtio::id;
use chiton_shared::virtio::ring::Chain;

use super::buffers::{Cursor, Windows};
use super::{Device, DeviceError, NotSaved, Progress, Ring};
use crate::state::{Reader, StateError, Writer};

/// Size of the queue. A guest waits for its bytes, so few requests are ever in flight.
const QUEUE_SIZE: u16 = 8;

/// How many bytes a chain gets at most; section 5.4.6.2 allows to give less than was asked for.
const BYTES_PER_CHAIN: usize = 4096;

/// Where random bytes come from. No call waits.
pub trait Source: Send {
    /// Fills the window with random bytes fit for keys.
    ///
    /// # Errors
    ///
    /// If there are none to be had; the device then stops.
    fn fill(&mut self, to: Window<'_>) -> Result<(), SourceError>;
}

/// A source that has no random bytes to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no random bytes to be had")]
pub struct SourceError;

/// The entropy device.
pub struct Entropy<S> {
    source: S,
    chain: Box<Chain>,
}

impl<S: Source> Entropy<S> {
    /// An entropy device fed by this source.
    #[must_use]
    pub fn new(source: S) -> Self {
        Self {
            source,
            chain: Box::default(),
        }
    }
}

impl<S: Source> Device for Entropy<S> {
    fn id(&self) -> u32 {
        id::ENTROPY
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn in_order(&self) -> bool {
        true
    }

    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn process(&mut self, _queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut windows = Windows::new();
        for _ in 0..QUEUE_SIZE {
            if !ring.pop(&mut self.chain)? {
                return Ok(Progress::Drained);
            }
            Cursor::default().gather(self.chain.writable(), memory, BYTES_PER_CHAIN, &mut windows)?;
            if windows.bytes() == 0 {
                return Err(DeviceError::NoRoom {
                    head: self.chain.head(),
                });
            }
            for window in windows.as_slice() {
                self.source
                    .fill(*window)
                    .map_err(|SourceError| DeviceError::NoEntropy)?;
            }
            ring.push(self.chain.head(), windows.bytes() as u32);
        }
        Ok(Progress::More)
    }

    fn save(&self, _state: &mut Writer) -> Result<(), NotSaved> {
        Ok(())
    }

    fn load(&mut self, _state: &mut Reader<'_>) -> Result<(), StateError> {
        Ok(())
    }

    fn stop(&mut self, _queue: usize) {}

    fn reset(&mut self) {}
}

//! Reset of one queue by its driver (`VIRTIO_F_RING_RESET`, section 2.6.1).
//!
//! What a queue's buffers are is known by the heads of their chains, and while a reset is under way
//! nothing gives one back:
//!
//! ```text
//! DriverQueue ── reset(write) ──▶ Resetting ── poll(read) ──▶ Stopped ── restart(areas) ──▶ DriverQueue
//!  the device's buffers            still the device's          taken back, one by one         as at first
//! ```
//!
//! Both borrow the queue. One that is dropped on the way leaves a queue whose chains do not come
//! back, which harms nobody.

use super::Areas;
use super::driver::{DriverError, DriverQueue};

impl<'m, const N: usize> DriverQueue<'m, N> {
    /// Begins a reset: `write` is to write its value to the register QueueReset while the queue is selected.
    #[must_use = "the device has the buffers until the reset is confirmed"]
    pub fn reset(&mut self, write: impl FnOnce(u32)) -> Resetting<'_, 'm, N> {
        write(1);
        Resetting(self)
    }
}

/// A queue whose device has been told of a reset. All buffers are still the device's.
#[derive(Debug)]
pub struct Resetting<'q, 'm, const N: usize>(&'q mut DriverQueue<'m, N>);

impl<'q, 'm, const N: usize> Resetting<'q, 'm, N> {
    /// Looks whether the reset is over: `read` is to read the register QueueReset while the queue is selected,
    /// which is then 0 (section 2.6.1.1.2).
    ///
    /// # Errors
    ///
    /// The queue as it was, to be asked about again.
    pub fn poll(self, read: impl FnOnce() -> u32) -> Result<Stopped<'q, 'm, N>, Self> {
        if read() == 0 {
            Ok(Stopped { queue: self.0, from: 0 })
        } else {
            Err(self)
        }
    }
}

/// A queue that no device knows any more: every buffer is the driver's again.
#[derive(Debug)]
pub struct Stopped<'q, 'm, const N: usize> {
    queue: &'q mut DriverQueue<'m, N>,
    /// No chain with a head below has not been given back.
    from: u16,
}

impl<'m, const N: usize> Stopped<'_, 'm, N> {
    /// Takes back the next chain that the device was done with before the reset, as [`DriverQueue::take`].
    ///
    /// # Errors
    ///
    /// As there. The chain that it is about is among those that are [left](Self::next_left).
    pub fn take(&mut self) -> Result<Option<(u16, u32)>, DriverError> {
        self.queue.take()
    }

    /// Takes back a chain that did not come back, by its head. How far the device got with it nobody knows.
    pub fn next_left(&mut self) -> Option<u16> {
        let left = self.queue.forget(self.from)?;
        self.from = left + 1;
        Some(left)
    }

    /// The queue as it was at first, in these areas, which may be where they were: zeroes them. They must be where
    /// no device looks for a queue, and the caller then tells the device of the place. A chain that was not taken
    /// back never is.
    ///
    /// # Errors
    ///
    /// [`DriverError::Size`]; nothing has changed then.
    pub fn restart(self, areas: Areas<'m>, size: u16) -> Result<(), DriverError> {
        self.queue.begin_anew(areas, size)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::testing::Memory;
    use super::super::{Areas, Buffer, Chain, DeviceQueue, DriverError, DriverQueue, Format, QueueConfig};
    use crate::feature;
    use crate::memory::GuestMemory;

    const FORMATS: [u64; 2] = [0, feature::RING_PACKED];

    fn at(memory: &Memory, start: u64, size: u16, features: u64) -> (QueueConfig, Areas<'_>) {
        let format = Format::of(features);
        let config = QueueConfig::placed(format, start, size).0;
        (config, Areas::find_as(format, memory, &config).expect("a good queue"))
    }

    #[test]
    fn a_queue_begins_anew_wherever_it_lies_and_whatever_was_there() {
        for features in FORMATS {
            let memory = Memory::new(0x2000);
            let (config, areas) = at(&memory, 0, 8, features);
            let mut driver = DriverQueue::<'_, 8>::new(areas, 8, features).expect("a good queue");
            let mut device = DeviceQueue::new(config, features);
            let buffers = [Buffer::readable(0x1800, 1), Buffer::writable(0x1900, 7)];
            let heads = [(); 3].map(|()| driver.add(&buffers).expect("room for it"));
            let mut ring = device.attach(&memory).expect("a good queue");
            let mut chain = Chain::new();
            assert_eq!(ring.pop(&mut chain), Ok(true));
            ring.push(chain.head(), 5);
            assert_eq!(ring.pop(&mut chain), Ok(true), "the device has it");

            let mut stopped = driver.reset(|_| ()).poll(|| 0).expect("the reset is over");
            assert_eq!(stopped.take(), Ok(Some((heads[0], 5))), "it was done");
            assert_eq!(stopped.take(), Ok(None));
            let left: Vec<_> = std::iter::from_fn(|| stopped.next_left()).collect();
            assert_eq!(left, heads[1..]);
            // A smaller one, over the old one and other bytes.
            memory
                .window(0, 0x1000)
                .expect("within memory")
                .write(0, &[0xA5; 0x1000]);
            let (config, areas) = at(&memory, 0x40, 4, features);
            stopped.restart(areas, 4).expect("a good queue");
            assert_eq!((driver.size(), driver.free()), (4, 4));
            // What the driver writes at first, and what it writes for the device (section 2.7.10.1).
            for (part, bytes) in [(&areas.descriptors, 4 * 16), (&areas.driver, 4), (&areas.device, 4)] {
                let mut found = vec![0xFF; bytes];
                part.read(0, &mut found);
                assert!(found.iter().all(|byte| *byte == 0));
            }
            assert_eq!(driver.take(), Ok(None));
            let mut device = DeviceQueue::new(config, features);
            for _ in 0..9 {
                let head = driver.add(&buffers).expect("room for it");
                let mut ring = device.attach(&memory).expect("a good queue");
                assert_eq!(ring.pop(&mut chain), Ok(true));
                assert_eq!(chain.writable(), &buffers[1..]);
                ring.push(chain.head(), 3);
                assert_eq!(driver.take(), Ok(Some((head, 3))));
            }
        }
    }

    #[test]
    fn a_place_that_cannot_be_is_refused_and_the_queue_stays_as_it_is() {
        for features in FORMATS {
            let memory = Memory::new(0x1000);
            let areas = at(&memory, 0, 4, features).1;
            let mut driver = DriverQueue::<'_, 8>::new(areas, 4, features).expect("a good queue");
            driver.add(&[Buffer::readable(0, 1)]).expect("room for it");
            for size in [0, 8, 9, 257] {
                let stopped = driver.reset(|_| ()).poll(|| 0).expect("the reset is over");
                assert_eq!(stopped.restart(areas, size), Err(DriverError::Size(size)));
            }
            assert_eq!((driver.size(), driver.free()), (4, 3));
        }
    }

    #[test]
    fn what_a_device_writes_before_it_has_stopped_is_checked_as_ever() {
        for features in FORMATS {
            let memory = Memory::new(0x1000);
            let (config, areas) = at(&memory, 0, 4, features);
            let mut driver = DriverQueue::<'_, 4>::new(areas, 4, features).expect("a good queue");
            let head = driver.add(&[Buffer::writable(0, 7)]).expect("room for it");
            let mut device = DeviceQueue::new(config, features);
            let mut ring = device.attach(&memory).expect("a good queue");
            let mut chain = Chain::new();
            assert_eq!(ring.pop(&mut chain), Ok(true));
            ring.push(chain.head(), 8);
            let mut stopped = driver.reset(|_| ()).poll(|| 0).expect("the reset is over");
            assert_eq!(stopped.take(), Err(DriverError::Device { id: head.into() }));
            assert_eq!((stopped.next_left(), stopped.next_left()), (Some(head), None));
        }
    }
}

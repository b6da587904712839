//! A virtqueue that the host has set up, with the means to wait for it.

use core::ptr::NonNull;

use chiton_shared::boot::{DeviceEntry, QueueEntry};
use chiton_shared::memory::Window;
use chiton_shared::virtio::feature;
use chiton_shared::virtio::ring::layout::{descriptor_bytes, device_bytes, driver_bytes};
use chiton_shared::virtio::ring::{Areas, Buffer, DriverError, DriverQueue, MAX_SIZE, QueueConfig};

use crate::host::Host;
use crate::{boot, processors};

/// Why a device does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The device has no such queue.
    #[error("the device has no queue {0}")]
    Missing(usize),
    /// The ring is broken, or was used against its rules.
    #[error(transparent)]
    Ring(#[from] DriverError),
    /// The device has met an error and stopped.
    #[error("the device has stopped at an error and needs a reset")]
    NeedsReset,
    /// There is no such device in its place.
    #[error("there is no virtio device of version 2 with the right ID at {0:#x}")]
    NoDevice(u64),
    /// The device does not take these features.
    #[error("the device does not take the features {0:#x}")]
    Features(u64),
    /// The queue cannot be reset alone.
    #[error("VIRTIO_F_RING_RESET (40) is not negotiated with the device")]
    NoReset,
    /// The device was given up after an earlier error.
    #[error("the device was given up after an earlier error")]
    GivenUp,
}

/// Where a device is.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Its doorbell.
    pub kick: u16,
    /// Its registers.
    pub registers: u64,
}

impl From<&DeviceEntry> for Port {
    fn from(entry: &DeviceEntry) -> Self {
        Self {
            kick: entry.kick,
            registers: entry.registers,
        }
    }
}

/// How often a driver rang for a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// Kicks.
    pub kicks: u64,
    /// Times it slept.
    pub waits: u64,
}

/// The driver side of a queue.
///
/// Nothing is kicked unless [`kick`](Self::kick) is called, and the device notifies only while
/// the driver waits in [`wait`](Self::wait).
#[derive(Debug)]
pub struct Queue<'m, H> {
    ring: DriverQueue<'m, { MAX_SIZE as usize }>,
    index: u16,
    port: Port,
    host: H,
    features: u64,
    given_up: bool,
    exits: Exits,
    /// The processor that gets its interrupt, and can halt for it.
    bound: Option<u32>,
}

impl<H: Host> Queue<'static, H> {
    /// Queue number `index` of a device.
    ///
    /// # Errors
    ///
    /// [`QueueError::Missing`] if the entry has no such queue, [`DriverError::Size`] if its size
    /// is not usable.
    ///
    /// # Safety
    ///
    /// The entry must describe queues as the contract has it: memory that is mapped, is never
    /// unmapped, is zero, and nobody else uses.
    pub unsafe fn open(entry: &DeviceEntry, index: usize, host: H) -> Result<Self, QueueError> {
        let queues = boot::page().queues_of(entry);
        let queue = queues.get(index).ok_or(QueueError::Missing(index))?;
        let size = u16::try_from(queue.size).unwrap_or(u16::MAX);
        // SAFETY: the caller's promise.
        let areas = unsafe { areas(queue, size) }.ok_or(DriverError::Size(size))?;
        Self::new(areas, size, entry.features, index as u16, entry.into(), host)
    }
}

impl<'m, H: Host> Queue<'m, H> {
    /// The queue in these areas, whose memory is zero.
    ///
    /// # Errors
    ///
    /// [`DriverError::Size`].
    pub fn new(
        areas: Areas<'m>,
        size: u16,
        features: u64,
        index: u16,
        port: Port,
        host: H,
    ) -> Result<Self, QueueError> {
        let mut ring = DriverQueue::new(areas, size, features)?;
        ring.disarm();
        Ok(Self {
            ring,
            index,
            port,
            host,
            features,
            given_up: false,
            exits: Exits::default(),
            bound: None,
        })
    }

    /// From now on the interrupt of the queue comes to the processor that calls, and while that
    /// [waits](Self::wait) for the queue it halts, if processors [halt](crate::interrupts::idle) here. Without
    /// interrupts nothing changes.
    pub fn bind(&mut self) {
        let halts = self.host.bind(self.port.registers, self.index);
        self.bound = halts.then(processors::current);
    }

    /// Whether the processor that calls can halt for this queue.
    #[must_use]
    pub fn halts_here(&self) -> bool {
        self.bound.is_some_and(|processor| processor == processors::current())
    }

    /// How many descriptors are free.
    #[must_use]
    pub const fn free(&self) -> u16 {
        self.ring.free()
    }

    /// How many descriptors there are.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.ring.size()
    }

    /// The machine around it.
    pub(crate) const fn host(&self) -> &H {
        &self.host
    }

    /// How often the driver rang so far.
    #[must_use]
    pub const fn exits(&self) -> Exits {
        self.exits
    }

    /// Makes a chain of buffers available, without a kick, and returns its head.
    ///
    /// # Errors
    ///
    /// As [`DriverQueue::add`]; [`QueueError::GivenUp`].
    ///
    /// # Safety
    ///
    /// Until the chain is taken back, or comes back by a [reset](Self::reset), or the queue is
    /// [given up](Self::give_up), the buffers must
    /// stay memory that nobody else changes or, where writable, accesses.
    pub unsafe fn add(&mut self, buffers: &[Buffer]) -> Result<u16, QueueError> {
        self.check()?;
        Ok(self.ring.add(buffers)?)
    }

    /// Like [`add`](Self::add), through a table of descriptors.
    ///
    /// # Errors
    ///
    /// As [`DriverQueue::add_indirect`]; [`QueueError::GivenUp`].
    ///
    /// # Safety
    ///
    /// As [`add`](Self::add), for the table too.
    pub unsafe fn add_indirect(
        &mut self,
        table: Window<'_>,
        address: u64,
        buffers: &[Buffer],
    ) -> Result<u16, QueueError> {
        self.check()?;
        Ok(self.ring.add_indirect(table, address, buffers)?)
    }

    /// Kicks the device if it wants that.
    pub fn kick(&mut self) {
        if !self.given_up && self.ring.wants_kick() {
            self.exits.kicks += 1;
            if self.features & feature::NOTIFICATION_DATA == 0 {
                self.host.kick(self.port.kick, self.index);
            } else {
                let data = self.ring.notification_data(self.index);
                self.host.notify(self.port.registers, data);
            }
        }
    }

    /// Takes back the next chain the device is done with: its head, and how many bytes the device
    /// wrote.
    ///
    /// # Errors
    ///
    /// [`DriverError::Device`], and the device is given up; [`QueueError::GivenUp`].
    pub fn take(&mut self) -> Result<Option<(u16, u32)>, QueueError> {
        self.check()?;
        self.ring.take().map_err(|error| {
            self.give_up();
            error.into()
        })
    }

    /// Like [`take`](Self::take), but sleeps until there is a chain. Something must be in flight.
    /// This also does the work of a kick.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take); [`QueueError::NeedsReset`], and the device is given up.
    pub fn wait(&mut self) -> Result<(u16, u32), QueueError> {
        self.wait_for(1)
    }

    /// Like [`wait`](Self::wait), but if there is no chain yet, sleeps until the device is done with
    /// `count`, of which so many must be in flight.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_for(&mut self, count: u16) -> Result<(u16, u32), QueueError> {
        loop {
            if let Some(taken) = self.take()? {
                return Ok(taken);
            }
            if self.ring.arm_for(count) {
                continue;
            }
            self.sleep_alone(u64::MAX);
            if let Some(taken) = self.take()? {
                return Ok(taken);
            }
            // Something else had news, or this device has stopped.
            if self.host.needs_reset(self.port.registers) {
                self.give_up();
                return Err(QueueError::NeedsReset);
            }
        }
    }

    /// Starts what was added, and looks for so many nanoseconds whether the device is done with a chain: what
    /// [`take`](Self::take) returns. The processor is busy all the while.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn look(&mut self, ns: u64) -> Result<Option<(u16, u32)>, QueueError> {
        self.kick();
        let start = self.host.now_ns();
        loop {
            let taken = self.take()?;
            if taken.is_some() || self.host.now_ns().saturating_sub(start) >= ns {
                return Ok(taken);
            }
            core::hint::spin_loop();
        }
    }

    /// Has the device report its next completion to whoever [waits](crate::time::wait), and tells
    /// whether there is one already.
    pub fn arm(&mut self) -> bool {
        self.ring.arm()
    }

    /// Sleeps until something that is armed has news, or for `ns` nanoseconds ([`u64::MAX`]: for
    /// ever). This also does the work of a kick.
    pub fn sleep(&mut self, ns: u64) {
        self.exits.waits += 1;
        self.host.wait(ns);
        self.ring.disarm();
    }

    /// As [`sleep`](Self::sleep), but on the processor that the queue is [bound](Self::bind) to only news of
    /// this queue ends it early.
    pub fn sleep_alone(&mut self, ns: u64) {
        if !self.halts_here() {
            return self.sleep(ns);
        }
        self.kick();
        self.host.halt(ns);
        self.ring.disarm();
    }

    /// Asks the device whether it has stopped, which takes an exit.
    ///
    /// # Errors
    ///
    /// [`QueueError::NeedsReset`], and the device is given up; [`QueueError::GivenUp`].
    pub fn ask(&mut self) -> Result<(), QueueError> {
        self.check()?;
        if self.host.needs_reset(self.port.registers) {
            self.give_up();
            return Err(QueueError::NeedsReset);
        }
        Ok(())
    }

    /// Resets this queue alone (virtio 1.3 section 2.6.1) and begins anew in the same place. Every chain in flight
    /// comes back by its head: first those that the device was done with, with how many bytes it wrote, then the
    /// others, of which nobody knows how far the device got. No buffer is the device's any more.
    ///
    /// # Errors
    ///
    /// [`QueueError::NoReset`], [`QueueError::GivenUp`], and nothing comes back; [`DriverError::Device`] when all
    /// have, and the device is given up.
    pub fn reset(&mut self, mut back: impl FnMut(u16, Option<u32>)) -> Result<(), QueueError> {
        self.check()?;
        if self.features & feature::RING_RESET == 0 {
            return Err(QueueError::NoReset);
        }
        let (host, registers, index) = (&self.host, self.port.registers, self.index);
        let (areas, size) = (self.ring.areas(), self.ring.size());
        let mut resetting = self.ring.reset(|value| host.write_queue_reset(registers, index, value));
        let mut stopped = loop {
            match resetting.poll(|| host.read_queue_reset(registers, index)) {
                Ok(stopped) => break stopped,
                Err(again) => resetting = again,
            }
        };
        let broken = loop {
            match stopped.take() {
                Ok(Some((head, written))) => back(head, Some(written)),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        while let Some(head) = stopped.next_left() {
            back(head, None);
        }
        stopped.restart(areas, size)?;
        if let Some(error) = broken {
            self.give_up();
            return Err(error.into());
        }
        self.ring.disarm();
        // SAFETY: the place was the queue's and is again, and has just been brought to its start.
        unsafe { self.host.set_up_queue(registers, index, &config(&areas, size)) };
        Ok(())
    }

    /// Stops the device for good. No buffer is the device's any more.
    pub fn give_up(&mut self) {
        if !self.given_up {
            self.given_up = true;
            self.host.reset(self.port.registers);
        }
    }

    const fn check(&self) -> Result<(), QueueError> {
        if self.given_up {
            Err(QueueError::GivenUp)
        } else {
            Ok(())
        }
    }
}

/// Where these areas are, for the device: a guest's addresses are those of its memory.
pub(crate) fn config(areas: &Areas<'_>, size: u16) -> QueueConfig {
    let address = |window: &Window<'_>| window.as_ptr().expose_provenance() as u64;
    QueueConfig {
        size,
        descriptors: address(&areas.descriptors),
        driver: address(&areas.driver),
        device: address(&areas.device),
    }
}

/// The windows of a queue; `None` if an address is null.
///
/// # Safety
///
/// As [`Queue::open`].
pub(crate) unsafe fn areas(queue: &QueueEntry, size: u16) -> Option<Areas<'static>> {
    let window = |address: u64, len: usize| {
        let start = NonNull::new(address as *mut u8)?;
        // SAFETY: memory of the contract for as long as the guest runs, which only the driver of
        // this queue reaches, and only through windows.
        Some(unsafe { Window::new(start, len) })
    };
    Some(Areas {
        descriptors: window(queue.descriptors, descriptor_bytes(size))?,
        driver: window(queue.driver, driver_bytes(size))?,
        device: window(queue.device, device_bytes(size))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;

    fn add(queue: &mut Queue<'_, &Machine>) -> u16 {
        // SAFETY: no device of these tests touches the buffer.
        unsafe { queue.add(&[Buffer::writable(0x1000, 16)]) }.unwrap()
    }

    #[test]
    fn sleeping_needs_no_kick_and_takes_what_is_there_without_sleeping() {
        let machine = Machine::new(8, |_, _| Some(16));
        let mut queue = machine.queue();
        let head = add(&mut queue);
        assert_eq!(queue.wait(), Ok((head, 16)));
        let head = add(&mut queue);
        queue.kick();
        assert_eq!(queue.wait(), Ok((head, 16)));
        assert_eq!((machine.kicks(), machine.waits()), (1, 1));
    }

    #[test]
    fn a_driver_that_does_not_sleep_hears_nothing() {
        let machine = Machine::new(8, |_, _| Some(0));
        let mut queue = machine.queue();
        for _ in 0..if cfg!(miri) { 20 } else { 1000 } {
            add(&mut queue);
            assert!(!machine.serve());
            assert!(queue.take().unwrap().is_some());
        }
    }

    #[test]
    fn a_device_that_breaks_the_ring_is_given_up() {
        let machine = Machine::new(8, |_, _| Some(17));
        let mut queue = machine.queue();
        let id = add(&mut queue).into();
        queue.kick();
        assert_eq!(queue.take(), Err(QueueError::Ring(DriverError::Device { id })));
        assert_eq!(machine.resets(), 1);
        assert_eq!(queue.take(), Err(QueueError::GivenUp));
        assert_eq!(queue.wait(), Err(QueueError::GivenUp));
    }

    const RESETS: u64 = feature::RING | feature::RING_RESET;

    #[test]
    fn a_reset_brings_every_chain_back_and_the_queue_begins_anew() {
        for format in [0, feature::RING_PACKED] {
            let mut served = 0;
            let machine = Machine::with_features(8, RESETS | format, move |_, _| {
                served += 1;
                (served != 2).then_some(16)
            });
            let mut queue = machine.queue();
            for _ in 0..10 {
                let heads = [(); 3].map(|()| add(&mut queue));
                queue.kick();
                let late = add(&mut queue);
                let mut back = Vec::new();
                queue.reset(|head, written| back.push((head, written))).unwrap();
                let kept = back.iter().filter(|(_, written)| written.is_none()).count();
                assert!(kept >= 1 && back.contains(&(late, None)), "{back:?}");
                let mut all: Vec<_> = back.iter().map(|(head, _)| *head).collect();
                all.sort_unstable();
                let mut added = [heads.as_slice(), &[late]].concat();
                added.sort_unstable();
                assert_eq!((all, queue.free()), (added, 8));
                let head = add(&mut queue);
                assert_eq!(queue.wait(), Ok((head, 16)));
            }
            assert_eq!(machine.resets(), 0, "the device goes on");
        }
    }

    #[test]
    fn a_kick_with_data_says_where_the_next_chain_will_be() {
        const DATA: u64 = feature::VERSION_1 | feature::NOTIFICATION_DATA;
        let wrapped = |slot: u16, wrap: bool| slot | u16::from(wrap) << 15;
        for format in [0, feature::RING_PACKED] {
            let machine = Machine::with_features(4, DATA | format, |_, _| Some(16));
            let mut queue = machine.queue();
            for added in 1..=11 {
                let head = add(&mut queue);
                queue.kick();
                let place = if format == 0 {
                    added
                } else {
                    wrapped(added % 4, added / 4 % 2 == 0)
                };
                assert_eq!(machine.notified.take(), Some(place));
                assert_eq!(queue.take(), Ok(Some((head, 16))));
            }
            assert_eq!(machine.kicks(), 0, "by the register");
        }
    }

    #[test]
    fn a_queue_that_cannot_be_reset_alone_says_so_and_goes_on() {
        let machine = Machine::new(8, |_, _| Some(16));
        let mut queue = machine.queue();
        let head = add(&mut queue);
        assert_eq!(
            queue.reset(|_, _| panic!("nothing comes back")),
            Err(QueueError::NoReset)
        );
        assert_eq!(queue.wait(), Ok((head, 16)));
    }

    #[test]
    fn a_device_that_breaks_the_ring_and_is_reset_gives_all_back() {
        let machine = Machine::with_features(8, RESETS, |_, _| Some(17));
        let mut queue = machine.queue();
        let id = add(&mut queue).into();
        queue.kick();
        let mut back = 0;
        let broken = queue.reset(|_, written| back += u32::from(written.is_none()));
        assert_eq!(broken, Err(QueueError::Ring(DriverError::Device { id })));
        assert_eq!((back, machine.resets()), (1, 1));
        assert_eq!(queue.reset(|_, _| ()), Err(QueueError::GivenUp));
    }

    #[test]
    fn whatever_a_device_writes_into_the_used_ring_is_survived() {
        let mut random = crate::random::Random::seeded(1);
        for _ in 0..if cfg!(miri) { 40 } else { 2000 } {
            let machine = Machine::new(8, |_, _| None);
            let mut queue = machine.queue();
            let mut in_flight = 0;
            for _ in 0..8 {
                if random.below(2) == 0 && queue.free() > 0 {
                    add(&mut queue);
                    in_flight += 1;
                }
                let used = machine.areas().device;
                used.store_u16(2, random.below(12) as u16);
                used.write_u32(4 + 8 * random.below(8) as usize, random.below(10) as u32);
                used.write_u32(8 + 8 * random.below(8) as usize, random.below(20) as u32);
                match queue.take() {
                    Ok(Some((head, written))) => {
                        assert!(head < 8 && written <= 16 && in_flight > 0);
                        in_flight -= 1;
                    }
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
        }
    }
}

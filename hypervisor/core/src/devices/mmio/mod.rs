//! Virtio over MMIO (virtio 1.3 section 4.2): what stands between a driver and a [`Device`].
//!
//! - `registers`: the register block, as the driver reads and writes it;
//! - `preset`: the same outcome without a driver, for guests that read the boot page;
//! - `state`: what a snapshot keeps of it;
//! - here: the state both lead to, and the work on the queues.

mod preset;
mod registers;
mod state;

#[cfg(test)]
mod tests;

pub use preset::{Preset, PresetError, preset_all, preset_all_in};
pub use registers::{Effect, Ignored};

use alloc::boxed::Box;
use alloc::vec::Vec;

use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::mmio::interrupt;
use chiton_shared::virtio::ring::{DeviceQueue, QueueConfig};
use chiton_shared::virtio::{feature, status};

use super::{Device, DeviceError, Interest, Limits, Progress};

/// What a call of [`Transport::process`] asks of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// Send the guest a notification: a waiting guest has news.
    pub notify: bool,
    /// Which queues it is about, as bits: all if the device has stopped, none if it is the configuration.
    pub queues: u64,
    /// Call again, after everyone else had a turn, without waiting for a kick.
    pub more: bool,
    /// The driver had given something to do.
    pub busy: bool,
}

/// Why a device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("queue {queue}: {error}")]
pub struct Broken {
    /// The queue it happened on.
    pub queue: usize,
    /// What the driver did.
    #[source]
    pub error: DeviceError,
}

/// A queue as the registers describe it.
#[derive(Default)]
struct Queue {
    /// What the driver wrote; fixed while the queue is ready.
    config: QueueConfig,
    /// The queue at work, while it is ready.
    ready: Option<DeviceQueue>,
    /// Where the driver has come to, as the last kick says that has not been looked at.
    told: Option<u16>,
}

/// A kick whose notification data name a place that the driver has not come to (section 2.9). It counts all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kick of queue {queue} says {next:#06x}, where its driver has not come to")]
pub struct Misled {
    /// The queue.
    pub queue: usize,
    /// The place: bits 16 to 31 of what was written.
    pub next: u16,
}

/// A device behind a virtio-mmio register block of version 2.
pub struct Transport {
    device: Box<dyn Device>,
    queues: Vec<Queue>,
    status: u32,
    interrupt: u32,
    generation: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    /// The driver accepted a bit beyond 63, where nothing is offered.
    beyond_features: bool,
    queue_select: u32,
    broken: Option<Broken>,
    /// How many processors there are for interrupts; 0 without interrupts.
    processors: u32,
    /// The processor that gets the interrupt of each queue. That is a matter of the machine, like an
    /// entry of a table of MSI-X: no reset of the device changes it.
    aimed: Vec<u32>,
    /// The driver is not asked to kick.
    quiet: bool,
}

impl Transport {
    /// A device in the state after reset.
    #[must_use]
    pub fn new(device: Box<dyn Device>) -> Self {
        let queues: Vec<_> = device.queue_sizes().iter().map(|_| Queue::default()).collect();
        let aimed = queues.iter().map(|_| 0).collect();
        Self {
            device,
            queues,
            status: 0,
            interrupt: 0,
            generation: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            beyond_features: false,
            queue_select: 0,
            broken: None,
            processors: 0,
            aimed,
            quiet: false,
        }
    }

    /// The device ID of virtio 1.3 section 5.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.device.id()
    }

    /// The greatest size of each of the device's queues.
    #[must_use]
    pub fn queue_sizes(&self) -> &[u16] {
        self.device.queue_sizes()
    }

    /// Every feature offered.
    #[must_use]
    pub fn features(&self) -> u64 {
        let order = if self.device.in_order() { feature::IN_ORDER } else { 0 };
        self.device.features() | feature::RING | feature::BY_REGISTERS | order
    }

    /// Lets the driver choose among so many processors for the interrupt of each queue. Without this there
    /// are no interrupts.
    pub const fn interrupts(&mut self, processors: u32) {
        self.processors = processors;
    }

    /// The processor that gets the interrupt of this queue: the first, unless the driver chose another.
    #[must_use]
    pub fn processor_of(&self, queue: usize) -> u32 {
        self.aimed.get(queue).copied().unwrap_or(0)
    }

    /// Works on every queue that is ready. Does nothing unless the device is live.
    ///
    /// The last come first: what a guest sends may bring what it is to receive, by a queue before.
    pub fn process(&mut self, memory: &dyn GuestMemory) -> Outcome {
        let mut outcome = Outcome::default();
        for queue in (0..self.queues.len()).rev() {
            let one = self.process_queue(queue, memory);
            outcome.notify |= one.notify;
            outcome.queues |= one.queues;
            outcome.more |= one.more;
            outcome.busy |= one.busy;
        }
        outcome
    }

    /// As [`process`](Self::process), but the driver goes on believing that it need not kick. So
    /// whoever calls this has to call it again soon, and `process` before it does anything else for
    /// long.
    pub fn poll(&mut self, memory: &dyn GuestMemory) -> Outcome {
        self.quiet = true;
        let outcome = self.process(memory);
        self.quiet = false;
        outcome
    }

    /// Whether the driver has made something available that the device has not taken.
    #[must_use]
    pub fn has_work(&mut self, memory: &dyn GuestMemory) -> bool {
        let available = |queue: &mut Queue| {
            let ready = queue.ready.as_mut();
            ready.is_some_and(|ready| ready.attach(memory).is_ok_and(|ring| ring.has_available()))
        };
        self.is_live() && self.queues.iter_mut().any(available)
    }

    /// Works on one queue, if there is such a queue and it is ready.
    pub fn process_queue(&mut self, queue: usize, memory: &dyn GuestMemory) -> Outcome {
        if !self.is_live() {
            return Outcome::default();
        }
        let Some(ready) = self.queues.get_mut(queue).and_then(|q| q.ready.as_mut()) else {
            return Outcome::default();
        };
        match work(self.device.as_mut(), queue, ready, memory, self.quiet) {
            Ok(mut outcome) => {
                outcome.queues = u64::from(outcome.notify) << queue;
                self.interrupt |= if outcome.notify { interrupt::USED_BUFFER } else { 0 };
                if self.device.config_changed() {
                    outcome.notify |= self.tell_of_change().notify;
                }
                outcome
            }
            Err(error) => self.break_down(Broken { queue, error }),
        }
    }

    /// What is wrong with the notification data of the last kick of this queue, if anything is. Each is looked at
    /// once, before [`process_queue`](Self::process_queue).
    pub fn look_at_kick(&mut self, queue: usize, memory: &dyn GuestMemory) -> Option<Misled> {
        let found = self.queues.get_mut(queue)?;
        let next = found.told.take()?;
        let ring = found.ready.as_mut()?.attach(memory).ok()?;
        (!ring.has_come_to(next)).then_some(Misled { queue, next })
    }

    /// What the host has to watch for the device; nothing unless it is live.
    #[must_use]
    pub fn interest(&self) -> Interest {
        if self.is_live() {
            self.device.interest()
        } else {
            Interest::default()
        }
    }

    /// Whether the device has output that waits for another descriptor than those of
    /// [`interest`](Self::interest).
    #[must_use]
    pub fn holds_output(&self) -> bool {
        self.is_live() && self.device.holds_output()
    }

    /// Whether the device works: the driver has set DRIVER_OK and not FAILED, and no reset is due.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.status & (status::DRIVER_OK | status::FAILED | status::DEVICE_NEEDS_RESET) == status::DRIVER_OK
    }

    /// Why the device needs a reset, if it does.
    #[must_use]
    pub const fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// Whether the interrupt line is asserted: some bit of InterruptStatus is set.
    #[must_use]
    pub const fn interrupt_pending(&self) -> bool {
        self.interrupt != 0
    }

    /// How many requests the device has answered with a failure.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.device.failures()
    }

    /// Replaces the rate limits of the device; false if it has none. Who waited for the old ones
    /// has to be worked on: call [`process`](Self::process).
    #[must_use]
    pub fn set_limits(&mut self, limits: Limits) -> bool {
        self.device.set_limits(limits)
    }

    /// The rate limits of the device, if it is one that can have some.
    #[must_use]
    pub fn limits(&self) -> Option<Limits> {
        self.device.limits()
    }

    /// The backend's part of the configuration (such as a terminal's size) has changed: lets the
    /// driver see that, and tells it if it is live.
    pub fn config_changed(&mut self) -> Outcome {
        self.device.look_at_backend();
        self.tell_of_change()
    }

    fn tell_of_change(&mut self) -> Outcome {
        self.generation = self.generation.wrapping_add(1);
        let notify = self.is_live();
        self.interrupt |= if notify { interrupt::CONFIGURATION } else { 0 };
        Outcome {
            notify,
            ..Outcome::default()
        }
    }

    /// The backend may have changed by itself: has the device look, and tells the driver what that
    /// changed.
    pub fn look_at_backend(&mut self) -> Outcome {
        self.device.look_at_backend();
        if self.device.config_changed() {
            return self.tell_of_change();
        }
        Outcome::default()
    }

    /// Back to the state at start (section 2.4).
    fn reset(&mut self) {
        self.device.reset();
        self.queues.fill_with(Queue::default);
        self.status = 0;
        self.interrupt = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.beyond_features = false;
        self.queue_select = 0;
        self.broken = None;
    }

    /// Stops the device and asks the driver for a reset (section 2.1.2).
    fn break_down(&mut self, broken: Broken) -> Outcome {
        self.broken = Some(broken);
        self.status |= status::DEVICE_NEEDS_RESET;
        self.interrupt |= interrupt::CONFIGURATION;
        self.tell_all()
    }

    /// Whoever waits for any of the queues is to look what has become of the device.
    pub fn tell_all(&self) -> Outcome {
        Outcome {
            notify: true,
            queues: self.queues.iter().fold(0, |bits, _| bits << 1 | 1),
            ..Outcome::default()
        }
    }
}

/// Has a device work on a queue once, with kicks suppressed meanwhile (sections 2.7.10 and 2.8.10).
fn work(
    device: &mut dyn Device,
    index: usize,
    queue: &mut DeviceQueue,
    memory: &dyn GuestMemory,
    quiet: bool,
) -> Result<Outcome, DeviceError> {
    let mut ring = queue.attach(memory)?;
    ring.disable_kicks();
    let available = ring.has_available();
    let progress = device.process(index, &mut ring)?;
    let more = match progress {
        Progress::Drained if quiet => false,
        // What came in before the driver knew that kicks count again brings no kick of its own.
        Progress::Drained => {
            let came_in = ring.enable_kicks();
            if came_in {
                ring.disable_kicks();
            }
            came_in
        }
        Progress::More => true,
        Progress::Waiting => false,
    };
    Ok(Outcome {
        notify: ring.wants_notification(),
        more,
        busy: available && progress != Progress::Waiting,
        ..Outcome::default()
    })
}

//! Virtio devices, and the register block that a driver finds them behind.
//!
//! ```text
//!  driver ── registers ──▶ mmio::Transport ── process(queue, ring) ──▶ Device ──▶ backend trait
//!         ◀══ rings ═════▶      │                                  console     Port
//!                               ▼                                  block       Disk
//!                     Outcome { notify, more }                     entropy     Source
//!                                                                  net         Link
//!                                                                  vsock       Sockets
//!                                                                  balloon     Pages
//!                                                                  p9          Tree
//! ```
//!
//! A [`Device`] works on queues and knows nothing of registers; a [`Transport`] knows registers,
//! status and queues, and nothing of what the device does. What a device moves bytes to or from
//! is a small trait (a *backend*), implemented where there is a system to call.
//!
//! Nothing here waits, allocates per request, or trusts the guest: one call does a bounded amount
//! of work, and a guest that breaks the rules finds its device in need of a reset.
//!
//! # How a host drives a device
//!
//! 1. Call [`Transport::process`] when the guest kicks, and again while it answers `more`.
//! 2. Deliver a used-buffer notification when it answers `notify`.
//! 3. After every call, and after every register write, look at [`Transport::interest`], watch
//!    exactly the descriptors it names (level-triggered; take the others out, since a hung-up
//!    descriptor is always ready), and call `process` when one is ready, or when the time it
//!    names has come.

pub mod balloon;
pub mod block;
mod buffers;
pub mod console;
pub mod emulated;
pub mod entropy;
pub mod limiter;
pub mod mmio;
pub mod net;
pub mod p9;
pub mod vsock;

#[cfg(test)]
pub(crate) mod testing;

pub use balloon::{Balloon, Pages, PagesError};
pub use block::{Begun, Block, Disk, DiskError, Operation};
pub use console::{Console, Input, Output, Port};
pub use emulated::Emulated;
pub use entropy::{Entropy, Source, SourceError};
pub use limiter::{Limiter, Limits, Rate};
pub use mmio::{Broken, Effect, Ignored, Misled, Outcome, Preset, PresetError, Transport, preset_all, preset_all_in};
pub use net::{Link, Net, Received, Sent};
pub use p9::{P9, Tree};
pub use vsock::{Sockets, Vsock};

use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::ring::QueueError;

use crate::state::{Reader, StateError, Writer};
use chiton_shared::virtio::ring::device::Attached;

/// A queue that is attached to guest memory, for a device to work on.
pub type Ring<'q, 'm> = Attached<'q, 'm, dyn GuestMemory + 'm>;

/// What a virtio device does, whatever transport it is behind.
pub trait Device: Send {
    /// The device ID of virtio 1.3 section 5.
    fn id(&self) -> u32;

    /// The device-specific features offered (bits 0 to 23 and 50 to 63); the transport adds
    /// those of the ring.
    fn features(&self) -> u64;

    /// The greatest size of each queue: powers of two, at most
    /// [`MAX_SIZE`](chiton_shared::virtio::ring::MAX_SIZE).
    fn queue_sizes(&self) -> &[u16];

    /// Whether it gives the chains of a queue back in the order in which it took them, always;
    /// then `VIRTIO_F_IN_ORDER` is offered.
    fn in_order(&self) -> bool {
        false
    }

    /// Reads the configuration space from `offset` on; what is beyond its end reads as zero.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// Writes to the configuration space; what cannot be written is ignored.
    fn write_config(&mut self, _offset: usize, _data: &[u8]) {}

    /// The driver has settled on these features, which are final until a reset.
    fn negotiated(&mut self, _features: u64) {}

    /// Works on a queue: takes chains, does what they ask, gives them back. Never waits, and
    /// returns after a bounded amount of work.
    ///
    /// # Errors
    ///
    /// When the driver broke the rules in a way that leaves no place for an answer. The device is
    /// not called again before a reset.
    fn process(&mut self, queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError>;

    /// What the host has to watch so that work which [waits](Progress::Waiting) goes on.
    fn interest(&self) -> Interest {
        Interest::default()
    }

    /// Whether it has output that waits for another descriptor than those of [`interest`](Self::interest).
    fn holds_output(&self) -> bool {
        false
    }

    /// Whether the configuration has changed by itself since this was last asked.
    fn config_changed(&mut self) -> bool {
        false
    }

    /// The backend may have changed by itself: its descriptor for that is ready, or somebody knows.
    fn look_at_backend(&mut self) {}

    /// The driver has stopped one queue: chains taken from it are no longer the device's.
    fn stop(&mut self, queue: usize);

    /// Back to the state at start: every queue stopped, nothing negotiated.
    fn reset(&mut self);

    /// How many requests it has answered with a failure since it was made.
    fn failures(&self) -> u64 {
        0
    }

    /// Writes down what it remembers beside its queues and what the driver negotiated, and not what its backend is.
    /// Chains that it has taken and not given back it will take again, so nothing of them may be under way.
    ///
    /// # Errors
    ///
    /// [`NotSaved`] if something would be lost.
    fn save(&self, _state: &mut Writer) -> Result<(), NotSaved> {
        Err(NotSaved::Outside)
    }

    /// Takes on what [`save`](Self::save) has written, after a reset and [`negotiated`](Self::negotiated).
    ///
    /// # Errors
    ///
    /// [`StateError`]; the device is then good for nothing but a reset.
    fn load(&mut self, _state: &mut Reader<'_>) -> Result<(), StateError> {
        Err(StateError::value("a device of this kind", self.id()))
    }

    /// Replaces its rate limits, from now on; false if it is a device that has none.
    fn set_limits(&mut self, _limits: Limits) -> bool {
        false
    }

    /// Its rate limits, if it is a device that can have some.
    fn limits(&self) -> Option<Limits> {
        None
    }
}

/// How a call of [`Device::process`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The queue has no more chains: the driver's next kick brings work.
    Drained,
    /// There may be more to do; the device stopped so that others get their turn.
    More,
    /// The device waits for what [`Device::interest`] names, or has no use for buffers any more.
    /// Kicks are pointless meanwhile.
    Waiting,
}

/// Why the state of a device cannot be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSaved {
    /// A part of it is not in this process: connections, open files, another end that would have to know.
    #[error("it has to do with others outside the guest, whose part a snapshot does not have")]
    Outside,
    /// Requests are not finished.
    #[error("it has not finished what the guest asked for")]
    UnderWay,
    /// The driver has broken it.
    #[error("it needs a reset: {0}")]
    Broken(Broken),
}

/// Which readiness of its backend a device waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Input: the guest has given room for it.
    pub readable: bool,
    /// Output: the guest has given bytes that did not fit.
    pub writable: bool,
    /// The backend works on what the guest has asked for, and becomes readable when some of it is
    /// done. The guest is not served before that.
    pub under_way: bool,
    /// A time, in nanoseconds of the clock that the device was made with: a rate limit has been
    /// reached, and there is work to do then.
    pub at: Option<u64>,
}

/// What a driver did that leaves a device nothing to answer to. The device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The ring itself is broken.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A buffer that is not memory, or memory that no device may write.
    #[error("a buffer of {len} bytes at {address:#x} is outside the memory a device may use")]
    Buffer {
        /// Guest-physical address.
        address: u64,
        /// Length in bytes.
        len: u32,
    },
    /// A chain without a byte for the device to write, where there has to be one.
    #[error("the chain of descriptor {head} has no byte for the device to write")]
    NoRoom {
        /// The chain's first descriptor.
        head: u16,
    },
    /// The source of random bytes failed.
    #[error("the host has no random bytes to give")]
    NoEntropy,
}

/// Reads from a configuration space of these bytes; beyond them are zeros.
fn read_bytes(config: &[u8], offset: usize, data: &mut [u8]) {
    data.fill(0);
    let from = config.get(offset..).unwrap_or_default();
    let len = from.len().min(data.len());
    data[..len].copy_from_slice(&from[..len]);
}

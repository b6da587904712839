//! What reaches a processor from outside: interrupt requests, and when its timer is due. Any processor
//! of the machine may ask, so all of it is atomic.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::{Vectors, highest};

/// Makes a guest's processor, which may be in the guest or asleep, look for what it was sent.
pub type Waker = Box<dyn Fn(u32) + Send + Sync>;

/// What connects the local APICs of one guest.
pub struct Bus {
    processors: Box<[Requests]>,
    wake: Waker,
}

/// What others have asked of one processor.
#[derive(Default)]
struct Requests {
    /// Interrupts that have not been delivered: the interrupt-request register.
    vectors: [AtomicU32; 8],
    /// An NMI. Several that come before it is taken are one.
    nmi: AtomicBool,
    /// When its timer is due, in ticks of the machine's counter; 0 for never.
    due: AtomicU64,
}

impl Bus {
    /// For so many processors.
    #[must_use]
    pub fn new(processors: u32, wake: Waker) -> Self {
        Self {
            processors: (0..processors).map(|_| Requests::default()).collect(),
            wake,
        }
    }

    /// How many processors there are.
    #[must_use]
    pub fn processors(&self) -> u32 {
        self.processors.len() as u32
    }

    /// Interrupts a processor; one that does not exist hears nothing.
    pub fn send(&self, processor: u32, vector: u8) {
        if self.request(processor, vector) {
            (self.wake)(processor);
        }
    }

    /// Sends a processor an NMI.
    pub(super) fn send_nmi(&self, processor: u32) {
        if let Some(requests) = self.of(processor) {
            requests.nmi.store(true, Ordering::Release);
            (self.wake)(processor);
        }
    }

    pub(super) fn has_nmi(&self, processor: u32) -> bool {
        self.of(processor)
            .is_some_and(|requests| requests.nmi.load(Ordering::Relaxed))
    }

    pub(super) fn accept_nmi(&self, processor: u32) {
        if let Some(requests) = self.of(processor) {
            requests.nmi.swap(false, Ordering::Acquire);
        }
    }

    /// Whether there is something for a processor at this time: it should not sleep.
    #[must_use]
    pub fn calls(&self, processor: u32, now: u64) -> bool {
        let due = self.due(processor);
        due != 0 && due <= now || self.highest(processor).is_some() || self.has_nmi(processor)
    }

    /// When a processor's timer is due, in ticks of the machine's counter; 0 for never.
    #[must_use]
    pub fn due(&self, processor: u32) -> u64 {
        self.of(processor)
            .map_or(0, |requests| requests.due.load(Ordering::Relaxed))
    }

    pub(super) fn set_due(&self, processor: u32, due: u64) {
        if let Some(requests) = self.of(processor) {
            requests.due.store(due, Ordering::Relaxed);
        }
    }

    /// Sets a bit of the interrupt-request register; whether there is one.
    pub(super) fn request(&self, processor: u32, vector: u8) -> bool {
        let requests = self.of(processor);
        if let Some(requests) = requests {
            // What was written before the interrupt is seen by its handler.
            requests.vectors[usize::from(vector / 32)].fetch_or(1 << (vector % 32), Ordering::Release);
        }
        requests.is_some()
    }

    pub(super) fn withdraw(&self, processor: u32, vector: u8) {
        if let Some(requests) = self.of(processor) {
            requests.vectors[usize::from(vector / 32)].fetch_and(!(1 << (vector % 32)), Ordering::Acquire);
        }
    }

    /// Takes all bits of the interrupt-request register.
    pub(super) fn take(&self, processor: u32) -> Vectors {
        let mut vectors = [0; 8];
        if let Some(requests) = self.of(processor) {
            for (to, from) in vectors.iter_mut().zip(&requests.vectors) {
                // Most are 0 most of the time, and a look is cheaper than a change.
                if from.load(Ordering::Relaxed) != 0 {
                    *to = from.swap(0, Ordering::Acquire);
                }
            }
        }
        vectors
    }

    pub(super) fn highest(&self, processor: u32) -> Option<u8> {
        highest(&self.requests(processor))
    }

    /// The interrupt-request register.
    pub(super) fn requests(&self, processor: u32) -> Vectors {
        let mut vectors = [0; 8];
        if let Some(requests) = self.of(processor) {
            for (to, from) in vectors.iter_mut().zip(&requests.vectors) {
                *to = from.load(Ordering::Acquire);
            }
        }
        vectors
    }

    fn of(&self, processor: u32) -> Option<&Requests> {
        self.processors.get(processor as usize)
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("processors", &self.processors())
            .finish_non_exhaustive()
    }
}

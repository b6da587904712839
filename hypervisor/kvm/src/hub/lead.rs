//! A processor that waits serves the network and the sockets itself: what arrives then wakes the
//! thread that has use for it, and not the device loop, which would have to wake that one.
//!
//! ```text
//!  frame ──▶ TAP ──▶ processor asleep in `lead`: takes the frame, goes back into the guest
//!             │
//!             └────▶ device loop: a processor is near; takes the TAP off its epoll and looks in
//!                    again after NEAR. If none has come to wait since, it serves the TAP itself
//! ```
//!
//! Only where there is one processor, and no interrupts: of several the one that is woken may not
//! be the one that the news is for, and who halts does not wait here.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chiton_shared::map;
use chiton_shared::virtio::id::{NET, VSOCK};
use rustix::event::{PollFd, PollFlags, poll};

use super::{Hub, NEVER, Server, Slot, lock, timespec};
use crate::Error;
use crate::clock;
use crate::news::Bell;

/// How long a processor that has waited is expected to wait again. Meanwhile input stays where it
/// is; a guest that only looks, and never waits, sees its input so much later, once.
const NEAR: u64 = 1_000_000;

/// How many devices a processor sleeps beside at most.
const MOST: usize = 16;

const _: () = assert!(map::DEVICE_MAX <= u64::BITS as usize);

/// What is known of the processor that may serve devices.
pub(super) struct Lead {
    bell: Bell,
    /// It sleeps beside the descriptors.
    asleep: AtomicBool,
    /// Beside whose descriptors, as bits.
    beside: AtomicU64,
    /// When it was here last, by [`clock::now`].
    last: AtomicU64,
    /// When the device loop looks again whether it is near; [`NEVER`] if it need not.
    look: AtomicU64,
}

impl Lead {
    fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// Whether it can be expected to see by itself what has arrived for this device.
    fn is_near(&self, index: usize) -> bool {
        if self.is_asleep() {
            return self.beside.load(Ordering::SeqCst) >> index & 1 != 0;
        }
        self.was_here()
    }

    fn was_here(&self) -> bool {
        clock::now().saturating_sub(self.last.load(Ordering::Relaxed)) < NEAR
    }
}

impl Slot {
    fn can_be_led(&self) -> bool {
        matches!(self.id, NET | VSOCK) && self.server == Server::Devices
    }
}

impl Hub {
    /// With a single processor, which gets no interrupts.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left for its bell.
    pub(crate) fn led(mut self) -> Result<Self, Error> {
        if self.slots.iter().any(Slot::can_be_led) {
            self.lead = Some(Lead {
                bell: Bell::new()?,
                asleep: AtomicBool::new(false),
                beside: AtomicU64::new(0),
                last: AtomicU64::new(0),
                look: AtomicU64::new(NEVER),
            });
        }
        Ok(self)
    }

    /// Sleeps until there is news for this processor or the time is up.
    pub(super) fn sleep(&self, processor: u32, timeout: Option<Duration>) {
        match &self.lead {
            Some(lead) if timeout != Some(Duration::ZERO) => self.lead(lead, processor, timeout),
            _ => self.news.wait(processor, timeout),
        }
    }

    fn lead(&self, lead: &Lead, processor: u32, timeout: Option<Duration>) {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        while !self.news.begin(processor, &lead.bell) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let ready = self.sleep_beside(lead, left);
            lead.asleep.store(false, Ordering::SeqCst);
            self.news.end_of_sleep(&lead.bell);
            for (index, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.can_be_led()) {
                if ready && slot.readable.load(Ordering::Relaxed) {
                    self.process(index);
                }
            }
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
        }
        lead.last.store(clock::now(), Ordering::Relaxed);
    }

    /// Sleeps until the bell rings, a device that is led has input, or the time is up; whether there
    /// may be input.
    fn sleep_beside(&self, lead: &Lead, timeout: Option<Duration>) -> bool {
        let mut fds = [(); MOST + 1].map(|()| PollFd::from_borrowed_fd(lead.bell.as_fd(), PollFlags::IN));
        let mut count = 1;
        let mut beside = 0_u64;
        for (index, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.can_be_led()) {
            if let Some(fd) = slot.input()
                && slot.readable.load(Ordering::SeqCst)
                && count < fds.len()
            {
                fds[count] = PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN);
                count += 1;
                beside |= 1 << index;
            }
        }
        lead.beside.store(beside, Ordering::SeqCst);
        lead.asleep.store(true, Ordering::SeqCst);
        // An error is an interruption, after which the caller looks at everything.
        let _ = poll(&mut fds[..count], timeout.map(timespec).as_ref());
        fds[1..count].iter().any(|fd| !fd.revents().is_empty())
    }

    /// A device has input: leaves it to a processor that is near, if there is one.
    pub(super) fn leave(&self, index: usize) -> bool {
        let Some((lead, slot)) = self.lead.as_ref().zip(self.slots.get(index)) else {
            return false;
        };
        if !slot.can_be_led() || !lead.is_near(index) {
            return false;
        }
        let mut state = lock(&slot.state);
        state.left = true;
        self.watch_input(index, slot, &mut state, true);
        lead.look.store(clock::now() + NEAR, Ordering::Relaxed);
        true
    }

    /// When the device loop has to look whether a processor is near.
    pub(super) fn next_look(&self) -> u64 {
        self.lead
            .as_ref()
            .map_or(NEVER, |lead| lead.look.load(Ordering::Relaxed))
    }

    /// Takes back what was left to a processor that is near no more, or is asleep: then no time has
    /// to be awaited.
    pub(super) fn look_for_lead(&self) {
        let Some(lead) = self
            .lead
            .as_ref()
            .filter(|lead| lead.look.load(Ordering::Relaxed) <= clock::now())
        else {
            return;
        };
        if !lead.is_asleep() && lead.was_here() {
            lead.look.store(clock::now() + NEAR, Ordering::Relaxed);
            return;
        }
        lead.look.store(NEVER, Ordering::Relaxed);
        for (index, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.can_be_led()) {
            let mut state = lock(&slot.state);
            if std::mem::take(&mut state.left) {
                let readable = slot.readable.load(Ordering::Relaxed);
                self.watch_input(index, slot, &mut state, readable);
            }
        }
    }
}

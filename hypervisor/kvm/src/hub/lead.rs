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

    /// Takes back what was left to a processor that has not waited for a while. If that is asleep, it and the
    /// device loop sleep beside the descriptor, and no time has to be awaited.
    pub(super) fn look_for_lead(&self) {
        let Some(lead) = self
            .lead
            .as_ref()
            .filter(|lead| lead.look.load(Ordering::Relaxed) <= clock::now())
        else {
            return;
        };
        // One that comes and goes all the time is asleep most of it.
        if lead.was_here() {
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

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::thread;

    use chiton_core::devices::{Device, DeviceError, Interest, Progress, Ring, Transport};
    use chiton_shared::virtio::id::CONSOLE;
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::hub::SlotFiles;
    use crate::ram::Ram;

    /// A device that always waits for input, and takes it when it is worked on.
    struct Listener {
        id: u32,
        input: OwnedFd,
        taken: Arc<AtomicU64>,
    }

    impl Device for Listener {
        fn id(&self) -> u32 {
            self.id
        }

        fn features(&self) -> u64 {
            0
        }

        fn queue_sizes(&self) -> &[u16] {
            &[]
        }

        fn read_config(&self, _offset: usize, _data: &mut [u8]) {}

        fn process(&mut self, _queue: usize, _ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
            Ok(Progress::Waiting)
        }

        /// Asked after the work, for which there is no queue.
        fn interest(&self) -> Interest {
            let mut count = [0; 8];
            if rustix::io::read(&self.input, &mut count).is_ok() {
                self.taken.fetch_add(u64::from_ne_bytes(count), Ordering::SeqCst);
            }
            Interest {
                readable: true,
                ..Interest::default()
            }
        }

        fn stop(&mut self, _queue: usize) {}

        fn reset(&mut self) {}
    }

    /// A hub with one device, which is at work, and what is needed to see it.
    struct Bed {
        hub: Hub,
        input: OwnedFd,
        taken: Arc<AtomicU64>,
    }

    impl Bed {
        fn new(id: u32) -> Self {
            let input = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
            let taken = Arc::new(AtomicU64::new(0));
            let device = Listener {
                id,
                input: input.try_clone().unwrap(),
                taken: Arc::clone(&taken),
            };
            let mut transport = Transport::new(Box::new(device));
            // VIRTIO_F_VERSION_1, and the steps of section 3.1.1.
            for (register, value) in [(0x70, 1_u32), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x70, 15)] {
                let _ = transport.write(register, &value.to_le_bytes());
            }
            assert!(transport.is_live());
            let files = SlotFiles {
                input: Some(input.try_clone().unwrap()),
                ..SlotFiles::default()
            };
            let ram = Arc::new(Ram::new(1 << 20).unwrap());
            let hub = Hub::new(
                ram,
                vec![(transport, files)],
                Vec::new(),
                false,
                None,
                None,
                Box::new(|_| true),
            );
            let hub = hub.unwrap().led().unwrap();
            hub.process(0);
            Self { hub, input, taken }
        }

        fn lead(&self) -> &Lead {
            self.hub.lead.as_ref().unwrap()
        }

        fn arrive(&self) {
            rustix::io::write(&self.input, &1_u64.to_ne_bytes()).unwrap();
        }

        fn until(what: impl Fn() -> bool) {
            while !what() {
                thread::yield_now();
            }
        }

        fn is_left(&self) -> bool {
            lock(&self.hub.slots[0].state).left
        }

        fn is_watched(&self) -> bool {
            lock(&self.hub.slots[0].state).watched.readable
        }
    }

    #[test]
    fn a_processor_that_sleeps_takes_what_arrives_and_sleeps_until_there_is_news() {
        let bed = Bed::new(VSOCK);
        thread::scope(|scope| {
            let processor = scope.spawn(|| bed.hub.sleep(0, None));
            for arrived in 1..=3 {
                Bed::until(|| bed.lead().is_asleep());
                bed.arrive();
                Bed::until(|| bed.taken.load(Ordering::SeqCst) == arrived);
            }
            assert!(!processor.is_finished());
            bed.hub.post_news();
        });
        assert!(!bed.lead().is_asleep());
        assert_ne!(bed.lead().last.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn news_before_the_sleep_and_the_time_end_it_and_the_end_of_the_guest_too() {
        let bed = Bed::new(NET);
        bed.hub.post_news();
        bed.hub.sleep(0, None);
        let start = Instant::now();
        bed.hub.sleep(0, Some(Duration::from_millis(20)));
        assert!(start.elapsed() >= Duration::from_millis(20));
        bed.hub.finish();
        bed.hub.sleep(0, None);
    }

    #[test]
    fn input_is_left_only_to_a_processor_that_is_near() {
        let bed = Bed::new(VSOCK);
        assert!(bed.is_watched());
        assert!(!bed.hub.leave(0), "it was never here");
        thread::scope(|scope| {
            scope.spawn(|| bed.hub.sleep(0, None));
            Bed::until(|| bed.lead().is_asleep());
            assert!(bed.hub.leave(0));
            bed.hub.post_news();
        });
        assert!(bed.is_left() && !bed.is_watched());
        assert_ne!(bed.hub.next_look(), NEVER);
        assert!(!bed.hub.leave(1), "there is no such device");
    }

    #[test]
    fn what_was_left_is_taken_back_from_a_processor_that_comes_no_more() {
        let bed = Bed::new(VSOCK);
        let lead = bed.lead();
        lead.last.store(NEVER, Ordering::Relaxed);
        assert!(bed.hub.leave(0), "it is as near as it can be");
        // Not before it is time to look.
        lead.last.store(0, Ordering::Relaxed);
        lead.look.store(NEVER - 1, Ordering::Relaxed);
        bed.hub.look_for_lead();
        assert!(bed.is_left());
        lead.look.store(0, Ordering::Relaxed);
        bed.hub.look_for_lead();
        assert!(!bed.is_left() && bed.is_watched());
        assert_eq!(bed.hub.next_look(), NEVER);
    }

    #[test]
    fn a_processor_that_comes_again_and_again_keeps_what_was_left_to_it() {
        let bed = Bed::new(VSOCK);
        let lead = bed.lead();
        // Here in the future: as near as it can be, however slow this machine is.
        lead.last.store(NEVER, Ordering::Relaxed);
        assert!(bed.hub.leave(0));
        lead.look.store(0, Ordering::Relaxed);
        bed.hub.look_for_lead();
        assert!(bed.is_left() && !bed.is_watched());
        assert!(![0, NEVER].contains(&bed.hub.next_look()));
    }

    #[test]
    fn a_device_that_is_no_network_is_the_device_loops() {
        let bed = Bed::new(CONSOLE);
        assert!(bed.hub.lead.is_none());
        assert!(!bed.hub.leave(0));
        bed.hub.look_for_lead();
        assert_eq!(bed.hub.next_look(), NEVER);
    }
}

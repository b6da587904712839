//! The I/O thread: a loop for disks and folders alone, which looks for more to do before it sleeps.
//!
//! ```text
//!   sleeps in epoll ──▶ works, and looks for more; the guest need not kick ──▶ asks for kicks,
//!        ▲                              │ nothing for a while                  looks once more
//!        └──────────────────────────────┴────────────────────────────────────────────┘
//! ```

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chiton_core::devices::Outcome;
use chiton_shared::patience::Patience;

use super::{Hub, Server, SlotState, lock};

/// How long the I/O thread looks for more to do before it sleeps: about what it takes to wake it.
const LOOK: Duration = Duration::from_micros(50);

/// How long a guest looks for what is done before it sleeps: as long as KVM looks before a processor that halts sleeps
/// (`halt_poll_ns`), and longer than it takes to read 1 MiB. A sleep costs less; but who looks in vain soon hardly does.
const GUEST_LOOK: Duration = Duration::from_micros(200);

/// How much later a guest that sleeps is told of something while there is more to do: an exit, and waking it and this
/// thread, cost about as much.
const HOLD: Duration = Duration::from_micros(100);

/// After so long the thread hears what else there is, however much the guest has for it.
const TURN: Duration = Duration::from_millis(1);

/// For how long it pays to look before sleeping.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looks {
    /// The I/O thread, for what there is to do.
    pub(crate) thread: Duration,
    /// The guest, for what is done.
    pub(crate) guest: Duration,
}

impl Looks {
    /// As long as it pays on this machine. Where there is one processor only, who looks keeps the other from going on.
    pub(crate) fn here() -> Self {
        match std::thread::available_parallelism() {
            Ok(count) if count.get() > 1 => Self {
                thread: LOOK,
                guest: GUEST_LOOK,
            },
            _ => Self::default(),
        }
    }
}

/// What a guest that sleeps is still to be told.
pub(super) struct Owed {
    outcome: Outcome,
    since: Instant,
}

impl Hub {
    /// Runs the I/O thread until [`finish`](Self::finish); `look` is for how long it looks for more to do.
    pub(crate) fn serve_io(&self, look: Duration) {
        let mut events = Vec::with_capacity(1 + 3 * self.slots.len());
        let mut patience = Patience::new(u64::try_from(look.as_nanos()).unwrap_or(0));
        while !self.over.load(Ordering::Acquire) {
            if !self.turn(Server::Io, None, &mut events) {
                return;
            }
            let look = Duration::from_nanos(patience.for_how_long());
            if !look.is_zero() {
                match self.look_for(look, &mut events) {
                    Some(true) => patience.found(),
                    Some(false) => patience.in_vain(),
                    None => return,
                }
            }
            self.for_each_of(Server::Io, |index, _| self.process(index));
        }
    }

    /// Works on what there is until there has been nothing for so long. Tells whether there was anything; `None` if the
    /// host could not sleep.
    fn look_for(&self, look: Duration, events: &mut Vec<rustix::event::epoll::Event>) -> Option<bool> {
        let mut found = false;
        let mut last = Instant::now();
        let mut turn = last;
        while !self.over.load(Ordering::Acquire) {
            let busy = self.look();
            let now = Instant::now();
            if busy {
                (found, last) = (true, now);
            } else if now.duration_since(last) >= look {
                break;
            }
            if now.duration_since(turn) >= TURN {
                turn = now;
                if !self.turn(Server::Io, Some(Duration::ZERO), events) {
                    return None;
                }
            }
            std::hint::spin_loop();
        }
        Some(found)
    }

    /// Works on the I/O thread's devices, without asking for kicks; whether there was work.
    fn look(&self) -> bool {
        let mut busy = false;
        self.for_each_of(Server::Io, |index, slot| {
            let mut state = lock(&slot.state);
            let outcome = state.transport.poll(self.ram.as_ref());
            busy |= outcome.busy || outcome.more;
            self.tell_of(index, &mut state, outcome);
            self.after(index, slot, &mut state);
        });
        busy
    }

    /// Tells the guest of what has become of a call into a device, unless there is more to do: then some of that first.
    pub(super) fn tell_of(&self, index: usize, state: &mut SlotState, outcome: Outcome) {
        let owed = state.owed.take();
        let all = owed.as_ref().map_or(outcome, |owed| Outcome {
            notify: true,
            queues: outcome.queues | owed.outcome.queues,
            ..outcome
        });
        if !all.notify {
            return;
        }
        let late = owed.as_ref().is_some_and(|owed| owed.since.elapsed() >= HOLD);
        if outcome.more && !late {
            let since = owed.map_or_else(Instant::now, |owed| owed.since);
            state.owed = Some(Owed { outcome: all, since });
        } else {
            self.notify(index, all);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use chiton_core::devices::{Device, DeviceError, Interest, Progress, Ring, Transport, preset_all};
    use chiton_shared::map;
    use chiton_shared::virtio::id::BLOCK;
    use chiton_shared::virtio::ring::{Areas, Buffer, Chain, DriverQueue, QueueConfig};

    use super::*;
    use crate::hub::SlotFiles;
    use crate::ram::Ram;

    const SIZE: u16 = 8;

    /// Longer than any test.
    const FOR_EVER: Duration = Duration::from_secs(3600);

    /// A device of the I/O thread that gives everything back at once, so many chains a call.
    struct Mirror(usize);

    impl Device for Mirror {
        fn id(&self) -> u32 {
            BLOCK
        }

        fn features(&self) -> u64 {
            0
        }

        fn queue_sizes(&self) -> &[u16] {
            &[SIZE]
        }

        fn read_config(&self, _offset: usize, _data: &mut [u8]) {}

        fn process(&mut self, _queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
            let mut chain = Chain::new();
            for _ in 0..self.0 {
                if !ring.pop(&mut chain)? {
                    return Ok(Progress::Drained);
                }
                ring.push(chain.head(), 0);
            }
            Ok(if ring.has_available() {
                Progress::More
            } else {
                Progress::Drained
            })
        }

        fn interest(&self) -> Interest {
            Interest::default()
        }

        fn stop(&mut self, _queue: usize) {}

        fn reset(&mut self) {}
    }

    /// A hub with that device, and memory for its queue.
    fn hub(a_call: usize) -> (Hub, Arc<Ram>, u64) {
        let ram = Arc::new(Ram::new(map::QUEUES + (1 << 20)).unwrap());
        let mut transports = [Transport::new(Box::new(Mirror(a_call)))];
        let features = preset_all(&mut transports).unwrap().devices[0].features;
        let [transport] = transports;
        let slots = vec![(transport, SlotFiles::default())];
        let log = Box::new(|_: &str| true);
        let hub = Hub::new(Arc::clone(&ram), slots, Vec::new(), true, None, None, log).unwrap();
        (hub, ram, features)
    }

    /// The guest's side of the queue.
    fn driver(ram: &Ram, features: u64) -> DriverQueue<'_, { SIZE as usize }> {
        let (config, _) = QueueConfig::packed_at(map::QUEUES, SIZE);
        DriverQueue::new(Areas::find(ram, &config).unwrap(), SIZE, features).unwrap()
    }

    fn add(driver: &mut DriverQueue<'_, { SIZE as usize }>) {
        driver.add(&[Buffer::writable(map::QUEUES + 0x8000, 16)]).unwrap();
    }

    fn until_taken(driver: &mut DriverQueue<'_, { SIZE as usize }>) {
        while driver.take().unwrap().is_none() {
            thread::yield_now();
        }
    }

    #[test]
    fn while_the_thread_looks_nobody_need_kick() {
        let (hub, ram, features) = hub(1);
        let mut asked_for = 0;
        thread::scope(|scope| {
            let io = scope.spawn(|| hub.serve_io(FOR_EVER));
            let mut driver = driver(&ram, features);
            // Kicked once; from then on nothing tells the thread.
            hub.kicked(0);
            for _ in 0..100 {
                add(&mut driver);
                asked_for += u32::from(driver.wants_kick());
                until_taken(&mut driver);
            }
            assert!(!io.is_finished());
            hub.finish();
        });
        // At first, and once more where the thread had not begun to look: each would be an exit.
        assert!(asked_for <= 3, "{asked_for} kicks");
    }

    #[test]
    fn between_looking_and_sleeping_no_chain_is_lost_and_no_guest_left_asleep() {
        for look in [Duration::ZERO, Duration::from_micros(1), LOOK] {
            let (hub, ram, features) = hub(2);
            thread::scope(|scope| {
                scope.spawn(|| hub.serve_io(look));
                let mut driver = driver(&ram, features);
                for turn in 0..500_usize {
                    let count = 1 + turn % usize::from(SIZE);
                    for _ in 0..count {
                        add(&mut driver);
                    }
                    // As a guest: the kick that the device wants, and the sleep until there is news.
                    if driver.wants_kick() {
                        hub.kicked(0);
                    }
                    for _ in 0..count {
                        while driver.take().unwrap().is_none() {
                            if !driver.arm() {
                                hub.news.wait(0, None);
                            }
                            driver.disarm();
                        }
                    }
                }
                hub.finish();
            });
        }
    }

    #[test]
    fn a_guest_that_sleeps_is_told_once_of_what_is_done_together() {
        let (hub, ram, features) = hub(1);
        let mut driver = driver(&ram, features);
        (0..4).for_each(|_| add(&mut driver));
        assert!(!driver.arm());
        let slot = &hub.slots[0];
        let mut state = lock(&slot.state);
        let told = |hub: &Hub| {
            let bell = crate::news::Bell::new().unwrap();
            let told = hub.news.begin(0, &bell);
            hub.news.end_of_sleep(&bell);
            told
        };
        for _ in 0..3 {
            // However slow this test is.
            if let Some(owed) = &mut state.owed {
                owed.since = Instant::now() + FOR_EVER;
            }
            assert!(hub.process_locked(0, slot, &mut state));
            assert!(!told(&hub), "there is more to do");
        }
        assert!(!hub.process_locked(0, slot, &mut state));
        assert!(state.owed.is_none());
        assert!(told(&hub));
    }

    #[test]
    fn a_guest_that_sleeps_is_told_after_a_while_however_much_there_is_to_do() {
        let (hub, ram, features) = hub(1);
        let mut driver = driver(&ram, features);
        (0..4).for_each(|_| add(&mut driver));
        assert!(!driver.arm());
        let slot = &hub.slots[0];
        let mut state = lock(&slot.state);
        assert!(hub.process_locked(0, slot, &mut state));
        state.owed.as_mut().expect("it is told later").since -= HOLD;
        assert!(hub.process_locked(0, slot, &mut state));
        assert!(state.owed.is_none());
    }
}

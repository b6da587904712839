//! Every interleaving of a driver and a device on one queue, by the loom model checker:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p chiton-shared --release --test loom
//! ```
#![cfg(loom)]

use chiton_ring::feature::{EVENT_IDX, RING_PACKED};
use chiton_ring::memory::{GuestMemory, Memory};
use chiton_ring::{Areas, Buffer, Chain, DeviceQueue, DriverQueue, Format, QueueConfig};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A queue of two descriptors, in the format of these features.
const fn config(features: u64) -> QueueConfig {
    QueueConfig::placed(Format::of(features), 0, 2).0
}

/// A buffer behind a queue of either format.
const BUFFER: u64 = QueueConfig::placed(Format::Split, 0, 2).1.next_multiple_of(2);
const LEN: u32 = 2;

fn memory() -> Arc<Memory> {
    Arc::new(Memory::new((BUFFER + 2 * u64::from(LEN)) as usize))
}

fn driver(memory: &Memory, features: u64) -> DriverQueue<'_, 2> {
    let areas = Areas::find_as(Format::of(features), memory, &config(features)).expect("a good queue");
    DriverQueue::new(areas, 2, features).expect("a good queue")
}

fn device(features: u64) -> DeviceQueue {
    DeviceQueue::new(config(features), features)
}

/// Takes the next chain into `chain`, which is boxed because the threads of a model have small
/// stacks.
fn pop(queue: &mut DeviceQueue, memory: &Memory, chain: &mut Chain) -> bool {
    queue
        .attach(memory)
        .expect("a good queue")
        .pop(chain)
        .expect("our own driver")
}

/// Two buffers of one chain, and what the device is to find in the first and to write into the second.
const BUFFERS: [Buffer; 2] = [
    Buffer::readable(BUFFER, LEN),
    Buffer::writable(BUFFER + LEN as u64, LEN),
];
const REQUEST: [u8; 2] = [1, 2];
const ANSWER: u8 = 3;

/// Takes a chain, if there is one, and writes less into it than there is room for.
fn serve(queue: &mut DeviceQueue, memory: &Memory) {
    let mut chain = Box::new(Chain::new());
    if !pop(queue, memory, &mut chain) {
        return;
    }
    assert_eq!([chain.readable()[0], chain.writable()[0]], BUFFERS);
    let window = |b: &Buffer| memory.window(b.address, b.len as usize).expect("a buffer in memory");
    let mut request = [0; 2];
    window(&chain.readable()[0]).read(0, &mut request);
    assert_eq!(request, REQUEST);
    window(&chain.writable()[0]).write(0, &[ANSWER]);
    queue.attach(memory).expect("a good queue").push(chain.head(), 1);
}

/// The driver adds a chain while the device looks for one.
fn what_is_added_is_there(features: u64) {
    loom::model(move || {
        let memory = memory();
        let other = thread::spawn({
            let memory = Arc::clone(&memory);
            move || serve(&mut device(features), &memory)
        });
        let mut driver = driver(&memory, features);
        memory.window(BUFFER, 2).expect("a buffer").write(0, &REQUEST);
        driver.add(&BUFFERS).expect("room for both");
        other.join().expect("no panic");
    });
}

/// The device gives a chain back while the driver looks for it.
fn what_is_used_is_there(features: u64) {
    let (early, late) = <(StdArc<AtomicUsize>, StdArc<AtomicUsize>)>::default();
    let (seen, missed) = (StdArc::clone(&early), StdArc::clone(&late));
    loom::model(move || {
        let memory = memory();
        let mut driver = driver(&memory, features);
        memory.window(BUFFER, 2).expect("a buffer").write(0, &REQUEST);
        let head = driver.add(&BUFFERS).expect("room for both");
        let other = thread::spawn({
            let memory = Arc::clone(&memory);
            move || serve(&mut device(features), &memory)
        });
        let mut take = |count: &AtomicUsize| {
            let Some(taken) = driver.take().expect("our own device") else {
                return false;
            };
            count.fetch_add(1, Relaxed);
            assert_eq!(taken, (head, 1));
            let mut answer = [0];
            memory
                .window(BUFFER + u64::from(LEN), 1)
                .expect("a buffer")
                .read(0, &mut answer);
            assert_eq!(answer, [ANSWER]);
            // The descriptors may be written again.
            driver.add(&BUFFERS).expect("room for both");
            true
        };
        // The device goes first. Loom takes up other orders from the last access to a place; if the driver had gone first,
        // that would be the device's own look at the descriptor, and no run would see one that is used.
        thread::yield_now();
        let taken = take(&seen);
        other.join().expect("no panic");
        assert!(taken || take(&missed), "it was given back");
    });
    assert!(early.load(Relaxed) > 0 && late.load(Relaxed) > 0, "not both were tried");
}

#[test]
fn what_is_published_is_there_in_full() {
    what_is_added_is_there(0);
    what_is_used_is_there(0);
}

#[test]
fn what_is_published_in_a_packed_queue_is_there_in_full() {
    what_is_added_is_there(RING_PACKED);
    what_is_used_is_there(RING_PACKED);
}

/// The driver adds a chain while the device goes to sleep.
fn device_never_sleeps_over_a_chain(features: u64) {
    loom::model(move || {
        let memory = memory();
        let kicked = Arc::new(AtomicBool::new(false));
        let mut driver = driver(&memory, features);
        let (mut queue, mut chain) = (device(features), Box::new(Chain::new()));
        // One chain before, so that what the device wants to hear of is out of date.
        driver.add(&[Buffer::readable(BUFFER, LEN)]).expect("room");
        let _ = driver.wants_kick();
        assert!(pop(&mut queue, &memory, &mut chain));
        queue.attach(&*memory).expect("a good queue").disable_kicks();
        let other = thread::spawn({
            let memory = Arc::clone(&memory);
            move || {
                let asleep = !queue.attach(&*memory).expect("a good queue").enable_kicks();
                (asleep, queue)
            }
        });
        driver.add(&[Buffer::readable(BUFFER, LEN)]).expect("room");
        if driver.wants_kick() {
            kicked.store(true, Ordering::Relaxed);
        }
        let (asleep, mut queue) = other.join().expect("no panic");
        assert!(
            !asleep || kicked.load(Ordering::Relaxed),
            "asleep, not kicked, and a chain is there"
        );
        assert!(pop(&mut queue, &memory, &mut chain));
    });
}

#[test]
fn the_device_never_sleeps_over_a_chain_with_flags() {
    device_never_sleeps_over_a_chain(0);
}

#[test]
fn the_device_never_sleeps_over_a_chain_with_event_index() {
    device_never_sleeps_over_a_chain(EVENT_IDX);
}

#[test]
fn the_device_never_sleeps_over_a_chain_of_a_packed_queue() {
    device_never_sleeps_over_a_chain(RING_PACKED);
    device_never_sleeps_over_a_chain(RING_PACKED | EVENT_IDX);
}

/// The device gives a chain back while the driver goes to sleep.
fn driver_never_sleeps_over_a_used_chain(features: u64) {
    loom::model(move || {
        let memory = memory();
        let (mut queue, mut chain) = (device(features), Box::new(Chain::new()));
        let mut driver = driver(&memory, features);
        // One chain came and went, so that what the driver wants to hear of is out of date.
        driver.add(&[Buffer::readable(BUFFER, LEN)]).expect("room");
        assert!(pop(&mut queue, &memory, &mut chain));
        let mut attached = queue.attach(&*memory).expect("a good queue");
        attached.push(chain.head(), 0);
        let _ = attached.wants_notification();
        assert!(driver.take().expect("our own device").is_some());
        driver.disarm();
        driver.add(&[Buffer::readable(BUFFER, LEN)]).expect("room");
        let other = thread::spawn({
            let memory = Arc::clone(&memory);
            move || {
                assert!(pop(&mut queue, &memory, &mut chain));
                let mut attached = queue.attach(&*memory).expect("a good queue");
                attached.push(chain.head(), 0);
                attached.wants_notification()
            }
        });
        let asleep = !driver.arm();
        let notified = other.join().expect("no panic");
        assert!(!asleep || notified, "asleep, not notified, and a chain is there");
        assert!(driver.take().expect("our own device").is_some());
    });
}

#[test]
fn the_driver_never_sleeps_over_a_used_chain_with_flags() {
    driver_never_sleeps_over_a_used_chain(0);
}

#[test]
fn the_driver_never_sleeps_over_a_used_chain_with_event_index() {
    driver_never_sleeps_over_a_used_chain(EVENT_IDX);
}

#[test]
fn the_driver_never_sleeps_over_a_used_chain_of_a_packed_queue() {
    driver_never_sleeps_over_a_used_chain(RING_PACKED);
    driver_never_sleeps_over_a_used_chain(RING_PACKED | EVENT_IDX);
}

#[test]
fn two_chains_at_full_overlap_come_back_whole() {
    two_chains_come_back_whole(EVENT_IDX);
}

#[test]
fn two_chains_of_a_packed_queue_come_back_whole() {
    two_chains_come_back_whole(EVENT_IDX | RING_PACKED);
}

fn two_chains_come_back_whole(features: u64) {
    loom::model(move || {
        let memory = memory();
        let other = thread::spawn({
            let memory = Arc::clone(&memory);
            move || {
                let (mut queue, mut chain) = (device(features), Box::new(Chain::new()));
                let mut attached = queue.attach(&*memory).expect("a good queue");
                let mut done = 0;
                for _ in 0..2 {
                    if attached.pop(&mut chain).expect("our own driver") {
                        attached.push(chain.head(), 0);
                        done += 1;
                    }
                }
                done
            }
        });
        let mut driver = driver(&memory, features);
        let mut heads = Vec::new();
        for _ in 0..2 {
            heads.push(driver.add(&[Buffer::readable(BUFFER, LEN)]).expect("room"));
        }
        let mut taken = Vec::new();
        // As in `what_is_used_is_there`.
        thread::yield_now();
        while let Some((head, _)) = driver.take().expect("our own device") {
            taken.push(head);
        }
        let done = other.join().expect("no panic");
        while let Some((head, _)) = driver.take().expect("our own device") {
            taken.push(head);
        }
        assert_eq!(taken, heads[..done]);
    });
}

//! Driver and device on threads of their own, asleep whenever the protocol lets them be.
#![cfg(not(loom))]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use chiton_ring::feature;
use chiton_ring::memory::GuestMemory;
use chiton_ring::{Areas, Buffer, Chain, DeviceQueue, DriverQueue, QueueConfig};
use common::Memory;

const ROUNDS: u32 = if cfg!(miri) { 40 } else { 100_000 };
const SIZE: u16 = 8;
/// Each chain has a request of 4 bytes and room for an answer of 4 bytes here, by its head.
const BUFFERS: u64 = 0x400;

/// Wakes the other side, as a doorbell or an interrupt does.
struct Bell(AtomicBool);

impl Bell {
    fn ring(&self, who: &Thread) {
        self.0.store(true, Ordering::Release);
        who.unpark();
    }

    fn wait(&self) {
        while !self.0.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

fn device(memory: &Memory, config: QueueConfig, features: u64, kick: &Bell, notify: impl Fn()) {
    let mut queue = DeviceQueue::new(config, features);
    let mut attached = queue.attach(memory).expect("a good queue");
    let mut chain = Chain::new();
    let mut left = ROUNDS;
    while left > 0 {
        attached.disable_kicks();
        while attached.pop(&mut chain).expect("our own driver") {
            let window = |b: &Buffer| memory.window(b.address, b.len as usize).expect("a buffer in memory");
            let mut number = [0; 4];
            window(&chain.readable()[0]).read(0, &mut number);
            let answer = !u32::from_le_bytes(number);
            window(&chain.writable()[0]).write(0, &answer.to_le_bytes());
            attached.push(chain.head(), 4);
            left -= 1;
        }
        if attached.wants_notification() {
            notify();
        }
        if left > 0 && !attached.enable_kicks() {
            kick.wait();
        }
    }
}

fn driver(memory: &Memory, areas: Areas<'_>, features: u64, bell: &Bell, kick: impl Fn()) {
    let mut queue = DriverQueue::<'_, { SIZE as usize }>::new(areas, SIZE, features).expect("a good queue");
    let mut in_flight = [None; SIZE as usize];
    let (mut sent, mut taken) = (0, 0);
    while taken < ROUNDS {
        queue.disarm();
        while let Some((head, written)) = queue.take().expect("our own device") {
            let (number, at): (u32, u64) = in_flight[usize::from(head)].take().expect("a chain in flight");
            let mut answer = [0; 4];
            memory.window(at + 4, 4).expect("within memory").read(0, &mut answer);
            assert_eq!((written, u32::from_le_bytes(answer)), (4, !number));
            taken += 1;
        }
        while queue.free() >= 2 && sent < ROUNDS {
            // The head is known only afterwards; so is which buffer is free.
            let at = BUFFERS
                + 8 * (0..)
                    .find(|n| in_flight.iter().flatten().all(|(_, a)| *a != BUFFERS + 8 * n))
                    .expect("one");
            memory
                .window(at, 4)
                .expect("within memory")
                .write(0, &sent.to_le_bytes());
            let head = queue
                .add(&[Buffer::readable(at, 4), Buffer::writable(at + 4, 4)])
                .expect("room for both");
            in_flight[usize::from(head)] = Some((sent, at));
            sent += 1;
        }
        if queue.wants_kick() {
            kick();
        }
        if taken < ROUNDS && !queue.arm() {
            bell.wait();
        }
    }
}

fn exchange(features: u64) {
    let memory = Memory::new(0x1000);
    let (config, end) = QueueConfig::packed_at(0, SIZE);
    assert!(end <= BUFFERS);
    let areas = Areas::find(&memory, &config).expect("a good queue");
    let (kick, news) = (Bell(AtomicBool::new(false)), Bell(AtomicBool::new(false)));
    let guest = thread::current();
    thread::scope(|scope| {
        let host = scope.spawn(|| device(&memory, config, features, &kick, || news.ring(&guest)));
        driver(&memory, areas, features, &news, || kick.ring(host.thread()));
    });
}

#[test]
fn two_threads_that_sleep_by_flags_finish() {
    exchange(0);
}

#[test]
fn two_threads_that_sleep_by_event_index_finish() {
    exchange(feature::EVENT_IDX);
}

//! A disk that ends what it has begun later, and in another order.

use std::vec::Vec;

use chiton_shared::virtio::block::{
    F_FLUSH, F_MQ, REQUEST, RequestHeader, RequestType,
    status::{IOERR, OK},
};
use chiton_shared::virtio::mmio::Register;
use chiton_shared::virtio::ring::Buffer;
use proptest::prelude::*;

use super::super::testing::{Memory, Rig, config};
use super::fake::FakeDisk;
use super::{Block, IN_FLIGHT, Operation};

fn header(kind: RequestType, sector: u64) -> [u8; RequestHeader::SIZE] {
    RequestHeader {
        kind: kind as u32,
        reserved: 0,
        sector,
    }
    .to_bytes()
}

/// A device on a late disk of `sectors` sectors.
fn late(memory: &Memory, sectors: usize, queues: usize) -> (Rig<'_>, FakeDisk) {
    let disk = FakeDisk::new(sectors);
    disk.state().late = true;
    (Rig::new(memory, Block::new(disk.clone()).queues(queues)), disk)
}

/// Makes a request available on a queue; answers its data and status.
fn add(rig: &mut Rig<'_>, queue: usize, kind: RequestType, sector: u64, len: usize) -> (Buffer, Buffer) {
    let head = rig.readable(&header(kind, sector));
    let data = if kind == RequestType::Write {
        rig.readable(&vec![0xAB; len])
    } else {
        rig.writable(len)
    };
    let status = rig.writable(1);
    rig.memory.write(status.address, &[0xEE]);
    rig.queues[queue].add(&[head, data, status]).expect("room");
    (data, status)
}

fn read(rig: &mut Rig<'_>, queue: usize, sector: u64) -> (Buffer, Buffer) {
    add(rig, queue, RequestType::Read, sector, 512)
}

#[test]
fn requests_come_back_as_the_disk_ends_them() {
    let memory = Memory::new();
    let (mut rig, disk) = late(&memory, 4, 1);
    let (one, two) = (read(&mut rig, 0, 1), read(&mut rig, 0, 2));
    assert!(!rig.process().more);
    assert!(rig.transport.interest().under_way);
    assert_eq!(rig.take(REQUEST), None);
    disk.end(1);
    assert!(rig.process().notify);
    assert_eq!((rig.take(REQUEST), rig.take(REQUEST)), (Some(513), None));
    assert_eq!((rig.bytes(two.0), rig.bytes(two.1)), (vec![3; 512], vec![OK]));
    assert_eq!(rig.bytes(one.1), [0xEE]);
    disk.end(0);
    let _ = rig.process();
    assert_eq!(rig.take(REQUEST), Some(513));
    assert_eq!((rig.bytes(one.0), rig.bytes(one.1)), (vec![2; 512], vec![OK]));
    assert!(!rig.transport.interest().under_way);
}

#[test]
fn a_late_failure_is_an_error_of_that_request_alone() {
    let memory = Memory::new();
    let (mut rig, disk) = late(&memory, 4, 1);
    let (bad, good) = (read(&mut rig, 0, 1), read(&mut rig, 0, 2));
    let _ = rig.process();
    disk.state().fails = true;
    disk.end(0);
    disk.state().fails = false;
    disk.end(0);
    let _ = rig.process();
    let mut written = [rig.take(REQUEST), rig.take(REQUEST)];
    written.sort_unstable();
    assert_eq!(written, [Some(0), Some(513)]);
    assert_eq!((rig.bytes(bad.1), rig.bytes(good.1)), (vec![IOERR], vec![OK]));
    assert_eq!(rig.transport.failures(), 1);
}

#[test]
fn a_flush_begins_when_it_is_taken_and_ends_by_itself() {
    let memory = Memory::new();
    let (mut rig, disk) = late(&memory, 4, 1);
    let (_, write) = add(&mut rig, 0, RequestType::Write, 0, 512);
    let (_, flush) = add(&mut rig, 0, RequestType::Flush, 0, 0);
    let _ = rig.process();
    let begun: Vec<_> = disk.state().begun.iter().map(|later| later.operation).collect();
    assert_eq!(begun, [Operation::Write(0), Operation::Flush]);
    disk.end(1);
    let _ = rig.process();
    assert_eq!((rig.bytes(write), rig.bytes(flush)), (vec![0xEE], vec![OK]));
}

#[test]
fn a_write_that_must_be_durable_is_not_left_to_itself() {
    let memory = Memory::new();
    let disk = FakeDisk::new(1);
    disk.state().late = true;
    let mut rig = Rig::with_features(&memory, Block::new(disk.clone()), !F_FLUSH);
    let (_, status) = add(&mut rig, 0, RequestType::Write, 0, 512);
    let _ = rig.process();
    assert_eq!(rig.bytes(status), [OK]);
    let state = disk.state();
    assert_eq!((state.writes, state.flushes, state.begun.len()), (1, 1, 0));
}

#[test]
fn a_reset_waits_until_the_disk_touches_no_buffer_any_more() {
    let memory = Memory::new();
    let (mut rig, disk) = late(&memory, 4, 1);
    let (data, status) = read(&mut rig, 0, 1);
    let _ = read(&mut rig, 0, 2);
    let _ = rig.process();
    let _ = rig.transport.write(Register::Status as u64, &[0; 4]);
    assert_eq!(disk.counts(), (2, 0));
    assert_eq!(rig.bytes(data), [2; 512], "what was under way came to its end");
    assert_eq!(rig.bytes(status), [0xEE], "and the driver is told nothing of it");
    assert!(!rig.transport.interest().under_way);
}

#[test]
fn a_queue_that_stops_waits_and_what_landed_of_the_others_is_given_back() {
    let memory = Memory::new();
    let (mut rig, disk) = late(&memory, 4, 2);
    assert_ne!(rig.entry.features & F_MQ, 0);
    let (_, stopped) = read(&mut rig, 0, 1);
    let (_, other) = read(&mut rig, 1, 2);
    let _ = rig.process();
    let _ = rig.transport.write(Register::QueueSel as u64, &[0; 4]);
    let _ = rig.transport.write(Register::QueueReady as u64, &[0; 4]);
    assert_eq!(disk.state().begun.len(), 0);
    assert_eq!(rig.transport.interest().at, Some(0), "there is something to do at once");
    let _ = rig.process();
    assert_eq!((rig.bytes(stopped), rig.bytes(other)), (vec![0xEE], vec![OK]));
    assert_eq!((rig.take(1), rig.transport.interest().at), (Some(513), None));
}

#[test]
fn each_queue_has_a_share_of_what_can_be_in_flight() {
    let memory = Memory::new();
    let (mut rig, disk) = late(&memory, 4, 4);
    let share = usize::from(IN_FLIGHT) / 4;
    for _ in 0..=share {
        let _ = read(&mut rig, 0, 1);
    }
    let (_, other) = read(&mut rig, 3, 2);
    assert!(!rig.process().more);
    assert_eq!(disk.state().begun.len(), share + 1);
    // The last queue comes first.
    disk.end(0);
    let _ = rig.process();
    assert_eq!(rig.bytes(other), [OK]);
    disk.end(0);
    rig.process_all();
    assert_eq!(disk.state().begun.len(), share, "the next one has begun");
}

#[test]
fn a_large_request_is_done_in_pieces_and_its_last_piece_is_begun() {
    let memory = Memory::new();
    let (mut rig, disk) = late(&memory, 130, 1);
    let head = rig.readable(&header(RequestType::Read, 0));
    let data = rig.writable(512);
    let status = rig.writable(1);
    let mut chain = vec![head];
    // More buffers than the disk is given at once.
    chain.extend([data; 66]);
    chain.push(status);
    let _ = rig.submit(REQUEST, &chain);
    assert_eq!(disk.state().reads, 1);
    assert_eq!(disk.counts(), (0, 1));
    disk.end(0);
    let _ = rig.process();
    assert_eq!((rig.take(REQUEST), rig.bytes(status)), (Some(66 * 512 + 1), vec![OK]));
    assert_eq!(rig.bytes(data), [66; 512]);
}

proptest! {
    #![proptest_config(config())]

    /// Whatever the order in which reads, writes and flushes of several queues begin and end, and
    /// whoever is stopped meanwhile: each request that was not dropped is answered once, and none
    /// that was.
    #[test]
    fn each_request_is_answered_once(
        steps in prop::collection::vec((0_u8..8, any::<u8>()), 1..if cfg!(miri) { 16 } else { 60 }),
    ) {
        let memory = Memory::new();
        let (mut rig, disk) = late(&memory, 8, 2);
        let mut open: [Vec<Buffer>; 2] = [Vec::new(), Vec::new()];
        let mut stopped = [false; 2];
        for (step, value) in steps {
            let queue = usize::from(value & 1);
            match step {
                0..=3 if !stopped[queue] && open[queue].len() < 8 => {
                    let kind = [RequestType::Read, RequestType::Write, RequestType::Flush][usize::from(value >> 1) % 3];
                    let len = if kind == RequestType::Flush { 0 } else { 512 };
                    open[queue].push(add(&mut rig, queue, kind, u64::from(value >> 5), len).1);
                }
                4 | 5 => {
                    let begun = disk.state().begun.len();
                    if begun > 0 {
                        disk.end(usize::from(value) % begun);
                    }
                }
                6 if value < 16 => {
                    let _ = rig.transport.write(Register::QueueSel as u64, &(queue as u32).to_le_bytes());
                    let _ = rig.transport.write(Register::QueueReady as u64, &[0; 4]);
                    stopped[queue] = true;
                }
                _ => { let _ = rig.process(); }
            }
        }
        while !disk.state().begun.is_empty() {
            disk.end(0);
        }
        rig.process_all();
        while !disk.state().begun.is_empty() {
            disk.end(0);
            rig.process_all();
        }
        for queue in 0..2 {
            if stopped[queue] {
                continue;
            }
            for status in &open[queue] {
                prop_assert_eq!(rig.bytes(*status), [OK]);
                prop_assert!(rig.take(queue).is_some());
            }
            prop_assert_eq!(rig.take(queue), None);
        }
        prop_assert!(!rig.transport.interest().under_way);
    }
}

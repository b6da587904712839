//! The block driver against a disk in memory that follows the specification.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::block::{
    Config, F_DISCARD, F_FLUSH, F_RO, F_WRITE_ZEROES, ID_BYTES, RequestHeader, Segment, status,
};
use chiton_shared::virtio::feature;
use chiton_shared::virtio::ring::Chain;

use super::*;
use crate::testing::{Identity, Machine, bytes};

const SECTORS: u64 = 64;

/// What the disk did.
#[derive(Default)]
struct Log {
    data: Vec<u8>,
    flushes: usize,
    indirect_buffers: usize,
    unmaps: u32,
    /// The answer to the next requests, if not the right one.
    answer: Option<u8>,
}

fn serve(log: &mut Log, chain: &Chain, memory: &Identity) -> Option<u32> {
    let header = chain.readable()[0];
    let header = RequestHeader::from_bytes(&bytes(&header).try_into().ok()?);
    let (last, to) = chain.writable().split_last()?;
    assert_eq!(last.len, 1);
    let at = (header.sector * SECTOR) as usize;
    let mut written = 1;
    let mut status = status::OK;
    match header.kind {
        0 => {
            let len = to[0].len as usize;
            memory.window(to[0].address, len)?.write(0, &log.data[at..at + len]);
            written += len as u32;
        }
        1 => {
            let from = bytes(&chain.readable()[1]);
            log.data[at..at + from.len()].copy_from_slice(&from);
        }
        4 => log.flushes += 1,
        8 => {
            memory
                .window(to[0].address, ID_BYTES)?
                .write(0, b"chiton-disk-number-7");
            written += ID_BYTES as u32;
        }
        11 | 13 => {
            let segment = Segment::from_bytes(&bytes(&chain.readable()[1]).try_into().ok()?);
            let from = (segment.sector * SECTOR) as usize;
            let fill = if header.kind == 11 { 0xDD } else { 0 };
            log.data[from..from + segment.count as usize * SECTOR as usize].fill(fill);
            log.unmaps += segment.flags;
        }
        _ => status = status::UNSUPP,
    }
    log.indirect_buffers += chain.readable().len() + chain.writable().len();
    memory
        .window(last.address, 1)?
        .write(0, &[log.answer.unwrap_or(status)]);
    Some(written)
}

struct Bench {
    machine: Machine,
    log: Rc<RefCell<Log>>,
    features: u64,
}

impl Bench {
    fn new(size: u16, features: u64) -> Self {
        let data = (0..SECTORS)
            .map(|i| [i as u8; SECTOR as usize])
            .collect::<Vec<_>>()
            .concat();
        let log = Rc::new(RefCell::new(Log { data, ..Log::default() }));
        let shared = Rc::clone(&log);
        let machine = Machine::with_features(size, features, move |chain, memory| {
            serve(&mut shared.borrow_mut(), chain, memory)
        });
        Self { machine, log, features }
    }

    fn disk(&self) -> Driver<'_, &Machine> {
        let config = Config {
            capacity: SECTORS,
            ..Config::default()
        }
        .to_bytes();
        let queue = self.machine.queue();
        let slots = Slots::leak(usize::from(queue.size()));
        Driver::new(queue, &config, self.features, slots).unwrap()
    }
}

const ALL: u64 = feature::RING | F_FLUSH;

#[test]
fn reads_and_writes_move_the_sectors_they_name() {
    for features in [ALL, feature::VERSION_1 | F_FLUSH] {
        let bench = Bench::new(16, features);
        let mut disk = bench.disk();
        let mut sectors = [0; 1024];
        disk.read(3, &mut sectors).unwrap();
        assert_eq!((sectors[0], sectors[512]), (3, 4));
        disk.write(10, &[0xEE; 512]).unwrap();
        disk.flush().unwrap();
        let log = bench.log.borrow();
        assert_eq!(log.data[10 * 512..11 * 512], [0xEE; 512]);
        assert_eq!((log.data[10 * 512 - 1], log.data[11 * 512], log.flushes), (9, 11, 1));
        // Whoever sleeps need not kick.
        assert_eq!((bench.machine.kicks(), bench.machine.waits()), (0, 3));
    }
}

#[test]
fn sectors_are_erased_if_the_device_can() {
    let bench = Bench::new(16, ALL | F_DISCARD | F_WRITE_ZEROES);
    let mut disk = bench.disk();
    disk.discard(1, 1).unwrap();
    disk.write_zeroes(2, 1, false).unwrap();
    disk.write_zeroes(3, 1, true).unwrap();
    disk.discard(0, 0).unwrap();
    let first = |sector: usize| bench.log.borrow().data[sector * 512];
    assert_eq!([0, 1, 2, 3, 4].map(first), [0, 0xDD, 0, 0, 4]);
    assert_eq!(bench.log.borrow().unmaps, 1);
    assert!(matches!(disk.discard(63, 2), Err(DiskError::Range { .. })));
    assert!(matches!(
        disk.write_zeroes(u64::MAX, 2, true),
        Err(DiskError::Range { .. })
    ));

    assert_eq!(Bench::new(16, ALL).disk().discard(0, 1), Err(DiskError::Unsupported));
    let read_only = Bench::new(16, ALL | F_RO | F_DISCARD);
    assert_eq!(read_only.disk().discard(0, 1), Err(DiskError::ReadOnly));
}

#[test]
fn a_full_queue_of_requests_takes_one_exit() {
    let bench = Bench::new(32, ALL);
    let mut disk = bench.disk();
    assert_eq!(disk.depth(), 32);
    let tickets: Vec<_> = (0..32).map(|i| disk.submit_read(i, vec![0; 512]).unwrap()).collect();
    let full = disk.submit_read(0, vec![7; 512]).unwrap_err();
    assert_eq!((full.error, full.buffer), (DiskError::Full(32), vec![7; 512]));
    for (i, ticket) in tickets.into_iter().enumerate() {
        let done = disk.wait().unwrap();
        assert_eq!((done.ticket, done.sector, done.result), (ticket, i as u64, Ok(())));
        assert_eq!(done.buffer, vec![i as u8; 512]);
    }
    assert_eq!(disk.wait().unwrap_err(), DiskError::Idle);
    assert_eq!((bench.machine.kicks(), bench.machine.waits()), (0, 1));
}

#[test]
fn a_kick_starts_everything_and_polling_needs_no_exit() {
    let bench = Bench::new(32, ALL);
    let mut disk = bench.disk();
    for i in 0..8 {
        disk.submit_write(i, vec![i as u8 + 100; 512]).unwrap();
    }
    assert!(disk.poll().unwrap().is_none());
    disk.kick();
    let mut done = 0;
    while let Some(completion) = disk.poll().unwrap() {
        completion.result.unwrap();
        done += 1;
    }
    assert_eq!(
        (done, disk.in_flight(), bench.machine.kicks(), bench.machine.waits()),
        (8, 0, 1, 0)
    );
    assert_eq!(bench.log.borrow().data[7 * 512], 107);
}

#[test]
fn sleeping_for_one_request_keeps_the_completions_of_others() {
    let bench = Bench::new(8, ALL);
    let mut disk = bench.disk();
    disk.submit_read(1, vec![0; 512]).unwrap();
    let mut sector = [0; 512];
    disk.read(2, &mut sector).unwrap();
    assert_eq!(sector[0], 2);
    assert!(disk.arm());
    assert_eq!(disk.poll().unwrap().map(|done| done.buffer[0]), Some(1));
}

#[test]
fn without_indirect_descriptors_a_request_takes_three() {
    let bench = Bench::new(8, feature::VERSION_1);
    assert_eq!(bench.disk().depth(), 2);
}

#[test]
fn what_cannot_be_done_is_refused_without_asking_the_device() {
    let bench = Bench::new(8, ALL | F_RO);
    let mut disk = bench.disk();
    let mut sector = [0; 512];
    assert_eq!(disk.read(0, &mut sector[..100]), Err(DiskError::Length(100)));
    assert_eq!(disk.read(0, &mut []), Err(DiskError::Length(0)));
    let range = |sector| DiskError::Range {
        sector,
        count: 1,
        sectors: SECTORS,
    };
    assert_eq!(disk.read(SECTORS, &mut sector), Err(range(SECTORS)));
    assert_eq!(disk.read(u64::MAX, &mut sector), Err(range(u64::MAX)));
    assert_eq!(disk.write(0, &sector), Err(DiskError::ReadOnly));
    assert_eq!(
        disk.submit_write(0, vec![0; 512]).unwrap_err().error,
        DiskError::ReadOnly
    );
    disk.flush().unwrap();
    assert_eq!(bench.machine.waits(), 0);
}

#[test]
fn every_answer_of_the_device_is_told() {
    let bench = Bench::new(8, ALL);
    let mut disk = bench.disk();
    let cases = [
        (1, DiskError::Failed),
        (2, DiskError::Unsupported),
        (77, DiskError::Status(77)),
    ];
    for (answer, error) in cases {
        bench.log.borrow_mut().answer = Some(answer);
        assert_eq!(disk.read(0, &mut [0; 512]), Err(error));
        disk.submit_read(0, vec![0; 512]).unwrap();
        assert_eq!(disk.wait().unwrap().result, Err(error));
    }
    bench.log.borrow_mut().answer = None;
    assert_eq!(disk.read(0, &mut [0; 512]), Ok(()));
    assert_eq!(&disk.name().unwrap(), b"chiton-disk-number-7");
}

#[test]
fn a_device_that_stops_is_an_error_and_no_endless_sleep() {
    let bench = Bench::new(8, ALL);
    let mut disk = bench.disk();
    disk.submit_read(0, vec![0; 512]).unwrap();
    bench.machine.stop();
    assert_eq!(disk.wait().unwrap_err(), DiskError::Device(QueueError::NeedsReset));
    assert_eq!(disk.read(0, &mut [0; 512]), Err(DiskError::Device(QueueError::GivenUp)));
    assert_eq!(bench.machine.resets(), 1);
}

#[test]
fn a_disk_that_is_dropped_with_requests_in_flight_is_reset_first() {
    let bench = Bench::new(8, ALL);
    let mut disk = bench.disk();
    disk.submit_read(0, vec![0; 512]).unwrap();
    drop(disk);
    assert_eq!(bench.machine.resets(), 1);
    drop(bench.disk());
    assert_eq!(bench.machine.resets(), 1);
}

#[test]
fn a_driver_that_gathers_sleeps_once_for_many() {
    let bench = Bench::new(16, ALL);
    let mut disk = bench.disk();
    disk.gather(6);
    for sector in 0..8 {
        disk.submit_read(sector, vec![0; 512]).unwrap();
    }
    for _ in 0..8 {
        disk.wait().unwrap().result.unwrap();
    }
    // Fewer are in flight than it would gather.
    disk.submit_read(9, vec![0; 512]).unwrap();
    assert_eq!(disk.wait().unwrap().buffer, [9; 512]);
    assert_eq!(bench.machine.waits(), 2);
}

#[test]
fn a_driver_that_looks_before_it_sleeps_kicks_and_does_not_sleep() {
    let bench = Bench::new(16, ALL);
    let mut disk = bench.disk();
    disk.look_before_sleeping(Duration::from_nanos(3));
    for sector in 0..8 {
        disk.submit_read(sector, vec![0; 512]).unwrap();
    }
    for _ in 0..8 {
        disk.wait().unwrap().result.unwrap();
    }
    assert_eq!((bench.machine.kicks(), bench.machine.waits()), (1, 0));
}

#[test]
fn a_reset_of_the_queue_ends_what_is_in_flight_and_the_disk_goes_on() {
    for format in [0, feature::RING_PACKED] {
        let bench = Bench::new(16, ALL | feature::RING_RESET | format);
        let mut disk = bench.disk();
        for _ in 0..10 {
            let mut tickets: Vec<_> = (0..4)
                .map(|sector| disk.submit_read(sector, vec![0xFF; 512]).unwrap())
                .collect();
            disk.kick();
            tickets.extend((4..7).map(|sector| disk.submit_read(sector, vec![0xFF; 512]).unwrap()));
            disk.reset_queue().unwrap();
            assert_eq!(disk.in_flight(), 7);
            while let Some(done) = disk.poll().unwrap() {
                let at = tickets.iter().position(|ticket| *ticket == done.ticket);
                tickets.remove(at.expect("each comes back once"));
                if done.sector < 4 {
                    assert_eq!((done.result, done.buffer[511]), (Ok(()), done.sector as u8));
                } else {
                    assert_eq!(done.result, Err(DiskError::TakenBack));
                }
            }
            assert!(tickets.is_empty());
            let mut sector = [0; 512];
            disk.read(9, &mut sector).unwrap();
            assert_eq!(sector, [9; 512]);
        }
    }
    let bench = Bench::new(16, ALL);
    let refused = bench.disk().reset_queue();
    assert_eq!(refused, Err(DiskError::Device(QueueError::NoReset)));
}

/// Requests one after the other, each kicked and slept for as the driver does; how often it kicked and slept.
fn one_by_one(disk: &mut Driver<'_, &Machine>, machine: &Machine, count: u64) -> (usize, usize) {
    let before = (machine.kicks(), machine.waits());
    for _ in 0..count {
        let mut sector = [0; 512];
        disk.read(7, &mut sector).unwrap();
        assert_eq!(sector, [7; 512]);
    }
    (machine.kicks() - before.0, machine.waits() - before.1)
}

#[test]
fn a_driver_looks_if_the_host_says_so_and_else_does_not_even_kick() {
    let bench = Bench::new(16, ALL);
    assert_eq!(one_by_one(&mut bench.disk(), &bench.machine, 10), (0, 10));
    let bench = Bench::new(16, ALL);
    bench.machine.look_ns.set(3);
    assert_eq!(one_by_one(&mut bench.disk(), &bench.machine, 10), (10, 0));
}

#[test]
fn a_driver_that_looks_in_vain_sleeps_and_hardly_looks_any_more() {
    let bench = Bench::new(16, ALL);
    bench.machine.look_ns.set(3);
    bench.machine.serves_kicks.set(false);
    let mut disk = bench.disk();
    let (kicks, waits) = one_by_one(&mut disk, &bench.machine, 40);
    assert_eq!((kicks, waits), (6, 40));
    // It finds out when that helps again.
    bench.machine.serves_kicks.set(true);
    one_by_one(&mut disk, &bench.machine, 40);
    assert_eq!(one_by_one(&mut disk, &bench.machine, 10), (10, 0));
}

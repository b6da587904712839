use std::vec::Vec;

use chiton_shared::virtio::block::{
    F_DISCARD, F_FLUSH, F_RO, F_WRITE_ZEROES, REQUEST, RequestHeader, RequestType, SECTOR, SEGMENT_SECTORS, SEGMENTS,
    Segment,
    status::{IOERR, OK, UNSUPP},
};
use chiton_shared::virtio::feature;
use chiton_shared::virtio::ring::{Buffer, QueueConfig};
use proptest::prelude::*;

use super::super::testing::{BUFFERS, END, Memory, Rig, WORLD, config, queue_config};
use super::super::{DeviceError, Limits, Rate, Transport};
use super::fake::{DISCARDED, FakeDisk, NAME};
use super::{BYTES_PER_CALL, Block, FLUSH_COST, QUEUE_SIZE};

fn header(kind: u32, sector: u64) -> [u8; RequestHeader::SIZE] {
    RequestHeader {
        kind,
        reserved: 0,
        sector,
    }
    .to_bytes()
}

const IN: u32 = RequestType::Read as u32;
const OUT: u32 = RequestType::Write as u32;
const FLUSH: u32 = RequestType::Flush as u32;
const GET_ID: u32 = RequestType::GetId as u32;

/// A request made the usual way: header, data, status, a descriptor each. Answers the status,
/// the used length, and what is in the data buffer then.
fn request(rig: &mut Rig<'_>, kind: u32, sector: u64, data: Data<'_>) -> (u8, u32, Vec<u8>) {
    let head = rig.readable(&header(kind, sector));
    let data = match data {
        Data::Out(bytes) => rig.readable(bytes),
        Data::In(len) => rig.writable(len),
    };
    let status = rig.writable(1);
    rig.memory.write(status.address, &[0xee]);
    rig.queues[REQUEST].add(&[head, data, status]).unwrap();
    rig.process_all();
    assert_eq!(rig.transport.broken(), None);
    let written = rig.take(REQUEST).expect("an answer");
    (rig.bytes(status)[0], written, rig.bytes(data))
}

enum Data<'a> {
    /// For the device to read.
    Out(&'a [u8]),
    /// For the device to write: so many bytes.
    In(usize),
}

#[test]
fn sectors_are_read_and_written_where_they_belong() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(4));
    let mut rig = Rig::new(&memory, Block::new(disk.clone()));
    assert_eq!(request(&mut rig, IN, 3, Data::In(512)), (OK, 513, vec![4; 512]));
    assert_eq!(request(&mut rig, OUT, 1, Data::Out(&[9; 1024])).0, OK);
    assert_eq!(disk.state().bytes[512..1536], [9; 1024]);
    let whole = request(&mut rig, IN, 0, Data::In(2048));
    assert_eq!((whole.0, whole.1, &whole.2), (OK, 2049, &disk.state().bytes));
    assert_eq!(rig.transport.failures(), 0);
}

#[test]
fn each_request_is_answered_with_its_status_and_the_length_written() {
    let cases: [(&str, u32, u64, Data<'_>, u8, u32); 19] = [
        ("the last sector", IN, 3, Data::In(512), OK, 513),
        ("nothing, at the end", IN, 4, Data::In(0), OK, 1),
        ("one sector too many", IN, 3, Data::In(1024), IOERR, 0),
        ("behind the end", IN, 4, Data::In(512), IOERR, 0),
        (
            "a sector whose byte address wraps",
            IN,
            1 << 55,
            Data::In(512),
            IOERR,
            0,
        ),
        ("the last sector there could be", IN, u64::MAX, Data::In(512), IOERR, 0),
        ("half a sector", IN, 0, Data::In(256), IOERR, 0),
        ("write of a sector and a byte", OUT, 0, Data::Out(&[0; 513]), IOERR, 1),
        ("write behind the end", OUT, 4, Data::Out(&[0; 512]), IOERR, 1),
        ("write of nothing", OUT, 0, Data::Out(&[]), OK, 1),
        ("flush", FLUSH, 0, Data::In(0), OK, 1),
        ("name", GET_ID, 0, Data::In(20), OK, 21),
        ("name, with more room than it needs", GET_ID, 0, Data::In(100), OK, 20),
        ("name, with too little room", GET_ID, 0, Data::In(6), OK, 7),
        ("discard of nothing", 11, 0, Data::Out(&[0; 16]), OK, 1),
        ("secure erase", 14, 0, Data::Out(&[0; 16]), UNSUPP, 1),
        ("lifetime", 10, 0, Data::In(6), UNSUPP, 0),
        ("no such request", u32::MAX, 0, Data::In(0), UNSUPP, 1),
        ("a request for zones", 16, 0, Data::In(64), UNSUPP, 0),
    ];
    for (name, kind, sector, data, status, written) in cases {
        let (memory, disk) = (Memory::new(), FakeDisk::new(4));
        let before = disk.state().bytes.clone();
        let mut rig = Rig::new(&memory, Block::new(disk.clone()));
        let answer = request(&mut rig, kind, sector, data);
        assert_eq!((answer.0, answer.1), (status, written), "{name}");
        assert_eq!(rig.transport.failures(), u64::from(status != OK), "{name}");
        assert_eq!(disk.state().bytes, before, "{name}");
        if kind == GET_ID {
            let len = answer.2.len().min(NAME.len());
            assert_eq!(answer.2[..len], NAME[..len], "{name}");
        }
    }
}

#[test]
fn a_disk_that_fails_is_an_error_of_that_request_alone() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(4));
    let mut rig = Rig::new(&memory, Block::new(disk.clone()));
    disk.state().fails = true;
    assert_eq!(request(&mut rig, IN, 0, Data::In(512)).0, IOERR);
    assert_eq!(request(&mut rig, OUT, 0, Data::Out(&[7; 512])).0, IOERR);
    assert_eq!(request(&mut rig, FLUSH, 0, Data::In(0)).0, IOERR);
    assert_eq!(rig.transport.failures(), 3);
    disk.state().fails = false;
    assert_eq!(request(&mut rig, IN, 0, Data::In(512)), (OK, 513, vec![1; 512]));
}

#[test]
fn a_read_only_disk_says_so_and_keeps_its_bytes() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(1));
    disk.state().read_only = true;
    let mut rig = Rig::new(&memory, Block::new(disk.clone()));
    assert_ne!(rig.entry.features & F_RO, 0);
    assert_eq!(request(&mut rig, OUT, 0, Data::Out(&[7; 512])).0, IOERR);
    let state = disk.state();
    assert_eq!((state.writes, state.bytes[0]), (0, 1));
}

#[test]
fn a_driver_that_cannot_flush_gets_every_write_made_durable() {
    for (features, flushes) in [(feature::RING | F_FLUSH, 0), (feature::RING, 1)] {
        let (memory, disk) = (Memory::new(), FakeDisk::new(1));
        let mut rig = Rig::new(&memory, Block::new(disk.clone()));
        let queue = rig
            .transport
            .preset(0, features, &[queue_config(&rig.table[REQUEST])], &mut Vec::new());
        assert!(queue.is_ok());
        assert_eq!(request(&mut rig, OUT, 0, Data::Out(&[7; 512])).0, OK);
        assert_eq!(disk.state().flushes, flushes);
    }
}

#[test]
fn data_outside_memory_fail_the_request_and_not_the_device() {
    for data in [
        Buffer::writable(END - 256, 512),
        Buffer::writable(u64::MAX - 255, 512),
        Buffer::writable(WORLD, 512),
    ] {
        let (memory, disk) = (Memory::new(), FakeDisk::new(1));
        let mut rig = Rig::new(&memory, Block::new(disk.clone()));
        let chain = [rig.readable(&header(IN, 0)), data, rig.writable(1)];
        let _ = rig.submit(REQUEST, &chain);
        assert_eq!(
            (rig.take(REQUEST), rig.bytes(chain[2])),
            (Some(0), vec![IOERR]),
            "{data:x?}"
        );
        assert_eq!(memory.read(WORLD, 512), [0; 512]);
    }
}

#[test]
fn a_header_that_is_cut_short_or_nowhere_fails_the_request() {
    for head in [
        Buffer::readable(BUFFERS, 15),
        Buffer::readable(END, 16),
        Buffer::readable(0, 0),
    ] {
        let (memory, disk) = (Memory::new(), FakeDisk::new(1));
        let mut rig = Rig::new(&memory, Block::new(disk));
        let _ = rig.place(64);
        let chain = [head, rig.writable(1)];
        let _ = rig.submit(REQUEST, &chain);
        assert_eq!(
            (rig.take(REQUEST), rig.bytes(chain[1])),
            (Some(1), vec![IOERR]),
            "{head:x?}"
        );
    }
}

#[test]
fn a_request_without_a_place_for_its_status_needs_a_reset_and_does_nothing() {
    let cases = [
        (None, DeviceError::NoRoom { head: 0 }),
        (Some(Buffer::writable(BUFFERS, 0)), DeviceError::NoRoom { head: 0 }),
        (
            Some(Buffer::writable(END, 1)),
            DeviceError::Buffer { address: END, len: 1 },
        ),
        (
            Some(Buffer::writable(WORLD, 1)),
            DeviceError::Buffer { address: WORLD, len: 1 },
        ),
        (
            Some(Buffer::writable(u64::MAX, 2)),
            DeviceError::Buffer {
                address: u64::MAX,
                len: 2,
            },
        ),
    ];
    for (status, error) in cases {
        let (memory, disk) = (Memory::new(), FakeDisk::new(1));
        let mut rig = Rig::new(&memory, Block::new(disk.clone()));
        let mut chain = vec![rig.readable(&header(OUT, 0)), rig.readable(&[7; 512])];
        chain.extend(status);
        assert!(rig.submit(REQUEST, &chain).notify);
        assert_eq!(rig.transport.broken().map(|b| b.error), Some(error));
        assert_eq!(disk.state().writes, 0);
    }
}

#[test]
fn a_full_queue_is_served_in_one_call_with_one_disk_access_a_request() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(4));
    let mut rig = Rig::new(&memory, Block::new(disk.clone()));
    let (head, data) = (rig.readable(&header(IN, 1)), rig.writable(512));
    let requests = if cfg!(miri) { 16 } else { QUEUE_SIZE };
    let table = rig.place(16 * 3 * usize::from(requests));
    for i in 0..requests {
        let status = rig.writable(1);
        let at = table + u64::from(i) * 48;
        let window = chiton_shared::memory::GuestMemory::window(&memory, at, 48).unwrap();
        rig.queues[REQUEST]
            .add_indirect(window, at, &[head, data, status])
            .unwrap();
    }
    assert!(rig.process().notify);
    assert_eq!(disk.state().reads, usize::from(requests));
    for _ in 0..requests {
        assert_eq!(rig.take(REQUEST), Some(513));
    }
}

#[test]
#[cfg_attr(miri, ignore = "moves megabytes")]
fn a_large_request_is_done_in_pieces_so_that_others_get_their_turn() {
    let len = 0x4_0000;
    let times = 2 * BYTES_PER_CALL as u64 / len + 1;
    let (memory, disk) = (Memory::up_to(END + len), FakeDisk::new((times * len / SECTOR) as usize));
    let mut rig = Rig::new(&memory, Block::new(disk.clone()));
    let head = rig.readable(&header(IN, 0));
    let status = rig.writable(1);
    let mut chain = vec![head];
    chain.extend((0..times).map(|_| Buffer::writable(END, len as u32)));
    chain.push(status);
    assert!(rig.submit(REQUEST, &chain).more);
    assert!(rig.process().more);
    rig.process_all();
    assert_eq!(rig.take(REQUEST), Some((times * len) as u32 + 1));
    let end = disk.state().bytes.len() - len as usize;
    assert_eq!(
        memory.read(END, len as usize),
        disk.state().bytes[end..],
        "the last piece came last"
    );
}

#[test]
fn flushes_give_others_their_turn() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(1));
    let mut rig = Rig::new(&memory, Block::new(disk.clone()));
    let per_call = BYTES_PER_CALL / FLUSH_COST;
    for _ in 0..per_call + 1 {
        let chain = [rig.readable(&header(FLUSH, 0)), rig.writable(1)];
        rig.queues[REQUEST].add(&chain).unwrap();
    }
    assert!(rig.process().more);
    assert_eq!(disk.state().flushes, per_call);
    rig.process_all();
    assert_eq!(disk.state().flushes, per_call + 1);
}

#[test]
fn a_call_that_does_all_there_is_asks_for_no_other_one() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(1));
    let mut rig = Rig::new(&memory, Block::new(disk.clone()));
    let per_call = BYTES_PER_CALL / FLUSH_COST;
    for _ in 0..per_call {
        let chain = [rig.readable(&header(FLUSH, 0)), rig.writable(1)];
        rig.queues[REQUEST].add(&chain).unwrap();
    }
    assert!(!rig.process().more);
    assert_eq!(disk.state().flushes, per_call);
}

#[test]
fn a_call_moves_no_more_than_it_is_told_to() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(4));
    let mut rig = Rig::new(&memory, Block::new(disk.clone()).moving(SECTOR as usize));
    for sector in 0..3 {
        let chain = [rig.readable(&header(IN, sector)), rig.writable(512), rig.writable(1)];
        rig.queues[REQUEST].add(&chain).unwrap();
    }
    for reads in 1..=3 {
        let outcome = rig.process();
        assert_eq!((outcome.more, disk.state().reads), (reads < 3, reads));
        assert_eq!(rig.take(REQUEST), Some(513));
    }
}

#[test]
fn a_reset_drops_what_was_begun() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(1));
    let mut transport = Transport::new(std::boxed::Box::new(Block::new(disk)));
    let (queue, _) = QueueConfig::packed_at(chiton_shared::map::QUEUES, QUEUE_SIZE);
    for _ in 0..2 {
        transport.preset(0, feature::RING, &[queue], &mut Vec::new()).unwrap();
        assert_eq!(transport.process(&memory), Default::default());
    }
}

const DISCARD: u32 = RequestType::Discard as u32;
const ZEROES: u32 = RequestType::WriteZeroes as u32;

/// Segments as `(sector, count, flags)`, in bytes.
fn segments(list: &[(u64, u32, u32)]) -> Vec<u8> {
    let bytes = |&(sector, count, flags)| Segment { sector, count, flags }.to_bytes();
    list.iter().flat_map(bytes).collect()
}

#[test]
fn sectors_are_discarded_and_filled_with_zeros() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(8));
    let mut rig = Rig::new(&memory, Block::new(disk.clone()));
    assert_eq!(
        rig.entry.features & (F_DISCARD | F_WRITE_ZEROES),
        F_DISCARD | F_WRITE_ZEROES
    );
    let erase = segments(&[(1, 1, 0), (5, 0, 0), (4, 2, 0)]);
    assert_eq!(request(&mut rig, DISCARD, 0, Data::Out(&erase)).0, OK);
    let zero = segments(&[(0, 1, 0), (7, 1, Segment::UNMAP)]);
    assert_eq!(request(&mut rig, ZEROES, 0, Data::Out(&zero)).0, OK);
    let state = disk.state();
    let first: Vec<u8> = state.bytes.chunks(512).map(|sector| sector[0]).collect();
    assert_eq!(first, [0, DISCARDED, 3, 4, DISCARDED, DISCARDED, 7, 0]);
    assert_eq!((state.unmaps, state.flushes), (1, 0));
}

#[test]
fn one_wrong_segment_fails_the_request_and_nothing_is_done() {
    let too_many = vec![(0, 1, 0); SEGMENTS + 1];
    let cases: [(&str, u32, Vec<u8>, u8); 9] = [
        ("no segment", DISCARD, vec![], IOERR),
        ("half a segment", DISCARD, segments(&[(0, 1, 0)])[..8].to_vec(), IOERR),
        ("too many", ZEROES, segments(&too_many), IOERR),
        ("behind the end", ZEROES, segments(&[(0, 1, 0), (7, 2, 0)]), IOERR),
        (
            "a sector that wraps",
            DISCARD,
            segments(&[(0, 1, 0), (u64::MAX, 1, 0)]),
            IOERR,
        ),
        ("too long", DISCARD, segments(&[(0, SEGMENT_SECTORS + 1, 0)]), IOERR),
        ("discard with unmap", DISCARD, segments(&[(0, 1, 1)]), UNSUPP),
        (
            "an unknown flag",
            ZEROES,
            segments(&[(0, 1, 0), (0, 1, 1 << 31)]),
            UNSUPP,
        ),
        ("both", ZEROES, segments(&[(0, 1, 3)]), UNSUPP),
    ];
    for (name, kind, data, status) in cases {
        let (memory, disk) = (Memory::new(), FakeDisk::new(8));
        let mut rig = Rig::new(&memory, Block::new(disk.clone()));
        assert_eq!(request(&mut rig, kind, 0, Data::Out(&data)).0, status, "{name}");
        assert_eq!(disk.state().writes, 0, "{name}");
    }
}

#[test]
fn a_read_only_disk_neither_discards_nor_fills() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(8));
    disk.state().read_only = true;
    let mut rig = Rig::new(&memory, Block::new(disk.clone()));
    assert_eq!(rig.entry.features & (F_DISCARD | F_WRITE_ZEROES), 0);
    for kind in [DISCARD, ZEROES] {
        let data = segments(&[(0, 1, 0)]);
        assert_eq!(request(&mut rig, kind, 0, Data::Out(&data)).0, IOERR);
    }
    assert_eq!(disk.state().writes, 0);
}

#[test]
#[cfg_attr(miri, ignore = "fills megabytes")]
fn a_large_fill_is_done_in_pieces_so_that_others_get_their_turn() {
    let sectors = 2 * BYTES_PER_CALL / SECTOR as usize + 1;
    let (memory, disk) = (Memory::new(), FakeDisk::new(sectors));
    let mut rig = Rig::new(&memory, Block::new(disk.clone()));
    let chain = [
        rig.readable(&header(ZEROES, 0)),
        rig.readable(&segments(&[(0, sectors as u32, 0)])),
        rig.writable(1),
    ];
    assert!(rig.submit(REQUEST, &chain).more);
    assert_eq!(disk.state().writes, 1);
    assert_eq!(rig.take(REQUEST), None);
    rig.process_all();
    assert_eq!((rig.take(REQUEST), rig.bytes(chain[2])), (Some(1), vec![OK]));
    assert_eq!(disk.state().bytes.iter().position(|byte| *byte != 0), None);
}

/// The time of the tests about limits, each on a thread of its own.
fn now() -> u64 {
    TIME.get()
}

std::thread_local! {
    static TIME: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
}

#[test]
fn a_limit_of_operations_is_kept_and_the_rest_follows_in_time() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(8));
    let limits = Limits {
        ops: Rate::new(10, 2),
        bytes: None,
    };
    let mut rig = Rig::new(&memory, Block::new(disk.clone()).limited(limits, now));
    for _ in 0..4 {
        let chain = [rig.readable(&header(IN, 1)), rig.writable(512), rig.writable(1)];
        rig.queues[REQUEST].add(&chain).unwrap();
    }
    assert!(!rig.process().more);
    assert_eq!(disk.state().reads, 2);
    assert_eq!(rig.transport.interest().at, Some(100_000_000));
    assert!(!rig.process().more);
    assert_eq!(disk.state().reads, 2);
    TIME.set(100_000_000);
    rig.process_all();
    assert_eq!(disk.state().reads, 3);
    TIME.set(10_000_000_000);
    rig.process_all();
    assert_eq!((disk.state().reads, rig.transport.interest().at), (4, None));
}

#[test]
fn a_limit_of_bytes_cuts_a_request_that_is_larger_than_the_burst() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(8));
    let limits = Limits {
        ops: None,
        bytes: Rate::new(10_240, 1024),
    };
    let mut rig = Rig::new(&memory, Block::new(disk.clone()).limited(limits, now));
    let chain = [rig.readable(&header(IN, 0)), rig.writable(2560), rig.writable(1)];
    assert!(!rig.submit(REQUEST, &chain).more);
    for (read, at) in [(1, 100_000_000), (2, 150_000_000)] {
        assert_eq!((disk.state().reads, rig.transport.interest().at), (read, Some(at)));
        assert_eq!(rig.take(REQUEST), None);
        TIME.set(at);
        rig.process_all();
    }
    assert_eq!((rig.take(REQUEST), rig.bytes(chain[2])), (Some(2561), vec![OK]));
    assert_eq!(rig.bytes(chain[1]), disk.state().bytes[..2560]);

    let zeros = [
        rig.readable(&header(ZEROES, 0)),
        rig.readable(&segments(&[(0, 0, 0), (0, 3, 0)])),
        rig.writable(1),
    ];
    TIME.set(1_000_000_000);
    assert!(!rig.submit(REQUEST, &zeros).more);
    assert_eq!(rig.take(REQUEST), None);
    TIME.set(2_000_000_000);
    rig.process_all();
    assert_eq!((rig.take(REQUEST), rig.bytes(zeros[2])), (Some(1), vec![OK]));
    assert_eq!(disk.state().bytes[..1537], [[0; 1536].as_slice(), &[4]].concat());
}

/// Cuts `len` bytes into pieces at `cuts`.
fn pieces(len: usize, cuts: &[usize]) -> Vec<usize> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (len + 1)).chain([0, len]).collect();
    at.sort_unstable();
    at.windows(2).map(|w| w[1] - w[0]).collect()
}

proptest! {
    #![proptest_config(config())]

    /// Requests of any kind, place and length, cut into descriptors anywhere, do to the disk and
    /// to memory what a model in three lines does.
    #[test]
    fn any_framing_means_the_same(
        requests in prop::collection::vec(
            (any::<bool>(), 0_u64..9, 0_usize..5, prop::collection::vec(any::<usize>(), 0..6), any::<u8>()),
            1..if cfg!(miri) { 3 } else { 6 },
        ),
    ) {
        let (memory, disk) = (Memory::new(), FakeDisk::new(8));
        let mut rig = Rig::new(&memory, Block::new(disk.clone()));
        let mut model = disk.state().bytes.clone();
        for (write, sector, sectors, cuts, fill) in requests {
            let len = sectors * 512;
            let range = sector as usize * 512..sector as usize * 512 + len;
            let fits = range.end <= model.len();
            let mut out = header(if write { OUT } else { IN }, sector).to_vec();
            if write {
                out.extend((0..len).map(|i| fill.wrapping_add(i as u8)));
            }
            let room = if write { 1 } else { len + 1 };
            let (readable, writable) = (rig.readable(&out), rig.writable(room));
            let mut chain = Vec::new();
            for (whole, cuts) in [(readable, &cuts), (writable, &cuts)] {
                let mut address = whole.address;
                for len in pieces(whole.len as usize, cuts) {
                    chain.push(Buffer { address, len: len as u32, write: whole.write });
                    address += len as u64;
                }
            }
            rig.queues[REQUEST].add(&chain).unwrap();
            rig.process_all();
            let written = rig.take(REQUEST);
            let answer = rig.bytes(writable);
            if !fits {
                prop_assert_eq!((written, answer[room - 1]), (Some(u32::from(room == 1)), IOERR));
            } else if write {
                model[range].copy_from_slice(&out[16..]);
                prop_assert_eq!((written, answer), (Some(1), vec![OK]));
            } else {
                prop_assert_eq!(written, Some(room as u32));
                prop_assert_eq!(&answer[..len], &model[range]);
                prop_assert_eq!(answer[len], OK);
            }
            prop_assert_eq!(&disk.state().bytes, &model);
        }
    }
}

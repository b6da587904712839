use core::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

use chiton_shared::virtio::net::{
    F_CSUM, F_CTRL_VQ, F_HOST_TSO4, F_HOST_TSO6, F_HOST_USO, F_MQ, F_MRG_RXBUF, Header, RECEIVE, TRANSMIT, control,
    flags, gso,
};
use chiton_shared::virtio::ring::Buffer;
use proptest::prelude::*;

use super::super::testing::{BUFFERS, END, Memory, Rig, WORLD, config};
use super::super::{Device, DeviceError, Interest, Limits, Rate, preset_all};
use super::fake::FakeLink;
use super::{FRAMES_PER_CALL, Link, MAX_FRAME, Net};

const IDLE: Interest = Interest {
    readable: false,
    writable: false,
    under_way: false,
    at: None,
};
const READABLE: Interest = Interest {
    readable: true,
    writable: false,
    under_way: false,
    at: None,
};

/// A driver with everything offered but segmentation, so that little room is enough.
fn rig<'m>(memory: &'m Memory, link: &FakeLink) -> Rig<'m> {
    Rig::with_features(memory, Net::new(link.clone()), !super::LARGE_RECEIVE)
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7) as u8).collect()
}

fn send(rig: &mut Rig<'_>, header: Header, frame: &[u8]) {
    let chain = [rig.readable(&header.to_bytes()), rig.readable(frame)];
    let _ = rig.submit(TRANSMIT, &chain);
    assert_eq!(rig.take(TRANSMIT), Some(0));
}

#[test]
fn what_a_sent_frame_brings_is_received_by_the_same_call() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    link.state().echo = true;
    let mut rig = rig(&memory, &link);
    let room = rig.writable(2000);
    let chain = [rig.readable(&[0; Header::SIZE]), rig.readable(&frame(60))];
    rig.queues[RECEIVE].add(&[room]).expect("room in the queue");
    rig.queues[TRANSMIT].add(&chain).expect("room in the queue");
    let _ = rig.process();
    assert_eq!(rig.take(RECEIVE), Some(Header::SIZE as u32 + 60));
}

#[test]
fn a_frame_goes_out_however_it_is_cut() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    let bytes = [&[0; Header::SIZE][..], &frame(60)].concat();
    for cut in [1, 11, 12, 13, 71] {
        let chain = [
            rig.readable(&bytes[..cut]),
            rig.readable(b""),
            rig.readable(&bytes[cut..]),
        ];
        let _ = rig.submit(TRANSMIT, &chain);
        assert_eq!(rig.take(TRANSMIT), Some(0));
        assert_eq!(link.state().output.pop(), Some((Header::default(), frame(60))), "{cut}");
    }
}

#[test]
fn the_link_gets_a_header_that_was_checked() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    let given = Header {
        flags: 0xFF,
        gso_type: gso::TCPV4,
        hdr_len: 5000,
        gso_size: 1460,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 99,
    };
    send(&mut rig, given, &frame(4000));
    let expected = Header {
        flags: flags::NEEDS_CSUM,
        hdr_len: 4000,
        num_buffers: 0,
        ..given
    };
    assert_eq!(link.state().output.pop(), Some((expected, frame(4000))));
    let without_checksum = Header {
        flags: !flags::NEEDS_CSUM,
        gso_type: gso::NONE,
        csum_start: u16::MAX,
        csum_offset: u16::MAX,
        ..given
    };
    send(&mut rig, without_checksum, &frame(60));
    assert_eq!(link.state().output, [(Header::default(), frame(60))]);
}

#[test]
fn frames_that_make_no_sense_are_counted_and_not_sent() {
    let checksum = Header {
        flags: flags::NEEDS_CSUM,
        ..Header::default()
    };
    let segmented = |gso_type| Header {
        gso_type,
        gso_size: 1000,
        ..checksum
    };
    let cases = [
        ("nothing", Header::default(), 0),
        ("less than Ethernet", Header::default(), 13),
        ("more than the MTU", Header::default(), 1519),
        (
            "a checksum beyond the end",
            Header {
                csum_start: 50,
                csum_offset: 9,
                ..checksum
            },
            60,
        ),
        (
            "a checksum far beyond",
            Header {
                csum_start: u16::MAX,
                csum_offset: u16::MAX,
                ..checksum
            },
            60,
        ),
        ("an unknown type", segmented(3), 60),
        ("ECN, which is not offered", segmented(gso::TCPV4 | gso::ECN), 60),
        (
            "segments without a checksum",
            Header {
                flags: 0,
                ..segmented(gso::TCPV4)
            },
            60,
        ),
        (
            "segments of nothing",
            Header {
                gso_size: 0,
                ..segmented(gso::TCPV4)
            },
            60,
        ),
    ];
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    for (count, (name, header, len)) in cases.into_iter().enumerate() {
        send(&mut rig, header, &frame(len));
        assert_eq!(link.state().output, [], "{name}");
        assert_eq!(rig.transport.failures(), count as u64 + 1, "{name}");
    }
    let _ = rig.submit(TRANSMIT, &[Buffer::readable(BUFFERS, 5)]);
    let _ = rig.submit(TRANSMIT, &[Buffer::writable(BUFFERS, 100)]);
    assert_eq!((rig.take(TRANSMIT), rig.take(TRANSMIT)), (Some(0), Some(0)));
    assert_eq!(
        rig.transport.failures(),
        cases.len() as u64 + 2,
        "a header cut short, and none"
    );
}

#[test]
fn offloads_that_were_not_negotiated_are_refused() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = Rig::with_features(&memory, Net::new(link.clone()), !F_CSUM);
    assert_eq!(
        link.state().offloads & (F_HOST_TSO4 | F_HOST_USO),
        0,
        "they build on checksums"
    );
    let header = Header {
        flags: flags::NEEDS_CSUM,
        gso_type: gso::TCPV4,
        gso_size: 1000,
        ..Header::default()
    };
    send(&mut rig, header, &frame(60));
    send(
        &mut rig,
        Header {
            gso_type: gso::NONE,
            ..header
        },
        &frame(60),
    );
    assert_eq!((link.state().output.len(), rig.transport.failures()), (0, 2));
}

#[test]
fn each_kind_of_segmentation_counts_only_if_it_was_negotiated() {
    let kinds = [
        (F_HOST_TSO4, gso::TCPV4),
        (F_HOST_TSO6, gso::TCPV6),
        (F_HOST_USO, gso::UDP_L4),
    ];
    for (feature, _) in kinds {
        let (memory, link) = (Memory::new(), FakeLink::default());
        let without = !(feature | super::LARGE_RECEIVE);
        let mut rig = Rig::with_features(&memory, Net::new(link.clone()), without);
        for (_, gso_type) in kinds {
            let header = Header {
                flags: flags::NEEDS_CSUM,
                gso_type,
                gso_size: 1000,
                ..Header::default()
            };
            send(&mut rig, header, &frame(60));
        }
        assert_eq!((link.state().output.len(), rig.transport.failures()), (2, 1));
        assert_eq!(link.state().offloads & !without, 0, "the link is told of them, too");
    }
}

#[test]
#[cfg_attr(miri, ignore = "moves 64 KiB several times")]
fn a_frame_of_the_greatest_length_takes_as_many_buffers_as_it_needs() {
    let memory = Memory::up_to(END + 0x20000);
    let link = FakeLink::default();
    let mut rig = Rig::new(&memory, Net::new(link.clone()));
    link.state().input().push_back(frame(MAX_FRAME));
    let at = |i: u64| BUFFERS + i * 4096;
    for i in 0..17 {
        let outcome = rig.submit(RECEIVE, &[Buffer::writable(at(i), 4096)]);
        if i < 16 {
            assert!(!outcome.notify && link.state().receives == 0, "no room, no read");
        }
    }
    let mut got = Vec::new();
    for i in 0..17 {
        let written = rig.take(RECEIVE).expect("a buffer") as usize;
        got.extend(memory.read(at(i), written));
    }
    assert_eq!(rig.take(RECEIVE), None);
    let (header, bytes) = got.split_at(Header::SIZE);
    assert_eq!(Header::from_bytes(header.try_into().unwrap()).num_buffers, 17);
    assert!(bytes == frame(MAX_FRAME));
}

#[test]
fn a_frame_that_does_not_fit_is_lost_and_the_next_one_is_not() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = Rig::with_features(&memory, Net::new(link.clone()), !F_MRG_RXBUF);
    link.state().input().extend([frame(100), frame(88)]);
    let buffer = rig.writable(100);
    let _ = rig.submit(RECEIVE, &[buffer]);
    assert_eq!((rig.take(RECEIVE), rig.transport.failures()), (Some(100), 1));
    assert_eq!(rig.bytes(buffer)[..3], [2, 0, 0]);
    assert_eq!(rig.bytes(buffer)[10..12], [1, 0], "one buffer");
    assert_eq!(rig.bytes(buffer)[12..], frame(88));
}

#[test]
fn the_host_watches_the_link_only_while_there_is_room() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    assert_eq!(rig.transport.interest(), IDLE);
    let small = rig.writable(1000);
    let _ = rig.submit(RECEIVE, &[small]);
    assert_eq!(rig.transport.interest(), IDLE, "a frame may be longer than that");
    let rest = rig.writable(1000);
    let _ = rig.submit(RECEIVE, &[rest]);
    assert_eq!((rig.transport.interest(), link.state().receives), (READABLE, 1));
    link.state().input().push_back(frame(60));
    assert!(rig.process().notify);
    assert_eq!((rig.take(RECEIVE), rig.transport.interest()), (Some(72), IDLE));
}

#[test]
fn a_link_that_is_gone_is_down_and_the_guest_goes_on() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    let buffer = rig.writable(2000);
    let _ = rig.submit(RECEIVE, &[buffer]);
    assert_eq!((status(&rig), rig.transport.interest()), (1, READABLE));
    link.state().gone = true;
    let outcome = rig.process();
    assert!(outcome.notify, "the driver hears of it");
    rig.process_all();
    assert_eq!((status(&rig), rig.transport.interest()), (0, IDLE));
    let mut interrupt = [0; 4];
    rig.transport.read(0x60, &mut interrupt);
    assert_eq!(interrupt[0] & 2, 2, "a change of the configuration");
    for _ in 0..3 {
        send(&mut rig, Header::default(), &frame(60));
    }
    assert!(rig.transport.broken().is_none() && link.state().receives == 2);
}

#[test]
fn a_frame_that_the_host_does_not_take_is_lost() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    link.state().blocked = true;
    send(&mut rig, Header::default(), &frame(60));
    assert_eq!(rig.transport.failures(), 1);
}

// Many frames, each by the way of the tests above.
#[test]
#[cfg_attr(miri, ignore)]
fn a_flood_gives_others_their_turn() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    let whole = Buffer::readable(BUFFERS, 72);
    for _ in 0..=FRAMES_PER_CALL {
        rig.queues[TRANSMIT].add(&[whole]).unwrap();
    }
    assert!(rig.process().more);
    assert_eq!(link.state().output.len(), usize::from(FRAMES_PER_CALL));
    rig.process_all();
    assert_eq!(link.state().output.len(), usize::from(FRAMES_PER_CALL) + 1);
}

#[test]
fn a_stopped_queue_forgets_its_room() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    let buffer = rig.writable(2000);
    let _ = rig.submit(RECEIVE, &[buffer]);
    let _ = rig.transport.write(0x30, &[0; 4]);
    let _ = rig.transport.write(0x44, &[0; 4]);
    link.state().input().push_back(frame(60));
    let _ = rig.process();
    assert_eq!((rig.transport.interest(), link.state().receives), (IDLE, 1));
    assert_eq!(rig.bytes(buffer), [0; 2000]);
}

#[test]
fn a_chain_that_cannot_be_served_needs_a_reset() {
    let cases = [
        ("no room", RECEIVE, Buffer::readable(BUFFERS, 2000)),
        ("no room for the header", RECEIVE, Buffer::writable(BUFFERS, 11)),
        ("input beyond memory", RECEIVE, Buffer::writable(END - 4, 2000)),
        ("input into the host's world", RECEIVE, Buffer::writable(WORLD, 2000)),
        ("output from nowhere", TRANSMIT, Buffer::readable(u64::MAX - 3, 100)),
    ];
    for (name, queue, buffer) in cases {
        let (memory, link) = (Memory::new(), FakeLink::default());
        let mut rig = rig(&memory, &link);
        link.state().input().push_back(frame(60));
        let _ = rig.submit(queue, &[buffer]);
        let broken = rig.transport.broken().expect(name);
        assert!(
            matches!(broken.error, DeviceError::NoRoom { .. } | DeviceError::Buffer { .. }),
            "{name}: {broken}"
        );
        assert_eq!(rig.transport.interest(), IDLE, "{name}");
    }
}

#[test]
fn the_configuration_has_address_status_and_mtu() {
    let link = FakeLink::default();
    let mut transports = [super::super::Transport::new(std::boxed::Box::new(Net::new(link)))];
    let entry = preset_all(&mut transports).expect("one device fits").devices[0];
    assert_eq!(entry.config[..12], [2, 0, 0, 0, 0, 7, 1, 0, 1, 0, 0xDC, 5]);
}

fn status(rig: &Rig<'_>) -> u16 {
    let mut bytes = [0; 2];
    rig.transport.read(0x106, &mut bytes);
    u16::from_le_bytes(bytes)
}

#[test]
fn a_link_that_goes_down_and_comes_up_again_is_told() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    let buffer = rig.writable(2000);
    let _ = rig.submit(RECEIVE, &[buffer]);
    assert!(!rig.transport.look_at_backend().notify, "nothing has changed");
    for (down, expected) in [(true, 0), (false, 1), (true, 0), (false, 1)] {
        link.state().down = down;
        assert_eq!(status(&rig), 1 - expected, "nobody has looked");
        assert!(rig.transport.look_at_backend().notify);
        assert_eq!(status(&rig), expected);
        assert!(!rig.transport.look_at_backend().notify);
    }
    // It is as good as before.
    link.state().input().push_back(frame(60));
    rig.process_all();
    assert_eq!(rig.take(RECEIVE), Some(72));
}

#[test]
fn a_link_that_is_down_at_the_start_says_so_and_one_that_is_gone_never_comes_up() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    link.state().down = true;
    let mut rig = rig(&memory, &link);
    assert_eq!(status(&rig), 0);
    link.state().down = false;
    assert!(rig.transport.look_at_backend().notify);
    link.state().gone = true;
    assert!(rig.transport.look_at_backend().notify);
    link.state().gone = false;
    assert!(!rig.transport.look_at_backend().notify);
    assert_eq!(status(&rig), 0);
}

static CLOCK: AtomicU64 = AtomicU64::new(0);

/// The limits of these tests, whose clock stands still until they move it.
fn limited(link: &FakeLink, ops: Option<Rate>, bytes: Option<Rate>) -> Net<FakeLink> {
    Net::new(link.clone()).limited(Limits { ops, bytes }, || CLOCK.load(Ordering::Relaxed))
}

#[test]
fn a_limited_device_lets_a_burst_through_and_names_the_time_for_the_rest() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let device = limited(&link, Rate::new(10, 2), None);
    let mut rig = Rig::with_features(&memory, device, !super::LARGE_RECEIVE);
    let now = CLOCK.load(Ordering::Relaxed);
    let whole = Buffer::readable(BUFFERS, 72);
    for _ in 0..3 {
        rig.queues[TRANSMIT].add(&[whole]).unwrap();
        link.state().input().push_back(frame(60));
        let buffer = rig.writable(2000);
        rig.queues[RECEIVE].add(&[buffer]).unwrap();
    }
    rig.process_all();
    assert_eq!(link.moved_and_left(), (2, 1));
    let expected = Interest {
        at: Some(now + 100_000_000),
        ..IDLE
    };
    assert_eq!(rig.transport.interest(), expected, "each direction has its own");
    // No limits any more: what waited goes on.
    assert!(rig.transport.set_limits(Limits::default()));
    rig.process_all();
    assert_eq!(link.moved_and_left(), (3, 0));
    assert_eq!(rig.transport.interest(), IDLE);
}

#[test]
fn bytes_are_limited_by_what_frames_were_and_not_by_what_they_could_be() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    // The burst is the longest frame at least.
    let device = limited(&link, None, Rate::new(1000, 1));
    let mut rig = Rig::with_features(&memory, device, !super::LARGE_RECEIVE);
    let now = CLOCK.load(Ordering::Relaxed);
    let whole = Buffer::readable(BUFFERS, 72);
    for _ in 0..2 {
        rig.queues[TRANSMIT].add(&[whole]).unwrap();
    }
    rig.process_all();
    assert_eq!(link.state().output.len(), 1);
    assert_eq!(rig.transport.interest().at, Some(now + 60_000_000), "60 bytes");
    let _ = rig.transport.write(0x30, &[1, 0, 0, 0]);
    let _ = rig.transport.write(0x44, &[0; 4]);
    assert_eq!(
        rig.transport.interest(),
        IDLE,
        "a queue that is stopped waits for nothing"
    );
}

/// Behind the queues of several pairs.
const FAR: u64 = BUFFERS + 0x10000;

/// A driver of a device with two pairs: receiveq1, transmitq1, receiveq2, transmitq2, controlq.
fn several<'m>(memory: &'m Memory, link: &FakeLink, without: u64) -> Rig<'m> {
    Rig::with_features(memory, Net::new(link.clone()), !(super::LARGE_RECEIVE | without))
}

/// Sends a command, and returns the answer, if there is one.
fn command(rig: &mut Rig<'_>, queue: usize, command: &[u8]) -> Option<u8> {
    rig.memory.write(FAR, command);
    rig.memory.write(FAR + 100, &[0xEE]);
    let _ = rig.submit(
        queue,
        &[
            Buffer::readable(FAR, command.len() as u32),
            Buffer::writable(FAR + 100, 1),
        ],
    );
    rig.take(queue).map(|written| {
        assert_eq!(written, 1);
        rig.memory.read(FAR + 100, 1)[0]
    })
}

#[test]
fn the_driver_says_how_many_pairs_it_uses() {
    let memory = Memory::up_to(END + 0x20000);
    let link = FakeLink::several();
    let mut rig = several(&memory, &link, 0);
    assert_eq!((rig.queues.len(), rig.entry.config[8]), (5, 2));
    let buffer = |i: u64| Buffer::writable(FAR + 0x1000 + i * 2048, 2000);
    for (queue, i) in [(0, 0), (2, 1)] {
        let _ = rig.submit(queue, &[buffer(i)]);
    }
    assert_eq!(link.state().watched, [true, false], "one pair is in use");
    for queue in [1, 3] {
        let _ = rig.submit(queue, &[Buffer::readable(FAR + 0x3000, 72)]);
    }
    assert_eq!(
        (&link.state().output_pairs[..], rig.transport.failures()),
        (&[0][..], 1)
    );

    assert_eq!(command(&mut rig, 4, &control::set_pairs(2)), Some(control::OK));
    rig.process_all();
    assert_eq!(link.state().watched, [true, true], "no kick is needed");
    assert_eq!(link.state().in_use, 2);
    for pair in [0, 1] {
        link.state().inputs[pair].push_back(frame(60 + pair));
    }
    let _ = rig.submit(3, &[Buffer::readable(FAR + 0x3000, 72)]);
    assert_eq!((rig.take(0), rig.take(2)), (Some(72), Some(73)));
    assert_eq!(link.state().output_pairs, [0, 1]);

    assert_eq!(command(&mut rig, 4, &control::set_pairs(1)), Some(control::OK));
    let _ = rig.submit(2, &[buffer(1)]);
    assert_eq!(
        link.state().watched,
        [false, false],
        "no room for the one, no use for the other"
    );
    let _ = rig.transport.write(0x70, &[0; 4]);
    assert_eq!(link.state().in_use, 1);
}

#[test]
fn a_pair_that_waits_for_its_limit_is_not_forgotten_when_another_goes_on() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let memory = Memory::up_to(END + 0x20000);
    let link = FakeLink::several();
    let limits = Limits {
        ops: Rate::new(10, 1),
        bytes: None,
    };
    let device = Net::new(link.clone()).limited(limits, || NOW.load(Ordering::Relaxed));
    let mut rig = Rig::with_features(&memory, device, !super::LARGE_RECEIVE);
    assert_eq!(command(&mut rig, 4, &control::set_pairs(2)), Some(control::OK));
    // The first pair sends, and has no token for its second frame; the second comes when there is one.
    let whole = Buffer::readable(FAR + 0x3000, 72);
    for _ in 0..2 {
        rig.queues[1].add(&[whole]).unwrap();
    }
    let _ = rig.transport.process_queue(1, &memory);
    assert_eq!(rig.transport.interest().at, Some(100_000_000));
    NOW.store(100_000_000, Ordering::Relaxed);
    let _ = rig.transport.process_queue(3, &memory);
    assert_eq!(rig.transport.interest().at, Some(100_000_000), "the first still waits");
    rig.process_all();
    assert_eq!(link.state().output_pairs, [0, 0]);
    assert_eq!(rig.transport.interest().at, Some(200_000_000));
}

#[test]
fn commands_that_make_no_sense_are_refused_and_change_nothing() {
    let memory = Memory::up_to(END + 0x20000);
    let link = FakeLink::several();
    let mut rig = several(&memory, &link, 0);
    assert_eq!(command(&mut rig, 4, &control::set_pairs(2)), Some(control::OK));
    let long = [&control::set_pairs(1)[..], &[0; 60]].concat();
    let cases: [&[u8]; 8] = [
        &control::set_pairs(0),
        &control::set_pairs(3),
        &control::set_pairs(u16::MAX),
        &[control::MQ, control::MQ_VQ_PAIRS_SET, 1],
        &[control::MQ],
        &[control::MQ, 9, 1, 0],
        &[0, 0, 1],
        &long,
    ];
    for (count, bytes) in cases.into_iter().enumerate() {
        assert_eq!(command(&mut rig, 4, bytes), Some(control::ERR), "{bytes:?}");
        assert_eq!((link.state().in_use, rig.transport.failures()), (2, count as u64 + 1));
    }
    // Nothing to read, and nowhere to answer.
    let _ = rig.submit(4, &[Buffer::writable(FAR, 100)]);
    assert_eq!((rig.take(4), rig.memory.read(FAR, 1)), (Some(1), vec![control::ERR]));
    let _ = rig.submit(4, &[Buffer::readable(FAR, 4)]);
    assert!(matches!(
        rig.transport.broken().map(|broken| broken.error),
        Some(DeviceError::NoRoom { .. })
    ));
}

#[test]
fn the_control_queue_is_where_the_features_put_it() {
    let memory = Memory::up_to(END + 0x20000);
    let link = FakeLink::several();
    // Without several queues it is the third, and has nothing to command.
    let mut rig = several(&memory, &link, F_MQ);
    assert_eq!(command(&mut rig, 2, &control::set_pairs(1)), Some(control::ERR));
    assert_eq!(command(&mut rig, 4, &control::set_pairs(1)), None);
    let mut rig = several(&memory, &link, F_MQ | F_CTRL_VQ);
    assert_eq!(command(&mut rig, 4, &control::set_pairs(2)), None);
    assert_eq!(FakeLink::default().pairs(), 1);
    assert_eq!(Net::new(FakeLink::default()).features() & (F_MQ | F_CTRL_VQ), 0);
}

proptest! {
    #![proptest_config(config())]

    /// Whatever rooms the guest gives, each frame arrives whole, in order, in the buffers that its
    /// header counts, or is lost whole.
    #[test]
    fn frames_arrive_whole(
        rooms in prop::collection::vec(12_usize..700, 1..40),
        lengths in prop::collection::vec(14_usize..1514, 1..12),
    ) {
        let (memory, link) = (Memory::new(), FakeLink::default());
        let mut rig = rig(&memory, &link);
        let buffers: Vec<_> = rooms.iter().map(|room| rig.writable(*room)).collect();
        link.state().input().extend(lengths.iter().map(|len| frame(*len)));
        for buffer in &buffers {
            let _ = rig.submit(RECEIVE, &[*buffer]);
        }
        rig.process_all();
        let mut used = 0;
        let mut frames = lengths.iter();
        while let Some(written) = rig.take(RECEIVE) {
            let mut bytes = rig.bytes(buffers[used])[..written as usize].to_vec();
            let count = Header::from_bytes(bytes[..Header::SIZE].try_into().unwrap()).num_buffers;
            used += 1;
            for _ in 1..count {
                let written = rig.take(RECEIVE).expect("the rest of the frame");
                bytes.extend(&rig.bytes(buffers[used])[..written as usize]);
                used += 1;
            }
            let len = frames.next().copied().unwrap_or_default();
            prop_assert_eq!(&bytes[Header::SIZE..], frame(len));
        }
    }
}

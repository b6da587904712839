use std::vec::Vec;

use chiton_shared::virtio::console::{RECEIVE, TRANSMIT};
use chiton_shared::virtio::ring::Buffer;
use proptest::prelude::*;

use super::super::testing::{BUFFERS, END, Memory, Rig, WORLD, config};
use super::super::{DeviceError, Interest};
use super::fake::FakePort;
use super::{BYTES_PER_CALL, Console, QUEUE_SIZE};

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
const WRITABLE: Interest = Interest {
    readable: false,
    writable: true,
    under_way: false,
    at: None,
};

fn rig<'m>(memory: &'m Memory, port: &FakePort) -> Rig<'m> {
    Rig::new(memory, Console::new(port.clone()))
}

#[test]
fn a_chain_of_any_framing_is_one_write() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    port.state().takes.push_back(100);
    let chain = [
        rig.readable(b"he"),
        rig.readable(b""),
        rig.readable(b"llo"),
        rig.readable(b" world"),
    ];
    assert!(rig.submit(TRANSMIT, &chain).notify);
    assert_eq!(port.state().output, b"hello world");
    assert_eq!(port.state().writes, 1);
    assert_eq!(rig.take(TRANSMIT), Some(0));
}

#[test]
fn output_that_does_not_fit_waits_in_the_guests_own_buffer() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    port.state().takes.extend([3, 2]);
    let chain = [rig.readable(b"abcd"), rig.readable(b"efgh")];
    let outcome = rig.submit(TRANSMIT, &chain);
    assert!(!outcome.more && !outcome.notify);
    assert_eq!(port.state().output, b"abcde");
    assert_eq!((rig.take(TRANSMIT), rig.transport.interest()), (None, WRITABLE));

    // Asked again before there is room, it tries once and goes on waiting.
    let writes = port.state().writes;
    assert!(!rig.process().more);
    assert_eq!(port.state().writes, writes + 1);

    port.state().takes.push_back(100);
    assert!(rig.process().notify);
    assert_eq!(port.state().output, b"abcdefgh");
    assert_eq!((rig.take(TRANSMIT), rig.transport.interest()), (Some(0), IDLE));
}

#[test]
fn output_to_nobody_is_thrown_away_and_the_guest_goes_on() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    port.state().output_closed = true;
    for _ in 0..3 {
        let chain = [rig.readable(b"lost")];
        let _ = rig.submit(TRANSMIT, &chain);
        assert_eq!((rig.take(TRANSMIT), rig.transport.interest()), (Some(0), IDLE));
    }
    assert_eq!(port.state().writes, 1, "a closed port is not asked again");
}

#[test]
fn an_empty_chain_comes_back_without_a_write() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    let _ = rig.submit(TRANSMIT, &[Buffer::readable(BUFFERS, 0)]);
    assert_eq!((rig.take(TRANSMIT), port.state().writes), (Some(0), 0));
}

#[test]
#[cfg_attr(miri, ignore = "moves megabytes")]
fn a_flood_gives_others_their_turn() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    port.state().takes.extend([usize::MAX; 100]);
    // One chain that names the same memory again and again: more than a call may move.
    let all = Buffer::readable(BUFFERS, (END - BUFFERS) as u32);
    let chain = [all; QUEUE_SIZE as usize];
    let total = chain.len() * all.len as usize;
    assert!(total > BYTES_PER_CALL);
    assert!(rig.submit(TRANSMIT, &chain).more);
    assert_eq!(port.state().output.len(), BYTES_PER_CALL);
    rig.process_all();
    assert_eq!((port.state().output.len(), rig.take(TRANSMIT)), (total, Some(0)));
}

#[test]
fn input_fills_the_buffers_in_order_and_no_further() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    port.state().input.extend(b"0123456789");
    let (a, b, c) = (rig.writable(3), rig.writable(2), rig.writable(100));
    rig.queues[RECEIVE].add(&[a, b]).unwrap();
    rig.queues[RECEIVE].add(&[c]).unwrap();
    assert!(rig.process().notify);
    assert_eq!((rig.take(RECEIVE), rig.take(RECEIVE)), (Some(5), Some(5)));
    assert_eq!([rig.bytes(a), rig.bytes(b)].concat(), b"01234");
    assert_eq!(rig.bytes(c)[..6], *b"56789\0");
}

#[test]
fn the_host_watches_input_only_while_the_guest_has_room() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    assert!(!rig.process().more);
    assert_eq!(rig.transport.interest(), IDLE);
    port.state().input.extend(b"early");
    assert_eq!(rig.process(), Default::default());
    assert_eq!(port.state().reads, 0, "no room, no read");

    let (a, b) = (rig.writable(16), rig.writable(16));
    rig.queues[RECEIVE].add(&[a]).unwrap();
    let _ = rig.submit(RECEIVE, &[b]);
    assert_eq!(rig.take(RECEIVE), Some(5));
    assert_eq!(
        (rig.transport.interest(), port.state().reads),
        (READABLE, 1),
        "a short read says that no more is there"
    );

    port.state().input.extend(b"later");
    let _ = rig.process();
    assert_eq!((rig.take(RECEIVE), rig.transport.interest()), (Some(5), IDLE));
}

#[test]
fn the_end_of_input_is_one_empty_buffer() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    port.state().input.extend(b"last");
    port.state().input_ended = true;
    for _ in 0..3 {
        let buffer = rig.writable(16);
        rig.queues[RECEIVE].add(&[buffer]).unwrap();
    }
    rig.process_all();
    assert_eq!(rig.take(RECEIVE), Some(4));
    rig.process_all();
    assert_eq!((rig.take(RECEIVE), rig.take(RECEIVE)), (Some(0), None));
    assert_eq!(rig.transport.interest(), IDLE, "an ended input is not watched");
}

#[test]
fn a_stopped_queue_forgets_the_chain_it_held() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    let (output, input) = ([rig.readable(b"held")], [rig.writable(8)]);
    let _ = rig.submit(TRANSMIT, &output);
    let _ = rig.submit(RECEIVE, &input);
    assert_eq!(
        rig.transport.interest(),
        Interest {
            readable: true,
            writable: true,
            under_way: false,
            at: None,
        }
    );
    for queue in [RECEIVE, TRANSMIT] {
        let _ = rig.transport.write(0x30, &(queue as u32).to_le_bytes());
        let _ = rig.transport.write(0x44, &0u32.to_le_bytes());
    }
    assert_eq!(rig.transport.interest(), IDLE);
    port.state().takes.push_back(100);
    port.state().input.extend(b"input");
    assert_eq!(rig.process(), Default::default());
    let state = port.state();
    assert_eq!((state.output.len(), state.reads), (0, 1));
}

#[test]
fn a_chain_that_cannot_be_served_needs_a_reset() {
    let cases: [(&str, usize, Buffer); 5] = [
        ("no room for input", RECEIVE, Buffer::readable(BUFFERS, 8)),
        ("empty room for input", RECEIVE, Buffer::writable(BUFFERS, 0)),
        ("input beyond memory", RECEIVE, Buffer::writable(END - 4, 8)),
        ("input into the host's world", RECEIVE, Buffer::writable(WORLD, 8)),
        (
            "output from beyond the address space",
            TRANSMIT,
            Buffer::readable(u64::MAX - 3, 8),
        ),
    ];
    for (name, queue, buffer) in cases {
        let (memory, port) = (Memory::new(), FakePort::default());
        let mut rig = rig(&memory, &port);
        port.state().input.extend(b"input");
        port.state().takes.push_back(100);
        assert!(rig.submit(queue, &[buffer]).notify, "{name}");
        let broken = rig.transport.broken().expect(name);
        assert_eq!(broken.queue, queue, "{name}");
        assert!(
            matches!(broken.error, DeviceError::NoRoom { .. } | DeviceError::Buffer { .. }),
            "{name}: {broken}"
        );
        assert_eq!(rig.transport.interest(), IDLE, "{name}");
    }
}

#[test]
fn arguments_can_be_printed_from_where_the_host_put_them() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    memory.write(WORLD, b"hello\0");
    port.state().takes.push_back(100);
    let _ = rig.submit(TRANSMIT, &[Buffer::readable(WORLD, 5)]);
    assert_eq!(port.state().output, b"hello");
}

#[test]
fn a_byte_in_the_emergency_register_is_output_in_any_state() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    let _ = rig.transport.write(0x108, &[b'a', 0, 0, 0]);
    let _ = rig.transport.write(0x70, &[0; 4]);
    let _ = rig.transport.write(0x108, b"b");
    let _ = rig.transport.write(0x104, b"c");
    assert_eq!(port.state().emergency, b"ab");
}

#[test]
fn a_driver_sees_the_size_change() {
    let (memory, port) = (Memory::new(), FakePort::default());
    let mut rig = rig(&memory, &port);
    let size = |rig: &Rig<'_>| {
        let mut bytes = [0; 4];
        rig.transport.read(0x100, &mut bytes);
        bytes
    };
    assert_eq!(size(&rig), [0; 4]);
    port.state().size = (80, 25);
    assert_eq!(size(&rig), [0; 4], "nothing changes before ConfigGeneration does");
    assert!(rig.transport.config_changed().notify);
    assert_eq!(size(&rig), [80, 0, 25, 0]);
}

proptest! {
    #![proptest_config(config())]

    /// However the guest cuts its output into chains and buffers, and however little the host
    /// takes at a time, every byte comes out once and in order.
    #[test]
    fn output_is_a_stream(
        chains in prop::collection::vec(prop::collection::vec(0_usize..40, 1..5), 1..12),
        takes in prop::collection::vec(1_usize..70, 1..40),
    ) {
        let (memory, port) = (Memory::new(), FakePort::default());
        let mut rig = rig(&memory, &port);
        let mut sent = Vec::new();
        for lengths in &chains {
            let mut chain = Vec::new();
            for len in lengths {
                let bytes: Vec<u8> = (0..*len).map(|i| (sent.len() + i) as u8).collect();
                chain.push(rig.readable(&bytes));
                sent.extend(bytes);
            }
            rig.queues[TRANSMIT].add(&chain).unwrap();
        }
        rig.process_all();
        for take in takes.into_iter().chain([usize::MAX; 12]) {
            port.state().takes.push_back(take);
            rig.process_all();
        }
        prop_assert_eq!(&port.state().output, &sent);
        for _ in &chains {
            prop_assert_eq!(rig.take(TRANSMIT), Some(0));
        }
        prop_assert_eq!(rig.transport.interest(), IDLE);
    }

    /// Input arrives as a stream, whatever rooms the guest gives and whenever bytes come.
    #[test]
    fn input_is_a_stream(
        rooms in prop::collection::vec(1_usize..40, 1..40),
        bursts in prop::collection::vec(1_usize..60, 1..10),
    ) {
        let (memory, port) = (Memory::new(), FakePort::default());
        let mut rig = rig(&memory, &port);
        let mut buffers = Vec::new();
        for room in &rooms {
            let buffer = rig.writable(*room);
            rig.queues[RECEIVE].add(&[buffer]).unwrap();
            buffers.push(buffer);
        }
        let mut sent = Vec::new();
        for burst in bursts {
            let bytes: Vec<u8> = (0..burst).map(|i| (sent.len() + i) as u8).collect();
            port.state().input.extend(&bytes);
            sent.extend(bytes);
            rig.process_all();
        }
        let mut got = Vec::new();
        let mut used = 0;
        while let Some(written) = rig.take(RECEIVE) {
            prop_assert!(written > 0);
            got.extend(&rig.bytes(buffers[used])[..written as usize]);
            used += 1;
        }
        let rest: Vec<u8> = port.state().input.iter().copied().collect();
        prop_assert_eq!([got, rest].concat(), sent);
        let waits = used < buffers.len();
        prop_assert_eq!(rig.transport.interest().readable, waits);
    }
}

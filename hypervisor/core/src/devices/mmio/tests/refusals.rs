//! What a device does not let a driver do.

use chiton_shared::map::QUEUES;

use super::super::super::DeviceError;
use super::super::super::testing::{BUFFERS, END, Memory, WORLD};
use super::super::{Effect, Ignored, Transport};
use super::driver::*;
use super::registers::{block, entropy};

/// Register writes, and the register that shows whether the last of them took effect.
struct Refusal {
    name: &'static str,
    writes: &'static [(u64, u32)],
    shows: u64,
    value: u32,
}

const fn refusal(name: &'static str, writes: &'static [(u64, u32)], shows: u64, value: u32) -> Refusal {
    Refusal {
        name,
        writes,
        shows,
        value,
    }
}

/// From reset on, with a block device.
const STATUS_AND_FEATURES: &[Refusal] = &[
    refusal("a driver before it was acknowledged", &[(STATUS, 2)], STATUS, 0),
    refusal("features before a driver", &[(STATUS, 1), (STATUS, 1 | 8)], STATUS, 1),
    refusal(
        "ready before features",
        &[(STATUS, 1), (STATUS, 3), (STATUS, 3 | 4)],
        STATUS,
        3,
    ),
    refusal("a bit taken back", &[(STATUS, 1), (STATUS, 3), (STATUS, 2)], STATUS, 3),
    refusal("FAILED taken back", &[(STATUS, 128), (STATUS, 1)], STATUS, 128),
    refusal(
        "no features at all",
        &[(STATUS, 1), (STATUS, 3), (STATUS, 11)],
        STATUS,
        3,
    ),
    refusal(
        "VERSION_1 in the wrong half",
        &[
            (STATUS, 3),
            (DRIVER_FEATURES_SEL, 0),
            (DRIVER_FEATURES, 1),
            (STATUS, 11),
        ],
        STATUS,
        3,
    ),
    refusal(
        "a feature that is not offered",
        &[
            (STATUS, 3),
            (DRIVER_FEATURES_SEL, 1),
            (DRIVER_FEATURES, 1),
            (DRIVER_FEATURES_SEL, 0),
            (DRIVER_FEATURES, 1 << 5),
            (STATUS, 11),
        ],
        STATUS,
        3,
    ),
    refusal(
        "a feature beyond bit 63",
        &[
            (STATUS, 3),
            (DRIVER_FEATURES_SEL, 1),
            (DRIVER_FEATURES, 1),
            (DRIVER_FEATURES_SEL, 2),
            (DRIVER_FEATURES, 1),
            (STATUS, 11),
        ],
        STATUS,
        3,
    ),
    refusal("all at once without VERSION_1", &[(STATUS, 15)], STATUS, 3),
    refusal(
        "a write to a register that is read",
        &[(MAGIC_VALUE, 5)],
        MAGIC_VALUE,
        0x7472_6976,
    ),
    refusal("a write between registers", &[(0x018, 5)], 0x018, 0),
    refusal(
        "a queue reset, which is not negotiated",
        &[(QUEUE_RESET, 1)],
        QUEUE_RESET,
        0,
    ),
    refusal(
        "a queue that is not there",
        &[(QUEUE_SEL, 1), (QUEUE_READY, 1)],
        QUEUE_READY,
        0,
    ),
    refusal(
        "a size for a queue that is not there",
        &[(QUEUE_SEL, 1), (QUEUE_SIZE, 8)],
        QUEUE_SIZE_MAX,
        0,
    ),
    refusal(
        "a queue before FEATURES_OK",
        &[
            (QUEUE_SIZE, 8),
            (QUEUE_DESC, QUEUES as u32),
            (QUEUE_DRIVER, QUEUES as u32 + 0x200),
            (QUEUE_DEVICE, QUEUES as u32 + 0x400),
            (QUEUE_READY, 1),
        ],
        QUEUE_READY,
        0,
    ),
];

/// From FEATURES_OK on.
const QUEUE_SET_UP: &[Refusal] = &[
    refusal("a queue of no size", &[(QUEUE_READY, 1)], QUEUE_READY, 0),
    refusal(
        "a size that is no power of two",
        &[(QUEUE_SIZE, 12), (QUEUE_READY, 1)],
        QUEUE_READY,
        0,
    ),
    refusal(
        "a size beyond the maximum",
        &[(QUEUE_SIZE, 256), (QUEUE_READY, 1)],
        QUEUE_READY,
        0,
    ),
    refusal(
        "a size beyond 16 bits",
        &[(QUEUE_SIZE, 0x1_0008), (QUEUE_READY, 1)],
        QUEUE_READY,
        0,
    ),
    refusal(
        "a descriptor table that is not aligned",
        &[
            (QUEUE_SIZE, 8),
            (QUEUE_DESC, QUEUES as u32 + 8),
            (QUEUE_DEVICE, QUEUES as u32),
            (QUEUE_READY, 1),
        ],
        QUEUE_READY,
        0,
    ),
    refusal(
        "an available ring that is not aligned",
        &[
            (QUEUE_SIZE, 8),
            (QUEUE_DRIVER, 1),
            (QUEUE_DEVICE, QUEUES as u32),
            (QUEUE_READY, 1),
        ],
        QUEUE_READY,
        0,
    ),
    refusal(
        "a used ring that is not aligned",
        &[(QUEUE_SIZE, 8), (QUEUE_DEVICE, QUEUES as u32 + 2), (QUEUE_READY, 1)],
        QUEUE_READY,
        0,
    ),
    refusal(
        "a used ring in the host's world",
        &[(QUEUE_SIZE, 8), (QUEUE_DEVICE, WORLD as u32), (QUEUE_READY, 1)],
        QUEUE_READY,
        0,
    ),
    refusal("features after FEATURES_OK", &[(DRIVER_FEATURES, 0)], STATUS, 11),
];

fn check(refusals: &[Refusal], start: impl Fn() -> Transport) {
    for Refusal {
        name,
        writes,
        shows,
        value,
    } in refusals
    {
        let mut transport = start();
        let mut last = Effect::None;
        for (offset, value) in *writes {
            last = write(&mut transport, *offset, *value);
        }
        assert!(matches!(last, Effect::Ignored(_)), "{name}: {last:?}");
        assert_eq!(read(&transport, *shows), *value, "{name}");
        assert!(!transport.is_live(), "{name}");
    }
}

#[test]
fn before_the_features_are_settled() {
    check(STATUS_AND_FEATURES, || block(1).0);
}

#[test]
fn while_queues_are_set_up() {
    check(QUEUE_SET_UP, || {
        let mut transport = block(1).0;
        assert!(negotiate(&mut transport, VERSION_1).is_some());
        transport
    });
}

/// An entropy device at work, with a queue of 8 at the start of the queues' memory.
fn at_work(memory: &Memory) -> (Transport, Ring<'_>) {
    let mut transport = entropy();
    let features = negotiate(&mut transport, !RING_PACKED).expect("features are accepted");
    let ring = Ring::new(memory, QUEUES, 8, features);
    set_up_queue(&mut transport, 0, 8, ring.parts());
    driver_ok(&mut transport);
    (transport, ring)
}

#[test]
fn a_queue_in_use_stays_where_it_is() {
    let memory = Memory::new();
    let (mut transport, mut ring) = at_work(&memory);
    for offset in [
        QUEUE_SIZE,
        QUEUE_DESC,
        QUEUE_DESC + 4,
        QUEUE_DRIVER,
        QUEUE_DRIVER + 4,
        QUEUE_DEVICE,
        QUEUE_DEVICE + 4,
    ] {
        assert_eq!(
            write(&mut transport, offset, 4),
            Effect::Ignored(Ignored::QueueInUse(0))
        );
    }
    ring.describe(ring.table, 0, &[(BUFFERS, 4, WRITE, 0)]);
    ring.offer(0);
    let _ = kick(&mut transport, &memory, 0);
    assert_eq!(ring.used(), [(0, 4)]);
}

#[test]
fn a_kick_that_comes_too_early_or_names_no_queue_does_nothing() {
    let memory = Memory::new();
    let mut transport = entropy();
    let mut ring = Ring::new(&memory, QUEUES, 8, VERSION_1);
    ring.describe(ring.table, 0, &[(BUFFERS, 4, WRITE, 0)]);
    ring.offer(0);
    let refused = |transport: &mut Transport, queue| {
        let effect = write(transport, QUEUE_NOTIFY, queue);
        assert!(matches!(effect, Effect::Ignored(_)), "queue {queue}: {effect:?}");
        assert_eq!(transport.process(&memory), Default::default());
    };
    refused(&mut transport, 0);
    assert!(negotiate(&mut transport, VERSION_1).is_some());
    refused(&mut transport, 0);
    set_up_queue(&mut transport, 0, 8, ring.parts());
    refused(&mut transport, 0);
    assert_eq!(ring.used(), [], "no buffer is used before DRIVER_OK");

    driver_ok(&mut transport);
    for queue in [1, 0x1_0000, u32::MAX] {
        let effect = write(&mut transport, QUEUE_NOTIFY, queue);
        assert_eq!(effect, Effect::Ignored(Ignored::NoQueue(queue)));
    }
    assert!(kick(&mut transport, &memory, 0).notify);
    assert_eq!(ring.used(), [(0, 4)], "what was offered early is still there");

    set(&mut transport, QUEUE_READY, 0);
    ring.offer(0);
    assert_eq!(
        write(&mut transport, QUEUE_NOTIFY, 0),
        Effect::Ignored(Ignored::NotAtWork(0))
    );
    assert_eq!((transport.process(&memory), ring.used()), (Default::default(), vec![]));
}

/// How a driver breaks its ring.
type Break = fn(&mut Ring<'_>);

#[test]
fn a_broken_ring_needs_a_reset_and_gets_one() {
    let breaks: [(&str, Break); 8] = [
        ("an available index far ahead", |ring| {
            ring.memory.write(ring.avail + 2, &9_u16.to_le_bytes())
        }),
        ("a head that is not there", |ring| ring.offer(8)),
        ("a chain that loops", |ring| {
            ring.describe(ring.table, 0, &[(BUFFERS, 1, WRITE | NEXT, 0)]);
            ring.offer(0);
        }),
        ("a successor that is not there", |ring| {
            ring.describe(ring.table, 0, &[(BUFFERS, 1, WRITE | NEXT, 8)]);
            ring.offer(0);
        }),
        ("a readable buffer behind a writable one", |ring| {
            ring.describe(ring.table, 0, &[(BUFFERS, 1, WRITE | NEXT, 1), (BUFFERS, 1, 0, 0)]);
            ring.offer(0);
        }),
        ("an indirect table outside memory", |ring| {
            ring.describe(ring.table, 0, &[(END, 16, INDIRECT, 0)]);
            ring.offer(0);
        }),
        ("an indirect table with a successor", |ring| {
            ring.describe(ring.table, 0, &[(BUFFERS, 16, INDIRECT | NEXT, 1)]);
            ring.offer(0);
        }),
        ("a buffer outside memory", |ring| {
            ring.describe(ring.table, 0, &[(END - 1, 2, WRITE, 0)]);
            ring.offer(0);
        }),
    ];
    for (name, break_it) in breaks {
        let memory = Memory::new();
        let (mut transport, mut ring) = at_work(&memory);
        break_it(&mut ring);
        assert!(kick(&mut transport, &memory, 0).notify, "{name}");
        assert!(transport.broken().is_some(), "{name}");
        assert_eq!(read(&transport, STATUS), 15 | 64, "{name}");
        assert_eq!(read(&transport, INTERRUPT_STATUS) & 2, 2, "{name}");

        // It stays down, whatever the driver does short of a reset.
        assert_eq!(
            write(&mut transport, QUEUE_NOTIFY, 0),
            Effect::Ignored(Ignored::NotAtWork(0)),
            "{name}"
        );
        assert_eq!(transport.process(&memory), Default::default(), "{name}");
        set(&mut transport, STATUS, 15);
        assert_eq!(read(&transport, STATUS), 15 | 64, "{name}");
        assert_eq!(ring.used(), [], "{name}");

        let features = negotiate(&mut transport, !RING_PACKED).expect(name);
        assert_eq!(transport.broken(), None, "{name}");
        let mut ring = Ring::new(&memory, QUEUES, 8, features);
        set_up_queue(&mut transport, 0, 8, ring.parts());
        driver_ok(&mut transport);
        ring.describe(ring.table, 0, &[(BUFFERS, 4, WRITE, 0)]);
        ring.offer(0);
        let _ = kick(&mut transport, &memory, 0);
        assert_eq!(ring.used(), [(0, 4)], "{name}");
    }
}

#[test]
fn a_queue_outside_memory_is_found_out_at_the_first_kick() {
    for parts in [
        [END, QUEUES, QUEUES],
        [QUEUES, 1 << 63, QUEUES],
        [QUEUES, QUEUES, END - 4],
        [!15, QUEUES, QUEUES],
    ] {
        let memory = Memory::new();
        let mut transport = entropy();
        assert!(negotiate(&mut transport, VERSION_1).is_some());
        set_up_queue(&mut transport, 0, 8, parts);
        driver_ok(&mut transport);
        assert!(kick(&mut transport, &memory, 0).notify);
        assert!(
            matches!(transport.broken().map(|b| b.error), Some(DeviceError::Queue(_))),
            "{parts:x?}"
        );
    }
}

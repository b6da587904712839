//! Guests that do anything at all.
//!
//! Miri needs `-Zmiri-disable-weak-memory-emulation` here: a guest may lay 16-bit and 32-bit
//! fields over each other, at which the emulation gives up. There is but one thread.

use std::vec::Vec;

use chiton_shared::map::QUEUES;
use chiton_shared::virtio::ring::Format;
use proptest::prelude::*;

use super::super::super::testing::{BUFFERS, END, Memory, WORLD, config};
use super::super::{Transport, preset_all_in};
use super::driver::*;
use super::kinds::{KINDS, Kind, device};

/// How many things a guest does at most; each takes Miri a good part of a second.
const ACTS: usize = if cfg!(miri) { 8 } else { 60 };

/// How many processors there are.
const PROCESSORS: u32 = 5;

/// What a guest can do to a device.
#[derive(Clone, Debug)]
enum Act {
    Read {
        offset: u64,
        width: usize,
    },
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    Scribble {
        address: u64,
        data: Vec<u8>,
    },
    Describe {
        index: u16,
        descriptor: Descriptor,
    },
    Offer {
        ring: Vec<u16>,
        ahead: u16,
    },
    /// A descriptor of a packed ring, made available in this round or the next.
    Pack {
        slot: u16,
        descriptor: Descriptor,
        round: bool,
    },
    Process,
}

/// Numbers near which mistakes live.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0_u64..16,
        2 => (0_u64..END - QUEUES).prop_map(|offset| QUEUES + offset),
        1 => prop::sample::select(vec![WORLD, WORLD + 4095, QUEUES - 1, END, END - 1, BUFFERS, 0xffff, 0x1_0000]),
        1 => any::<u32>().prop_map(u64::from),
        1 => any::<u64>(),
    ]
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![8 => QUEUES..END, 1 => number()]
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let len = prop_oneof![6 => 0_u32..1100, 1 => any::<u32>()];
    let flags = prop_oneof![6 => 0_u16..8, 1 => any::<u16>()];
    let next = prop_oneof![6 => 0_u16..8, 1 => any::<u16>()];
    (address(), len, flags, next)
}

fn act() -> impl Strategy<Value = Act> {
    let offset = prop_oneof![
        6 => (0_u64..0x48).prop_map(|i| i * 4),
        1 => 0_u64..0x140,
        1 => any::<u64>(),
    ];
    let data = prop_oneof![
        6 => number().prop_map(|n| (n as u32).to_le_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..9),
    ];
    prop_oneof![
        1 => (offset.clone(), 0_usize..9).prop_map(|(offset, width)| Act::Read { offset, width }),
        4 => (offset, data).prop_map(|(offset, data)| Act::Write { offset, data }),
        1 => (QUEUES..END - 16, prop::collection::vec(any::<u8>(), 0..16))
            .prop_map(|(address, data)| Act::Scribble { address, data }),
        4 => (0_u16..8, descriptor()).prop_map(|(index, descriptor)| Act::Describe { index, descriptor }),
        3 => (prop::collection::vec(0_u16..9, 8), 0_u16..10).prop_map(|(ring, ahead)| Act::Offer { ring, ahead }),
        3 => (0_u16..8, descriptor(), any::<bool>())
            .prop_map(|(slot, descriptor, round)| Act::Pack { slot, descriptor, round }),
        3 => Just(Act::Process),
    ]
}

fn transport(kind: Kind) -> Transport {
    let mut transport = device(kind);
    transport.interrupts(PROCESSORS);
    transport
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(&KINDS[..])
}

const STATUS_BITS: u32 = 1 | 2 | 4 | 8 | 64 | 128;

fn run(transport: &mut Transport, memory: &Memory, acts: &[Act]) {
    memory.write(WORLD, &[0x5a; 4096]);
    // The ring that `Describe` and `Offer` are about, wherever the device believes it to be.
    let mut ring = Ring {
        seen: 0,
        ..Ring::new(memory, QUEUES, 8, 0)
    };
    for act in acts {
        match act {
            Act::Read { offset, width } => transport.read(*offset, &mut vec![0; *width]),
            Act::Write { offset, data } => {
                let _ = transport.write(*offset, data);
            }
            Act::Scribble { address, data } => memory.write(*address, data),
            Act::Describe { index, descriptor } => ring.describe(ring.table, *index, &[*descriptor]),
            Act::Offer { ring: heads, ahead } => {
                for head in heads.iter().take(usize::from(*ahead)) {
                    ring.offer(*head);
                }
            }
            Act::Pack {
                slot,
                descriptor: (address, len, flags, id),
                round,
            } => {
                // Sections 2.8.1 and 2.8.13: the buffer ID stands before the flags, of which bit 7 or 15 counts.
                let mark = if *round { 1 << 7 } else { 1 << 15 };
                ring.describe(ring.table, *slot, &[(*address, *len, *id, flags & 0x7f7f | mark)]);
            }
            Act::Process => {
                // A guest whose buffers lie on its own rings may have more for ever; each call
                // comes back all the same.
                for _ in 0..4 {
                    if !transport.process(memory).more {
                        break;
                    }
                }
            }
        }
        let status = read(transport, STATUS);
        assert_eq!(status & !STATUS_BITS, 0);
        assert!((0..3).all(|queue| transport.processor_of(queue) < PROCESSORS));
        assert_eq!(status & 64 != 0, transport.broken().is_some());
        assert!(!transport.is_live() || status & 15 == 15, "live at status {status:#x}");
        let interest = transport.interest();
        assert!(transport.is_live() || !(interest.readable || interest.writable));
    }
    assert_eq!(memory.read(WORLD, 4096), [0x5a; 4096], "the host's world is as it was");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn from_reset_on(kind in kind(), acts in prop::collection::vec(act(), 0..ACTS)) {
        run(&mut transport(kind), &Memory::new(), &acts);
    }

    #[test]
    fn from_features_ok_on(kind in kind(), wanted in any::<u64>(), acts in prop::collection::vec(act(), 0..ACTS)) {
        let mut transport = transport(kind);
        prop_assert!(negotiate(&mut transport, wanted | VERSION_1).is_some());
        run(&mut transport, &Memory::new(), &acts);
    }

    #[test]
    fn from_a_driver_that_began_well(
        kind in kind(),
        wanted in any::<u64>(),
        acts in prop::collection::vec(act(), 0..ACTS),
    ) {
        let (mut transport, memory) = (transport(kind), Memory::new());
        let features = negotiate(&mut transport, wanted | VERSION_1).expect("features are accepted");
        for queue in 0..transport.queue_sizes().len() as u32 {
            set_up_queue(&mut transport, queue, 8, Ring::new(&memory, QUEUES, 8, features).parts());
        }
        driver_ok(&mut transport);
        run(&mut transport, &memory, &acts);
    }

    #[test]
    fn from_the_boot_page_on(kind in kind(), packed in any::<bool>(), acts in prop::collection::vec(act(), 0..ACTS)) {
        let mut transports = [transport(kind)];
        let format = if packed { Format::Packed } else { Format::Split };
        prop_assert!(preset_all_in(format, &mut transports).is_ok());
        run(&mut transports[0], &Memory::new(), &acts);
    }
}

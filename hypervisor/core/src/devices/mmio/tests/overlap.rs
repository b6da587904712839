//! Buffers that lie over each other and over the ring, of no length and of far too much: the parts of a
//! request may all be at one place, and what a device writes may be the queue it reads from.

use std::vec::Vec;

use chiton_shared::map::QUEUES;
use chiton_shared::virtio::ring::{Buffer, Format};
use proptest::prelude::*;

use super::super::super::testing::{BUFFERS, END, Memory, WORLD, attach, config, queue_config};
use super::super::preset_all_in;
use super::driver::{STATUS, read};
use super::kinds::{Kind, device, request};

/// Where a buffer of a chain is: near the request, or on a part of the chain's own queue.
#[derive(Clone, Copy, Debug)]
enum Place {
    Request(u64),
    Part(usize, u64),
    At(u64),
}

/// A chain: the number of its queue, what is in memory at its request, and its buffers, of which so many are to
/// be read.
#[derive(Clone, Debug)]
struct Overlapping {
    queue: usize,
    choice: u8,
    buffers: Vec<(Place, u32)>,
    readable: usize,
}

fn chain() -> impl Strategy<Value = Overlapping> {
    let place = prop_oneof![
        6 => prop::sample::select(vec![0, 0, 1, 8, 16, 44]).prop_map(Place::Request),
        3 => (0_usize..3, 0_u64..80).prop_map(|(part, offset)| Place::Part(part, offset)),
        1 => prop::sample::select(vec![WORLD, END - 8, END, QUEUES, u64::MAX]).prop_map(Place::At),
    ];
    let len = prop::sample::select(vec![
        0,
        0,
        1,
        4,
        12,
        16,
        17,
        44,
        60,
        512,
        513,
        1024,
        1526,
        4096,
        (END - BUFFERS) as u32,
        u32::MAX / 2,
        u32::MAX,
    ]);
    let buffers = prop::collection::vec((place, len), 1..6);
    (0_usize..8, any::<u8>(), buffers, 0_usize..6).prop_map(|(queue, choice, buffers, readable)| Overlapping {
        queue,
        choice,
        buffers,
        readable,
    })
}

fn chains() -> impl Strategy<Value = Vec<Overlapping>> {
    prop::collection::vec(chain(), 1..if cfg!(miri) { 4 } else { 24 })
}

/// Whatever becomes of the requests, each call comes back, the host's world is as it was, and a device that has
/// stopped says so.
fn survives(kind: Kind, format: Format, chains: &[Overlapping]) {
    let memory = Memory::new();
    memory.write(WORLD, &[0x5a; 4096]);
    let mut transports = [device(kind)];
    let preset = preset_all_in(format, &mut transports).expect("one device fits");
    let [mut transport] = transports;
    let configs: Vec<_> = preset.queues.iter().map(queue_config).collect();
    let mut queues: Vec<_> = configs
        .iter()
        .map(|config| attach(&memory, config, preset.devices[0].features))
        .collect();
    for chain in chains {
        let queue = chain.queue % queues.len();
        memory.write(BUFFERS, &request(kind, chain.choice));
        let config = &configs[queue];
        let buffers = chain.buffers.iter().enumerate().map(|(i, (place, len))| {
            let address = match place {
                Place::Request(offset) => BUFFERS + offset,
                Place::Part(part, offset) => [config.descriptors, config.driver, config.device][*part] + offset,
                Place::At(address) => *address,
            };
            if i < chain.readable {
                Buffer::readable(address, *len)
            } else {
                Buffer::writable(address, *len)
            }
        });
        // Its own ring may be broken by now, and a chain may be longer than any may be.
        let _ = queues[queue].add(&buffers.collect::<Vec<_>>());
        for _ in 0..4 {
            if !transport.process(&memory).more {
                break;
            }
        }
        let _ = queues[queue].take();
        let needs_reset = read(&transport, STATUS) & 64 != 0;
        assert_eq!(needs_reset, transport.broken().is_some());
        if needs_reset {
            break;
        }
    }
    assert_eq!(memory.read(WORLD, 4096), [0x5a; 4096], "the host's world is as it was");
}

macro_rules! kinds {
    ($($test:ident: $kind:expr,)*) => {
        proptest! {
            // There are many of them for Miri.
            #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 256 }, ..config() })]
            $(
                #[test]
                fn $test(packed in any::<bool>(), chains in chains()) {
                    survives($kind, if packed { Format::Packed } else { Format::Split }, &chains);
                }
            )*
        }
    };
}

kinds! {
    a_console_survives_any_overlap: Kind::Console,
    ports_survive_any_overlap: Kind::Ports,
    a_disk_survives_any_overlap: Kind::Block,
    entropy_survives_any_overlap: Kind::Entropy,
    a_network_survives_any_overlap: Kind::Net,
    sockets_survive_any_overlap: Kind::Vsock,
    a_balloon_survives_any_overlap: Kind::Balloon,
    a_folder_survives_any_overlap: Kind::Folder,
}

//! Devices that promise to give chains back in the order in which they came (virtio 1.3 section 6).

use std::collections::VecDeque;
use std::vec::Vec;

use chiton_shared::virtio::ring::{Buffer, Format};

use super::super::super::testing::{BUFFERS, Memory, attach, queue_config};
use super::super::preset_all_in;
use super::driver::IN_ORDER;
use super::kinds::{KINDS, Kind, device, request};

/// How many chains each queue gets.
const CHAINS: usize = 60;

#[test]
#[cfg_attr(miri, ignore = "many chains, by the ways of other tests")]
fn chains_come_back_in_the_order_that_is_promised() {
    for (kind, format) in KINDS
        .iter()
        .flat_map(|kind| [(*kind, Format::Split), (*kind, Format::Packed)])
    {
        let memory = Memory::new();
        let mut transports = [device(kind)];
        let promised = transports[0].features() & IN_ORDER != 0;
        assert_eq!(promised, kind != Kind::Block, "{kind:?}");
        if !promised {
            continue;
        }
        let preset = preset_all_in(format, &mut transports).expect("one device fits");
        let [mut transport] = transports;
        let configs: Vec<_> = preset.queues.iter().map(queue_config).collect();
        // The driver goes by no order, and so sees what there is.
        let mut queues: Vec<_> = configs
            .iter()
            .map(|config| {
                (
                    attach(&memory, config, preset.devices[0].features & !IN_ORDER),
                    VecDeque::new(),
                )
            })
            .collect();
        let mut back = 0;
        for _ in 0..CHAINS {
            let bytes = request(kind, 0);
            memory.write(BUFFERS, &bytes);
            for (queue, given) in &mut queues {
                // Of several lengths, and several at a time.
                for len in [1526, 60, 12] {
                    let chain = [
                        Buffer::readable(BUFFERS, bytes.len() as u32),
                        Buffer::writable(BUFFERS + 0x1000, len),
                    ];
                    given.extend(queue.add(&chain).ok());
                }
            }
            while transport.process(&memory).more {}
            for (queue, given) in &mut queues {
                while let Some((id, _)) = queue.take().expect("a device that keeps the rules") {
                    assert_eq!(given.pop_front(), Some(id), "{kind:?} {format:?}");
                    back += 1;
                }
            }
        }
        assert!(back > 1, "{kind:?} {format:?}: {back} chains came back");
    }
}

use chiton_shared::virtio::entropy::REQUEST;
use chiton_shared::virtio::ring::Buffer;

use super::super::DeviceError;
use super::super::testing::{BUFFERS, END, Memory, Rig, WORLD};
use super::fake::Counting;
use super::{BYTES_PER_CHAIN, Entropy};

#[test]
fn every_buffer_of_a_chain_is_filled() {
    let memory = Memory::new();
    let mut rig = Rig::new(&memory, Entropy::new(Counting::default()));
    let (a, b) = (rig.writable(3), rig.writable(2));
    assert!(rig.submit(REQUEST, &[a, b]).notify);
    assert_eq!(rig.take(REQUEST), Some(5));
    assert_eq!([rig.bytes(a), rig.bytes(b)].concat(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_greedy_request_gets_less_than_it_asked_for() {
    let memory = Memory::new();
    let mut rig = Rig::new(&memory, Entropy::new(Counting::default()));
    let _ = rig.submit(REQUEST, &[Buffer::writable(BUFFERS, (END - BUFFERS) as u32)]);
    assert_eq!(rig.take(REQUEST), Some(BYTES_PER_CHAIN as u32));
}

#[test]
fn what_cannot_be_answered_needs_a_reset() {
    let cases = [
        (Buffer::readable(BUFFERS, 8), false, DeviceError::NoRoom { head: 0 }),
        (
            Buffer::writable(END, 8),
            false,
            DeviceError::Buffer { address: END, len: 8 },
        ),
        (
            Buffer::writable(WORLD, 8),
            false,
            DeviceError::Buffer { address: WORLD, len: 8 },
        ),
        (Buffer::writable(BUFFERS, 8), true, DeviceError::NoEntropy),
    ];
    for (buffer, fails, error) in cases {
        let memory = Memory::new();
        let mut rig = Rig::new(
            &memory,
            Entropy::new(Counting {
                fails,
                ..Counting::default()
            }),
        );
        assert!(rig.submit(REQUEST, &[buffer]).notify);
        assert_eq!(rig.transport.broken().map(|b| b.error), Some(error));
        assert_eq!(memory.read(WORLD, 8), [0; 8]);
    }
}

//! A device that goes on elsewhere, from what was written down.

use std::boxed::Box;
use std::vec::Vec;

use chiton_shared::processor;
use chiton_shared::virtio::console::{RECEIVE, TRANSMIT};
use chiton_shared::virtio::feature;
use chiton_shared::virtio::mmio::aim;

use super::super::super::console::Console;
use super::super::super::console::fake::FakePort;
use super::super::super::entropy::Entropy;
use super::super::super::entropy::fake::Counting;
use super::super::super::testing::{Memory, Rig};
use super::super::super::{Device, NotSaved};
use super::super::{Effect, Transport};
use crate::state::{Reader, StateError, Writer};

fn saved(transport: &Transport) -> Vec<u8> {
    let mut state = Writer::new();
    transport.save(&mut state).expect("a device that can be saved");
    state.into_bytes()
}

fn load(device: impl Device + 'static, state: &[u8]) -> Result<Transport, StateError> {
    let mut transport = Transport::new(Box::new(device));
    let mut reader = Reader::new(state);
    transport.load(&mut reader)?;
    reader.end()?;
    Ok(transport)
}

#[test]
fn a_console_goes_on_in_the_middle_of_its_output_and_with_the_room_it_was_given() {
    for features in [u64::MAX, !feature::EVENT_IDX] {
        let (memory, before, after) = (Memory::new(), FakePort::default(), FakePort::default());
        let mut rig = Rig::with_features(&memory, Console::new(before.clone()), features);
        before.state().takes.extend([3, 2]);
        let room = rig.writable(16);
        let _ = rig.submit(RECEIVE, &[room]);
        let output = [rig.readable(b"abcd"), rig.readable(b"efgh")];
        let _ = rig.submit(TRANSMIT, &output);
        assert_eq!(before.state().output, b"abcde");

        let state = saved(&rig.transport);
        rig.transport = load(Console::new(after.clone()), &state).expect("the same kind of device");
        assert_eq!(saved(&rig.transport), state, "it is as it was");
        assert!(rig.transport.is_live());
        after.state().takes.push_back(100);
        after.state().input.extend(b"hi");
        rig.process_all();
        assert_eq!(after.state().output, b"fgh");
        assert_eq!(rig.take(TRANSMIT), Some(0));
        assert_eq!(
            (rig.take(RECEIVE), rig.bytes(room)[..2].to_vec()),
            (Some(2), b"hi".to_vec())
        );
    }
}

#[test]
fn where_interrupts_go_survives_unless_there_can_be_no_such_processor() {
    let fresh = || Transport::new(Box::new(Console::new(FakePort::default())));
    let mut transport = fresh();
    transport.interrupts(processor::MAX);
    let plain = saved(&transport);
    assert_eq!(transport.write(0x0d0, &aim(1, 31).to_le_bytes()), Effect::Aimed);
    let state = saved(&transport);
    let loaded = load(Console::new(FakePort::default()), &state).expect("the same kind of device");
    assert_eq!((loaded.processor_of(0), loaded.processor_of(1)), (0, 31));
    // The byte that differs is the processor.
    let at = (0..state.len())
        .find(|at| state[*at] != plain[*at])
        .expect("it is kept");
    let mut damaged = state.clone();
    damaged[at] = processor::MAX as u8;
    let refused = load(Console::new(FakePort::default()), &damaged)
        .err()
        .expect("no such processor");
    assert!(
        refused.to_string().contains("the processor of an interrupt"),
        "{refused}"
    );
}

#[test]
fn registers_and_the_place_in_a_queue_survive() {
    let memory = Memory::new();
    let mut rig = Rig::new(&memory, Entropy::new(Counting::default()));
    for _ in 0..20 {
        let room = rig.writable(1);
        let _ = rig.submit(0, &[room]);
        assert_eq!(rig.take(0), Some(1));
    }
    let _ = rig.transport.config_changed();
    let state = saved(&rig.transport);
    rig.transport = load(Entropy::new(Counting::default()), &state).expect("the same kind of device");
    assert_eq!(saved(&rig.transport), state);
    let room = rig.writable(2);
    let _ = rig.submit(0, &[room]);
    assert_eq!((rig.take(0), rig.bytes(room)), (Some(2), [1, 2].to_vec()));
}

#[test]
fn every_state_that_is_cut_short_or_of_another_device_is_refused() {
    let memory = Memory::new();
    let rig = Rig::new(&memory, Entropy::new(Counting::default()));
    let state = saved(&rig.transport);
    for len in 0..state.len() {
        assert!(load(Entropy::new(Counting::default()), &state[..len]).is_err(), "{len}");
    }
    assert!(matches!(
        load(Console::new(FakePort::default()), &state),
        Err(StateError::Value {
            what: "the kind of a device",
            ..
        })
    ));
    // A queue in memory that no device may write; features that are not offered.
    for (at, bytes) in [(59, 0x1000_u64), (24, u64::MAX)] {
        let mut bad = state.clone();
        bad[at..at + 8].copy_from_slice(&bytes.to_le_bytes());
        let refused = load(Entropy::new(Counting::default()), &bad).map(drop);
        assert!(matches!(refused, Err(StateError::Value { .. })), "{at}: {refused:?}");
    }
}

#[test]
fn a_device_that_needs_a_reset_is_not_saved() {
    let memory = Memory::new();
    let mut rig = Rig::new(&memory, Entropy::new(Counting::default()));
    let nothing = rig.readable(b"x");
    let _ = rig.submit(0, &[nothing]);
    let refused = rig.transport.save(&mut Writer::new());
    assert!(matches!(refused, Err(NotSaved::Broken(_))), "{refused:?}");
}

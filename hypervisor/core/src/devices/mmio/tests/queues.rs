//! When a device wants to be kicked.

use chiton_shared::map::QUEUES;

use super::super::super::testing::{BUFFERS, Memory};
use super::driver::*;
use super::registers::console;

#[test]
fn a_device_that_waits_for_the_host_wants_no_kicks() {
    for features in [VERSION_1, VERSION_1 | EVENT_IDX] {
        let (mut transport, port) = console();
        let memory = Memory::new();
        let features = negotiate(&mut transport, features).expect("features are accepted");
        let mut ring = Ring::new(&memory, QUEUES, 16, features);
        set_up_queue(&mut transport, 1, 16, ring.parts());
        driver_ok(&mut transport);
        ring.describe(
            ring.table,
            0,
            &[(BUFFERS, 1, 0, 0), (BUFFERS, 1, 0, 0), (BUFFERS, 1, 0, 0)],
        );

        ring.offer(0);
        assert!(ring.wants_kick());
        assert!(!kick(&mut transport, &memory, 1).more);
        assert!(transport.interest().writable);
        ring.offer(1);
        assert!(!ring.wants_kick(), "the port is full: a kick changes nothing");

        port.state().takes.extend([9, 9]);
        let _ = transport.process_queue(1, &memory);
        assert_eq!(ring.used().len(), 2);
        ring.offer(2);
        assert!(ring.wants_kick(), "the port has room, and the queue was empty");
    }
}

#[test]
fn a_queue_that_is_stopped_and_started_again_begins_at_its_start() {
    let (mut transport, port) = console();
    let memory = Memory::new();
    let features = negotiate(&mut transport, VERSION_1).expect("features are accepted");
    let mut ring = Ring::new(&memory, QUEUES, 16, features);
    set_up_queue(&mut transport, 1, 16, ring.parts());
    driver_ok(&mut transport);
    ring.describe(ring.table, 5, &[(BUFFERS, 1, 0, 0)]);
    ring.offer(5);
    let _ = kick(&mut transport, &memory, 1);

    set(&mut transport, QUEUE_READY, 0);
    assert_eq!(read(&transport, QUEUE_READY), 0);
    let mut ring = Ring::new(&memory, QUEUES, 8, features);
    set_up_queue(&mut transport, 1, 8, ring.parts());
    ring.describe(ring.table, 6, &[(BUFFERS, 1, 0, 0)]);
    ring.offer(6);
    port.state().takes.push_back(9);
    let _ = kick(&mut transport, &memory, 1);
    assert_eq!(ring.used(), [(6, 0)], "and knows nothing of the chain it once held");
    assert_eq!(port.state().output.len(), 1);
}

//! Reset of a single queue (sections 2.6.1 and 4.2.2.1).

use chiton_shared::map::QUEUES;

use super::super::super::testing::{BUFFERS, Memory};
use super::super::{Effect, Ignored};
use super::driver::*;
use super::registers::console;

#[test]
fn a_queue_that_is_reset_forgets_all_and_the_other_goes_on() {
    let (mut transport, port) = console();
    let memory = Memory::new();
    let features = negotiate(&mut transport, VERSION_1 | RING_RESET).expect("features are accepted");
    assert_eq!(features & RING_RESET, RING_RESET);
    let mut input = Ring::new(&memory, QUEUES + 0x1000, 8, features);
    let mut output = Ring::new(&memory, QUEUES, 16, features);
    set_up_queue(&mut transport, 0, 8, input.parts());
    set_up_queue(&mut transport, 1, 16, output.parts());
    driver_ok(&mut transport);
    output.describe(output.table, 5, &[(BUFFERS, 1, 0, 0)]);
    output.offer(5);
    let _ = kick(&mut transport, &memory, 1);
    assert!(transport.interest().writable, "the device has the chain");

    set(&mut transport, QUEUE_SEL, 1);
    set(&mut transport, QUEUE_RESET, 0);
    assert_eq!(read(&transport, QUEUE_READY), 1, "0 resets nothing");
    assert_eq!(read(&transport, QUEUE_RESET), 0);
    set(&mut transport, QUEUE_RESET, 1);
    assert_eq!(read(&transport, QUEUE_RESET), 0, "the reset is done");
    assert_eq!(read(&transport, QUEUE_READY), 0);
    assert!(!transport.interest().writable);
    assert!(transport.is_live());

    // Nothing of it is executed, and nobody notified.
    port.state().takes.push_back(9);
    output.offer(5);
    assert_eq!(
        write(&mut transport, QUEUE_NOTIFY, 1),
        Effect::Ignored(Ignored::NotAtWork(1))
    );
    assert_eq!(
        (transport.process(&memory), output.used()),
        (Default::default(), vec![])
    );
    assert_eq!(port.state().output.len(), 0);

    // The other queue knows nothing of that.
    port.state().input.push_back(7);
    input.describe(input.table, 3, &[(BUFFERS + 0x100, 4, WRITE, 0)]);
    input.offer(3);
    assert!(kick(&mut transport, &memory, 0).notify);
    assert_eq!(input.used(), [(3, 1)]);

    // Size and addresses have to be set anew, and may be others.
    set(&mut transport, QUEUE_SEL, 1);
    let effect = write(&mut transport, QUEUE_READY, 1);
    assert!(matches!(
        effect,
        Effect::Ignored(Ignored::QueueNotValid { queue: 1, .. })
    ));
    let mut output = Ring::new(&memory, QUEUES + 0x2000, 4, features);
    set_up_queue(&mut transport, 1, 4, output.parts());
    assert_eq!((read(&transport, QUEUE_RESET), read(&transport, QUEUE_READY)), (0, 1));
    output.describe(output.table, 2, &[(BUFFERS, 1, 0, 0)]);
    output.offer(2);
    let _ = kick(&mut transport, &memory, 1);
    assert_eq!(output.used(), [(2, 0)]);
    assert_eq!(port.state().output.len(), 1);
}

#[test]
fn a_reset_of_a_queue_that_is_not_there_or_not_ready_does_no_harm() {
    let (mut transport, _) = console();
    assert!(negotiate(&mut transport, VERSION_1 | RING_RESET).is_some());
    set(&mut transport, QUEUE_SEL, 2);
    assert_eq!(
        write(&mut transport, QUEUE_RESET, 1),
        Effect::Ignored(Ignored::NoQueue(2))
    );
    assert_eq!(read(&transport, QUEUE_RESET), 0);
    set(&mut transport, QUEUE_SEL, 1);
    set(&mut transport, QUEUE_SIZE, 8);
    set(&mut transport, QUEUE_RESET, 1);
    let effect = write(&mut transport, QUEUE_READY, 1);
    assert!(matches!(
        effect,
        Effect::Ignored(Ignored::QueueNotValid { queue: 1, .. })
    ));
}

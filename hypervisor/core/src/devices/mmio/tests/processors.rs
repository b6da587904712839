//! The processor that gets the interrupt of a queue: Chiton's own register.

use chiton_shared::virtio::mmio::{Register, aim};
use proptest::prelude::*;

use super::super::super::testing::config;
use super::super::{Effect, Ignored, Transport};
use super::driver::*;
use super::registers::console;

const QUEUE_PROCESSOR: u64 = 0x0d0;

fn aimed(transport: &Transport) -> [u32; 2] {
    [0, 1].map(|queue| transport.processor_of(queue))
}

/// A device of a guest with so many processors.
fn with_processors(processors: u32) -> Transport {
    let mut transport = console().0;
    transport.interrupts(processors);
    transport
}

#[test]
fn the_register_is_where_the_book_says_and_reads_as_the_number_of_processors() {
    assert_eq!(Register::QueueProcessor as u64, QUEUE_PROCESSOR);
    assert_eq!(read(&console().0, QUEUE_PROCESSOR), 0, "without interrupts");
    assert_eq!(read(&with_processors(3), QUEUE_PROCESSOR), 3);
}

#[test]
fn each_queue_goes_where_the_driver_sends_it_even_before_it_is_ready() {
    let mut transport = with_processors(4);
    assert_eq!(aimed(&transport), [0, 0]);
    assert_eq!(write(&mut transport, QUEUE_PROCESSOR, 0x3_0001), Effect::Aimed);
    assert_eq!(aimed(&transport), [0, 3]);
    assert_eq!(write(&mut transport, QUEUE_PROCESSOR, aim(0, 2)), Effect::Aimed);
    assert_eq!(write(&mut transport, QUEUE_PROCESSOR, aim(1, 0)), Effect::Aimed);
    assert_eq!(aimed(&transport), [2, 0]);
}

#[test]
fn no_reset_changes_where_interrupts_go() {
    let mut transport = with_processors(2);
    set(&mut transport, QUEUE_PROCESSOR, aim(1, 1));
    assert!(negotiate(&mut transport, VERSION_1).is_some());
    set(&mut transport, STATUS, 0);
    assert_eq!(aimed(&transport), [0, 1]);
    assert_eq!(read(&transport, QUEUE_PROCESSOR), 2);
}

#[test]
fn what_does_not_exist_is_refused_in_words() {
    let said = |processors, value| match write(&mut with_processors(processors), QUEUE_PROCESSOR, value) {
        Effect::Ignored(why) => std::format!("{why}"),
        other => panic!("{value:#x}: {other:?}"),
    };
    assert_eq!(
        said(2, aim(1, 2)),
        "there is no processor 2 for the interrupt of queue 1: the guest has 2"
    );
    assert_eq!(said(2, aim(2, 1)), "there is no queue 2");
    assert_eq!(
        said(0, aim(0, 0)),
        "the guest has no interrupts that could go to a processor: its manifest has to ask for them"
    );
}

#[test]
fn who_waits_for_any_queue_hears_that_a_device_has_stopped_or_was_reset() {
    assert_eq!(console().0.tell_all().queues, 0b11);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_is_written_an_interrupt_goes_to_a_processor_there_is(
        processors in 0_u32..5,
        values in prop::collection::vec(prop_oneof![any::<u32>(), (0_u16..4, 0_u16..6).prop_map(|(q, p)| aim(q, p))], 0..20),
    ) {
        let mut transport = with_processors(processors);
        let mut model = [0; 2];
        for value in values {
            let (queue, processor) = ((value & 0xffff) as usize, value >> 16);
            let effect = write(&mut transport, QUEUE_PROCESSOR, value);
            if queue < 2 && processor < processors {
                model[queue] = processor;
                prop_assert_eq!(effect, Effect::Aimed);
            } else {
                let why = Ignored::NoProcessor {
                    queue: queue as u32,
                    processor,
                    processors,
                };
                let why = match (processors, queue) {
                    (0, _) => Ignored::NoInterrupts,
                    (_, 2..) => Ignored::NoQueue(queue as u32),
                    _ => why,
                };
                prop_assert_eq!(effect, Effect::Ignored(why));
            }
            prop_assert_eq!(aimed(&transport), model);
        }
    }
}

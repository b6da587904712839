use alloc::boxed::Box;
use std::collections::BTreeSet;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

const EOI: u32 = 0x80b;
const TPR: u32 = 0x808;
const ICR: u32 = 0x830;
const DEADLINE: u32 = 0x6e0;

fn alone() -> GuestApic {
    GuestApic::new(0, Arc::new(Bus::new(1, Box::new(|_| ()))))
}

/// Delivers what is pending; which it was.
fn deliver(apic: &mut GuestApic, now: u64) -> Option<u8> {
    match apic.pending(now) {
        Pending::Deliver(vector) => {
            apic.accept(vector);
            Some(vector)
        }
        Pending::Held(_) | Pending::Nothing => None,
    }
}

#[test]
fn the_higher_of_two_interrupts_comes_first_and_the_other_after_its_end() {
    let mut apic = alone();
    apic.bus.send(0, 0x31);
    apic.bus.send(0, 0x42);
    assert_eq!(deliver(&mut apic, 0), Some(0x42));
    assert_eq!(apic.pending(0), Pending::Nothing);
    assert_eq!(apic.read(0x80a), Ok(0x40), "the priority is the class of what runs");
    apic.bus.send(0, 0x51);
    assert_eq!(deliver(&mut apic, 0), Some(0x51), "a higher class interrupts it");
    apic.write(EOI, 0).unwrap();
    apic.write(EOI, 0).unwrap();
    assert_eq!(deliver(&mut apic, 0), Some(0x31));
}

#[test]
fn an_interrupt_of_the_same_class_waits_though_its_vector_is_higher() {
    let mut apic = alone();
    apic.bus.send(0, 0x30);
    assert_eq!(deliver(&mut apic, 0), Some(0x30));
    apic.bus.send(0, 0x3f);
    assert_eq!(deliver(&mut apic, 0), None);
}

#[test]
fn what_comes_while_its_handler_runs_comes_once_more() {
    let mut apic = alone();
    apic.bus.send(0, 0x30);
    assert_eq!(deliver(&mut apic, 0), Some(0x30));
    apic.bus.send(0, 0x30);
    apic.bus.send(0, 0x30);
    apic.write(EOI, 0).unwrap();
    assert_eq!(deliver(&mut apic, 0), Some(0x30));
    apic.write(EOI, 0).unwrap();
    assert_eq!(deliver(&mut apic, 0), None);
}

#[test]
fn the_task_priority_holds_back_its_own_class_and_those_below() {
    let mut apic = alone();
    apic.write(TPR, 0x45).unwrap();
    apic.bus.send(0, 0x4f);
    assert_eq!(apic.pending(0), Pending::Held(0x4f));
    apic.set_task_priority(0x30);
    assert_eq!(apic.pending(0), Pending::Deliver(0x4f));
}

#[test]
fn the_timer_comes_once_at_its_deadline_and_not_before() {
    let mut apic = alone();
    apic.write(DEADLINE, 1000).unwrap();
    assert_eq!((apic.due(), apic.read(DEADLINE)), (Some(1000), Ok(1000)));
    assert_eq!(deliver(&mut apic, 999), None);
    assert!(!apic.bus.calls(0, 999) && apic.bus.calls(0, 1000));
    assert_eq!(deliver(&mut apic, 1000), Some(TIMER));
    assert_eq!((apic.due(), apic.read(DEADLINE)), (None, Ok(0)));
    apic.write(EOI, 0).unwrap();
    assert_eq!(deliver(&mut apic, u64::MAX), None);
    apic.write(DEADLINE, 5).unwrap();
    apic.write(DEADLINE, 0).unwrap();
    assert_eq!(deliver(&mut apic, 10), None, "0 disarms it");
}

#[test]
fn a_deadline_is_by_the_guests_own_counter() {
    let mut apic = alone();
    apic.set_offset(100_u64.wrapping_neg());
    apic.write(DEADLINE, 50).unwrap();
    assert_eq!(apic.due(), Some(150));
    apic.set_offset(10);
    assert_eq!(apic.due(), Some(40));
}

#[test]
fn a_masked_timer_comes_to_its_deadline_and_interrupts_nobody() {
    let mut apic = alone();
    apic.write(0x832, u64::from(TSC_DEADLINE_MODE | MASKED | 0x20)).unwrap();
    apic.write(DEADLINE, 1).unwrap();
    assert_eq!(deliver(&mut apic, 2), None);
    assert_eq!(apic.due(), None);
}

#[test]
fn a_command_reaches_those_it_names() {
    let woken = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&woken);
    let bus = Arc::new(Bus::new(20, Box::new(move |number| all.lock().unwrap().push(number))));
    let mut apic = GuestApic::new(2, Arc::clone(&bus));
    let mut reached = |command: u64| {
        woken.lock().unwrap().clear();
        apic.write(ICR, command | 0x21).unwrap();
        let mut to: Vec<u32> = (0..20).filter(|n| bus.highest(*n) == Some(0x21)).collect();
        (0..20).for_each(|n| bus.withdraw(n, 0x21));
        let woken = woken.lock().unwrap().clone();
        // A processor need not be woken to hear itself.
        assert_eq!(to.iter().copied().filter(|n| *n != 2).collect::<Vec<_>>(), woken);
        to.sort_unstable();
        to
    };
    let logical = 1 << 11;
    assert_eq!(reached(7 << 32), [7]);
    assert_eq!(reached(20 << 32), [0_u32; 0], "nobody has this number");
    assert_eq!(reached(0xffff_ffff << 32).len(), 20);
    assert_eq!(reached(1 << 18), [2], "itself");
    assert_eq!(reached(2 << 18).len(), 20);
    assert_eq!(reached(3 << 18), (0..20).filter(|n| *n != 2).collect::<Vec<_>>());
    assert_eq!(reached(logical | 0x0001_0009 << 32), [16, 19]);
    assert_eq!(
        reached(1 << 8 | logical | 0x0000_0018 << 32),
        [3],
        "lowest priority: one of them"
    );
    assert_eq!(reached(0b101 << 8 | 3 << 18), [0_u32; 0], "INIT does nothing");
}

#[test]
fn vectors_that_are_exceptions_are_not_sent_and_noted() {
    let mut apic = alone();
    apic.write(0x83f, 15).unwrap();
    assert_eq!((deliver(&mut apic, 0), apic.read(0x828)), (None, Ok(0)));
    apic.write(0x828, 0).unwrap();
    assert_eq!(apic.read(0x828), Ok(1 << 5));
    apic.write(0x83f, 16).unwrap();
    assert_eq!(deliver(&mut apic, 0), Some(16));
}

#[test]
fn an_apic_that_is_off_delivers_nothing() {
    let mut apic = alone();
    apic.write(0x80f, 0xff).unwrap();
    apic.bus.send(0, 0x40);
    assert_eq!(apic.pending(0), Pending::Nothing);
    assert_eq!(apic.read(0x832).unwrap() as u32 & MASKED, MASKED);
    apic.write(0x80f, 0x1ff).unwrap();
    assert_eq!(apic.pending(0), Pending::Deliver(0x40));
}

#[test]
fn registers_are_as_the_manual_has_them() {
    let mut apic = GuestApic::new(17, Arc::new(Bus::new(18, Box::new(|_| ()))));
    assert_eq!(apic.read(0x802), Ok(17));
    assert_eq!(apic.read(0x80d), Ok(0x0001_0002));
    assert_eq!(apic.read(0x1b), Ok(0xfee0_0c00));
    assert_eq!(apic.write(0x1b, 0xfee0_0c00), Ok(()));
    apic.bus.send(17, 0x47);
    assert_eq!(apic.read(0x822), Ok(1 << 7));
    apic.accept(0x47);
    assert_eq!((apic.read(0x822), apic.read(0x812)), (Ok(0), Ok(1 << 7)));
    for (register, value) in [
        (0x1b, 0xfee0_0800),
        (0x802, 0),
        (0x803, 0),
        (TPR, 0x100),
        (0x80a, 0),
        (EOI, 1),
        (0x80d, 0),
        (0x80f, 0x1000),
        (0x810, 0),
        (0x828, 1),
        (ICR, 1 << 12),
        (0x831, 0),
        (0x832, 1 << 19),
        (0x838, 1 << 32),
        (0x839, 0),
        (0x83f, 0x100),
        (0x840, 0),
    ] {
        assert_eq!(apic.write(register, value), Err(Refused), "{register:#x}");
    }
    for register in [EOI, 0x80c, 0x80e, 0x831, 0x83f, 0x840, 0x8ff] {
        assert_eq!(apic.read(register), Err(Refused), "{register:#x}");
    }
}

/// What happens to a processor.
#[derive(Clone, Debug)]
enum Step {
    Send(u8),
    Priority(u8),
    Deliver,
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        // Few classes, so that they meet.
        (0x20_u8..0x60).prop_map(Step::Send),
        (0_u8..0x60).prop_map(Step::Priority),
        Just(Step::Deliver),
        Just(Step::End),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Two sets are all there is to it.
    #[test]
    #[cfg_attr(miri, ignore = "hundreds of rounds, in safe code")]
    fn it_does_what_two_sets_do(steps in steps()) {
        let mut apic = alone();
        let (mut requested, mut serviced) = (BTreeSet::new(), BTreeSet::new());
        let mut priority = 0;
        for step in steps {
            match step {
                Step::Send(vector) => {
                    apic.bus.send(0, vector);
                    requested.insert(vector);
                }
                Step::Priority(value) => {
                    apic.write(TPR, value.into()).unwrap();
                    priority = value;
                }
                Step::Deliver => {
                    let above = priority.max(serviced.last().copied().unwrap_or(0)) >> 4;
                    let expected = requested.last().copied().filter(|vector| vector >> 4 > above);
                    prop_assert_eq!(deliver(&mut apic, 0), expected);
                    if let Some(vector) = expected {
                        requested.remove(&vector);
                        serviced.insert(vector);
                    }
                }
                Step::End => {
                    apic.write(EOI, 0).unwrap();
                    serviced.pop_last();
                }
            }
        }
        // Nothing is lost.
        apic.write(TPR, 0).unwrap();
        serviced.iter().for_each(|_| apic.write(EOI, 0).unwrap());
        let mut rest = Vec::new();
        while let Some(vector) = deliver(&mut apic, 0) {
            rest.push(vector);
            apic.write(EOI, 0).unwrap();
        }
        prop_assert_eq!(rest, requested.into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    #[cfg_attr(miri, ignore = "hundreds of rounds, in safe code")]
    fn whatever_a_guest_writes_is_answered(
        writes in proptest::collection::vec((0x800_u32..0x850, any::<u64>(), 0_u32..64), 0..100),
    ) {
        let mut apic = alone();
        for (register, value, shift) in writes {
            let _ = apic.write(register, value >> shift);
            let _ = apic.read(register);
            let _ = deliver(&mut apic, value);
        }
    }
}

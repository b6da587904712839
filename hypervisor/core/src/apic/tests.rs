use std::collections::BTreeSet;
use std::sync::Mutex;

use chiton_shared::interrupts::TIMER;
use proptest::prelude::*;

use super::*;

const EOI: u32 = 0x80b;
const TPR: u32 = 0x808;
const ICR: u32 = 0x830;
const DEADLINE: u32 = 0x6e0;
const LVT_TIMER: u32 = 0x832;
const INITIAL: u32 = 0x838;
const CURRENT: u32 = 0x839;
const DIVIDE: u32 = 0x83e;

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
    let mut apic = GuestApic::alone();
    apic.bus.send(0, 0x31);
    apic.bus.send(0, 0x42);
    assert_eq!(deliver(&mut apic, 0), Some(0x42));
    assert_eq!(apic.pending(0), Pending::Nothing);
    assert_eq!(apic.read(0x80a, 0), Ok(0x40), "the priority is the class of what runs");
    apic.bus.send(0, 0x51);
    assert_eq!(deliver(&mut apic, 0), Some(0x51), "a higher class interrupts it");
    apic.write(EOI, 0, 0).unwrap();
    apic.write(EOI, 0, 0).unwrap();
    assert_eq!(deliver(&mut apic, 0), Some(0x31));
}

#[test]
fn an_interrupt_of_the_same_class_waits_though_its_vector_is_higher() {
    let mut apic = GuestApic::alone();
    apic.bus.send(0, 0x30);
    assert_eq!(deliver(&mut apic, 0), Some(0x30));
    apic.bus.send(0, 0x3f);
    assert_eq!(deliver(&mut apic, 0), None);
}

#[test]
fn what_comes_while_its_handler_runs_comes_once_more() {
    let mut apic = GuestApic::alone();
    apic.bus.send(0, 0x30);
    assert_eq!(deliver(&mut apic, 0), Some(0x30));
    apic.bus.send(0, 0x30);
    apic.bus.send(0, 0x30);
    apic.write(EOI, 0, 0).unwrap();
    assert_eq!(deliver(&mut apic, 0), Some(0x30));
    apic.write(EOI, 0, 0).unwrap();
    assert_eq!(deliver(&mut apic, 0), None);
}

#[test]
fn the_task_priority_holds_back_its_own_class_and_those_below() {
    let mut apic = GuestApic::alone();
    apic.write(TPR, 0x45, 0).unwrap();
    apic.bus.send(0, 0x4f);
    assert_eq!(apic.pending(0), Pending::Held(0x4f));
    apic.set_task_priority(0x30);
    assert_eq!(apic.pending(0), Pending::Deliver(0x4f));
}

#[test]
fn the_timer_comes_once_at_its_deadline_and_not_before() {
    let mut apic = GuestApic::alone();
    apic.write(DEADLINE, 1000, 0).unwrap();
    assert_eq!((apic.due(), apic.read(DEADLINE, 0)), (Some(1000), Ok(1000)));
    assert_eq!(deliver(&mut apic, 999), None);
    assert!(!apic.bus.calls(0, 999) && apic.bus.calls(0, 1000));
    assert_eq!(deliver(&mut apic, 1000), Some(TIMER));
    assert_eq!((apic.due(), apic.read(DEADLINE, 0)), (None, Ok(0)));
    apic.write(EOI, 0, 0).unwrap();
    assert_eq!(deliver(&mut apic, u64::MAX), None);
    apic.write(DEADLINE, 5, 0).unwrap();
    apic.write(DEADLINE, 0, 0).unwrap();
    assert_eq!(deliver(&mut apic, 10), None, "0 disarms it");
}

#[test]
fn a_deadline_is_by_the_guests_own_counter() {
    let mut apic = GuestApic::alone();
    apic.set_offset(100_u64.wrapping_neg(), 0);
    apic.write(DEADLINE, 50, 120).unwrap();
    assert_eq!(apic.due(), Some(150));
    apic.set_offset(10, 20);
    assert_eq!(apic.due(), Some(40));
}

#[test]
fn a_deadline_in_the_past_of_a_counter_that_was_set_far_forward_is_due_at_once() {
    let mut apic = GuestApic::alone();
    let far = 1 << 62;
    apic.set_offset(far, 1000);
    apic.write(DEADLINE, 5, 1000).unwrap();
    assert_eq!(deliver(&mut apic, 1000), Some(TIMER));
    apic.write(EOI, 0, 0).unwrap();
    apic.write(DEADLINE, far + 1500, 1000).unwrap();
    assert_eq!(apic.due(), Some(1500));
    // Set forward while it waits, the counter is beyond the deadline.
    apic.set_offset(u64::MAX / 2 + far, 1100);
    assert_eq!(deliver(&mut apic, 1100), Some(TIMER));
    apic.write(EOI, 0, 0).unwrap();
    apic.write(DEADLINE, u64::MAX, 1200).unwrap();
    assert_eq!(deliver(&mut apic, 1 << 60), None, "and one in its future is not");
}

#[test]
fn a_deadline_that_has_come_is_not_lost_when_the_counter_is_set_back() {
    let mut apic = GuestApic::alone();
    apic.write(DEADLINE, 1000, 0).unwrap();
    apic.set_offset(5000_u64.wrapping_neg(), 1000);
    assert_eq!(deliver(&mut apic, 1000), Some(TIMER));
}

#[test]
fn a_timer_that_counts_once_comes_once() {
    let mut apic = GuestApic::alone();
    apic.write(LVT_TIMER, 0x44, 0).unwrap();
    apic.write(DIVIDE, 0b0011, 0).unwrap();
    apic.write(INITIAL, 1000, 500).unwrap();
    assert_eq!(apic.due(), Some(500 + 16 * 1000));
    assert_eq!(apic.read(CURRENT, 500), Ok(1000));
    assert_eq!(apic.read(CURRENT, 500 + 16 * 250), Ok(750));
    assert_eq!(deliver(&mut apic, 16_499), None);
    assert_eq!(deliver(&mut apic, 16_500), Some(0x44));
    assert_eq!((apic.read(CURRENT, 16_600), apic.due()), (Ok(0), None));
    assert_eq!(apic.read(INITIAL, 16_600), Ok(1000));
    assert_eq!(apic.write(DEADLINE, 17_000, 16_600), Ok(()));
    assert_eq!(
        (apic.due(), apic.read(DEADLINE, 0)),
        (None, Ok(0)),
        "it heeds no deadlines"
    );
}

#[test]
fn a_timer_that_counts_again_and_again_keeps_its_beat() {
    let mut apic = GuestApic::alone();
    apic.write(LVT_TIMER, 1 << 17 | 0x44, 0).unwrap();
    apic.write(DIVIDE, 0b1011, 0).unwrap();
    apic.write(INITIAL, 1_000_000, 0).unwrap();
    for (now, next) in [(1_000_000, 2_000_000), (2_000_700, 3_000_000), (9_500_000, 10_000_000)] {
        assert_eq!(deliver(&mut apic, now), Some(0x44), "those that were missed are one");
        apic.write(EOI, 0, now).unwrap();
        assert_eq!(deliver(&mut apic, now), None);
        assert_eq!(apic.due(), Some(next));
    }
    assert_eq!(apic.read(CURRENT, 9_600_000), Ok(400_000));
    apic.write(INITIAL, 0, 9_600_000).unwrap();
    assert_eq!((apic.due(), apic.read(CURRENT, 9_700_000)), (None, Ok(0)));
    apic.write(INITIAL, 1, 0).unwrap();
    assert_eq!(
        apic.due(),
        Some(500_000),
        "a beat leaves the guest time for something else"
    );
}

#[test]
fn the_clock_is_divided_as_the_manual_has_it() {
    let divisors = [
        (0b0000, 2),
        (0b0001, 4),
        (0b0010, 8),
        (0b0011, 16),
        (0b1000, 32),
        (0b1001, 64),
        (0b1010, 128),
        (0b1011, 1),
    ];
    for (bits, divisor) in divisors {
        let mut apic = GuestApic::alone();
        apic.write(LVT_TIMER, 0x44, 0).unwrap();
        apic.write(DIVIDE, bits, 0).unwrap();
        apic.write(INITIAL, 1000, 0).unwrap();
        assert_eq!((apic.due(), apic.read(DIVIDE, 0)), (Some(1000 * divisor), Ok(bits)));
        // Half of it is left, of which each lasts twice as long now.
        apic.write(DIVIDE, 0, 500 * divisor).unwrap();
        assert_eq!(apic.due(), Some(500 * divisor + 1000));
    }
    assert_eq!(GuestApic::alone().write(DIVIDE, 0b100, 0), Err(Refused));
}

#[test]
fn a_change_between_deadlines_and_counting_disarms_the_timer() {
    let mut apic = GuestApic::alone();
    apic.write(INITIAL, 1000, 0).unwrap();
    assert_eq!((apic.due(), apic.read(INITIAL, 0)), (None, Ok(0)), "it counts nothing");
    apic.write(DEADLINE, 1000, 0).unwrap();
    apic.write(LVT_TIMER, 0x44, 0).unwrap();
    assert_eq!(apic.due(), None);
    apic.write(INITIAL, 1000, 0).unwrap();
    apic.write(LVT_TIMER, 1 << 17 | 0x44, 0).unwrap();
    assert!(apic.due().is_some(), "from once to again and again it goes on");
    apic.write(LVT_TIMER, 2 << 17 | 0x44, 0).unwrap();
    assert_eq!((apic.due(), apic.read(INITIAL, 0)), (None, Ok(0)));
    apic.write(LVT_TIMER, 3 << 17 | 0x44, 0).unwrap();
    apic.write(INITIAL, 1000, 0).unwrap();
    apic.write(DEADLINE, 1000, 0).unwrap();
    assert_eq!(deliver(&mut apic, u64::MAX), None, "a reserved mode never comes");
}

#[test]
fn an_nmi_reaches_those_it_names_whatever_their_apic_holds_back() {
    let bus = Arc::new(Bus::new(3, Box::new(|_| ())));
    let mut apics: [GuestApic; 3] = core::array::from_fn(|n| GuestApic::new(n as u32, Arc::clone(&bus)));
    const NMI: u64 = 0b100 << 8;
    apics[2].write(TPR, 0xff, 0).unwrap();
    apics[2].write(0x80f, 0xff, 0).unwrap();
    apics[0].write(ICR, NMI | 2 << 32, 0).unwrap();
    assert_eq!(apics.each_ref().map(GuestApic::has_nmi), [false, false, true]);
    assert!(bus.calls(2, 0), "it ends a halt");
    apics[2].accept_nmi();
    assert!(!apics[2].has_nmi() && !bus.calls(2, 0));
    apics[0].write(ICR, NMI | 3 << 18, 0).unwrap();
    assert_eq!(apics.each_ref().map(GuestApic::has_nmi), [false, true, true]);
    for shorthand in [1, 2] {
        apics[0].write(ICR, NMI | shorthand << 18, 0).unwrap();
    }
    assert!(!apics[0].has_nmi(), "not by a shorthand that has the sender in it");
    apics[0].write(ICR, NMI, 0).unwrap();
    assert!(apics[0].has_nmi(), "but by its number");
}

#[test]
fn a_masked_timer_comes_to_its_deadline_and_interrupts_nobody() {
    let mut apic = GuestApic::alone();
    apic.write(0x832, u64::from(2 << 17 | MASKED | 0x20), 0).unwrap();
    apic.write(DEADLINE, 1, 0).unwrap();
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
        apic.write(ICR, command | 0x21, 0).unwrap();
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
    let mut apic = GuestApic::alone();
    apic.write(0x83f, 15, 0).unwrap();
    assert_eq!((deliver(&mut apic, 0), apic.read(0x828, 0)), (None, Ok(0)));
    apic.write(0x828, 0, 0).unwrap();
    assert_eq!(apic.read(0x828, 0), Ok(1 << 5));
    apic.write(0x83f, 16, 0).unwrap();
    assert_eq!(deliver(&mut apic, 0), Some(16));
}

#[test]
fn an_apic_that_is_off_delivers_nothing() {
    let mut apic = GuestApic::alone();
    apic.write(0x80f, 0xff, 0).unwrap();
    apic.bus.send(0, 0x40);
    assert_eq!(apic.pending(0), Pending::Nothing);
    assert_eq!(apic.read(0x832, 0).unwrap() as u32 & MASKED, MASKED);
    apic.write(0x80f, 0x1ff, 0).unwrap();
    assert_eq!(apic.pending(0), Pending::Deliver(0x40));
}

#[test]
fn registers_are_as_the_manual_has_them() {
    let mut apic = GuestApic::new(17, Arc::new(Bus::new(18, Box::new(|_| ()))));
    assert_eq!(apic.read(0x802, 0), Ok(17));
    assert_eq!(apic.read(0x80d, 0), Ok(0x0001_0002));
    assert_eq!(apic.read(0x1b, 0), Ok(0xfee0_0c00));
    assert_eq!(apic.write(0x1b, 0xfee0_0c00, 0), Ok(()));
    apic.bus.send(17, 0x47);
    assert_eq!(apic.read(0x822, 0), Ok(1 << 7));
    apic.accept(0x47);
    assert_eq!((apic.read(0x822, 0), apic.read(0x812, 0)), (Ok(0), Ok(1 << 7)));
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
        (CURRENT, 0),
        (0x83f, 0x100),
        (0x840, 0),
    ] {
        assert_eq!(apic.write(register, value, 0), Err(Refused), "{register:#x}");
    }
    for register in [EOI, 0x80c, 0x80e, 0x831, 0x83f, 0x840, 0x8ff] {
        assert_eq!(apic.read(register, 0), Err(Refused), "{register:#x}");
    }
}

/// What happens to a processor.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(u8),
    SendSelf(u8),
    Priority(u8),
    Deliver,
    End,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        // Few classes, so that they meet.
        (0x20_u8..0x60).prop_map(Step::Send),
        (0x20_u8..0x60).prop_map(Step::SendSelf),
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
        let mut apic = GuestApic::alone();
        let (mut requested, mut serviced) = (BTreeSet::new(), BTreeSet::new());
        let mut priority = 0;
        for step in steps {
            match step {
                Step::Send(vector) => {
                    apic.bus.send(0, vector);
                    requested.insert(vector);
                }
                Step::SendSelf(vector) => {
                    apic.write(registers::SELF_INTERRUPT, vector.into(), 0).unwrap();
                    requested.insert(vector);
                }
                Step::Priority(value) => {
                    apic.write(TPR, value.into(), 0).unwrap();
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
                    apic.write(EOI, 0, 0).unwrap();
                    serviced.pop_last();
                }
            }
        }
        // Nothing is lost.
        apic.write(TPR, 0, 0).unwrap();
        serviced.iter().for_each(|_| apic.write(EOI, 0, 0).unwrap());
        let mut rest = Vec::new();
        while let Some(vector) = deliver(&mut apic, 0) {
            rest.push(vector);
            apic.write(EOI, 0, 0).unwrap();
        }
        prop_assert_eq!(rest, requested.into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    #[cfg_attr(miri, ignore = "hundreds of rounds, in safe code")]
    fn whatever_a_guest_writes_is_answered(
        writes in proptest::collection::vec((0x800_u32..0x850, any::<u64>(), 0_u32..64), 0..100),
    ) {
        let mut apic = GuestApic::alone();
        for (register, value, shift) in writes {
            let _ = apic.write(register, value >> shift, value);
            let _ = apic.read(register, value.rotate_left(shift));
            let _ = deliver(&mut apic, value.wrapping_mul(shift.into()));
            apic.set_offset(value >> shift, value);
        }
    }
}

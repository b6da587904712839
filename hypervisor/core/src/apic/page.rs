//! The virtual-APIC page (SDM volume 3C, section 31.1): registers of the APIC in memory, where a
//! processor that can reads and changes them for its guest, without an exit.
//!
//! ```text
//!   what is it             whose it is                              how the other hears of it
//!   IRR, ISR, PPR, TPR     the processor's: the page alone          (TPR: read from the page at each exit)
//!   all other registers    GuestApic's; a write of them exits       written into the page after each such write
//!   requests of others     the Bus's, until the next entry          taken from there, and into the page's IRR
//!   current count, deadline, identity of the mode: GuestApic's; reads exit too, and the page has nothing of them
//! ```
//!
//! No register has two owners: what is in [`GuestApic`] of IRR and ISR is not used, as long as there is a
//! page.

use core::ops::Range;

use super::registers::{
    CURRENT_COUNT, END_OF_INTERRUPT, ERROR, FIRST, IN_SERVICE, INTERRUPT_REQUEST, PROCESSOR_PRIORITY, SELF_INTERRUPT,
    TASK_PRIORITY,
};
use super::{GuestApic, class, highest};
use crate::physical::Pages;

/// A page of registers. Each has 16 bytes of it, and begins there.
pub trait RegisterPage {
    /// Reads the 64 bits at an offset, a multiple of 16 below 4096.
    fn read(&self, offset: usize) -> u64;

    /// Writes the 64 bits at an offset, a multiple of 16 below 4096.
    fn write(&self, offset: usize, value: u64);
}

impl RegisterPage for Pages {
    fn read(&self, offset: usize) -> u64 {
        self.read_u64(offset)
    }

    fn write(&self, offset: usize, value: u64) {
        self.write_u64(offset, value);
    }
}

/// Where the page has a register, by the number that RDMSR has for it (SDM volume 3C, section 31.5).
#[must_use]
pub const fn offset(register: u32) -> usize {
    (register as usize & 0xff) << 4
}

/// The register at an offset of the page.
#[must_use]
pub const fn register_at(offset: u16) -> u32 {
    FIRST | (offset as u32 & 0xff0) >> 4
}

/// What a guest can write without an exit: the task priority, the end of an interrupt, an interrupt for
/// itself (SDM volume 3C, section 31.5). The processor looks whether the value makes sense.
pub const WRITTEN: [u32; 3] = [TASK_PRIORITY, END_OF_INTERRUPT, SELF_INTERRUPT];

/// Of those, the one that an APIC that is switched off does not carry out.
pub const SELF_SENT: u32 = SELF_INTERRUPT;

/// What the processor alone changes.
const fn is_processors(register: u32) -> bool {
    const REQUESTS: Range<u32> = INTERRUPT_REQUEST..ERROR;
    const SERVICE: Range<u32> = IN_SERVICE..IN_SERVICE + 8;
    matches!(register, TASK_PRIORITY | PROCESSOR_PRIORITY)
        || SERVICE.start <= register && register < SERVICE.end
        || REQUESTS.start <= register && register < REQUESTS.end
}

impl GuestApic {
    /// The registers that a guest can read in the page: all that can be read but the timer's count, which
    /// changes with time. Elsewhere in the page there is nothing, and a read has to exit.
    pub fn in_page(&self) -> impl Iterator<Item = u32> {
        let registers = FIRST..FIRST + 0x100;
        registers.filter(|register| *register != CURRENT_COUNT && self.read(*register, 0).is_ok())
    }

    /// Puts into the page what the processor does not change there by itself: once the guest has
    /// written a register.
    pub fn write_page(&self, page: &impl RegisterPage) {
        for register in FIRST..=SELF_INTERRUPT {
            if register != CURRENT_COUNT
                && !is_processors(register)
                && let Ok(value) = self.read(register, 0)
            {
                page.write(offset(register), value);
            }
        }
    }

    /// Moves what was requested, and the timer if it is due at this time of the machine's counter, into
    /// the page's IRR. Returns RVI: the highest of all there, as long as the APIC is on.
    pub fn hand_over(&mut self, page: &impl RegisterPage, now: u64) -> Option<u8> {
        self.expire(now);
        if !self.is_on() {
            return None;
        }
        let mut vectors = self.bus.take(self.number);
        for (register, word) in (INTERRUPT_REQUEST..).zip(&mut vectors) {
            let there = page.read(offset(register)) as u32;
            *word |= there;
            if *word != there {
                page.write(offset(register), (*word).into());
            }
        }
        highest(&vectors)
    }

    /// Whether the processor has an interrupt to deliver by this status (RVI in bits 7:0, SVI in bits
    /// 15:8) and task priority (SDM volume 3C, sections 31.1.3 and 31.2.1).
    #[must_use]
    pub const fn recognises(status: u16, task_priority: u8) -> bool {
        let (requested, serviced) = (status as u8, (status >> 8) as u8);
        class(requested) > class(serviced) && class(requested) > class(task_priority)
    }
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;

    use proptest::prelude::*;

    use super::super::registers::SPURIOUS_VECTOR;
    use super::super::tests::{Step, steps};
    use super::super::{Pending, set};
    use super::*;

    struct Words(RefCell<[u64; 256]>);

    impl RegisterPage for Words {
        fn read(&self, offset: usize) -> u64 {
            self.0.borrow()[offset / 16]
        }

        fn write(&self, offset: usize, value: u64) {
            self.0.borrow_mut()[offset / 16] = value;
        }
    }

    /// What a processor does with the page, step by step as the manual has it.
    struct Processor {
        page: Words,
        /// RVI and SVI.
        requested: u8,
        serviced: u8,
    }

    impl Processor {
        const fn new() -> Self {
            Self {
                page: Words(RefCell::new([0; 256])),
                requested: 0,
                serviced: 0,
            }
        }

        fn vectors(&self, first: u32) -> [u32; 8] {
            core::array::from_fn(|n| self.page.read(offset(first + n as u32)) as u32)
        }

        fn set_vectors(&self, first: u32, vectors: [u32; 8]) {
            for (register, word) in (first..).zip(vectors) {
                self.page.write(offset(register), word.into());
            }
        }

        /// PPR virtualization (SDM volume 3C, section 31.1.3).
        fn virtualize_ppr(&self) {
            let priority = self.page.read(offset(TASK_PRIORITY)) as u8;
            let ppr = if priority >> 4 >= self.serviced >> 4 {
                priority
            } else {
                self.serviced & 0xf0
            };
            self.page.write(offset(PROCESSOR_PRIORITY), ppr.into());
        }

        /// Section 31.2.1: whether an interrupt is pending.
        fn is_pending(&self) -> bool {
            self.requested >> 4 > self.page.read(offset(PROCESSOR_PRIORITY)) as u8 >> 4
        }

        /// VM entry with what the hypervisor has to say.
        fn enter(&mut self, apic: &mut GuestApic) -> bool {
            self.requested = apic.hand_over(&self.page, 0).unwrap_or(0);
            self.virtualize_ppr();
            let status = u16::from(self.serviced) << 8 | u16::from(self.requested);
            let recognised = GuestApic::recognises(status, self.page.read(offset(TASK_PRIORITY)) as u8);
            assert_eq!(recognised, self.is_pending());
            recognised
        }

        /// Section 31.2.2: it delivers, if there is something.
        fn deliver(&mut self) -> Option<u8> {
            if !self.is_pending() {
                return None;
            }
            let vector = self.requested;
            let mut service = self.vectors(IN_SERVICE);
            set(&mut service, vector);
            self.set_vectors(IN_SERVICE, service);
            self.serviced = vector;
            self.page.write(offset(PROCESSOR_PRIORITY), (vector & 0xf0).into());
            let mut requests = self.vectors(INTERRUPT_REQUEST);
            requests[usize::from(vector / 32)] &= !(1 << (vector % 32));
            self.set_vectors(INTERRUPT_REQUEST, requests);
            self.requested = highest(&requests).unwrap_or(0);
            Some(vector)
        }

        /// Section 31.1.4: the end of an interrupt.
        fn end(&mut self) {
            let mut service = self.vectors(IN_SERVICE);
            if self.serviced != 0 {
                service[usize::from(self.serviced / 32)] &= !(1 << (self.serviced % 32));
            }
            self.set_vectors(IN_SERVICE, service);
            self.serviced = highest(&service).unwrap_or(0);
            self.virtualize_ppr();
        }

        /// Section 31.1.2: a new task priority.
        fn set_priority(&self, priority: u8) {
            self.page.write(offset(TASK_PRIORITY), priority.into());
            self.virtualize_ppr();
        }

        /// Section 31.1.5: an interrupt of its own.
        fn send_self(&mut self, vector: u8) {
            let mut requests = self.vectors(INTERRUPT_REQUEST);
            set(&mut requests, vector);
            self.set_vectors(INTERRUPT_REQUEST, requests);
            self.requested = self.requested.max(vector);
        }
    }

    proptest! {
        /// The two ways to have an APIC: by exits alone, and by the page.
        #[test]
        #[cfg_attr(miri, ignore = "hundreds of rounds, in safe code")]
        fn a_guest_finds_the_same_whoever_delivers(steps in steps()) {
            let (mut plain, mut handing, mut processor) = (GuestApic::alone(), GuestApic::alone(), Processor::new());
            handing.write_page(&processor.page);
            for step in steps {
                match step {
                    Step::Send(vector) => {
                        plain.bus.send(0, vector);
                        handing.bus.send(0, vector);
                    }
                    Step::SendSelf(vector) => {
                        plain.write(SELF_INTERRUPT, vector.into(), 0).unwrap();
                        processor.send_self(vector);
                    }
                    Step::Priority(priority) => {
                        plain.write(TASK_PRIORITY, priority.into(), 0).unwrap();
                        processor.set_priority(priority);
                    }
                    Step::Deliver => {
                        processor.enter(&mut handing);
                        let delivered = match plain.pending(0) {
                            Pending::Deliver(vector) => {
                                plain.accept(vector);
                                Some(vector)
                            }
                            Pending::Held(_) | Pending::Nothing => None,
                        };
                        prop_assert_eq!(processor.deliver(), delivered);
                    }
                    Step::End => {
                        plain.write(END_OF_INTERRUPT, 0, 0).unwrap();
                        processor.end();
                    }
                }
                // Requests of others come into the page with the next entry.
                processor.enter(&mut handing);
                for register in plain.in_page() {
                    prop_assert_eq!(
                        processor.page.read(offset(register)),
                        plain.read(register, 0).unwrap(),
                        "register {:#x}",
                        register
                    );
                }
            }
        }
    }

    #[test]
    fn the_page_has_no_register_that_cannot_be_read() {
        let apic = GuestApic::alone();
        let there: Vec<_> = apic.in_page().collect();
        for register in [0x802, 0x803, 0x808, 0x80a, 0x80f, 0x817, 0x827, 0x830, 0x837, 0x83e] {
            assert!(there.contains(&register), "{register:#x}");
        }
        for register in [0x800, 0x809, 0x80b, 0x80c, 0x831, CURRENT_COUNT, SELF_INTERRUPT, 0x8ff] {
            assert!(!there.contains(&register), "{register:#x}");
        }
    }

    #[test]
    fn a_register_that_is_written_is_found_in_the_page() {
        let (mut apic, page) = (GuestApic::alone(), Words(RefCell::new([0; 256])));
        apic.write(0x830, 0x0000_0007_0000_0031, 0).unwrap();
        apic.write(SPURIOUS_VECTOR, 0x3f, 0).unwrap();
        // What is the processor's is left alone.
        page.write(0x80, 0x50);
        apic.write_page(&page);
        assert_eq!(page.read(0x300), 0x0000_0007_0000_0031);
        assert_eq!((page.read(0xf0), page.read(0x80)), (0x3f, 0x50));
        assert_eq!(page.read(0x320) >> 16 & 1, 1, "an APIC that is off has a masked timer");
        assert_eq!((offset(SELF_INTERRUPT), register_at(0x3f0)), (0x3f0, SELF_INTERRUPT));
    }

    #[test]
    fn what_comes_while_the_apic_is_off_waits_outside_the_page() {
        let (mut apic, page) = (GuestApic::alone(), Words(RefCell::new([0; 256])));
        apic.write(SPURIOUS_VECTOR, 0xff, 0).unwrap();
        apic.bus.send(0, 0x41);
        assert_eq!((apic.hand_over(&page, 0), page.read(0x220)), (None, 0));
        apic.write(SPURIOUS_VECTOR, 0x1ff, 0).unwrap();
        assert_eq!((apic.hand_over(&page, 0), page.read(0x220)), (Some(0x41), 2));
    }

    #[test]
    fn the_timer_comes_by_the_page_too() {
        let (mut apic, page) = (GuestApic::alone(), Words(RefCell::new([0; 256])));
        apic.write(0x6e0, 1000, 0).unwrap();
        assert_eq!(apic.hand_over(&page, 999), None);
        assert_eq!(apic.hand_over(&page, 1000), Some(0x20));
        assert_eq!((page.read(0x210), apic.due()), (1, None));
    }
}

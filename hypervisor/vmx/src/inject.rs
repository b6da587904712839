//! Events on their way into the guest: what a VM entry delivers (SDM volume 3C, section 28.6).
//!
//! Two sources: a handler wants an exception raised; or an exit came while the processor delivered
//! an event, which is then to be delivered again (section 29.2.4, "IDT-vectoring"). If both happen,
//! the two are combined as the processor would have done it.

use chiton_core::exceptions::{self, Both, DOUBLE_FAULT};
use chiton_core::vmx::event::{Event, Kind};
use chiton_core::vmx::{NoSuchField, VmcsFields, VmcsWrite, fields};

/// An event for the next VM entry: all that the three fields about it hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Injection {
    event: Event,
    error_code: u32,
    /// Length of the instruction that raised it, which its handler returns behind.
    length: u32,
}

/// The debug exception.
pub(crate) const DB: u8 = 1;
/// The undefined-instruction exception.
pub(crate) const UD: u8 = 6;
/// The general-protection exception.
pub(crate) const GP: u8 = 13;
/// The page fault.
pub(crate) const PF: u8 = 14;
/// The alignment check.
pub(crate) const AC: u8 = 17;
/// The machine check.
pub(crate) const MC: u8 = 18;

impl Injection {
    /// An exception without an error code.
    pub(crate) const fn exception(vector: u8) -> Self {
        Self {
            event: Event::new(Kind::HardwareException, vector, false),
            error_code: 0,
            length: 0,
        }
    }

    /// An exception with an error code.
    pub(crate) const fn with_code(vector: u8, error_code: u32) -> Self {
        Self {
            event: Event::new(Kind::HardwareException, vector, true),
            error_code,
            length: 0,
        }
    }

    /// A general-protection exception that names no selector: a privileged instruction was to do
    /// what it must not.
    pub(crate) const fn general_protection() -> Self {
        Self::with_code(GP, 0)
    }

    /// An NMI, another processor's doing.
    pub(crate) const fn nmi() -> Self {
        Self {
            event: Event::new(Kind::Nmi, 2, false),
            error_code: 0,
            length: 0,
        }
    }

    /// An interrupt, of the guest's own APIC.
    pub(crate) const fn interrupt(vector: u8) -> Self {
        Self {
            event: Event::new(Kind::ExternalInterrupt, vector, false),
            error_code: 0,
            length: 0,
        }
    }

    /// What the exit says that happened: an exception or an NMI.
    pub(crate) fn of_exit(vmcs: &impl VmcsFields) -> Option<Self> {
        let event = Event(vmcs.get(fields::EXIT_INTERRUPTION_INFORMATION));
        Self::of(event, vmcs.get(fields::EXIT_INTERRUPTION_ERROR_CODE), vmcs)
    }

    /// What was being delivered when the exit came.
    pub(crate) fn under_way(vmcs: &impl VmcsFields) -> Option<Self> {
        let event = Event(vmcs.get(fields::IDT_VECTORING_INFORMATION));
        Self::of(event, vmcs.get(fields::IDT_VECTORING_ERROR_CODE), vmcs)
    }

    fn of(event: Event, error_code: u32, vmcs: &impl VmcsFields) -> Option<Self> {
        event.is_valid().then(|| Self {
            event: Event(event.0 & !Event::RESERVED_AT_ENTRY),
            error_code: if event.has_error_code() { error_code } else { 0 },
            length: if event.is_software() {
                vmcs.get(fields::EXIT_INSTRUCTION_LENGTH)
            } else {
                0
            },
        })
    }

    /// Its vector.
    pub(crate) const fn vector(self) -> u8 {
        self.event.vector()
    }

    /// Whether it is an NMI.
    pub(crate) const fn is_nmi(self) -> bool {
        matches!(self.event.kind(), Kind::Nmi)
    }

    /// What becomes of an exception that is raised while this event is delivered (SDM volume 3A,
    /// tables 7-4 and 7-5); `None` is a triple fault. An event that gives way is not lost: its
    /// instruction runs again.
    pub(crate) fn then(self, second: Self) -> Option<Self> {
        if self.event.kind() != Kind::HardwareException {
            return Some(second);
        }
        match exceptions::both(self.vector(), second.vector()) {
            Both::Second => Some(second),
            Both::DoubleFault => Some(Self::with_code(DOUBLE_FAULT, 0)),
            Both::Shutdown => None,
        }
    }

    /// Has the next VM entry deliver it.
    pub(crate) fn write(self, vmcs: &mut impl VmcsWrite) -> Result<(), NoSuchField> {
        if self.event.has_error_code() {
            vmcs.set(fields::ENTRY_EXCEPTION_ERROR_CODE, self.error_code)?;
        }
        if self.event.is_software() {
            vmcs.set(fields::ENTRY_INSTRUCTION_LENGTH, self.length)?;
        }
        vmcs.set(fields::ENTRY_INTERRUPTION_INFORMATION, self.event.0)
    }
}

#[cfg(test)]
mod tests {
    use chiton_core::vmx::PlainVmcs;

    use super::*;

    const NMI: Injection = Injection::nmi();

    #[test]
    fn two_exceptions_become_what_the_processor_makes_of_them() {
        let e = |vector| Injection::with_code(vector, 0);
        let double = Some(e(DOUBLE_FAULT));
        assert_eq!(e(PF).then(e(PF)), double);
        assert_eq!(e(PF).then(e(GP)), double);
        assert_eq!(e(GP).then(e(GP)), double);
        assert_eq!(
            e(GP).then(e(PF)),
            Some(e(PF)),
            "a page fault in between is served first"
        );
        assert_eq!(e(DOUBLE_FAULT).then(e(GP)), None, "a triple fault");
        assert_eq!(e(DOUBLE_FAULT).then(e(PF)), None);
        assert_eq!(e(DOUBLE_FAULT).then(e(DB)), Some(e(DB)));
        assert_eq!(NMI.then(e(GP)), Some(e(GP)));
    }

    #[test]
    fn an_event_under_way_is_delivered_again_as_it_was() {
        for (information, code, length) in [
            (0x8000_0b0e, Some(6), None),
            (0x8000_0603, None, Some(1)),
            (0x8000_0420, None, Some(2)),
            (0x8000_0202, None, None),
        ] {
            let mut vmcs = PlainVmcs::default()
                .with(fields::IDT_VECTORING_INFORMATION, information)
                .with(fields::IDT_VECTORING_ERROR_CODE, code.unwrap_or(0))
                .with(fields::EXIT_INSTRUCTION_LENGTH, length.unwrap_or(9));
            let injection = Injection::under_way(&vmcs).unwrap();
            injection.write(&mut vmcs).unwrap();
            assert_eq!(vmcs.get(fields::ENTRY_INTERRUPTION_INFORMATION), information);
            assert_eq!(vmcs.get(fields::ENTRY_EXCEPTION_ERROR_CODE), code.unwrap_or(0));
            assert_eq!(vmcs.get(fields::ENTRY_INSTRUCTION_LENGTH), length.unwrap_or(0));
        }
    }

    #[test]
    fn without_the_valid_bit_there_is_no_event() {
        let vmcs = PlainVmcs::default().with(fields::IDT_VECTORING_INFORMATION, 0x30e);
        assert_eq!(Injection::under_way(&vmcs), None);
    }
}

//! Events in the VMCS: what is injected, what exited, and what was being delivered when something else
//! exited. All three fields have one format (SDM volume 3C, sections 26.8.3, 26.9.2 and 26.9.3).

use core::fmt;

use crate::explain::{ErrorCode, Exception};

/// What kind of event it is: bits 10:8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kinds' own names")]
pub enum Kind {
    ExternalInterrupt = 0,
    Reserved = 1,
    Nmi = 2,
    HardwareException = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// INT1.
    PrivilegedSoftwareException = 5,
    /// INT3 and INTO.
    SoftwareException = 6,
    /// When injected: a monitor-trap-flag exit is pending, with vector 0. With FRED also SYSCALL and
    /// SYSENTER, with vectors 1 and 2.
    Other = 7,
}

/// The interruption information of an entry or an exit, or the IDT-vectoring information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event(pub u32);

impl Event {
    /// Bits that mean nothing when injected.
    pub const RESERVED_AT_ENTRY: u32 = 0x7fff_f000;
    /// An error code goes with it: bit 11.
    pub const ERROR_CODE: u32 = 1 << 11;
    /// There is an event: bit 31.
    pub const VALID: u32 = 1 << 31;

    /// An event to inject.
    #[must_use]
    pub const fn new(kind: Kind, vector: u8, error_code: bool) -> Self {
        Self(Self::VALID | (error_code as u32) << 11 | (kind as u32) << 8 | vector as u32)
    }

    /// There is an event.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// Its vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self.0 >> 8 & 7 {
            0 => Kind::ExternalInterrupt,
            1 => Kind::Reserved,
            2 => Kind::Nmi,
            3 => Kind::HardwareException,
            4 => Kind::SoftwareInterrupt,
            5 => Kind::PrivilegedSoftwareException,
            6 => Kind::SoftwareException,
            _ => Kind::Other,
        }
    }

    /// An error code goes with it.
    #[must_use]
    pub const fn has_error_code(self) -> bool {
        self.0 & Self::ERROR_CODE != 0
    }

    /// IRET had ended the blocking of NMIs when it faulted: bit 12 of the information of an exit. The
    /// blocking has to be put back before the guest goes on (SDM volume 3C, section 29.2.3).
    #[must_use]
    pub const fn unblocked_nmi(self) -> bool {
        self.is_valid() && self.0 >> 12 & 1 != 0
    }

    /// An instruction raised it, so that its length has to be told when it is injected.
    #[must_use]
    pub const fn is_software(self) -> bool {
        matches!(
            self.kind(),
            Kind::SoftwareInterrupt | Kind::PrivilegedSoftwareException | Kind::SoftwareException
        )
    }

    /// With its error code, for words.
    #[must_use]
    pub const fn with(self, error_code: u32) -> Told {
        Told {
            event: self,
            error_code,
        }
    }
}

/// An event with its error code, to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The event.
    event: Event,
    /// Its error code, if it has one.
    error_code: u32,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, error_code } = *self;
        if !event.is_valid() {
            return f.write_str("none");
        }
        let vector = event.vector();
        let exception = Exception(u64::from(vector));
        match event.kind() {
            Kind::ExternalInterrupt => write!(f, "external interrupt, vector {vector:#x}")?,
            Kind::Reserved => write!(f, "event of a reserved kind, vector {vector:#x}")?,
            Kind::Nmi => f.write_str("non-maskable interrupt (NMI)")?,
            Kind::HardwareException => write!(f, "{exception}")?,
            Kind::SoftwareInterrupt => write!(f, "INT {vector:#x}")?,
            Kind::PrivilegedSoftwareException => write!(f, "{exception} by INT1")?,
            Kind::SoftwareException => write!(f, "{exception} by an instruction")?,
            Kind::Other => match vector {
                0 => f.write_str("pending monitor-trap-flag exit")?,
                1 => f.write_str("SYSCALL")?,
                2 => f.write_str("SYSENTER")?,
                _ => write!(f, "other event {vector:#x}")?,
            },
        }
        if event.has_error_code() {
            match ErrorCode::new(u64::from(vector), u64::from(error_code)) {
                ErrorCode::None => write!(f, ", error code {error_code:#x}")?,
                code => write!(f, ", error code {code}")?,
            }
        }
        if event.unblocked_nmi() {
            f.write_str(", IRET had unblocked NMIs")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_are_told_in_words() {
        for (event, code, words) in [
            (0, 0, "none"),
            (0x8000_0020, 0, "external interrupt, vector 0x20"),
            (0x8000_0202, 0, "non-maskable interrupt (NMI)"),
            (0x8000_0306, 0, "undefined instruction (#UD)"),
            (0x8000_0480, 0, "INT 0x80"),
            (0x8000_0501, 0, "debug exception (#DB) by INT1"),
            (0x8000_0603, 0, "breakpoint (#BP) by an instruction"),
            (0x8000_0700, 0, "pending monitor-trap-flag exit"),
            (0x8000_1306, 0, "undefined instruction (#UD), IRET had unblocked NMIs"),
            (0x8000_0b08, 0, "double fault (#DF), error code 0x0"),
        ] {
            assert_eq!(Event(event).with(code).to_string(), words);
        }
        let fault = Event(0x8000_0b0e).with(2).to_string();
        assert!(fault.starts_with("page fault (#PF), error code 0x2: write"), "{fault}");
    }

    #[test]
    fn an_event_is_made_of_its_parts() {
        let event = Event::new(Kind::HardwareException, 14, true);
        assert_eq!(event, Event(0x8000_0b0e));
        assert_eq!(
            (event.kind(), event.vector(), event.has_error_code()),
            (Kind::HardwareException, 14, true)
        );
        assert!(!event.is_software() && Event::new(Kind::SoftwareInterrupt, 0x80, false).is_software());
    }

    proptest! {
        #[test]
        fn any_value_is_told(event: u32, code: u32) {
            prop_assert!(!Event(event).with(code).to_string().is_empty());
        }
    }
}

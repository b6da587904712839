//! Events on their way into the guest: EVENTINJ, by which VMRUN delivers one, and EXITINTINFO, which
//! says what was being delivered when the guest exited (APM volume 2, sections 15.20 and 15.7.2).
//!
//! ```text
//! 63              32 31 30           12 11 10     8 7        0
//! ┌─────────────────┬──┬───────────────┬──┬────────┬──────────┐
//! │   error code    │V │       0       │EV│  type  │  vector  │
//! └─────────────────┴──┴───────────────┴──┴────────┴──────────┘
//! ```

use core::fmt;

use crate::exceptions::{self, Both, DOUBLE_FAULT};

/// The types of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An external or virtual interrupt.
    Interrupt,
    /// A non-maskable interrupt.
    Nmi,
    /// A fault or a trap.
    Exception,
    /// `int n`.
    Software,
    /// A type that the APM reserves.
    Reserved(u8),
}

impl Kind {
    const fn of(number: u8) -> Self {
        match number & 7 {
            0 => Self::Interrupt,
            2 => Self::Nmi,
            3 => Self::Exception,
            4 => Self::Software,
            other => Self::Reserved(other),
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Interrupt => 0,
            Self::Nmi => 2,
            Self::Exception => 3,
            Self::Software => 4,
            Self::Reserved(number) => number,
        }
    }
}

/// An event, as both fields hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event(pub u64);

impl Event {
    /// There is an event.
    pub const VALID: u64 = 1 << 31;
    /// It has an error code.
    pub const HAS_CODE: u64 = 1 << 11;

    /// An event of this type.
    #[must_use]
    pub const fn new(kind: Kind, vector: u8, error_code: Option<u32>) -> Self {
        let code = match error_code {
            Some(code) => (code as u64) << 32 | Self::HAS_CODE,
            None => 0,
        };
        Self(Self::VALID | code | (kind.number() as u64) << 8 | vector as u64)
    }

    /// An exception.
    #[must_use]
    pub const fn exception(vector: u8, error_code: Option<u32>) -> Self {
        Self::new(Kind::Exception, vector, error_code)
    }

    /// Whether there is one.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// Its type.
    #[must_use]
    pub const fn kind(self) -> Kind {
        Kind::of((self.0 >> 8) as u8)
    }

    /// Its vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// Its error code.
    #[must_use]
    pub const fn error_code(self) -> Option<u32> {
        if self.0 & Self::HAS_CODE != 0 {
            Some((self.0 >> 32) as u32)
        } else {
            None
        }
    }

    /// Whether an instruction raises it that runs again if the event is dropped, because RIP is still
    /// at it: `int n`, `int3`, `into`. Delivered by VMRUN, its handler would return to that
    /// instruction and not behind it (APM volume 2, section 15.20).
    #[must_use]
    pub const fn is_software(self) -> bool {
        match self.kind() {
            Kind::Software => true,
            Kind::Exception => matches!(self.vector(), 3 | 4),
            _ => false,
        }
    }

    /// What becomes of an exception that is raised while this event is delivered (APM volume 2,
    /// section 8.2.9); `None` is a shutdown. An event that gives way is not lost: its instruction
    /// runs again.
    #[must_use]
    pub fn then(self, second: Self) -> Option<Self> {
        if !self.is_valid() || self.kind() != Kind::Exception {
            return Some(second);
        }
        match exceptions::both(self.vector(), second.vector()) {
            Both::Second => Some(second),
            Both::DoubleFault => Some(Self::exception(DOUBLE_FAULT, Some(0))),
            Both::Shutdown => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_valid() {
            return f.write_str("no event");
        }
        match self.kind() {
            Kind::Interrupt => write!(f, "interrupt {:#x}", self.vector())?,
            Kind::Nmi => f.write_str("NMI")?,
            Kind::Exception => write!(f, "exception {}", self.vector())?,
            Kind::Software => write!(f, "int {:#x}", self.vector())?,
            Kind::Reserved(kind) => write!(f, "event of reserved type {kind}, vector {}", self.vector())?,
        }
        match self.error_code() {
            Some(code) => write!(f, " with error code {code:#x}"),
            None => Ok(()),
        }
    }
}

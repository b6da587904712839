//! The registers of x2APIC mode, as model-specific ones (SDM volume 3A, table 12-6).

use super::{GuestApic, MASKED, SOFTWARE_ENABLED, Vectors};

/// Where the APIC is, and in which mode.
const APIC_BASE: u32 = 0x1b;
/// The timer's deadline.
const DEADLINE: u32 = 0x6e0;

/// The first number that is a register's of x2APIC mode.
pub(super) const FIRST: u32 = 0x800;
const IDENTITY: u32 = 0x802;
const VERSION: u32 = 0x803;
pub(super) const TASK_PRIORITY: u32 = 0x808;
pub(super) const PROCESSOR_PRIORITY: u32 = 0x80a;
pub(super) const END_OF_INTERRUPT: u32 = 0x80b;
const LOGICAL_DESTINATION: u32 = 0x80d;
pub(super) const SPURIOUS_VECTOR: u32 = 0x80f;
pub(super) const IN_SERVICE: u32 = 0x810;
const TRIGGER_MODE: u32 = 0x818;
pub(super) const INTERRUPT_REQUEST: u32 = 0x820;
pub(super) const ERROR: u32 = 0x828;
const COMMAND: u32 = 0x830;
const TIMER_ENTRY: u32 = 0x832;
const OTHER_ENTRIES: u32 = 0x833;
const INITIAL_COUNT: u32 = 0x838;
pub(super) const CURRENT_COUNT: u32 = 0x839;
const DIVIDE: u32 = 0x83e;
pub(super) const SELF_INTERRUPT: u32 = 0x83f;

/// The usual address, enabled, in x2APIC mode (SDM volume 3A, figure 12-26).
const BASE: u64 = 0xfee0_0000 | 1 << 11 | 1 << 10;
/// The processor that is started first.
const BOOTSTRAP: u64 = 1 << 8;
/// Six entries in the local vector table, of an integrated APIC (SDM volume 3A, section 12.4.8).
const VERSION_VALUE: u64 = 5 << 16 | 0x14;
/// Of the error register: sent illegal vector.
const SENT_ILLEGAL: u32 = 1 << 5;
/// Bits of the local vector table that a guest can change: vector, delivery mode, polarity, trigger,
/// mask. For the timer: vector, mask, mode.
const ENTRY_BITS: u32 = 0x1_a7ff;
const TIMER_BITS: u32 = 0b11 << 17 | MASKED | 0xff;

/// The register does not exist, cannot be read or written, or takes no such value: a
/// general-protection exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl GuestApic {
    /// Whether a model-specific register is one of the APIC's.
    #[must_use]
    pub const fn has(register: u32) -> bool {
        matches!(register, APIC_BASE | DEADLINE | 0x800..=0x8ff)
    }

    /// RDMSR, when the machine's counter is at `now`.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn read(&self, register: u32, now: u64) -> Result<u64, Refused> {
        let of = |vectors: &Vectors, first: u32| vectors[(register - first) as usize].into();
        Ok(match register {
            APIC_BASE => self.base(),
            DEADLINE => self.timer.deadline(self.due(), now),
            IDENTITY => self.number.into(),
            VERSION => VERSION_VALUE,
            TASK_PRIORITY => self.task_priority.into(),
            PROCESSOR_PRIORITY => self.processor_priority().into(),
            LOGICAL_DESTINATION => logical(self.number).into(),
            SPURIOUS_VECTOR => self.spurious.into(),
            IN_SERVICE..TRIGGER_MODE => of(&self.in_service, IN_SERVICE),
            // Nothing here is level-triggered.
            TRIGGER_MODE..INTERRUPT_REQUEST => 0,
            INTERRUPT_REQUEST..ERROR => of(&self.bus.requests(self.number), INTERRUPT_REQUEST),
            ERROR => self.error.into(),
            COMMAND => self.command,
            TIMER_ENTRY => self.timer.entry().into(),
            OTHER_ENTRIES..INITIAL_COUNT => self.others[(register - OTHER_ENTRIES) as usize].into(),
            INITIAL_COUNT => self.timer.initial().into(),
            CURRENT_COUNT => self.timer.count(self.due(), now).into(),
            DIVIDE => self.timer.divide().into(),
            _ => return Err(Refused),
        })
    }

    /// WRMSR, when the machine's counter is at `now`.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn write(&mut self, register: u32, value: u64, now: u64) -> Result<(), Refused> {
        let allow = |bits: u64| {
            if value & !bits == 0 {
                Ok(value as u32)
            } else {
                Err(Refused)
            }
        };
        match register {
            // It cannot be switched off, or into another mode.
            APIC_BASE => return if value == self.base() { Ok(()) } else { Err(Refused) },
            DEADLINE => {
                self.expire(now);
                if let Some(due) = self.timer.set_deadline(value, now) {
                    self.set_due(due);
                }
            }
            TASK_PRIORITY => self.task_priority = allow(0xff)? as u8,
            END_OF_INTERRUPT => {
                allow(0)?;
                self.end_of_interrupt();
            }
            SPURIOUS_VECTOR => {
                self.spurious = allow(u64::from(SOFTWARE_ENABLED) | 0xff)?;
                if self.spurious & SOFTWARE_ENABLED == 0 {
                    // All entries are masked while it is off (SDM volume 3A, section 12.4.7.2).
                    self.timer.mask();
                    self.others = self.others.map(|entry| entry | MASKED);
                }
            }
            ERROR => {
                allow(0)?;
                self.error = core::mem::take(&mut self.errors);
            }
            COMMAND => self.command(value)?,
            TIMER_ENTRY => {
                let entry = allow(TIMER_BITS.into())? | self.masked();
                self.expire(now);
                if self.timer.set_entry(entry) {
                    self.set_due(None);
                }
            }
            OTHER_ENTRIES..INITIAL_COUNT => {
                let entry = allow(ENTRY_BITS.into())? | self.masked();
                self.others[(register - OTHER_ENTRIES) as usize] = entry;
            }
            INITIAL_COUNT => {
                let count = allow(u32::MAX.into())?;
                self.expire(now);
                if let Some(due) = self.timer.set_initial(count, now) {
                    self.set_due(due);
                }
            }
            DIVIDE => {
                let divide = allow(0b1011)?;
                self.expire(now);
                if let Some(due) = self.timer.set_divide(divide, self.due(), now) {
                    self.set_due(Some(due));
                }
            }
            SELF_INTERRUPT => {
                let vector = allow(0xff)? as u8;
                self.send(self.number, vector);
            }
            _ => return Err(Refused),
        }
        Ok(())
    }

    fn base(&self) -> u64 {
        BASE | if self.number == 0 { BOOTSTRAP } else { 0 }
    }

    /// The mask that all entries have while the APIC is off.
    const fn masked(&self) -> u32 {
        if self.spurious & SOFTWARE_ENABLED == 0 {
            MASKED
        } else {
            0
        }
    }

    /// The interrupt command register (SDM volume 3A, section 12.12.9): sends.
    fn command(&mut self, value: u64) -> Result<(), Refused> {
        /// Vector, delivery mode, destination mode, level, trigger mode, shorthand; the destination.
        const BITS: u64 = 0xffff_ffff_000c_cfff;
        const FIXED: u64 = 0b000;
        const LOWEST_PRIORITY: u64 = 0b001;
        const NMI: u64 = 0b100;
        if value & !BITS != 0 {
            return Err(Refused);
        }
        self.command = value;
        let (vector, mode, destination) = (value as u8, value >> 8 & 7, (value >> 32) as u32);
        let shorthand = value >> 18 & 3;
        match mode {
            // Lowest priority: of the priorities nothing is known here.
            FIXED | LOWEST_PRIORITY => {}
            // It does not go to its sender by a shorthand (SDM volume 3A, table 12-3).
            NMI if !matches!(shorthand, 0b01 | 0b10) => {}
            // No processor is started, stopped or reset by messages: doorbells do that. SMI has nowhere
            // to go.
            _ => return Ok(()),
        }
        let is_logical = value >> 11 & 1 != 0;
        let own = self.number;
        let to = |processor: u32| match shorthand {
            0b01 => processor == own,
            0b10 => true,
            0b11 => processor != own,
            _ if destination == u32::MAX => true,
            _ if is_logical => {
                let own = logical(processor);
                own >> 16 == destination >> 16 && own & destination & 0xffff != 0
            }
            _ => processor == destination,
        };
        for processor in (0..self.bus.processors()).filter(|processor| to(*processor)) {
            if mode == NMI {
                self.bus.send_nmi(processor);
                continue;
            }
            self.send(processor, vector);
            if mode == LOWEST_PRIORITY {
                break;
            }
        }
        Ok(())
    }

    fn send(&mut self, processor: u32, vector: u8) {
        if vector < 16 {
            self.errors |= SENT_ILLEGAL;
        } else if processor == self.number {
            self.request(vector);
        } else {
            self.bus.send(processor, vector);
        }
    }
}

/// The logical identity of a processor: a cluster of 16, and a bit in it (SDM volume 3A, section
/// 12.12.10.2).
const fn logical(number: u32) -> u32 {
    number >> 4 << 16 | 1 << (number & 15)
}

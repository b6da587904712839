//! Exits by access to a control register, a debug register or a port.

use core::fmt;

use crate::vmx::instruction::register_name;

/// An access to a control register (SDM volume 3C, table 29-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRegister {
    /// MOV to it.
    Write {
        /// Which: 0, 3, 4 or 8.
        control: u8,
        /// Number of the general register with the value.
        register: u8,
    },
    /// MOV from it.
    Read {
        /// Which: 3 or 8.
        control: u8,
        /// Number of the general register for the value.
        register: u8,
    },
    /// CLTS.
    ClearTaskSwitched,
    /// LMSW.
    LoadMachineStatus {
        /// The operand.
        value: u16,
        /// It is in memory; then the guest-linear address is valid.
        in_memory: bool,
    },
}

impl ControlRegister {
    /// Decodes the qualification.
    #[must_use]
    pub const fn new(qualification: u64) -> Self {
        let control = (qualification & 0xf) as u8;
        let register = (qualification >> 8 & 0xf) as u8;
        match qualification >> 4 & 3 {
            0 => Self::Write { control, register },
            1 => Self::Read { control, register },
            2 => Self::ClearTaskSwitched,
            _ => Self::LoadMachineStatus {
                value: (qualification >> 16 & 0xffff) as u16,
                in_memory: qualification >> 6 & 1 != 0,
            },
        }
    }
}

impl fmt::Display for ControlRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Write { control, register } => write!(f, "MOV CR{control}, {}", register_name(u32::from(register))),
            Self::Read { control, register } => write!(f, "MOV {}, CR{control}", register_name(u32::from(register))),
            Self::ClearTaskSwitched => f.write_str("CLTS"),
            Self::LoadMachineStatus { value, in_memory } => {
                write!(f, "LMSW {value:#x}{}", if in_memory { " from memory" } else { "" })
            }
        }
    }
}

/// An access to a debug register (SDM volume 3C, table 29-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugRegister {
    /// Which: 0 to 7.
    pub debug: u8,
    /// It is read.
    pub read: bool,
    /// Number of the general register.
    pub register: u8,
}

impl DebugRegister {
    /// Decodes the qualification.
    #[must_use]
    pub const fn new(qualification: u64) -> Self {
        Self {
            debug: (qualification & 7) as u8,
            read: qualification >> 4 & 1 != 0,
            register: (qualification >> 8 & 0xf) as u8,
        }
    }
}

impl fmt::Display for DebugRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let general = register_name(u32::from(self.register));
        if self.read {
            write!(f, "MOV {general}, DR{}", self.debug)
        } else {
            write!(f, "MOV DR{}, {general}", self.debug)
        }
    }
}

/// An I/O instruction (SDM volume 3C, table 29-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port.
    pub port: u16,
    /// Bytes of one value: 1, 2 or 4.
    pub size: u8,
    /// IN or INS.
    pub input: bool,
    /// INS or OUTS: the values are in memory, and the guest-linear address is valid.
    pub string: bool,
    /// With a REP prefix: as many values as RCX says.
    pub repeated: bool,
    /// The port is in the instruction, not in DX.
    pub immediate: bool,
}

impl Port {
    /// Decodes the qualification. A size that the SDM does not use is taken for 4.
    #[must_use]
    pub const fn new(qualification: u64) -> Self {
        Self {
            port: (qualification >> 16 & 0xffff) as u16,
            size: match qualification & 7 {
                0 => 1,
                1 => 2,
                _ => 4,
            },
            input: qualification >> 3 & 1 != 0,
            string: qualification >> 4 & 1 != 0,
            repeated: qualification >> 5 & 1 != 0,
            immediate: qualification >> 6 & 1 != 0,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mnemonic = match (self.input, self.string) {
            (true, false) => "IN",
            (false, false) => "OUT",
            (true, true) => "INS",
            (false, true) => "OUTS",
        };
        let plural = if self.size == 1 { "" } else { "s" };
        let rep = if self.repeated { "REP " } else { "" };
        write!(
            f,
            "{rep}{mnemonic} of {} byte{plural}, port {:#x}",
            self.size, self.port
        )?;
        f.write_str(if self.immediate {
            " in the instruction"
        } else {
            " in DX"
        })
    }
}

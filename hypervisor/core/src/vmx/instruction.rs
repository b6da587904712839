//! The operands of an instruction that exited: the VM-exit instruction-information field (SDM volume
//! 3C, section 29.2.5). Its format depends on the exit reason.

use core::fmt;

use super::exit::Basic;

/// The general registers by their number in an instruction.
const REGISTERS: [&str; 16] = [
    "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15",
];
/// The segment registers by their number in the field.
const SEGMENTS: [&str; 8] = ["ES", "CS", "SS", "DS", "FS", "GS", "(segment 6)", "(segment 7)"];

/// The name of a general register.
#[must_use]
pub const fn register_name(number: u32) -> &'static str {
    REGISTERS[(number & 15) as usize]
}

/// A memory operand: segment, base, index and scale. The displacement is the exit qualification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Number of the segment register: ES, CS, SS, DS, FS, GS.
    pub segment: u32,
    /// Number of the base register.
    pub base: Option<u32>,
    /// Number of the index register, and its factor.
    pub index: Option<(u32, u32)>,
    /// Bits of the address: 16, 32 or 64.
    pub address_bits: u32,
    /// What is added.
    pub displacement: u64,
}

impl Memory {
    /// From the field and the qualification.
    const fn new(field: u32, displacement: u64) -> Self {
        Self {
            segment: field >> 15 & 7,
            base: if field >> 27 & 1 == 0 {
                Some(field >> 23 & 15)
            } else {
                None
            },
            index: if field >> 22 & 1 == 0 {
                Some((field >> 18 & 15, 1 << (field & 3)))
            } else {
                None
            },
            address_bits: address_bits(field),
            displacement,
        }
    }
}

/// Bits 9:7: the size of addresses.
const fn address_bits(field: u32) -> u32 {
    match field >> 7 & 7 {
        0 => 16,
        1 => 32,
        _ => 64,
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:[", SEGMENTS[(self.segment & 7) as usize])?;
        let mut between = "";
        if let Some(base) = self.base {
            f.write_str(register_name(base))?;
            between = " + ";
        }
        if let Some((index, factor)) = self.index {
            write!(f, "{between}{}", register_name(index))?;
            if factor > 1 {
                write!(f, "*{factor}")?;
            }
            between = " + ";
        }
        if self.displacement != 0 || between.is_empty() {
            let negative = (self.displacement as i64) < 0;
            let sign = match (between, negative) {
                ("", true) => "-",
                ("", false) => "",
                (_, true) => " - ",
                (_, false) => " + ",
            };
            write!(f, "{sign}{:#x}", (self.displacement as i64).unsigned_abs())?;
        }
        f.write_str("]")
    }
}

/// The operands of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operands {
    /// INS: the size of addresses; OUTS: also the segment.
    StringIo {
        /// Bits of the address.
        address_bits: u32,
        /// Number of the segment register; for INS it is always ES and not told.
        segment: u32,
    },
    /// INVEPT, INVPCID, INVVPID: a descriptor in memory, and the kind of invalidation in a register.
    Invalidation {
        /// The descriptor.
        descriptor: Memory,
        /// Number of the register.
        kind: u32,
    },
    /// LGDT, LIDT, SGDT, SIDT.
    DescriptorTable {
        /// SGDT, SIDT, LGDT or LIDT.
        instruction: &'static str,
        /// The pseudo-descriptor.
        memory: Memory,
    },
    /// LLDT, LTR, SLDT, STR.
    Selector {
        /// SLDT, STR, LLDT or LTR.
        instruction: &'static str,
        /// Where the selector is.
        operand: Place,
    },
    /// RDRAND, RDSEED, TPAUSE, UMWAIT: a register, and its bits.
    Register {
        /// Number of the register.
        register: u32,
        /// 16, 32 or 64.
        bits: u32,
    },
    /// VMCLEAR, VMPTRLD, VMPTRST, VMXON, XRSTORS, XSAVES.
    Memory(Memory),
    /// VMREAD, VMWRITE: a value somewhere, and the field's encoding in a register.
    Field {
        /// Where the value is.
        value: Place,
        /// Number of the register with the encoding.
        encoding: u32,
    },
    /// LOADIWKEY: two XMM registers.
    Keys {
        /// Number of the first.
        first: u32,
        /// Number of the second.
        second: u32,
    },
}

/// An operand in a register or in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Number of the register.
    Register(u32),
    /// In memory.
    Memory(Memory),
}

impl Place {
    /// Bit 10 tells which it is.
    const fn new(field: u32, displacement: u64) -> Self {
        if field >> 10 & 1 != 0 {
            Self::Register(field >> 3 & 15)
        } else {
            Self::Memory(Memory::new(field, displacement))
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(number) => f.write_str(register_name(*number)),
            Self::Memory(memory) => write!(f, "{memory}"),
        }
    }
}

impl Operands {
    /// Decodes the field; `None` for exits that do not define it.
    #[must_use]
    pub const fn new(reason: Basic, field: u32, qualification: u64) -> Option<Self> {
        let memory = Memory::new(field, qualification);
        let second = field >> 28;
        Some(match reason {
            // Bit 4 of the qualification tells string instructions.
            Basic::IO_INSTRUCTION if qualification >> 4 & 1 != 0 => Self::StringIo {
                address_bits: address_bits(field),
                segment: field >> 15 & 7,
            },
            Basic::INVEPT | Basic::INVPCID | Basic::INVVPID => Self::Invalidation {
                descriptor: memory,
                kind: second,
            },
            Basic::GDTR_OR_IDTR => {
                let instruction = match field >> 28 & 3 {
                    0 => "SGDT",
                    1 => "SIDT",
                    2 => "LGDT",
                    _ => "LIDT",
                };
                Self::DescriptorTable { instruction, memory }
            }
            Basic::LDTR_OR_TR => {
                let instruction = match field >> 28 & 3 {
                    0 => "SLDT",
                    1 => "STR",
                    2 => "LLDT",
                    _ => "LTR",
                };
                Self::Selector {
                    instruction,
                    operand: Place::new(field, qualification),
                }
            }
            Basic::RDRAND | Basic::RDSEED | Basic::TPAUSE | Basic::UMWAIT => {
                let bits = match field >> 11 & 3 {
                    0 => 16,
                    1 => 32,
                    _ => 64,
                };
                Self::Register {
                    register: field >> 3 & 15,
                    bits,
                }
            }
            Basic::VMCLEAR | Basic::VMPTRLD | Basic::VMPTRST | Basic::VMXON | Basic::XRSTORS | Basic::XSAVES => {
                Self::Memory(memory)
            }
            Basic::VMREAD | Basic::VMWRITE => Self::Field {
                value: Place::new(field, qualification),
                encoding: second,
            },
            Basic::LOADIWKEY => Self::Keys {
                first: field >> 3 & 15,
                second,
            },
            _ => return None,
        })
    }
}

impl fmt::Display for Operands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::StringIo { address_bits, segment } => {
                write!(
                    f,
                    "{address_bits}-bit addresses, segment {}",
                    SEGMENTS[(segment & 7) as usize]
                )
            }
            Self::Invalidation { descriptor, kind } => {
                write!(f, "descriptor at {descriptor}, kind in {}", register_name(kind))
            }
            Self::DescriptorTable { instruction, memory } => write!(f, "{instruction} {memory}"),
            Self::Selector { instruction, operand } => write!(f, "{instruction} {operand}"),
            Self::Register { register, bits } => write!(f, "{bits} bits of {}", register_name(register)),
            Self::Memory(memory) => write!(f, "{memory}"),
            Self::Field { value, encoding } => write!(f, "value {value}, field in {}", register_name(encoding)),
            Self::Keys { first, second } => write!(f, "XMM{first}, XMM{second}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn operands_are_told_as_an_assembler_writes_them() {
        // Base RDI (7), no index, DS (3), 64-bit addresses.
        let memory = 7 << 23 | 1 << 22 | 3 << 15 | 2 << 7;
        // Base RAX, index RCX times 8, SS.
        let indexed = 1 << 18 | 2 << 15 | 2 << 7 | 3;
        let none = 1 << 27 | 1 << 22 | 3 << 15 | 1 << 7;
        for (reason, field, qualification, words) in [
            (
                Basic::INVEPT,
                memory | 2 << 28,
                0,
                "descriptor at DS:[RDI], kind in RDX",
            ),
            (Basic::GDTR_OR_IDTR, memory | 2 << 28, 0x10, "LGDT DS:[RDI + 0x10]"),
            (Basic::LDTR_OR_TR, 3 << 28 | 1 << 10 | 3 << 3, 0, "LTR RBX"),
            (Basic::LDTR_OR_TR, indexed, u64::MAX, "SLDT SS:[RAX + RCX*8 - 0x1]"),
            (Basic::RDRAND, 1 << 11 | 9 << 3, 0, "32 bits of R9"),
            (Basic::VMPTRLD, none, 0x1000, "DS:[0x1000]"),
            (Basic::VMPTRLD, none, 0, "DS:[0x0]"),
            (Basic::VMWRITE, 1 << 10 | 1 << 28, 0, "value RAX, field in RCX"),
            (Basic::LOADIWKEY, 4 << 28 | 1 << 3, 0, "XMM1, XMM4"),
            (
                Basic::IO_INSTRUCTION,
                2 << 7 | 3 << 15,
                1 << 4,
                "64-bit addresses, segment DS",
            ),
        ] {
            assert_eq!(Operands::new(reason, field, qualification).unwrap().to_string(), words);
        }
        assert_eq!(Operands::new(Basic::CPUID, 0, 0), None);
        assert_eq!(
            Operands::new(Basic::IO_INSTRUCTION, 0, 0),
            None,
            "IN and OUT tell all in the qualification"
        );
    }

    proptest! {
        #[test]
        fn any_field_of_any_reason_is_told(reason: u16, field: u32, qualification: u64) {
            if let Some(operands) = Operands::new(Basic(reason), field, qualification) {
                prop_assert!(!operands.to_string().is_empty());
            }
        }
    }
}

//! The few instructions by which compilers and drivers reach device registers, decoded exactly.
//!
//! A processor that leaves a guest because no memory is at an address says where, and at best
//! which bytes stand at RIP. What was to be read or written is in the instruction:
//!
//! ```text
//!   bytes at RIP ─▶ decode ─▶ Instruction ─▶ Access::begin ─▶ Exit::MmioRead or MmioWrite
//!   8b 46 04                  len 3, 4 bytes     │  ▲                 │ the board answers
//!   mov eax, [rsi+4]          load RAX           ▼  └── the value ◀───┘
//!                                        Access::complete: registers, flags, RIP
//! ```
//!
//! Known are, in 64-bit mode and at widths of 8 to 64 bits (SDM volume 2, appendix A): `mov` of
//! registers, immediates and at absolute addresses; `movzx`, `movsx`, `movsxd`; the eight arithmetic
//! operations of opcodes 0x00 to 0x3F and of group 1; `test`; `xchg`; and `movs`, `stos`, `lods`, with
//! `rep` or without. Everything else is refused, with its bytes.

mod access;
mod execute;
mod prefixes;
#[cfg(test)]
mod tests;

use core::fmt;

pub use access::{Access, AccessError};
use prefixes::Prefixes;

use crate::vcpu::{Broken, Registers};

/// The longest instruction a processor takes (SDM volume 2A, section 2.3.11).
pub const LONGEST: usize = 15;

/// How many bytes of memory an instruction reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Width {
    Byte = 1,
    Word = 2,
    Doubleword = 4,
    Quadword = 8,
}

impl Width {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self as usize
    }

    /// In bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self as u32 * 8
    }

    /// All ones, as wide as this.
    #[must_use]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// A value of this width, its sign carried on to 64 bits.
    #[must_use]
    pub const fn sign_extend(self, value: u64) -> u64 {
        let unused = 64 - self.bits();
        ((value << unused).cast_signed() >> unused).cast_unsigned()
    }
}

/// A general register as an instruction names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Its number: 0 is RAX, 4 RSP, 15 R15 (SDM volume 2A, table 3-1).
    pub number: u8,
    /// Whether bits 8 to 15 are meant: AH, CH, DH, BH.
    pub high: bool,
}

/// Where a value comes from that is no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A register.
    Register(Register),
    /// A constant in the instruction, extended to the width as the instruction has it.
    Immediate(u64),
}

/// How a value becomes wider than the memory it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extend {
    /// With zeroes.
    Zero,
    /// With its sign.
    Sign,
}

/// An operation of two values, in the order of their opcodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the instructions' own names")]
pub enum Arithmetic {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    /// Subtracts for the flags alone.
    Cmp,
    /// ANDs for the flags alone.
    Test,
}

impl Arithmetic {
    /// Bits 3 to 5 of an opcode below 0x40, or of a ModRM byte of group 1.
    const fn from_opcode(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Add,
            1 => Self::Or,
            2 => Self::Adc,
            3 => Self::Sbb,
            4 => Self::And,
            5 => Self::Sub,
            6 => Self::Xor,
            _ => Self::Cmp,
        }
    }

    /// Whether there is a result besides the flags.
    #[must_use]
    pub const fn has_result(self) -> bool {
        !matches!(self, Self::Cmp | Self::Test)
    }
}

/// What an instruction does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Memory becomes a value.
    Store(Source),
    /// A register becomes what memory holds.
    Load {
        /// The register.
        to: Register,
        /// How much of it is meant.
        width: Width,
        /// What fills the part that memory is too narrow for.
        extend: Extend,
    },
    /// Memory is the first operand; it becomes the result, if there is one.
    Update(Arithmetic, Source),
    /// A register is the first operand, memory the second; the register becomes the result, if there is one.
    Combine(Arithmetic, Register),
    /// A register and memory change places.
    Exchange(Register),
    /// `stos`: memory at RDI becomes the accumulator.
    StoreString(Repeat),
    /// `lods`: the accumulator becomes what memory at RSI holds.
    LoadString(Repeat),
    /// `movs`: memory at RDI becomes what memory at RSI holds.
    MoveString(Repeat, Segment),
}

/// How a string instruction goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Whether RCX counts (`rep`).
    pub counted: bool,
    /// Whether addresses and the count are of 32 bits.
    pub short: bool,
}

/// The segment by which `movs` reads. Only two have a base in 64-bit mode (SDM volume 1, section 3.4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Segment {
    Flat,
    Fs,
    Gs,
}

/// An instruction that reaches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its length in bytes, 1 to 15.
    pub len: u8,
    /// How much memory it reaches.
    pub width: Width,
    /// What it does.
    pub operation: Operation,
}

impl Instruction {
    /// Whether memory is read. Of `movs`, which has two places, this speaks of neither.
    #[must_use]
    pub const fn reads(&self) -> bool {
        match self.operation {
            Operation::Store(_) | Operation::StoreString(_) | Operation::MoveString(..) => false,
            Operation::Load { .. }
            | Operation::Update(..)
            | Operation::Combine(..)
            | Operation::Exchange(_)
            | Operation::LoadString(_) => true,
        }
    }

    /// Whether memory is written. Of `movs`, which has two places, this speaks of neither.
    #[must_use]
    pub const fn writes(&self) -> bool {
        match self.operation {
            Operation::Store(_) | Operation::StoreString(_) | Operation::Exchange(_) => true,
            Operation::Update(operation, _) => operation.has_result(),
            Operation::Load { .. } | Operation::Combine(..) | Operation::LoadString(_) | Operation::MoveString(..) => {
                false
            }
        }
    }
}

/// Bytes that are none of the instructions known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong with them.
    pub why: Why,
    /// The bytes.
    pub bytes: [u8; LONGEST],
    /// How many of them there are.
    pub len: u8,
}

/// What is wrong with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// They end within an instruction.
    Truncated,
    /// The instruction is longer than 15 bytes.
    TooLong,
    /// Its operands are registers: no memory is reached.
    NoMemory,
    /// It is none of those known here.
    Unknown,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the bytes end within the instruction",
            Self::TooLong => "the instruction is longer than 15 bytes",
            Self::NoMemory => "the instruction reaches no memory",
            Self::Unknown => "no instruction that is known to reach a device register",
        })
    }
}

impl Refused {
    fn new(bytes: &[u8], why: Why) -> Self {
        let len = bytes.len().min(LONGEST);
        let mut kept = [0; LONGEST];
        kept[..len].copy_from_slice(&bytes[..len]);
        Self {
            why,
            bytes: kept,
            len: len as u8,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.why)?;
        for byte in &self.bytes[..usize::from(self.len)] {
            write!(f, " {byte:02x}")?;
        }
        Ok(())
    }
}

impl core::error::Error for Refused {}

impl From<Refused> for Broken {
    fn from(Refused { bytes, len, .. }: Refused) -> Self {
        Self::Emulation { bytes, len }
    }
}

/// Decodes the instruction at the beginning of some bytes, of which at most 15 are looked at. The
/// processor is in 64-bit mode.
///
/// # Errors
///
/// When it is none of those known here.
pub fn decode(bytes: &[u8]) -> Result<Instruction, Refused> {
    instruction(bytes).map_err(|why| Refused::new(bytes, why))
}

/// The length of an instruction without operands in memory, such as `cpuid` or `hlt`, by its opcode:
/// prefixes may stand before it. `None` when the bytes are another instruction.
///
/// Processors that do not save where the next instruction is (nRIP, APM volume 2, section 15.7.1) leave this
/// to the hypervisor.
#[must_use]
pub fn length_of(bytes: &[u8], opcode: &[u8]) -> Option<u8> {
    let mut reader = Reader::new(bytes);
    Prefixes::read(&mut reader).ok()?;
    for expected in opcode {
        if reader.u8().ok()? != *expected {
            return None;
        }
    }
    Some(reader.len())
}

/// The segment that the prefixes of an instruction name, as instructions number them: 0 is ES, 5 GS.
#[must_use]
pub fn segment_of(bytes: &[u8]) -> Option<u8> {
    Prefixes::read(&mut Reader::new(bytes)).ok()?.named_segment
}

/// Reads bytes one after the other, 15 at most.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn u8(&mut self) -> Result<u8, Why> {
        if self.at == LONGEST {
            return Err(Why::TooLong);
        }
        let byte = *self.bytes.get(self.at).ok_or(Why::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// A little-endian number of this many bytes.
    fn number(&mut self, width: Width) -> Result<u64, Why> {
        let mut value = 0;
        for i in 0..width.bytes() {
            value |= u64::from(self.u8()?) << (8 * i);
        }
        Ok(value)
    }

    const fn len(&self) -> u8 {
        self.at as u8
    }
}

/// A ModRM byte whose operand is memory, with everything that belongs to its address passed over
/// (SDM volume 2A, section 2.1.5): where it lies the processor has said.
struct ModRm {
    /// Bits 3 to 5: a register, or the rest of the opcode.
    middle: u8,
}

impl ModRm {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Why> {
        let byte = reader.u8()?;
        let (mode, rm) = (byte >> 6, byte & 7);
        if mode == 3 {
            return Err(Why::NoMemory);
        }
        let no_base = match rm {
            4 => reader.u8()? & 7 == 5,
            5 => true,
            _ => false,
        };
        match mode {
            0 if no_base => _ = reader.number(Width::Doubleword)?,
            1 => _ = reader.u8()?,
            2 => _ = reader.number(Width::Doubleword)?,
            _ => (),
        }
        Ok(Self { middle: byte >> 3 & 7 })
    }

    /// The register that the middle bits name, in an operand of this width.
    const fn register(&self, prefixes: &Prefixes, width: Width) -> Register {
        // Without REX, byte registers 4 to 7 are AH to BH (SDM volume 2A, table 3-1).
        if matches!(width, Width::Byte) && !prefixes.rex && self.middle >= 4 {
            return Register {
                number: self.middle - 4,
                high: true,
            };
        }
        Register {
            number: self.middle | prefixes.register_high,
            high: false,
        }
    }
}

const ACCUMULATOR: Register = Register { number: 0, high: false };

fn instruction(bytes: &[u8]) -> Result<Instruction, Why> {
    let mut reader = Reader::new(bytes);
    let reader = &mut reader;
    let prefixes = Prefixes::read(reader)?;
    let opcode = reader.u8()?;
    // In most opcodes bit 0 says whether the operand is wider than a byte.
    let width = if opcode & 1 == 0 { Width::Byte } else { prefixes.width() };
    let (width, operation) = match opcode {
        // op r/m, r and op r, r/m.
        0x00..=0x3f if opcode & 4 == 0 => {
            let register = ModRm::read(reader)?.register(&prefixes, width);
            let arithmetic = Arithmetic::from_opcode(opcode >> 3);
            let operation = if opcode & 2 == 0 {
                Operation::Update(arithmetic, Source::Register(register))
            } else {
                Operation::Combine(arithmetic, register)
            };
            (width, operation)
        }
        // movsxd. Without REX.W nothing is extended, and the manuals advise against it.
        0x63 if prefixes.wide => {
            let to = ModRm::read(reader)?.register(&prefixes, Width::Quadword);
            let load = Operation::Load {
                to,
                width: Width::Quadword,
                extend: Extend::Sign,
            };
            (Width::Doubleword, load)
        }
        // Group 1: op r/m, imm.
        0x80 | 0x81 | 0x83 => {
            let arithmetic = Arithmetic::from_opcode(ModRm::read(reader)?.middle);
            let value = if opcode == 0x83 {
                Width::Byte.sign_extend(reader.number(Width::Byte)?) & width.mask()
            } else {
                immediate(reader, width)?
            };
            (width, Operation::Update(arithmetic, Source::Immediate(value)))
        }
        // test r/m, r.
        0x84 | 0x85 => {
            let register = ModRm::read(reader)?.register(&prefixes, width);
            (width, Operation::Update(Arithmetic::Test, Source::Register(register)))
        }
        // xchg r/m, r.
        0x86 | 0x87 => (
            width,
            Operation::Exchange(ModRm::read(reader)?.register(&prefixes, width)),
        ),
        // mov r/m, r.
        0x88 | 0x89 => {
            let register = ModRm::read(reader)?.register(&prefixes, width);
            (width, Operation::Store(Source::Register(register)))
        }
        // mov r, r/m.
        0x8a | 0x8b => (width, load(ModRm::read(reader)?.register(&prefixes, width), width)),
        // mov between the accumulator and an absolute address.
        0xa0..=0xa3 => {
            reader.number(if prefixes.short_addresses {
                Width::Doubleword
            } else {
                Width::Quadword
            })?;
            let operation = if opcode < 0xa2 {
                load(ACCUMULATOR, width)
            } else {
                Operation::Store(Source::Register(ACCUMULATOR))
            };
            (width, operation)
        }
        0xa4 | 0xa5 => (width, Operation::MoveString(prefixes.repeat(), prefixes.segment)),
        0xaa | 0xab => (width, Operation::StoreString(prefixes.repeat())),
        0xac | 0xad => (width, Operation::LoadString(prefixes.repeat())),
        // mov r/m, imm.
        0xc6 | 0xc7 => {
            if ModRm::read(reader)?.middle != 0 {
                return Err(Why::Unknown);
            }
            (width, Operation::Store(Source::Immediate(immediate(reader, width)?)))
        }
        // test r/m, imm.
        0xf6 | 0xf7 => {
            if ModRm::read(reader)?.middle != 0 {
                return Err(Why::Unknown);
            }
            let value = Source::Immediate(immediate(reader, width)?);
            (width, Operation::Update(Arithmetic::Test, value))
        }
        0x0f => extending(reader, &prefixes)?,
        _ => return Err(Why::Unknown),
    };
    prefixes.check(&operation)?;
    Ok(Instruction {
        len: reader.len(),
        width,
        operation,
    })
}

const fn load(to: Register, width: Width) -> Operation {
    Operation::Load {
        to,
        width,
        extend: Extend::Zero,
    }
}

/// movzx and movsx.
fn extending(reader: &mut Reader<'_>, prefixes: &Prefixes) -> Result<(Width, Operation), Why> {
    let opcode = reader.u8()?;
    let extend = match opcode {
        0xb6 | 0xb7 => Extend::Zero,
        0xbe | 0xbf => Extend::Sign,
        _ => return Err(Why::Unknown),
    };
    let from = if opcode & 1 == 0 { Width::Byte } else { Width::Word };
    let width = prefixes.width();
    let to = ModRm::read(reader)?.register(prefixes, width);
    Ok((from, Operation::Load { to, width, extend }))
}

/// An immediate as wide as the operand, but of 32 bits at most, whose sign is carried on to 64 (SDM
/// volume 2A, section 2.2.1.5).
fn immediate(reader: &mut Reader<'_>, width: Width) -> Result<u64, Why> {
    let stored = width.min(Width::Doubleword);
    Ok(stored.sign_extend(reader.number(stored)?) & width.mask())
}

impl Register {
    /// Its value, this wide.
    #[must_use]
    pub fn read(self, registers: &Registers, width: Width) -> u64 {
        registers.general(self.number) >> (8 * u32::from(self.high)) & width.mask()
    }

    /// Changes it: a part of 32 bits clears the rest, a smaller one leaves it (SDM volume 1,
    /// section 3.4.1.1).
    pub fn write(self, registers: &mut Registers, width: Width, value: u64) {
        let register = registers.general_mut(self.number);
        let shift = 8 * u32::from(self.high);
        let kept = match width {
            Width::Byte | Width::Word => !(width.mask() << shift),
            Width::Doubleword | Width::Quadword => 0,
        };
        *register = *register & kept | (value & width.mask()) << shift;
    }
}

//! What an instruction does to registers and flags, once memory has answered.

use super::{Arithmetic, Extend, Instruction, Operation, Register, Repeat, Segment, Source, Width};
use crate::vcpu::Registers;

/// Flags (SDM volume 1, section 3.4.3).
const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
pub(super) const DF: u64 = 1 << 10;
const OF: u64 = 1 << 11;

const ACCUMULATOR: Register = super::ACCUMULATOR;
const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;

impl Instruction {
    /// The value to be written, if it does not depend on memory.
    #[must_use]
    pub fn stored(&self, registers: &Registers) -> Option<u64> {
        match self.operation {
            Operation::Store(source) => Some(source.read(registers, self.width)),
            Operation::StoreString(_) => Some(ACCUMULATOR.read(registers, self.width)),
            _ => None,
        }
    }

    /// Where `movs` reads, a linear address, given the bases of FS and GS; `None` for any other.
    #[must_use]
    pub fn reads_from(&self, registers: &Registers, fs: u64, gs: u64) -> Option<u64> {
        let Operation::MoveString(repeat, segment) = self.operation else {
            return None;
        };
        let base = match segment {
            Segment::Flat => 0,
            Segment::Fs => fs,
            Segment::Gs => gs,
        };
        Some(base.wrapping_add(repeat.pointer(registers, RSI)))
    }

    /// Where `movs` writes, a linear address; `None` for any other.
    #[must_use]
    pub fn writes_to(&self, registers: &Registers) -> Option<u64> {
        match self.operation {
            Operation::MoveString(repeat, _) => Some(repeat.pointer(registers, RDI)),
            _ => None,
        }
    }

    /// Changes the registers as the instruction does, given what memory held (or anything, if it
    /// does not read), and says what memory becomes, if it writes.
    ///
    /// RIP passes the instruction, unless it is repeated and has not come to its end.
    pub fn execute(&self, registers: &mut Registers, memory: u64) -> Option<u64> {
        let width = self.width;
        let memory = memory & width.mask();
        let written = match self.operation {
            Operation::Store(source) => Some(source.read(registers, width)),
            Operation::Load {
                to,
                width: wide,
                extend,
            } => {
                let value = match extend {
                    Extend::Zero => memory,
                    Extend::Sign => width.sign_extend(memory),
                };
                to.write(registers, wide, value);
                None
            }
            Operation::Update(arithmetic, source) => {
                let second = source.read(registers, width);
                let result = arithmetic.compute(&mut registers.rflags, width, memory, second);
                arithmetic.has_result().then_some(result)
            }
            Operation::Combine(arithmetic, to) => {
                let first = to.read(registers, width);
                let result = arithmetic.compute(&mut registers.rflags, width, first, memory);
                if arithmetic.has_result() {
                    to.write(registers, width, result);
                }
                None
            }
            Operation::Exchange(register) => {
                let value = register.read(registers, width);
                register.write(registers, width, memory);
                Some(value)
            }
            Operation::StoreString(repeat) => {
                let value = ACCUMULATOR.read(registers, width);
                self.next(registers, repeat, &[RDI]);
                return Some(value);
            }
            Operation::LoadString(repeat) => {
                ACCUMULATOR.write(registers, width, memory);
                self.next(registers, repeat, &[RSI]);
                return None;
            }
            Operation::MoveString(repeat, _) => {
                self.next(registers, repeat, &[RSI, RDI]);
                return Some(memory);
            }
        };
        registers.rip = registers.rip.wrapping_add(self.len.into());
        written
    }

    /// One round of a string instruction is done.
    fn next(&self, registers: &mut Registers, repeat: Repeat, pointers: &[u8]) {
        let width = repeat.addresses();
        let step = self.width.bytes() as u64;
        let back = registers.rflags & DF != 0;
        let mut add = |number, amount: u64| {
            let register = Register { number, high: false };
            let value = register.read(registers, width).wrapping_add(amount);
            register.write(registers, width, value);
            value & width.mask()
        };
        for pointer in pointers {
            add(*pointer, if back { step.wrapping_neg() } else { step });
        }
        if !repeat.counted || add(RCX, u64::MAX) == 0 {
            registers.rip = registers.rip.wrapping_add(self.len.into());
        }
    }
}

impl Repeat {
    /// How wide addresses and the count are.
    const fn addresses(self) -> Width {
        if self.short { Width::Doubleword } else { Width::Quadword }
    }

    /// What a pointer register says with this width.
    fn pointer(self, registers: &Registers, number: u8) -> u64 {
        registers.general(number) & self.addresses().mask()
    }
}

impl Source {
    fn read(self, registers: &Registers, width: Width) -> u64 {
        match self {
            Self::Register(register) => register.read(registers, width),
            Self::Immediate(value) => value,
        }
    }
}

impl Arithmetic {
    /// The result, this wide, and the flags that go with it.
    pub(super) fn compute(self, flags: &mut u64, width: Width, first: u64, second: u64) -> u64 {
        let mask = width.mask();
        let top = mask ^ mask >> 1;
        let carry = *flags & CF;
        // Carries into each bit tell CF, AF and OF: those into the bit above the top, into bit 4,
        // and whether those into and out of the top differ.
        let (result, carries) = match self {
            Self::Add | Self::Adc => {
                let carry = if matches!(self, Self::Adc) { carry } else { 0 };
                let result = first.wrapping_add(second).wrapping_add(carry) & mask;
                (result, Some(first & second | (first | second) & !result))
            }
            Self::Sub | Self::Sbb | Self::Cmp => {
                let carry = if matches!(self, Self::Sbb) { carry } else { 0 };
                let result = first.wrapping_sub(second).wrapping_sub(carry) & mask;
                (result, Some(!first & second | (!first | second) & result))
            }
            Self::Or => (first | second, None),
            Self::Xor => (first ^ second, None),
            Self::And | Self::Test => (first & second, None),
        };
        // Those of the logical operations are clear; their AF is undefined, and clear in fact.
        let out = carries.unwrap_or(0) & mask;
        let mut set = 0;
        let mut flag = |flag, on| set |= if on { flag } else { 0 };
        flag(CF, out & top != 0);
        flag(AF, out & 1 << 3 != 0);
        flag(OF, (out & top != 0) != (out & top >> 1 != 0));
        flag(ZF, result == 0);
        flag(SF, result & top != 0);
        flag(PF, (result as u8).count_ones().is_multiple_of(2));
        *flags = *flags & !(CF | PF | AF | ZF | SF | OF) | set;
        result
    }
}

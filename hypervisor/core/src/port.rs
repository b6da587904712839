//! IN, OUT, INS and OUTS carried out for a guest, from the exit to the registers' new values.
//!
//! The string instructions go element by element: after each, the guest is entered at the same
//! instruction with one element less to do, so that it can be interrupted in between.

use crate::decode::Width;
use crate::vcpu::{Exit, Registers};

/// RFLAGS.DF: strings are gone through downwards.
const DOWN: u64 = 1 << 10;

/// An access to a port under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// The port.
    pub port: u16,
    /// `in` and `ins`; else `out` and `outs`.
    pub input: bool,
    /// How much: 8, 16 or 32 bits.
    pub width: Width,
    /// Whether it is `ins` or `outs`, and of which kind.
    pub string: Option<StringPort>,
    data: [u8; 4],
}

/// What a string instruction has beside the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringPort {
    /// Whether RCX counts.
    pub repeated: bool,
    /// How many bits of RSI or RDI, and of RCX, count: 16, 32 or 64.
    pub addresses: Width,
    /// Base of the segment of the memory operand.
    pub base: u64,
}

impl PortAccess {
    /// An access that has not begun.
    #[must_use]
    pub const fn new(port: u16, input: bool, width: Width, string: Option<StringPort>) -> Self {
        Self {
            port,
            input,
            width,
            string,
            data: [0; 4],
        }
    }

    /// Whether nothing is to be done: a repeated instruction with a count of zero.
    #[must_use]
    pub fn is_over(&self, registers: &Registers) -> bool {
        self.string
            .is_some_and(|string| string.repeated && registers.rcx & string.addresses.mask() == 0)
    }

    /// The linear address of the memory operand of `ins` and `outs`.
    #[must_use]
    pub fn memory(&self, registers: &Registers) -> Option<u64> {
        let string = self.string?;
        let pointer = if self.input { registers.rdi } else { registers.rsi };
        Some(string.base.wrapping_add(pointer & string.addresses.mask()))
    }

    /// The value: what `out` takes from RAX or `outs` from memory goes there before
    /// [`exit`](Self::exit), and what `ins` writes to memory is there behind it.
    pub fn value(&mut self) -> &mut [u8] {
        &mut self.data[..self.width.bytes().min(4)]
    }

    /// Takes the value of `out` from RAX.
    pub fn take(&mut self, registers: &Registers) {
        self.data = (registers.rax as u32).to_le_bytes();
    }

    /// Whether the instruction is over before the board has answered: `out`, of which nothing comes back. Whoever looks
    /// at the guest meanwhile finds it behind the instruction.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        !self.input && self.string.is_none()
    }

    /// What the board has to do.
    pub fn exit(&mut self) -> Exit<'_> {
        let (port, input) = (self.port, self.input);
        let data = self.value();
        if input {
            Exit::In { port, data }
        } else {
            Exit::Out { port, data }
        }
    }

    /// Changes the registers when the board has answered, and says whether the instruction is
    /// over: RIP is for whoever knows how long it is.
    #[must_use]
    pub fn complete(&self, registers: &mut Registers) -> bool {
        let Some(string) = self.string else {
            if self.input {
                let value = u64::from(u32::from_le_bytes(self.data));
                registers.rax = match self.width {
                    Width::Byte | Width::Word => registers.rax & !self.width.mask() | value & self.width.mask(),
                    Width::Doubleword | Width::Quadword => value,
                };
            }
            return true;
        };
        let len = self.width.bytes() as u64;
        let step = if registers.rflags & DOWN == 0 {
            len
        } else {
            len.wrapping_neg()
        };
        let pointer = if self.input {
            &mut registers.rdi
        } else {
            &mut registers.rsi
        };
        *pointer = step_in(*pointer, step, string.addresses);
        if !string.repeated {
            return true;
        }
        registers.rcx = step_in(registers.rcx, u64::MAX, string.addresses);
        registers.rcx & string.addresses.mask() == 0
    }
}

/// A register of which so much counts, changed by so much. A change of 32 bits clears the upper half,
/// one of 16 leaves it (SDM volume 1, section 3.4.1.1).
const fn step_in(register: u64, by: u64, width: Width) -> u64 {
    let kept = match width {
        Width::Byte | Width::Word => register & !width.mask(),
        Width::Doubleword | Width::Quadword => 0,
    };
    kept | register.wrapping_add(by) & width.mask()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(input: bool, width: Width, string: Option<StringPort>) -> PortAccess {
        PortAccess::new(0x510, input, width, string)
    }

    #[test]
    fn out_gives_as_much_of_rax_as_its_width_says() {
        let registers = Registers {
            rax: 0x1122_3344_5566_7788,
            ..Registers::default()
        };
        for (width, data) in [
            (Width::Byte, &[0x88][..]),
            (Width::Word, &[0x88, 0x77]),
            (Width::Doubleword, &[0x88, 0x77, 0x66, 0x55]),
        ] {
            let mut out = access(false, width, None);
            out.take(&registers);
            assert_eq!(out.exit(), Exit::Out { port: 0x510, data });
        }
    }

    #[test]
    fn in_changes_as_much_of_rax_as_its_width_says() {
        for (width, rax) in [
            (Width::Byte, 0x1111_1111_1111_11aa),
            (Width::Word, 0x1111_1111_1111_bbaa),
            (Width::Doubleword, 0xddcc_bbaa),
        ] {
            let mut registers = Registers {
                rax: 0x1111_1111_1111_1111,
                ..Registers::default()
            };
            let mut input = access(true, width, None);
            let Exit::In { port: 0x510, data } = input.exit() else {
                panic!("it reads")
            };
            data.copy_from_slice(&[0xaa, 0xbb, 0xcc, 0xdd][..width.bytes()]);
            assert!(input.complete(&mut registers));
            assert_eq!(registers.rax, rax);
        }
    }

    #[test]
    fn a_repeated_string_goes_element_by_element_to_its_end() {
        let string = StringPort {
            repeated: true,
            addresses: Width::Quadword,
            base: 0x100,
        };
        let outs = access(false, Width::Word, Some(string));
        let mut registers = Registers {
            rcx: 2,
            rsi: 0x1000,
            rflags: DOWN,
            ..Registers::default()
        };
        assert_eq!(outs.memory(&registers), Some(0x1100));
        assert!(!outs.complete(&mut registers));
        assert_eq!(outs.memory(&registers), Some(0x10fe));
        assert!(!outs.is_over(&registers));
        assert!(outs.complete(&mut registers));
        assert!(outs.is_over(&registers));
        assert_eq!((registers.rcx, registers.rdi), (0, 0));
    }

    #[test]
    fn pointers_and_counts_stay_in_their_width() {
        assert_eq!(step_in(u64::MAX, 1, Width::Quadword), 0);
        assert_eq!(step_in(0x1_ffff_ffff, 1, Width::Doubleword), 0);
        assert_eq!(step_in(0x5_ffff, 1, Width::Word), 0x5_0000);
    }
}

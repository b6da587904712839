//! One access of an instruction to a device register, from the exit to the registers' new values.

use super::{Instruction, Operation};
use crate::vcpu::{Exit, Registers};

/// An access under way.
///
/// The backend gives its [`exit`](Self::exit) to the run loop. When the processor is to run again, the
/// board has answered, and [`complete`](Self::complete) does the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    instruction: Instruction,
    address: u64,
    data: [u8; 8],
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The board fills `data` in.
    Read,
    /// The board takes `data`; the registers are still as before.
    Write,
    /// The board takes `data`, which came of what was read; the registers are done.
    WriteBack,
}

/// Why an access cannot be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The processor said that the instruction writes, or reads, and it does not: another
    /// processor has changed it meanwhile, or it met the address on another way.
    #[error("the instruction at RIP does not access memory as the processor says")]
    Otherwise,
    /// `movs` with two addresses where no memory is.
    #[error("`movs` at RIP copies between {0:#x}, where no memory is, and a device register")]
    NoMemory(u64),
}

impl Access {
    /// Begins an access to guest-physical `address`, where no memory is. Whether it `writes` is
    /// what the processor says. For the sake of `movs` to a register, `read` fills in what memory
    /// holds at a linear address, or returns false; `fs` and `gs` are the bases of these segments.
    ///
    /// # Errors
    ///
    /// When the instruction does no such thing, or `movs` reads where no memory is.
    pub fn begin(
        instruction: Instruction,
        registers: &Registers,
        (fs, gs): (u64, u64),
        (address, writes): (u64, bool),
        read: impl FnOnce(u64, &mut [u8]) -> bool,
    ) -> Result<Self, AccessError> {
        let mut access = Self {
            instruction,
            address,
            data: [0; 8],
            stage: Stage::Read,
        };
        if let Some(source) = instruction.reads_from(registers, fs, gs) {
            if writes {
                if !read(source, &mut access.data[..instruction.width.bytes()]) {
                    return Err(AccessError::NoMemory(source));
                }
                access.stage = Stage::Write;
            }
        } else if let Some(value) = instruction.stored(registers) {
            access.data = value.to_le_bytes();
            access.stage = Stage::Write;
        }
        // A processor may report an instruction that reads and writes as either.
        let as_told = match instruction.operation {
            Operation::MoveString(..) => true,
            _ if writes => instruction.writes(),
            _ => instruction.reads(),
        };
        if as_told {
            Ok(access)
        } else {
            Err(AccessError::Otherwise)
        }
    }

    /// What the board has to do.
    pub fn exit(&mut self) -> Exit<'_> {
        let data = &mut self.data[..self.instruction.width.bytes()];
        match self.stage {
            Stage::Read => Exit::MmioRead {
                address: self.address,
                data,
            },
            Stage::Write | Stage::WriteBack => Exit::MmioWrite {
                address: self.address,
                data,
            },
        }
    }

    /// Goes on when the board has answered: changes the registers, or gives the write that an instruction like
    /// `or [rdi], eax` has still to do. For the sake of `movs` from a register, `write` changes memory at
    /// a linear address, or returns false.
    ///
    /// # Errors
    ///
    /// When `movs` writes where no memory is; the registers are then as before.
    pub fn complete(
        self,
        registers: &mut Registers,
        write: impl FnOnce(u64, &[u8]) -> bool,
    ) -> Result<Option<Self>, AccessError> {
        match self.stage {
            Stage::WriteBack => return Ok(None),
            Stage::Write => {
                self.instruction.execute(registers, 0);
                return Ok(None);
            }
            Stage::Read => {}
        }
        if let Some(destination) = self.instruction.writes_to(registers)
            && !write(destination, &self.data[..self.instruction.width.bytes()])
        {
            return Err(AccessError::NoMemory(destination));
        }
        let written = self.instruction.execute(registers, u64::from_le_bytes(self.data));
        if !self.instruction.writes() {
            return Ok(None);
        }
        Ok(written.map(|value| Self {
            data: value.to_le_bytes(),
            stage: Stage::WriteBack,
            ..self
        }))
    }
}

//! The processors beyond the first: their own part of the world.

use core::mem::offset_of;

use chiton_shared::doorbell::Mailbox;
use chiton_shared::processor::{self, TRAP_STACK_SIZE};

use super::{Place, descriptors};

/// The bytes that only one processor has.
#[derive(Clone, Debug)]
pub(super) struct Processor {
    number: u32,
    block: u64,
    tss: [u8; descriptors::TSS_SIZE],
    in_mailbox: [u8; 8],
}

impl Processor {
    /// Processor `number`, 1 or more, whose block begins at `block`.
    pub(super) const fn new(number: u32, block: u64) -> Self {
        let first = processor::trap_stacks(number) + TRAP_STACK_SIZE;
        Self {
            number,
            block,
            tss: descriptors::tss(first, first + TRAP_STACK_SIZE, TRAP_STACK_SIZE),
            in_mailbox: (number as u64).to_le_bytes(),
        }
    }

    /// What belongs where.
    pub(super) fn pieces(&self) -> [(u64, &[u8], Place); 2] {
        let number = self.block + processor::MAILBOX + offset_of!(Mailbox, processor) as u64;
        [
            (processor::tss(self.number), &self.tss, Place::Tss),
            (number, &self.in_mailbox, Place::Mailbox),
        ]
    }
}

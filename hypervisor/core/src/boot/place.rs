//! What an address is, in words.

use core::fmt;

use chiton_shared::{map, processor};

use super::World;
use super::layout::is_memory;

/// What lies at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The boot page.
    BootPage,
    /// Arguments and environment.
    Strings,
    /// The global descriptor table.
    Gdt,
    /// The task state segment.
    Tss,
    /// The interrupt descriptor table.
    Idt,
    /// Code of the trap stubs.
    TrapStubs,
    /// Code of the interrupt stubs.
    InterruptStubs,
    /// The trap stack of this number.
    TrapStack(u64),
    /// The trap stacks of processors beyond the first.
    ProcessorTrapStacks,
    /// A mailbox.
    Mailbox,
    /// The virtqueues.
    Queues,
    /// Code of the image.
    Text,
    /// Data of the image that nobody writes.
    ReadOnlyData,
    /// Data of the image that was relocated before the start, and is read-only since.
    Relro,
    /// Data of the image.
    Data,
    /// The stack.
    Stack,
    /// The heap.
    Heap,
    /// The window of the devices' register blocks.
    Devices,
    /// The register block of the device of this number.
    Device(usize),
    /// The addresses a null pointer, or one with a small offset, leads to.
    Null,
    /// The page tables.
    PageTables,
    /// The page below or above a trap stack.
    TrapStackGuard,
    /// The guard page below the stack: the end of a stack overflow.
    BelowStack,
    /// The guard page above the stack.
    AboveStack,
    /// Memory that is mapped for nobody.
    Unmapped,
    /// Addresses without memory.
    NoMemory,
    /// Not an address: bits 48 to 63 differ from bit 47 (SDM volume 1, section 3.3.7.1).
    NonCanonical,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::TrapStack(n) => return write!(f, "trap stack {n}"),
            Self::Device(n) => return write!(f, "registers of device {n}"),
            Self::BootPage => "boot page",
            Self::Strings => "arguments and environment",
            Self::Gdt => "global descriptor table",
            Self::Tss => "task state segment",
            Self::Idt => "interrupt descriptor table",
            Self::TrapStubs => "trap stubs",
            Self::InterruptStubs => "interrupt stubs",
            Self::ProcessorTrapStacks => "trap stacks of other processors",
            Self::Mailbox => "mailbox",
            Self::Queues => "virtqueues",
            Self::Text => "code",
            Self::ReadOnlyData => "read-only data",
            Self::Relro => "data that is read-only after relocation",
            Self::Data => "data",
            Self::Stack => "stack",
            Self::Heap => "heap",
            Self::Devices => "device registers",
            Self::Null => "null page",
            Self::PageTables => "page tables",
            Self::TrapStackGuard => "guard page of a trap stack",
            Self::BelowStack => "guard page below the stack",
            Self::AboveStack => "guard page above the stack",
            Self::Unmapped => "unmapped memory",
            Self::NoMemory => "an address without memory",
            Self::NonCanonical => "a non-canonical address",
        };
        f.pad(words)
    }
}

/// Whether bits 48 to 63 of an address are copies of bit 47.
const fn is_canonical(address: u64) -> bool {
    let top = (address.cast_signed()) >> 47;
    top == 0 || top == -1
}

impl World<'_> {
    /// What an address is, mapped or not.
    #[must_use]
    pub fn describe(&self, address: u64) -> Place {
        if let Some(mapping) = self.mappings.iter().find(|m| m.contains(address)) {
            return match mapping.place {
                Place::Devices => Place::Device(((address - map::DEVICES) / map::DEVICE_STRIDE) as usize),
                place => place,
            };
        }
        let (stack, memory) = (&self.layout.stack, self.layout.memory);
        match address {
            _ if !is_canonical(address) => Place::NonCanonical,
            0..map::NULL_END => Place::Null,
            map::TRAP_STACKS..=TRAP_STACKS_LAST => Place::TrapStackGuard,
            map::PAGE_TABLES..map::PAGE_TABLES_END => Place::PageTables,
            _ if (stack.start - map::PAGE..stack.start).contains(&address) => Place::BelowStack,
            _ if (stack.end..stack.end + map::PAGE).contains(&address) => Place::AboveStack,
            _ if self.layout.processors.contains(&address) => self.describe_guard(address),
            _ if is_memory(address..address.saturating_add(1), memory) => Place::Unmapped,
            _ => Place::NoMemory,
        }
    }
}

impl World<'_> {
    /// Which of the pages between the parts of a processor's block an address is in.
    fn describe_guard(&self, address: u64) -> Place {
        let stack = self.layout.stack.end - self.layout.stack.start;
        match (address - self.layout.processors.start) % processor::stride(stack) {
            offset if offset >= processor::STACK + stack => Place::AboveStack,
            _ => Place::BelowStack,
        }
    }
}

/// The last byte of the guard above the last trap stack.
const TRAP_STACKS_LAST: u64 = map::trap_stack(map::TRAP_STACK_COUNT - 1).1 + map::PAGE - 1;

//! The boot image: a guest's world as the host builds it, so that the guest runs no boot code.
//!
//! ```text
//!   Image + Options ─▶ layout ─▶ mappings ─▶ page tables ┐
//!                        │                               ├─▶ World ─▶ write_to(guest memory)
//!   constant: GDT, TSS, IDT, trap stubs ─────────────────┤      └──▶ registers, for the vCPU
//!                        └─▶ boot page, strings ─────────┘
//! ```
//!
//! A [`World`] is a value. Nothing of it needs a virtual machine, so that a test can look at every
//! byte and every page before one exists.
//!
//! | file | what it decides |
//! |---|---|
//! | `layout` | where image, stack and heap lie, and how much memory that takes |
//! | `mapping` | which pages are mapped, with which permissions |
//! | `tables` | the page tables that say so |
//! | `descriptors`, `traps` | what the processor does on an exception |
//! | `interrupts` | what it does on an interrupt, where the guest asked for them |
//! | `registers` | the state in which the first instruction finds the processor |
//! | `processor` | what processors beyond the first have for themselves |
//! | `strings` | arguments and environment |
//! | `place` | what an address is, in words |

mod descriptors;
mod error;
mod interrupts;
mod layout;
mod mapping;
mod place;
mod processor;
mod registers;
mod strings;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod traps;
mod write;

use alloc::string::String;
use alloc::vec::Vec;

use chiton_shared::boot::{BootPage, DeviceEntry, QueueEntry};
use chiton_shared::doorbell::LogLevel;
use chiton_shared::interrupts::Idle;
use chiton_shared::manifest::Ring;
use chiton_shared::processor as processor_area;

use crate::loader::Image;
use crate::vcpu::{Registers, SystemRegisters};

pub use error::BootError;
pub use layout::{Layout, MAX_MEMORY};
pub use mapping::{Mapping, PageSize};
pub use place::Place;
pub use write::Piece;

use interrupts::Interrupts;
use processor::Processor;
use strings::StringArea;
use tables::PageTables;

/// What whoever runs a guest decides.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Guest memory, in bytes: a whole number of pages.
    pub memory: u64,
    /// How many processors, 1 or more. Those beyond the first cost memory for a stack each.
    pub processors: u32,
    /// The ring to run in; `None` for the one the manifest asks for.
    pub ring: Option<Ring>,
    /// Arguments, the guest's name first.
    pub args: &'a [String],
    /// Environment, as `KEY=VALUE`.
    pub env: &'a [String],
    /// The devices, in the order of their register blocks.
    pub devices: &'a [DeviceEntry],
    /// The queues of all devices, as the devices' entries say.
    pub queues: &'a [QueueEntry],
    /// The most detailed level of log lines wanted.
    pub log_level: Option<LogLevel>,
    /// Whether to set CR4.OSXSAVE, without which AVX does not work. Only a processor that has
    /// XSAVE takes it.
    pub xsave: bool,
    /// Whether there are interrupts, which takes a local APIC for each processor, and how to wait
    /// then.
    pub interrupts: Option<Idle>,
    /// For how many nanoseconds the guest should look before it sleeps for a disk: see [`BootPage::look_ns`].
    pub look_ns: u64,
}

impl Options<'_> {
    /// So many bytes of memory, and nothing else.
    #[must_use]
    pub const fn new(memory: u64) -> Self {
        Self {
            memory,
            processors: 1,
            ring: None,
            args: &[],
            env: &[],
            devices: &[],
            queues: &[],
            log_level: None,
            xsave: false,
            interrupts: None,
            look_ns: 0,
        }
    }
}

/// Everything that guest memory and registers hold before the first instruction.
///
/// # Example
///
/// ```no_run
/// use chiton_core::boot::{Options, World};
/// use chiton_core::loader::Image;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = std::fs::read("guest.elf")?;
/// let image = Image::parse(&file)?;
/// let world = World::build(&image, &Options::new(16 << 20))?;
/// for mapping in world.mappings() {
///     println!("{mapping}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct World<'a> {
    /// The boot page. The clock and the seed are zero: the caller sets them right before
    /// [`write_to`](Self::write_to).
    pub boot_page: BootPage,
    /// The general registers at entry.
    pub registers: Registers,
    /// The system registers at entry.
    pub system: SystemRegisters,
    image: Image<'a>,
    layout: Layout,
    mappings: Vec<Mapping>,
    tables: PageTables,
    strings: StringArea,
    processors: Vec<Processor>,
    interrupts: Option<Interrupts>,
}

impl<'a> World<'a> {
    /// Builds the world of a guest.
    ///
    /// # Errors
    ///
    /// [`BootError`] if image and options do not fit each other.
    pub fn build(image: &Image<'a>, options: &Options<'_>) -> Result<Self, BootError> {
        let layout = Layout::new(image, options.memory, options.processors)?;
        let ring = options.ring.or(image.manifest().ring()).unwrap_or(Ring::User);
        let strings = StringArea::new(options.args, options.env)?;
        let mappings = mapping::all(image, &layout, ring, options.interrupts.is_some());
        let tables = PageTables::of(&mappings)?;
        let boot_page = boot_page(image, &layout, ring, &strings, options)?;
        let (registers, system) = registers::at_entry(image, &layout, ring, options);
        let processors = (1..).zip(layout.blocks()).map(|(n, block)| Processor::new(n, block));
        let processors = processors.collect();
        Ok(Self {
            boot_page,
            registers,
            system,
            image: image.clone(),
            layout,
            mappings,
            tables,
            strings,
            processors,
            interrupts: options.interrupts.map(|_| Interrupts::new()),
        })
    }

    /// The registers of each processor beyond the first, in their order, before it is started.
    pub fn processor_registers(&self) -> impl Iterator<Item = (Registers, SystemRegisters)> {
        let registers =
            |(number, block)| registers::of_processor(number, block, &self.layout, self.registers.rflags, &self.system);
        (1..).zip(self.layout.blocks()).map(registers)
    }

    /// The least memory this guest runs in on one processor, in bytes: a whole number of pages.
    #[must_use]
    pub fn minimum_memory(image: &Image<'_>) -> u64 {
        layout::minimum_memory(image, 1)
    }

    /// The program.
    #[must_use]
    pub const fn image(&self) -> &Image<'a> {
        &self.image
    }

    /// Where image, stack and heap lie.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Everything that is mapped, by address. What is not listed is not mapped.
    #[must_use]
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// The ring the guest runs in.
    #[must_use]
    pub const fn ring(&self) -> Ring {
        if self.boot_page.ring == 0 {
            Ring::Kernel
        } else {
            Ring::User
        }
    }

    /// How many page tables there are, of 4 KiB each.
    #[must_use]
    pub fn table_count(&self) -> usize {
        self.tables.count()
    }
}

/// The boot page as far as it is known before the guest starts.
fn boot_page(
    image: &Image<'_>,
    layout: &Layout,
    ring: Ring,
    strings: &StringArea,
    options: &Options<'_>,
) -> Result<BootPage, BootError> {
    let mut page = BootPage {
        ring: ring.number().into(),
        log_level: options.log_level.map_or(0, |level| level as u32),
        memory: layout.memory,
        load_bias: image.bias(),
        heap_start: layout.heap.start,
        heap_size: layout.heap.end - layout.heap.start,
        stack_start: layout.stack.start,
        stack_size: layout.stack.end - layout.stack.start,
        args: strings.args,
        env: strings.env,
        device_count: options.devices.len() as u32,
        processors: options.processors,
        processor_blocks: layout.processors.start,
        processor_stride: processor_area::stride(layout.stack.end - layout.stack.start),
        interrupts: options.interrupts.is_some().into(),
        idle: options.interrupts.map_or(0, |idle| idle as u32),
        look_ns: options.look_ns,
        ..BootPage::new()
    };
    let slots = page.devices.get_mut(..options.devices.len());
    slots
        .ok_or(BootError::TooManyDevices(options.devices.len()))?
        .copy_from_slice(options.devices);
    let slots = page.queues.get_mut(..options.queues.len());
    slots
        .ok_or(BootError::TooManyQueues(options.queues.len()))?
        .copy_from_slice(options.queues);
    Ok(page)
}

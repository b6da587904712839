//! The state in which the first instruction finds the processor.

use chiton_shared::manifest::Ring;
use chiton_shared::{map, processor};
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};
use x86_64::registers::rflags::RFlags;

use super::descriptors::{self, KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA};
use super::{Layout, Options, interrupts, traps};
use crate::loader::Image;
use crate::vcpu::{Registers, Segment, SystemRegisters};

/// Paging in long mode, the floating-point unit ready for use, and write protection: without it
/// ring 0 could write read-only pages.
const CR0: Cr0Flags = Cr0Flags::PROTECTED_MODE_ENABLE
    .union(Cr0Flags::MONITOR_COPROCESSOR)
    .union(Cr0Flags::EXTENSION_TYPE)
    .union(Cr0Flags::NUMERIC_ERROR)
    .union(Cr0Flags::WRITE_PROTECT)
    .union(Cr0Flags::PAGING);

/// Long-mode paging and SSE. Neither SMEP nor SMAP: the only code that runs in ring 0 beside a
/// ring-3 guest is the trap stubs, which touch no page of the guest, in a ring-0 guest no page is
/// a user page, and a processor without them would refuse the bits.
const CR4: Cr4Flags = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
    .union(Cr4Flags::OSFXSR)
    .union(Cr4Flags::OSXMMEXCPT_ENABLE);

/// Long mode and no-execute pages. Without SCE, `syscall` is an undefined instruction and not a way
/// into ring 0 at address 0.
const EFER: EferFlags = EferFlags::LONG_MODE_ENABLE
    .union(EferFlags::LONG_MODE_ACTIVE)
    .union(EferFlags::NO_EXECUTE_ENABLE);

/// IOPL 3, and bit 1, which is always set (SDM volume 1, section 3.4.3).
///
/// Doorbells are opened twice: a software KVM forgets IOPL and looks at the I/O permission map
/// only, and the SVM that QEMU emulates finds no map in a busy TSS and looks at IOPL only.
const RFLAGS: u64 = 1 << 1 | RFlags::IOPL_LOW.union(RFlags::IOPL_HIGH).bits();

/// Registers for direct entry: as if the entry function had been called with the boot page's
/// address, from nowhere.
pub(super) fn at_entry(
    image: &Image<'_>,
    layout: &Layout,
    ring: Ring,
    options: &Options<'_>,
) -> (Registers, SystemRegisters) {
    let (flags, gates) = match options.interrupts {
        Some(_) => (RFLAGS | RFlags::INTERRUPT_FLAG.bits(), interrupts::IDT_VECTORS),
        None => (RFLAGS, traps::VECTORS),
    };
    let registers = Registers {
        rip: image.entry(),
        rdi: map::BOOT_PAGE,
        // Where the return address of a call would be: zero, as all fresh memory.
        rsp: layout.stack.end - 8,
        rflags: flags,
        ..Registers::default()
    };
    let (code, data) = match ring {
        Ring::User => (descriptors::segment(USER_CODE), descriptors::segment(USER_DATA)),
        Ring::Kernel => (descriptors::segment(KERNEL_CODE), descriptors::segment(KERNEL_DATA)),
    };
    let mut cr4 = CR4;
    cr4.set(Cr4Flags::OSXSAVE, options.xsave);
    let system = SystemRegisters {
        cr0: CR0.bits(),
        cr2: 0,
        cr3: map::PAGE_TABLES,
        cr4: cr4.bits(),
        efer: EFER.bits(),
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: Segment {
            base: map::MAILBOX,
            ..data
        },
        ss: data,
        tr: descriptors::task_register(map::TSS),
        ldt: Segment::default(),
        gdt: descriptors::GDT_TABLE,
        idt: descriptors::idt_table(gates),
    };
    (registers, system)
}

/// Registers of a processor beyond the first, as processor 0 has them but for what is its own.
/// Where it begins is known when the guest starts it.
pub(super) fn of_processor(
    number: u32,
    block: u64,
    layout: &Layout,
    rflags: u64,
    first: &SystemRegisters,
) -> (Registers, SystemRegisters) {
    let registers = Registers {
        rsp: block + processor::STACK + (layout.stack.end - layout.stack.start) - 8,
        rflags,
        ..Registers::default()
    };
    let system = SystemRegisters {
        tr: descriptors::task_register(processor::tss(number)),
        gs: Segment {
            base: block + processor::MAILBOX,
            ..first.gs
        },
        ..*first
    };
    (registers, system)
}

//! The hypervisor's own GDT, TSS and IDT, in place of the boot loader's.

use spin::LazyLock;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

use super::fault;

/// The stack of a fault that finds no other: its index in the TSS.
const FAULT_STACK: u16 = 0;
const FAULT_STACK_SIZE: usize = 32 << 10;

#[repr(align(16))]
struct Stack(#[allow(dead_code, reason = "only its address is used")] [u8; FAULT_STACK_SIZE]);

static mut STACK: Stack = Stack([0; FAULT_STACK_SIZE]);

static TSS: LazyLock<TaskStateSegment> = LazyLock::new(|| {
    let mut tss = TaskStateSegment::new();
    let start = VirtAddr::from_ptr(&raw const STACK);
    tss.interrupt_stack_table[usize::from(FAULT_STACK)] = start + FAULT_STACK_SIZE as u64;
    tss
});

struct Gdt {
    table: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    tss: SegmentSelector,
}

static GDT: LazyLock<Gdt> = LazyLock::new(|| {
    let mut table = GlobalDescriptorTable::new();
    let code = table.append(Descriptor::kernel_code_segment());
    let data = table.append(Descriptor::kernel_data_segment());
    let tss = table.append(Descriptor::tss_segment(&TSS));
    Gdt { table, code, data, tss }
});

static IDT: LazyLock<InterruptDescriptorTable> = LazyLock::new(|| {
    let mut idt = InterruptDescriptorTable::new();
    fault::fill(&mut idt, FAULT_STACK);
    idt
});

/// Loads all three. VM entry and exit need a TSS, and selectors that are not null.
pub(super) fn load() {
    GDT.table.load();
    // SAFETY: the selectors are those of the table that was just loaded: flat segments of ring 0,
    // as those that they replace, and the TSS, which lives for ever. FS and GS are not used.
    unsafe {
        CS::set_reg(GDT.code);
        SS::set_reg(GDT.data);
        DS::set_reg(GDT.data);
        ES::set_reg(GDT.data);
        FS::set_reg(SegmentSelector::NULL);
        GS::set_reg(SegmentSelector::NULL);
        load_tss(GDT.tss);
    }
    IDT.load();
}

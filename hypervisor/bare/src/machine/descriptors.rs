//! The hypervisor's own GDT, TSS and IDT, in place of the boot loader's. Processors share the IDT; each
//! has a TSS of its own, with a stack of its own for faults, and hence a GDT.

use alloc::boxed::Box;

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

static TSS: LazyLock<TaskStateSegment> = LazyLock::new(|| task_state(&raw const STACK));

/// A TSS with this stack for faults.
fn task_state(stack: *const Stack) -> TaskStateSegment {
    let mut tss = TaskStateSegment::new();
    tss.interrupt_stack_table[usize::from(FAULT_STACK)] = VirtAddr::from_ptr(stack) + FAULT_STACK_SIZE as u64;
    tss
}

struct Gdt {
    table: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    tss: SegmentSelector,
}

impl Gdt {
    fn new(tss: &'static TaskStateSegment) -> Self {
        let mut table = GlobalDescriptorTable::new();
        let code = table.append(Descriptor::kernel_code_segment());
        let data = table.append(Descriptor::kernel_data_segment());
        let tss = table.append(Descriptor::tss_segment(tss));
        Self { table, code, data, tss }
    }
}

static GDT: LazyLock<Gdt> = LazyLock::new(|| Gdt::new(&TSS));

static IDT: LazyLock<InterruptDescriptorTable> = LazyLock::new(|| {
    let mut idt = InterruptDescriptorTable::new();
    fault::fill(&mut idt, FAULT_STACK);
    idt
});

/// Loads all three on the first processor, before there is a heap. VM entry and exit need a TSS, and
/// selectors that are not null.
pub(super) fn load() {
    load_tables(&GDT);
}

/// Loads all three on another processor, with a TSS and a GDT that are made for it, and kept for ever.
pub(super) fn load_anew() {
    let stack = Box::leak(Box::new(Stack([0; FAULT_STACK_SIZE])));
    let tss = Box::leak(Box::new(task_state(stack)));
    load_tables(Box::leak(Box::new(Gdt::new(tss))));
}

fn load_tables(gdt: &'static Gdt) {
    gdt.table.load();
    // SAFETY: the selectors are those of the table that was just loaded: flat segments of ring 0,
    // as those that they replace, and the TSS, which lives for ever. FS and GS are not used.
    unsafe {
        CS::set_reg(gdt.code);
        SS::set_reg(gdt.data);
        DS::set_reg(gdt.data);
        ES::set_reg(gdt.data);
        FS::set_reg(SegmentSelector::NULL);
        GS::set_reg(SegmentSelector::NULL);
        load_tss(gdt.tss);
    }
    IDT.load();
}

//! The hypervisor's own GDT, TSS and IDT, in place of the boot loader's. Processors share the IDT; each
//! has a TSS of its own, with stacks of its own for faults and NMIs, and hence a GDT.

use alloc::boxed::Box;
use core::arch::x86_64::__cpuid;

use spin::LazyLock;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

use super::fault;

/// The stack of a fault that finds no other, and of an NMI: their indices in the TSS.
const FAULT_STACK: u16 = 0;
const NMI_STACK: u16 = 1;

/// A stack of so many bytes.
#[repr(align(16))]
struct Stack<const SIZE: usize>(#[allow(dead_code, reason = "only its address is used")] [u8; SIZE]);

impl<const SIZE: usize> Stack<SIZE> {
    const NEW: Self = Self([0; SIZE]);

    fn end(this: *const Self) -> VirtAddr {
        VirtAddr::from_ptr(this) + SIZE as u64
    }
}

/// What an NMI needs: the frame that the processor pushes, and more than once that.
type NmiStack = Stack<256>;

/// For faults of the first processor, as long as there is no memory to take another from.
static mut STACK: Stack<{ 32 << 10 }> = Stack::NEW;
static mut OF_NMIS: NmiStack = Stack::NEW;

static TSS: LazyLock<TaskStateSegment> =
    LazyLock::new(|| task_state(Stack::end(&raw const STACK), Stack::end(&raw const OF_NMIS)));

/// A TSS with these stacks, each told by its end.
fn task_state(faults: VirtAddr, nmis: VirtAddr) -> TaskStateSegment {
    let mut tss = TaskStateSegment::new();
    tss.interrupt_stack_table[usize::from(FAULT_STACK)] = faults;
    tss.interrupt_stack_table[usize::from(NMI_STACK)] = nmis;
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
    fault::fill(&mut idt, FAULT_STACK, NMI_STACK);
    idt
});

/// Loads all three on the first processor, before there is a heap. VM entry and exit need a TSS, and
/// selectors that are not null.
pub(super) fn load() {
    load_tables(&GDT);
}

/// Loads all three on the processor that calls this, with a TSS and a GDT that are made for it, and kept for ever, and
/// with a stack for faults that ends there.
pub(super) fn load_anew(faults: VirtAddr) {
    let nmis: &'static NmiStack = Box::leak(Box::new(Stack::NEW));
    let tss = Box::leak(Box::new(task_state(faults, Stack::end(nmis))));
    load_tables(Box::leak(Box::new(Gdt::new(tss))));
}

fn load_tables(gdt: &'static Gdt) {
    gdt.table.load();
    // SAFETY: MOV to a segment register and LTR (SDM volumes 2B and 2A; APM volume 3) fault for a selector that the GDT
    // has not. These are those of the table that was just loaded: flat segments of ring 0, as those that they replace,
    // and the TSS (SDM volume 3A, section 9.7), which lives for ever. FS and GS are not used.
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
    take_machine_checks();
}

/// Has a machine check be an exception, which is told; without, it would shut the processor down (SDM volume 3B,
/// section 17.8).
fn take_machine_checks() {
    /// CPUID leaf 1 EDX: the exception.
    const MCE: u32 = 1 << 7;
    if __cpuid(1).edx & MCE != 0 {
        // SAFETY: MOV to CR4 raises #GP for a bit that the processor has not (SDM volume 2B, MOV to control registers):
        // it has this one, and the IDT a gate for the exception.
        unsafe { Cr4::write_raw(Cr4::read_raw() | Cr4Flags::MACHINE_CHECK_EXCEPTION.bits()) }
    }
}

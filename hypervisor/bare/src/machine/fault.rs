//! What an exception of the hypervisor itself says: which, where, with which registers.
//!
//! The vector of every exception leads to a stub that brings the stack to one shape, whether or not the processor
//! pushed an error code, and then to [`report`].

use core::arch::naked_asm;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU32, Ordering};

use chiton_core::explain::Exception;
use chiton_core::machine::status;
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::registers::model_specific::Msr;
use x86_64::structures::idt::{Entry, InterruptDescriptorTable};

use super::debug::say;
use super::{end, interrupts, nmi, stacks};

/// The stack as the stubs leave it: the general registers, then what the processor pushed (SDM
/// volume 3A, section 7.14.2).
#[repr(C)]
#[derive(Debug)]
struct Frame {
    /// r15 to r8, rbp, rdi, rsi, rdx, rcx, rbx, rax.
    general: [u64; 15],
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const GENERAL: [&str; 15] = [
    "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rbp", "rdi", "rsi", "rdx", "rcx", "rbx", "rax",
];

/// Distance from one stub to the next, in bytes.
const STUB_SIZE: u64 = 16;

/// The stubs of all exceptions, [`STUB_SIZE`] apart. Bit n of the mask stands for an exception that
/// pushes an error code (SDM volume 3A, table 7-1; APM volume 2, section 8.2); for the others the
/// stub pushes zero.
#[unsafe(naked)]
extern "C" fn stubs() {
    naked_asm!(
        ".set chiton_vector, 0",
        ".rept 32",
        ".balign {size}",
        ".if ((0x60227d00 >> chiton_vector) & 1) == 0",
        "push 0",
        ".endif",
        "push chiton_vector",
        "jmp {common}",
        ".set chiton_vector, chiton_vector + 1",
        ".endr",
        size = const STUB_SIZE,
        common = sym common,
    )
}

/// Saves the general registers and hands the frame over. Nobody returns from it.
#[unsafe(naked)]
extern "C" fn common() {
    naked_asm!(
        "push rax", "push rbx", "push rcx", "push rdx", "push rsi", "push rdi", "push rbp", "push r8",
        "push r9", "push r10", "push r11", "push r12", "push r13", "push r14", "push r15",
        "cld",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {report}",
        "ud2",
        report = sym report,
    )
}

/// The vector by which a processor makes another one look up.
pub(super) const LOOK_UP: u8 = 0xf1;

/// The vector by which a processor's own timer wakes it.
pub(super) const ALARM: u8 = 0xf2;

/// The vector of an interrupt that a local APIC takes back (SDM volume 3A, section 12.9).
pub(super) const SPURIOUS: u8 = 0xff;

/// That it came is all there is to this interrupt. The APIC is told later, where Rust can do it.
#[unsafe(naked)]
extern "C" fn ignored() {
    naked_asm!("iretq")
}

/// Fills the table: every exception but the NMI has its stub, on stack `stack` of the TSS. One stack is enough: nobody
/// comes back from a fault. NMIs have another, since one may come in a fault.
pub(super) fn fill(idt: &mut InterruptDescriptorTable, stack: u16, of_nmis: u16) {
    fn set<F>(entry: &mut Entry<F>, vector: u64, stack: u16) {
        let stub = VirtAddr::from_ptr(stubs as *const ()) + vector * STUB_SIZE;
        // SAFETY: the processor goes on there with the frame of 64-bit mode (SDM volume 3A, section 7.14.2): a stub is
        // code for just this vector, which never returns; the stack is one that the TSS has (section 7.14.5).
        unsafe { entry.set_handler_addr(stub).set_stack_index(stack) };
    }
    macro_rules! exceptions {
        ($($vector:literal $name:ident,)*) => { $(set(&mut idt.$name, $vector, stack);)* };
    }
    exceptions! {
        0 divide_error, 1 debug, 3 breakpoint, 4 overflow, 5 bound_range_exceeded, 6 invalid_opcode,
        7 device_not_available, 8 double_fault, 10 invalid_tss, 11 segment_not_present,
        12 stack_segment_fault, 13 general_protection_fault, 14 page_fault, 16 x87_floating_point,
        17 alignment_check, 18 machine_check, 19 simd_floating_point, 20 virtualization, 21 cp_protection_exception,
        28 hv_injection_exception, 29 vmm_communication_exception, 30 security_exception,
    }
    for entry in idt.slice_mut(32..) {
        // SAFETY: it returns as an interrupt does, and none of them has an error code (SDM volume 3A, table 7-1).
        unsafe { entry.set_handler_addr(VirtAddr::from_ptr(interrupts::stray as *const ())) };
    }
    let nmi = VirtAddr::from_ptr(nmi::handler as *const ());
    // SAFETY: it returns as an interrupt does, and an NMI has no error code (SDM volume 3A, table 7-1); the stack is
    // one that the TSS has (section 7.14.5).
    unsafe {
        idt.non_maskable_interrupt
            .set_handler_addr(nmi)
            .set_stack_index(of_nmis)
    };
    for vector in [LOOK_UP, ALARM, SPURIOUS] {
        // SAFETY: it returns as an interrupt does, and none of them has an error code (SDM volume 3A, table 7-1).
        unsafe { idt[vector].set_handler_addr(VirtAddr::from_ptr(ignored as *const ())) };
    }
}

/// The vector of the page fault.
const PAGE_FAULT: u64 = 14;
/// The vector of the machine check.
const MACHINE_CHECK: u64 = 18;

/// How many reports have begun.
static REPORTS: AtomicU32 = AtomicU32::new(0);
/// How many may: each processor may have one, and while it is made another fault may come, which is told as well.
const MOST_REPORTS: u32 = 64;

extern "C" fn report(frame: &Frame) -> ! {
    if REPORTS.fetch_add(1, Ordering::Relaxed) >= MOST_REPORTS {
        end::end(status::FAILED);
    }
    say!(
        "error: the hypervisor met {}, error code {:#x}, at {:#x}",
        Exception(frame.vector),
        frame.error_code,
        frame.rip
    );
    if frame.vector == PAGE_FAULT
        && let Some(stack) = stacks::above(Cr2::read_raw())
    {
        say!("  the {stack} of this processor is used up: what lies below it is not mapped");
    }
    if frame.vector == MACHINE_CHECK {
        say_machine_check();
    }
    say!(
        "  cs {:#x}  rflags {:#x}  rsp {:#x}  ss {:#x}  cr2 {:#x}",
        frame.cs,
        frame.rflags,
        frame.rsp,
        frame.ss,
        Cr2::read_raw()
    );
    for (name, value) in GENERAL.iter().zip(frame.general).rev() {
        say!("  {name:<3} {value:016x}");
    }
    stacks::use_up_this_too();
    end::end(status::FAILED)
}

/// Says what the processor knows of a machine check: each bank of registers that has something (SDM volume 3B, section
/// 17.3; APM volume 2, section 9.3).
fn say_machine_check() {
    /// CPUID leaf 1 EDX: the banks.
    const MCA: u32 = 1 << 14;
    /// How many banks there are, in the low byte; what is going on; the first bank's status, behind which its address
    /// is; from one bank to the next.
    const CAPABILITIES: u32 = 0x179;
    const STATUS: u32 = 0x17a;
    const BANK: u32 = 0x401;
    const DISTANCE: u32 = 4;
    /// Of a bank's status: it has something, and an address.
    const VALID: u64 = 1 << 63;
    const HAS_ADDRESS: u64 = 1 << 58;
    if __cpuid(1).edx & MCA == 0 {
        say!("  the machine has a fault, and its processor does not tell which");
        return;
    }
    // SAFETY: RDMSR (SDM volume 2B; APM volume 3) raises #GP where there is no such register: CPUID says that the
    // processor has these, and the first of them how many banks there are (SDM volume 3B, section 17.3); reading
    // changes nothing.
    let read = |register| unsafe { Msr::new(register).read() };
    let banks = (read(CAPABILITIES) & 0xff) as u32;
    say!(
        "  the machine has a fault: status {:#x}, of {banks} banks",
        read(STATUS)
    );
    for bank in 0..banks {
        let register = BANK + DISTANCE * bank;
        let status = read(register);
        if status & VALID != 0 {
            let address = if status & HAS_ADDRESS != 0 {
                read(register + 1)
            } else {
                0
            };
            say!("  bank {bank}: status {status:#x}, address {address:#x}");
        }
    }
}

//! The way into the guest and back: the only code here that is not Rust.
//!
//! VMRUN saves a part of the host's state in the host save area, loads as much of the guest's from
//! the VMCB, and an exit goes on at the instruction behind VMRUN. What it leaves alone is done here
//! (APM volume 2, section 15.5.2):
//!
//! ```text
//!   general registers but RAX and RSP     by hand
//!   FS GS TR LDTR, syscall, sysenter      VMSAVE host, VMLOAD guest … VMSAVE guest, VMLOAD host
//!   interrupts                            CLGI … VMRUN sets GIF, an exit clears it … STGI
//! ```
//!
//! While GIF is clear nothing interrupts, not even an NMI, so no handler of the host runs with the
//! guest's FS, GS or TR (APM volume 2, section 15.17). RFLAGS.IF is set for VMRUN alone: with
//! V_INTR_MASKING it is the host's IF that says whether an interrupt of the machine ends the guest's
//! turn (section 15.21.1).

use core::arch::naked_asm;
use core::mem::offset_of;

use chiton_core::vcpu::Registers;

/// Runs the guest of a VMCB until its next exit. RAX, RSP, RIP and RFLAGS are in the VMCB.
///
/// # Safety
///
/// - EFER.SVME is set, or each of these instructions is undefined (APM volume 2, section 15.4; volume 3,
///   VMRUN, VMLOAD, VMSAVE, CLGI, STGI). VM_HSAVE_PA is the address of a page for this processor, to which
///   VMRUN writes (volume 2, section 15.30.4).
/// - `guest` and `host` are physical addresses of VMCBs, mapped by none but the hypervisor, since the
///   processor reads and writes them (sections 15.5.1 and 15.5.2); the guest's nested tables lead to its
///   memory alone, and every event of the machine is intercepted.
/// - `registers` is writable for as long as the guest runs.
/// - Interrupts are off, as they are again behind it; between, CLGI holds them back (section 15.17).
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn enter(guest: u64, host: u64, registers: *mut Registers) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdx",                     // where the guest's registers go
        "push rsi",                     // the host's VMCB
        "clgi",
        "sti",
        "mov rax, rsi",
        "vmsave rax",
        "mov rax, rdi",
        "mov rbx, [rdx + {rbx}]",
        "mov rcx, [rdx + {rcx}]",
        "mov rsi, [rdx + {rsi}]",
        "mov rdi, [rdx + {rdi}]",
        "mov rbp, [rdx + {rbp}]",
        "mov r8,  [rdx + {r8}]",
        "mov r9,  [rdx + {r9}]",
        "mov r10, [rdx + {r10}]",
        "mov r11, [rdx + {r11}]",
        "mov r12, [rdx + {r12}]",
        "mov r13, [rdx + {r13}]",
        "mov r14, [rdx + {r14}]",
        "mov r15, [rdx + {r15}]",
        "mov rdx, [rdx + {rdx}]",
        "vmload rax",
        "vmrun rax",                    // guest … exit: RAX, RSP and RFLAGS are the host's again
        "vmsave rax",
        "pop rax",
        "vmload rax",
        "cli",
        "stgi",
        "pop rax",
        "mov [rax + {rbx}], rbx",
        "mov [rax + {rcx}], rcx",
        "mov [rax + {rdx}], rdx",
        "mov [rax + {rsi}], rsi",
        "mov [rax + {rdi}], rdi",
        "mov [rax + {rbp}], rbp",
        "mov [rax + {r8}], r8",
        "mov [rax + {r9}], r9",
        "mov [rax + {r10}], r10",
        "mov [rax + {r11}], r11",
        "mov [rax + {r12}], r12",
        "mov [rax + {r13}], r13",
        "mov [rax + {r14}], r14",
        "mov [rax + {r15}], r15",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        rbx = const offset_of!(Registers, rbx),
        rcx = const offset_of!(Registers, rcx),
        rdx = const offset_of!(Registers, rdx),
        rsi = const offset_of!(Registers, rsi),
        rdi = const offset_of!(Registers, rdi),
        rbp = const offset_of!(Registers, rbp),
        r8 = const offset_of!(Registers, r8),
        r9 = const offset_of!(Registers, r9),
        r10 = const offset_of!(Registers, r10),
        r11 = const offset_of!(Registers, r11),
        r12 = const offset_of!(Registers, r12),
        r13 = const offset_of!(Registers, r13),
        r14 = const offset_of!(Registers, r14),
        r15 = const offset_of!(Registers, r15),
    )
}

//! The way into the guest and back: the only code here that is not Rust.
//!
//! VM entry loads RIP, RSP, RFLAGS and the system registers from the VMCS, and a VM exit puts the
//! host's in their place. The other general registers are whatever they happen to be, so these two
//! functions exchange them:
//!
//! ```text
//!  enter(guest, launched)                            exited
//!    push the callee-saved registers, guest            (RSP is what `enter` has noted)
//!    note RSP in the VMCS                              registers ─▶ *guest
//!    *guest ─▶ registers                               pop the callee-saved registers
//!    VMLAUNCH / VMRESUME ─▶ guest … VM exit ─────▶     return 0
//!    only if it fails: pop, return which flag
//! ```
//!
//! So for its caller `enter` is a function that takes long and returns once, be it from its own
//! end or from that of `exited`, to which the host's RIP in the VMCS points.

use core::arch::naked_asm;
use core::mem::offset_of;

use chiton_core::vcpu::Registers;
use chiton_core::vmx::fields::HOST_RSP;

/// The guest has run and has exited.
pub(crate) const EXITED: u64 = 0;
/// VMLAUNCH or VMRESUME set CF: VMfailInvalid.
pub(crate) const FAILED_INVALID: u64 = 1;
/// VMLAUNCH or VMRESUME set ZF: VMfailValid.
pub(crate) const FAILED_VALID: u64 = 2;

/// Runs the guest of the current VMCS until its next VM exit.
///
/// # Safety
///
/// - There is a current VMCS, whose host state is that of this processor, with [`exited`] as RIP: a VM
///   exit loads it unseen (SDM volume 3C, section 29.5). `launched` says whether it was launched since
///   it was cleared (section 28.1).
/// - `registers` is writable for as long as the guest runs.
/// - The guest has no way to memory of this program.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn enter(registers: *mut Registers, launched: bool) -> u64 {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdi",                     // where `exited` finds the place for the guest's
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp",
        "test sil, sil",                // ZF until the jump below: `mov` changes no flag
        "mov rax, [rdi + {rax}]",
        "mov rbx, [rdi + {rbx}]",
        "mov rcx, [rdi + {rcx}]",
        "mov rdx, [rdi + {rdx}]",
        "mov rsi, [rdi + {rsi}]",
        "mov rbp, [rdi + {rbp}]",
        "mov r8,  [rdi + {r8}]",
        "mov r9,  [rdi + {r9}]",
        "mov r10, [rdi + {r10}]",
        "mov r11, [rdi + {r11}]",
        "mov r12, [rdi + {r12}]",
        "mov r13, [rdi + {r13}]",
        "mov r14, [rdi + {r14}]",
        "mov r15, [rdi + {r15}]",
        "mov rdi, [rdi + {rdi}]",
        "jnz 2f",
        "vmlaunch",
        "jmp 3f",
        "2:",
        "vmresume",
        "3:",                           // no entry took place, and the flags say how it failed
        "mov eax, {valid}",
        "mov ecx, {invalid}",
        "cmovc eax, ecx",
        "pop rdi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        host_rsp = const HOST_RSP.encoding().number(),
        valid = const FAILED_VALID,
        invalid = const FAILED_INVALID,
        rax = const offset_of!(Registers, rax),
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

/// Where the processor goes on after a VM exit: returns to the caller of [`enter`].
///
/// # Safety
///
/// Nobody calls it; it is the host's RIP in the VMCS. The stack is as [`enter`] left it, since a VM
/// exit loads RSP with what it noted there (SDM volume 3C, section 29.5).
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn exited() {
    naked_asm!(
        "push rdi",
        "mov rdi, [rsp + 8]",           // what `enter` pushed last
        "mov [rdi + {rax}], rax",
        "mov [rdi + {rbx}], rbx",
        "mov [rdi + {rcx}], rcx",
        "mov [rdi + {rdx}], rdx",
        "mov [rdi + {rsi}], rsi",
        "mov [rdi + {rbp}], rbp",
        "mov [rdi + {r8}], r8",
        "mov [rdi + {r9}], r9",
        "mov [rdi + {r10}], r10",
        "mov [rdi + {r11}], r11",
        "mov [rdi + {r12}], r12",
        "mov [rdi + {r13}], r13",
        "mov [rdi + {r14}], r14",
        "mov [rdi + {r15}], r15",
        "pop qword ptr [rdi + {rdi}]",
        "mov eax, {exited}",
        "pop rdi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        exited = const EXITED,
        rax = const offset_of!(Registers, rax),
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

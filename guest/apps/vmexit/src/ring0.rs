//! An interrupt descriptor table of its own: exceptions that can be caught, and an interrupt that is counted.
//!
//! Whatever a case may do on one machine and not on another is tried under [`catch`] first. Handlers use only
//! instructions that a KVM without hardware interprets, too.

use core::arch::{asm, global_asm, naked_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use vmexit_cases::Done;

pub use chiton_guest::shared::measure::place::VECTOR;

/// The exceptions that the table catches.
const EXCEPTIONS: usize = 32;

/// Where [`catch`] goes on; 0 when nothing is tried.
static SAVED: AtomicU64 = AtomicU64::new(0);
/// How many interrupts have come.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// When the last one came, in ticks.
static STAMP: AtomicU64 = AtomicU64::new(0);
/// Where the local APIC is told of the end of an interrupt: its registers, or 0 for x2APIC mode.
static APIC: AtomicU64 = AtomicU64::new(0);

#[repr(align(16))]
struct Table([AtomicU64; 2 * 256]);

static TABLE: Table = Table([const { AtomicU64::new(0) }; 2 * 256]);

unsafe extern "C" {
    /// [`EXCEPTIONS`] stubs of 16 bytes, which push the vector.
    safe fn vmexit_stubs();
}

global_asm!(
    ".balign 16",
    ".globl vmexit_stubs",
    "vmexit_stubs:",
    ".set vmexit_vector, 0",
    ".rept {exceptions}",
    ".balign 16",
    "push vmexit_vector",
    "jmp {caught}",
    ".set vmexit_vector, vmexit_vector + 1",
    ".endr",
    exceptions = const EXCEPTIONS,
    caught = sym caught,
);

/// Makes the table this processor's.
pub fn take_over() {
    for vector in 0..EXCEPTIONS {
        set_gate(vector as u8, vmexit_stubs as *const () as u64 + 16 * vector as u64);
    }
    set_gate(VECTOR, interrupt as *const () as u64);
    let mut pointer = [0; 10];
    pointer[..2].copy_from_slice(&(256_u16 * 16 - 1).to_le_bytes());
    pointer[2..].copy_from_slice(&(TABLE.0.as_ptr() as u64).to_le_bytes());
    // SAFETY: the gates lead to handlers, and nothing else is let in.
    unsafe { asm!("lidt [{}]", in(reg) pointer.as_ptr(), options(readonly, nostack, preserves_flags)) };
}

/// An interrupt gate of ring 0 (SDM volume 3A, figure 7-8).
pub fn set_gate(vector: u8, address: u64) {
    let code: u16;
    // SAFETY: it reads a register.
    unsafe { asm!("mov {:x}, cs", out(reg) code, options(nomem, nostack, preserves_flags)) };
    let low = address & 0xffff | u64::from(code) << 16 | 0x8e << 40 | (address >> 16 & 0xffff) << 48;
    TABLE.0[2 * usize::from(vector)].store(low, Ordering::Relaxed);
    TABLE.0[2 * usize::from(vector) + 1].store(address >> 32, Ordering::Relaxed);
}

/// Puts back the gate of an exception that a case has taken.
pub fn reset_gate(vector: u8) {
    set_gate(vector, vmexit_stubs as *const () as u64 + 16 * u64::from(vector));
}

/// Does something, and says which exception has ended it, if one has. It must hold no lock and own nothing then.
pub fn catch<F: FnMut()>(mut what: F) -> Done {
    extern "C" fn call<F: FnMut()>(what: *mut F) {
        // SAFETY: `catch` passes its own closure.
        unsafe { (*what)() };
    }
    // SAFETY: the function and its argument belong together.
    let vector = unsafe { enter(call::<F> as extern "C" fn(*mut F) as *const (), (&raw mut what).cast()) };
    match vector {
        0 => Ok(()),
        vector => Err(name(vector - 1)),
    }
}

/// Calls a function with an argument; returns 0, or 1 and the vector of the exception that has ended it.
///
/// # Safety
///
/// The function has to take such an argument.
#[unsafe(naked)]
unsafe extern "C" fn enter(function: *const (), argument: *mut ()) -> u64 {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rax", // the stack's alignment
        "mov [rip + {saved}], rsp",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "xor eax, eax",
        "jmp {leave}",
        saved = sym SAVED,
        leave = sym leave,
    )
}

/// The end of [`enter`], with the result in RAX.
#[unsafe(naked)]
unsafe extern "C" fn leave() {
    naked_asm!(
        "mov qword ptr [rip + {saved}], 0",
        "pop rcx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        saved = sym SAVED,
    )
}

/// An exception has come: goes on behind [`enter`] if something is tried, or ends the guest.
#[unsafe(naked)]
extern "C" fn caught() {
    naked_asm!(
        "pop rax",
        "mov rcx, [rip + {saved}]",
        "test rcx, rcx",
        "jz 2f",
        "mov rsp, rcx",
        "inc rax",
        "jmp {leave}",
        "2:",
        "mov rdi, rax",
        "mov rsi, [rsp]",
        "mov rdx, [rsp + 8]",
        "and rsp, -16",
        "call {unexpected}",
        saved = sym SAVED,
        leave = sym leave,
        unexpected = sym unexpected,
    )
}

extern "C" fn unexpected(vector: u64, first: u64, second: u64) -> ! {
    panic!("{} out of turn; the stack has {first:#x}, {second:#x}", name(vector));
}

/// Counts, and notes when.
#[unsafe(naked)]
extern "C" fn interrupt() {
    naked_asm!(
        "push rax",
        "push rcx",
        "push rdx",
        "rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "mov [rip + {stamp}], rax",
        "mov rdx, [rip + {apic}]",
        "xor eax, eax",
        "test rdx, rdx",
        "jz 2f",
        // End of interrupt (SDM volume 3A, section 12.8.5).
        "mov [rdx + 0xb0], eax",
        "jmp 3f",
        "2:",
        "mov ecx, 0x80b",
        "wrmsr",
        "3:",
        "lock inc qword ptr [rip + {count}]",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "iretq",
        stamp = sym STAMP,
        apic = sym APIC,
        count = sym COUNT,
    )
}

/// How many interrupts have come.
pub fn interrupts() -> u64 {
    COUNT.load(Ordering::SeqCst)
}

/// When the last one came, in ticks.
pub fn last_stamp() -> u64 {
    STAMP.load(Ordering::SeqCst)
}

/// Where the end of an interrupt is told: the local APIC's registers, or 0 for x2APIC mode.
pub fn end_interrupts_at(registers: u64) {
    APIC.store(registers, Ordering::SeqCst);
}

/// Goes on behind the two bytes of the instruction that has faulted: the shortest handler there is.
#[unsafe(naked)]
pub extern "C" fn skip_two_bytes() {
    naked_asm!("add qword ptr [rsp], 2", "iretq")
}

/// The same behind an error code.
#[unsafe(naked)]
pub extern "C" fn skip_two_bytes_and_code() {
    naked_asm!("add rsp, 8", "add qword ptr [rsp], 2", "iretq")
}

/// Goes on where it is: behind the instruction, for a trap.
#[unsafe(naked)]
pub extern "C" fn go_on() {
    naked_asm!("iretq")
}

fn name(vector: u64) -> &'static str {
    match vector {
        0 => "#DE",
        1 => "#DB",
        3 => "#BP",
        6 => "#UD",
        7 => "#NM",
        8 => "#DF",
        10 => "#TS",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        16 => "#MF",
        17 => "#AC",
        _ => "an exception",
    }
}

//! An interrupt descriptor table whose handlers note the exception and go on behind the instruction.

use core::arch::{asm, naked_asm};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// What comes of an instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// #DB.
    Debug,
    /// #BP.
    Breakpoint,
    /// #UD.
    Undefined,
    /// #GP.
    GeneralProtection,
    /// #PF.
    PageFault,
    /// Another exception.
    Other(u64),
}

impl Outcome {
    const fn of(vector: u64) -> Self {
        match vector {
            NONE => Self::Done,
            1 => Self::Debug,
            3 => Self::Breakpoint,
            6 => Self::Undefined,
            13 => Self::GeneralProtection,
            14 => Self::PageFault,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Debug => "#DB",
            Self::Breakpoint => "#BP",
            Self::Undefined => "#UD",
            Self::GeneralProtection => "#GP",
            Self::PageFault => "#PF",
            Self::Other(vector) => return write!(f, "exception {vector}"),
        })
    }
}

/// No exception.
const NONE: u64 = u64::MAX;
/// The vector of the last exception.
pub static CAUGHT: AtomicU64 = AtomicU64::new(NONE);
/// Where it goes on.
pub static RESUME: AtomicU64 = AtomicU64::new(0);
/// How many #DB there were.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// Carries out an instruction, with operands as `asm!` has them, and says what comes of it.
macro_rules! attempt {
    ($instruction:literal $(, $($operands:tt)*)?) => {{
        $crate::exceptions::begin();
        // SAFETY: an exception of the instruction goes on at the label behind it, with all registers
        // as before; what it does otherwise is what is being tried.
        unsafe {
            core::arch::asm!(
                "lea {resume}, [rip + 2f]",
                "mov [rip + {place}], {resume}",
                $instruction,
                "2:",
                resume = out(reg) _,
                place = sym $crate::exceptions::RESUME,
                $($($operands)*)?
            );
        }
        $crate::exceptions::end()
    }};
}
pub(crate) use attempt;

/// Before an attempt.
pub fn begin() {
    CAUGHT.store(NONE, Ordering::Relaxed);
}

/// Behind it.
pub fn end() -> Outcome {
    Outcome::of(CAUGHT.load(Ordering::Relaxed))
}

/// Size of the part of the table that is used: 32 gates of 16 bytes.
const GATES: usize = 32;

#[repr(align(16))]
struct Table([AtomicU64; 2 * GATES]);

static TABLE: Table = Table([const { AtomicU64::new(0) }; 2 * GATES]);

/// Makes the table the processor's.
pub fn take_over() {
    let code: u16;
    // SAFETY: it reads a register.
    unsafe { asm!("mov {:x}, cs", out(reg) code, options(nomem, nostack, preserves_flags)) };
    let handlers: [(usize, extern "C" fn()); 5] = [
        (1, debug),
        (3, breakpoint),
        (6, undefined),
        (13, general_protection),
        (14, page_fault),
    ];
    for (vector, handler) in handlers {
        let address = handler as *const () as u64;
        // An interrupt gate of ring 0 (SDM volume 3A, figure 7-8).
        let low = address & 0xffff | u64::from(code) << 16 | 0x8e << 40 | (address >> 16 & 0xffff) << 48;
        TABLE.0[2 * vector].store(low, Ordering::Relaxed);
        TABLE.0[2 * vector + 1].store(address >> 32, Ordering::Relaxed);
    }
    let mut pointer = [0; 10];
    pointer[..2].copy_from_slice(&((GATES * 16 - 1) as u16).to_le_bytes());
    pointer[2..].copy_from_slice(&(TABLE.0.as_ptr() as u64).to_le_bytes());
    // SAFETY: the gates lead to handlers for just these vectors; the others do not come.
    unsafe { asm!("lidt [{}]", in(reg) pointer.as_ptr(), options(readonly, nostack, preserves_flags)) };
}

/// Ends with a triple fault: no exception has a handler any more, the double fault neither.
pub fn shut_down() -> ! {
    let nothing = [0_u8; 10];
    // SAFETY: nothing runs after this.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) nothing.as_ptr(), options(noreturn)) }
}

/// A handler of a fault without an error code: goes on where the attempt says.
macro_rules! handler {
    ($name:ident, $vector:literal, $code:literal) => {
        #[unsafe(naked)]
        extern "C" fn $name() {
            naked_asm!(
                "push rax",
                "mov rax, [rip + {resume}]",
                "mov [rsp + 8 + {code}], rax",
                "mov qword ptr [rip + {caught}], {vector}",
                "pop rax",
                "add rsp, {code}",
                "iretq",
                resume = sym RESUME,
                caught = sym CAUGHT,
                vector = const $vector,
                code = const $code,
            )
        }
    };
}

handler!(breakpoint, 3, 0);
handler!(undefined, 6, 0);
handler!(general_protection, 13, 8);
handler!(page_fault, 14, 8);

/// Counts, and ends single steps.
#[unsafe(naked)]
extern "C" fn debug() {
    naked_asm!(
        "inc qword ptr [rip + {steps}]",
        "and qword ptr [rsp + 16], ~0x100",
        "iretq",
        steps = sym STEPS,
    )
}

/// Steps over a `nop`: how many #DB there were.
pub fn single_step_nop() -> u64 {
    STEPS.store(0, Ordering::Relaxed);
    // SAFETY: the handler of #DB clears the flag again.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop") };
    STEPS.load(Ordering::Relaxed)
}

/// Steps over a `cpuid`: how many #DB there were.
pub fn single_step_cpuid() -> u64 {
    STEPS.store(0, Ordering::Relaxed);
    // SAFETY: as above; RBX, which the compiler keeps for itself, is put back.
    unsafe {
        asm!(
            "mov {kept}, rbx",
            "pushfq", "or qword ptr [rsp], 0x100", "popfq", "cpuid",
            "mov rbx, {kept}",
            kept = out(reg) _,
            inout("eax") 0 => _, inout("ecx") 0 => _, out("edx") _,
        );
    }
    STEPS.load(Ordering::Relaxed)
}

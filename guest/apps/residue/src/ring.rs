//! The doorbell with every register under control: what they hold when it is rung, and what they hold right
//! behind it.

use core::arch::{global_asm, x86_64::__cpuid};
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, Ordering};

use chiton_guest::shared::doorbell;

/// General registers in the order in which they are kept.
pub(crate) const NAMES: [&str; 13] = [
    "rbx", "rbp", "rcx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
];

/// The legacy region, the header and the upper halves of AVX registers (SDM volume 1, section 13.4).
pub(crate) const EXTENDED: usize = 832;

/// Registers as they are to be, or as they were found.
#[repr(C, align(64))]
#[derive(Clone)]
pub(crate) struct Registers {
    /// In the XSAVE format, not compacted.
    pub(crate) extended: [u8; EXTENDED],
    pub(crate) general: [u64; 13],
    pub(crate) flags: u64,
    /// DS, ES, FS, GS; never loaded, only found.
    pub(crate) selectors: [u64; 4],
}

impl Registers {
    pub(crate) const ZERO: Self = Self {
        extended: [0; EXTENDED],
        general: [0; 13],
        flags: 0,
        selectors: [0; 4],
    };

    /// General registers of this value and more, floating-point registers of this byte, and flags and control words
    /// that go with it.
    pub(crate) fn filled(value: u64, byte: u8, control: (u16, u32), flags: u64) -> Self {
        let mut registers = Self::ZERO;
        for (number, register) in (0..).zip(&mut registers.general) {
            *register = value + number;
        }
        registers.flags = flags | 2;
        let area = &mut registers.extended;
        area[..2].copy_from_slice(&control.0.to_le_bytes());
        area[24..28].copy_from_slice(&control.1.to_le_bytes());
        for register in area[32..160].chunks_exact_mut(16) {
            register[..10].fill(byte);
        }
        area[160..416].fill(byte);
        // XSTATE_BV: x87, SSE, AVX.
        area[512] = 7;
        area[576..832].fill(byte);
        registers
    }
}

/// What is to be loaded and where it is to be kept, for the assembly, which has no register left for it.
static mut LOADED: *const Registers = core::ptr::null();
static mut FOUND: *mut Registers = core::ptr::null_mut();
static mut SCRATCH: [u64; 2] = [0; 2];
static XSAVE: AtomicBool = AtomicBool::new(false);

/// Which `out` to ring with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Usual,
    Elsewhere,
}

unsafe extern "C" {
    fn residue_ring();
    fn residue_ring_elsewhere();
}

/// Whether floating-point registers are under control too.
pub(crate) fn has_xsave() -> bool {
    __cpuid(1).ecx >> 27 & 1 != 0
}

/// Rings with these registers; those right behind it are in `found`.
pub(crate) fn ring(place: Place, loaded: &Registers, found: &mut Registers) {
    XSAVE.store(has_xsave(), Ordering::Relaxed);
    // SAFETY: one processor, and no interrupts: nobody else uses the statics. The assembly keeps what a C function
    // keeps, and the host gives every register back or puts those of the first ring back.
    unsafe {
        LOADED = loaded;
        FOUND = found;
        match place {
            Place::Usual => residue_ring(),
            Place::Elsewhere => residue_ring_elsewhere(),
        }
    }
}

macro_rules! ring {
    ($name:literal) => {
        global_asm!(
            concat!(".global ", $name),
            concat!($name, ":"),
            "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
            "mov rdi, [rip + {loaded}]",
            "cmp byte ptr [rip + {xsave}], 0",
            "je 2f",
            "mov eax, 7",
            "xor edx, edx",
            "xrstor64 [rdi]",
            "2:",
            "push qword ptr [rdi + {flags}]",
            "mov rbx, [rdi + {general}]",
            "mov rbp, [rdi + {general} + 8]",
            "mov rcx, [rdi + {general} + 16]",
            "mov rsi, [rdi + {general} + 24]",
            "mov r8, [rdi + {general} + 40]",
            "mov r9, [rdi + {general} + 48]",
            "mov r10, [rdi + {general} + 56]",
            "mov r11, [rdi + {general} + 64]",
            "mov r12, [rdi + {general} + 72]",
            "mov r13, [rdi + {general} + 80]",
            "mov r14, [rdi + {general} + 88]",
            "mov r15, [rdi + {general} + 96]",
            "mov rdi, [rdi + {general} + 32]",
            "xor eax, eax",
            "mov edx, {port}",
            // Right before the doorbell: a trap flag then traps behind it.
            "popfq",
            "out dx, eax",
            "jmp residue_found",
            loaded = sym LOADED,
            xsave = sym XSAVE,
            flags = const offset_of!(Registers, flags),
            general = const offset_of!(Registers, general),
            port = const doorbell::CALL as u32,
        );
    };
}

ring!("residue_ring");
ring!("residue_ring_elsewhere");

global_asm!(
    "residue_found:",
    "mov [rip + {scratch}], rdi",
    "pushfq",
    "cld",
    "mov rdi, [rip + {found}]",
    "mov [rdi + {general}], rbx",
    "mov [rdi + {general} + 8], rbp",
    "mov [rdi + {general} + 16], rcx",
    "mov [rdi + {general} + 24], rsi",
    "mov [rdi + {general} + 40], r8",
    "mov [rdi + {general} + 48], r9",
    "mov [rdi + {general} + 56], r10",
    "mov [rdi + {general} + 64], r11",
    "mov [rdi + {general} + 72], r12",
    "mov [rdi + {general} + 80], r13",
    "mov [rdi + {general} + 88], r14",
    "mov [rdi + {general} + 96], r15",
    "mov rax, [rip + {scratch}]",
    "mov [rdi + {general} + 32], rax",
    "pop qword ptr [rdi + {flags}]",
    "xor eax, eax",
    "mov ax, ds",
    "mov [rdi + {selectors}], rax",
    "mov ax, es",
    "mov [rdi + {selectors} + 8], rax",
    "mov ax, fs",
    "mov [rdi + {selectors} + 16], rax",
    "mov ax, gs",
    "mov [rdi + {selectors} + 24], rax",
    "cmp byte ptr [rip + {xsave}], 0",
    "je 2f",
    "mov eax, 7",
    "xor edx, edx",
    "xsave64 [rdi]",
    "2:",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
    "ret",
    scratch = sym SCRATCH,
    found = sym FOUND,
    xsave = sym XSAVE,
    flags = const offset_of!(Registers, flags),
    general = const offset_of!(Registers, general),
    selectors = const offset_of!(Registers, selectors),
);

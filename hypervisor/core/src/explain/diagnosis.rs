//! From an exception to one sentence about what went wrong.

use core::fmt;

use chiton_shared::doorbell::TrapFrame;
use x86_64::structures::idt::PageFaultErrorCode;

use super::exception::{self, ErrorCode};
use super::{Size, View};
use crate::boot::Place;

/// What the guest was doing with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Action {
    Read,
    Write,
    Execute,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "jump",
        })
    }
}

/// What most likely went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diagnosis {
    /// The stack is too small, or recursion has no end.
    StackOverflow {
        /// Size of the stack, in bytes.
        stack: u64,
    },
    /// Beyond the upper end of the stack.
    AboveStack(Action),
    /// A null pointer was used, or a field behind one.
    NullPointer {
        /// What for.
        action: Action,
        /// How far from zero.
        offset: u64,
    },
    /// A null function pointer was called.
    NullCall,
    /// A `syscall` instruction, at this address.
    Syscall(u64),
    /// A write to what is read-only.
    WriteToReadOnly(Place),
    /// A jump to what is not code.
    JumpIntoData(Place),
    /// An access to what the host keeps for itself.
    HostsOwn(Action, Place),
    /// An access to an address where nothing is.
    Wild(Action, Place),
    /// A division by zero, or a quotient too large for its register.
    Divide,
    /// `ud2`, which compilers put where the program must not come.
    Trap,
    /// Bytes that are no instruction here.
    Undefined {
        /// The bytes.
        bytes: [u8; 8],
        /// How many of them could be read.
        len: usize,
    },
    /// `int3`.
    Breakpoint,
    /// `int` with a vector that has no gate, or that is not for ring 3.
    NoGate(u64),
    /// A privileged instruction in ring 3.
    Privileged,
    /// `rdmsr` or `wrmsr` of a register that is not there, in ring 0.
    NoRegister {
        /// Its number.
        register: u32,
        /// Whether it was to be written.
        write: bool,
    },
    /// A register holds what is no address.
    NonCanonical {
        /// The register.
        register: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A general protection fault of another kind.
    Protection,
    /// A fault while another was being handled.
    Double,
    /// Nothing more than the exception's name is known.
    Other,
}

impl Diagnosis {
    pub(super) fn new(view: &View<'_>, frame: &TrapFrame) -> Self {
        match frame.vector {
            exception::PF => page_fault(view, frame),
            exception::DE => Self::Divide,
            exception::BP => Self::Breakpoint,
            exception::UD => undefined(view, frame.rip),
            exception::GP | exception::SS => protection(view, frame),
            8 => Self::Double,
            _ => Self::Other,
        }
    }
}

/// What a page fault was about to do.
pub(super) fn action(frame: &TrapFrame) -> Action {
    let code = PageFaultErrorCode::from_bits_truncate(frame.error_code);
    if code.contains(PageFaultErrorCode::CAUSED_BY_WRITE) {
        Action::Write
    } else if code.contains(PageFaultErrorCode::INSTRUCTION_FETCH) || frame.cr2 == frame.rip {
        Action::Execute
    } else {
        Action::Read
    }
}

fn page_fault(view: &View<'_>, frame: &TrapFrame) -> Diagnosis {
    use Place as P;
    let (address, action) = (frame.cr2, action(frame));
    let place = view.world.describe(address);
    let stack = &view.world.layout().stack;
    let size = stack.end - stack.start;
    // A large frame may jump over the guard page; then the stack pointer tells.
    let below = address < stack.start && frame.rsp < stack.start && stack.start - frame.rsp <= size;
    match (place, action) {
        (P::BelowStack, Action::Read | Action::Write) => Diagnosis::StackOverflow { stack: size },
        (_, Action::Read | Action::Write) if below => Diagnosis::StackOverflow { stack: size },
        (P::Null, Action::Execute) if address == 0 => null_call(view, frame),
        (P::Null, _) => Diagnosis::NullPointer {
            action,
            offset: address,
        },
        (P::AboveStack, _) => Diagnosis::AboveStack(action),
        (P::Text | P::ReadOnlyData | P::Relro | P::BootPage | P::Strings, Action::Write) => {
            Diagnosis::WriteToReadOnly(place)
        }
        (
            P::Gdt | P::Tss | P::Idt | P::TrapStubs | P::TrapStack(_) | P::TrapStackGuard | P::PageTables,
            Action::Read | Action::Write,
        ) => Diagnosis::HostsOwn(action, place),
        (P::Unmapped | P::NoMemory | P::NonCanonical, _) => Diagnosis::Wild(action, place),
        (_, Action::Execute) => Diagnosis::JumpIntoData(place),
        _ => Diagnosis::Other,
    }
}

/// A software KVM executes `syscall` although EFER.SCE is clear. That leads to address 0 as well, for
/// nobody has set LSTAR, and leaves the address of the next instruction in RCX (SDM volume 2B).
fn null_call(view: &View<'_>, frame: &TrapFrame) -> Diagnosis {
    let mut bytes = [0; 2];
    let at = frame.rcx.wrapping_sub(2);
    view.read(at, &mut bytes);
    if bytes == [0x0f, 0x05] {
        Diagnosis::Syscall(at)
    } else {
        Diagnosis::NullCall
    }
}

fn undefined(view: &View<'_>, rip: u64) -> Diagnosis {
    let mut bytes = [0; 8];
    let len = view.read(rip, &mut bytes);
    match bytes {
        [0x0f, 0x0b, ..] => Diagnosis::Trap,
        [0x0f, 0x05, ..] => Diagnosis::Syscall(rip),
        // Of a gate that is not there a software KVM makes #UD, and a processor #GP.
        [0xcd, vector, ..] => Diagnosis::NoGate(vector.into()),
        _ => Diagnosis::Undefined { bytes, len },
    }
}

fn protection(view: &View<'_>, frame: &TrapFrame) -> Diagnosis {
    if let Some(vector) = ErrorCode::new(frame.vector, frame.error_code).gate() {
        return Diagnosis::NoGate(vector);
    }
    let mut bytes = [0; 2];
    view.read(frame.rip, &mut bytes);
    if frame.cs & 3 == 3 && frame.error_code == 0 && is_privileged(bytes) {
        return Diagnosis::Privileged;
    }
    if frame.cs & 3 == 0
        && frame.error_code == 0
        && let [0x0f, 0x30 | 0x32] = bytes
    {
        let (register, write) = (frame.rcx as u32, bytes[1] == 0x30);
        return Diagnosis::NoRegister { register, write };
    }
    let non_canonical = |(register, value): &(&'static str, u64)| {
        view.world.describe(*value) == Place::NonCanonical && !register.is_empty()
    };
    match general(frame).into_iter().find(non_canonical) {
        Some((register, value)) => Diagnosis::NonCanonical { register, value },
        None => Diagnosis::Protection,
    }
}

/// Whether an instruction that begins with these bytes is for ring 0 alone: `hlt`; `mov` to and
/// from control and debug registers, `wrmsr`, `rdmsr`, `clts`, `invd`, `wbinvd`; `lgdt` and others.
const fn is_privileged(bytes: [u8; 2]) -> bool {
    matches!(
        bytes,
        [0xf4, _] | [0x0f, 0x00 | 0x01 | 0x06 | 0x08 | 0x09 | 0x20..=0x23 | 0x30 | 0x32]
    )
}

/// The registers an address may be in.
pub(super) const fn general(frame: &TrapFrame) -> [(&'static str, u64); 16] {
    [
        ("rax", frame.rax),
        ("rbx", frame.rbx),
        ("rcx", frame.rcx),
        ("rdx", frame.rdx),
        ("rsi", frame.rsi),
        ("rdi", frame.rdi),
        ("rbp", frame.rbp),
        ("rsp", frame.rsp),
        ("r8", frame.r8),
        ("r9", frame.r9),
        ("r10", frame.r10),
        ("r11", frame.r11),
        ("r12", frame.r12),
        ("r13", frame.r13),
        ("r14", frame.r14),
        ("r15", frame.r15),
    ]
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::StackOverflow { stack } => {
                write!(
                    f,
                    "the stack overflowed: it has {}, and the manifest can ask for more",
                    Size(stack)
                )
            }
            Self::AboveStack(action) => write!(f, "{action} beyond the upper end of the stack"),
            Self::NullPointer { action, offset: 0 } => write!(f, "null pointer {action}"),
            Self::NullPointer { action, offset } => write!(f, "null pointer {action} at offset {offset:#x}"),
            Self::NullCall => f.write_str("call through a null function pointer"),
            Self::Syscall(at) => write!(f, "syscall instruction at {at:#x}, and a guest has no kernel to call"),
            Self::WriteToReadOnly(place @ Place::Text) => write!(f, "write to read-only {place}"),
            Self::WriteToReadOnly(place @ (Place::ReadOnlyData | Place::Relro)) => write!(f, "write to {place}"),
            Self::WriteToReadOnly(place) => write!(f, "write to the {place}, which is read-only"),
            Self::JumpIntoData(place) => write!(f, "jump into the {place}, which is not code"),
            Self::HostsOwn(Action::Read, place) => write!(f, "read of the {place}, which only the host may do"),
            Self::HostsOwn(action, place) => write!(f, "{action} to the {place}, which only the host may do"),
            Self::Wild(Action::Execute, place) => write!(f, "jump through a wild pointer to {place}"),
            Self::Wild(action, place) => write!(f, "{action} through a wild pointer to {place}"),
            Self::Divide => f.write_str("divide by zero, or a quotient too large for its register"),
            Self::Trap => f.write_str("ud2: the program came where its compiler proved or promised it cannot"),
            Self::Undefined { bytes, len } => {
                f.write_str("not an instruction on this processor:")?;
                bytes.iter().take(len).try_for_each(|byte| write!(f, " {byte:02x}"))
            }
            Self::Breakpoint => f.write_str("int3 instruction, and no debugger is there"),
            Self::NoGate(vector) => write!(f, "int {vector:#x}, an interrupt that guests cannot raise"),
            Self::Privileged => f.write_str("privileged instruction in ring 3: a guest that needs it runs in ring 0"),
            Self::NoRegister { register, write: false } => {
                write!(
                    f,
                    "rdmsr of the register {register:#x}, which this processor does not have"
                )
            }
            Self::NoRegister { register, write: true } => write!(
                f,
                "wrmsr to the register {register:#x}, which this processor does not have, or which takes no such value"
            ),
            Self::NonCanonical { register, value } => {
                write!(
                    f,
                    "probably a wild pointer: {register} holds the non-canonical address {value:#x}"
                )
            }
            Self::Protection => {
                f.write_str("an access or instruction that is not allowed, or a misaligned SSE operand")
            }
            Self::Double => f.write_str("a fault while another was being handled"),
            Self::Other => f.write_str("an exception that this guest does not handle"),
        }
    }
}

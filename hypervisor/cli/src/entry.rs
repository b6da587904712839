//! The first instructions of a process, before those of the C library.
//!
//! What a start writes in any case is asked for at once: pages of data that relocation changes, which the C library is about
//! to do, those behind them up to the first of the heap, and those of the stack that `main` takes. One by one, as they are
//! touched, they take three times as long. Without (Linux before 5.14), that is how they come.

use std::arch::global_asm;

use crate::ARENA;
use crate::arena::USED;

/// How much of the stack `main` takes to run a guest, in bytes.
const STACK: usize = 44 << 10;

const PAGE: usize = 4096;

global_asm!(
    ".pushsection .text.chiton_entry, \"ax\", @progbits",
    ".globl chiton_entry",
    ".type chiton_entry, @function",
    "chiton_entry:",
    // Where there is a dynamic linker, what is to be called at the end.
    "mov r8, rdx",
    // From where the linker puts what is relocated, of which these are the first.
    "lea rdi, [rip + __init_array_start]",
    "and rdi, -{page}",
    "lea rsi, [rip + {arena} + {used}]",
    "sub rsi, rdi",
    "mov edx, {populate}",
    "mov eax, {madvise}",
    "syscall",
    "lea rdi, [rsp - {stack}]",
    "and rdi, -{page}",
    "mov esi, {stack}",
    "mov edx, {populate}",
    "mov eax, {madvise}",
    "syscall",
    "mov rdx, r8",
    "jmp _start",
    ".popsection",
    page = const PAGE,
    arena = sym ARENA,
    used = const USED,
    stack = const STACK,
    populate = const libc::MADV_POPULATE_WRITE,
    madvise = const libc::SYS_madvise,
);

//! Does what a guest should not, by the cause named: `fault CAUSE [PROCESSOR]`. Without a cause it
//! lists them.
//!
//! The faults are single instructions in assembly, so that the compiler has no say in them.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::arch::asm;
use core::hint::black_box;

use chiton_guest::shared::doorbell;
use chiton_guest::{ExitCode, env, host, println, processors, time};

chiton_guest::entry!(main);

/// Name, description and deed of each cause.
const CAUSES: &[(&str, &str, fn())] = &[
    ("null-read", "read through a null pointer", null_read),
    ("wild-write", "write where nothing is mapped", wild_write),
    ("stack-overflow", "call without end", stack_overflow),
    ("write-text", "write to a function", write_text),
    ("jump-data", "run data as code", jump_data),
    ("divide", "divide by zero", divide),
    ("undefined", "run an undefined instruction", undefined),
    ("privileged", "run a privileged instruction", privileged),
    ("register", "read a register that no processor has", register),
    ("breakpoint", "run a breakpoint instruction", breakpoint),
    ("panic", "index beyond the end of a slice", index_beyond_end),
    ("heap", "allocate without end", exhaust_heap),
    ("loop", "spin for ever", spin),
    ("sleep", "wait for what never comes", sleep),
    ("park", "park the processor", park),
    ("exit", "end the guest with code 9", end),
];

fn main() -> ExitCode {
    let wanted = env::args().nth(1).unwrap_or_default();
    if let Some((.., deed)) = CAUSES.iter().find(|(name, ..)| *name == wanted) {
        match env::args().nth(2).map(|number| number.parse()) {
            None => deed(),
            Some(Ok(number)) => match processors::spawn_on(number, *deed) {
                Ok(task) => task.join(),
                Err(error) => {
                    println!("{error}");
                    return ExitCode::from(3_u8);
                }
            },
            Some(Err(_)) => return ExitCode::from(2_u8),
        }
        println!("`{wanted}` went unnoticed");
        return ExitCode::FAILURE;
    }
    println!("usage: fault CAUSE [PROCESSOR], where CAUSE is one of");
    for (name, description, _) in CAUSES {
        println!("  {name:<16}{description}");
    }
    ExitCode::from(2_u8)
}

#[inline(never)]
fn null_read() {
    // SAFETY: nothing is mapped at the null page; the host ends the guest here.
    unsafe { asm!("mov {value}, [{address}]", address = in(reg) 0_u64, value = out(reg) _) };
}

#[inline(never)]
fn wild_write() {
    // SAFETY: nothing is mapped at 256 GiB; the host ends the guest here.
    unsafe { asm!("mov qword ptr [{address}], 1", address = in(reg) 0x40_0000_0000_u64) };
}

#[inline(never)]
fn stack_overflow() {
    #[allow(unconditional_recursion, reason = "the point of it")]
    fn deeper(depth: u64) -> u64 {
        let frame = black_box([depth; 32]);
        deeper(depth + 1).wrapping_add(frame[31])
    }
    black_box(deeper(0));
}

#[inline(never)]
fn write_text() {
    let function = spin as fn();
    // SAFETY: code is mapped read-only; the host ends the guest here.
    unsafe { asm!("mov byte ptr [{address}], 0", address = in(reg) function) };
}

#[inline(never)]
fn jump_data() {
    // `ret`: if data were executable, the call would return.
    static mut CODE: [u8; 1] = [0xC3];
    // SAFETY: data are mapped not executable; the host ends the guest here.
    unsafe { asm!("call {code}", code = in(reg) &raw mut CODE, clobber_abi("C")) };
}

#[inline(never)]
fn divide() {
    // SAFETY: the exception leaves memory alone; the host ends the guest here.
    unsafe { asm!("div {zero}", zero = in(reg) 0_u64, inout("rax") 1_u64 => _, inout("rdx") 0_u64 => _) };
}

#[inline(never)]
fn undefined() {
    // SAFETY: as in `divide`.
    unsafe { asm!("ud2") };
}

#[inline(never)]
fn privileged() {
    // SAFETY: as in `divide`, for a guest in ring 3; in ring 0 the guest halts, and the host ends it.
    unsafe { asm!("hlt") };
}

#[inline(never)]
fn register() {
    // SAFETY: as in `divide`; in ring 3 it is the instruction that is not allowed, in ring 0 there is no such register.
    unsafe { asm!("rdmsr", in("ecx") 0x1234_5678, out("eax") _, out("edx") _) };
}

#[inline(never)]
fn breakpoint() {
    // SAFETY: as in `divide`.
    unsafe { asm!("int3") };
}

#[inline(never)]
fn index_beyond_end() {
    let numbers = black_box([1, 2, 3]);
    black_box(numbers[black_box(3)]);
}

#[inline(never)]
fn exhaust_heap() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(Vec::<u8>::with_capacity(black_box(64 << 10)));
    }
}

#[inline(never)]
fn spin() {
    // The loop does something, so that it may be endless.
    loop {
        black_box(());
    }
}

#[inline(never)]
fn sleep() {
    loop {
        time::wait(None);
    }
}

fn park() {
    host::ring(doorbell::PARK, 0);
}

fn end() {
    chiton_guest::exit(9);
}

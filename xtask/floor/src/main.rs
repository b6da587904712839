//! The floor: the least that any hypervisor on KVM must do to run a guest, and nothing else.
//!
//! ```text
//! floor nothing     an empty process
//! floor once        one machine, one vCPU in ring 3, one exit
//! floor exits N     the same, but N exits from a loop before the last one
//! ```
//!
//! No Rust runtime, no allocation, no clean-up: the process ends and the kernel takes all back.
#![no_main]

mod guest;
mod kvm;

use core::ffi::{CStr, c_char, c_int};

use kvm::Machine;

/// Where a process starts.
///
/// # Safety
///
/// `argv` holds `argc` C strings, as the C runtime passes them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let argument = |at: usize| {
        if at >= argc as usize {
            return [].as_slice();
        }
        // SAFETY: by this function's contract there are `argc` C strings, and `at` is below it.
        unsafe { CStr::from_ptr(*argv.add(at)) }.to_bytes()
    };
    let exits = match argument(1) {
        b"nothing" => return 0,
        b"once" => 0,
        b"exits" => number(argument(2)),
        _ => return 64,
    };
    match run(exits) {
        Some(seen) if seen == exits => 0,
        Some(_) => 1,
        None => 2,
    }
}

/// Runs the guest and counts its exits; `None` if KVM refuses anything.
fn run(exits: u32) -> Option<u32> {
    let mut machine = Machine::new()?;
    guest::build(machine.memory(), exits);
    machine.enter(guest::CODE, guest::PAGE_TABLES, guest::TSS)?;
    let mut seen = 0;
    while machine.run()? == guest::NOP {
        seen += 1;
    }
    Some(seen)
}

fn number(text: &[u8]) -> u32 {
    text.iter()
        .filter(|c| c.is_ascii_digit())
        .fold(0, |n, c| n * 10 + u32::from(c - b'0'))
}

//! The floor: the least that any hypervisor on KVM must do to run a guest, and nothing else.
//!
//! ```text
//! floor nothing     an empty process
//! floor once        one machine, one vCPU in ring 3, one exit
//! floor exits N     the same, but N exits from a loop before the last one
//! floor image FILE MIB
//!                   makes a file with the guest's memory in it
//! floor snapshot FILE MIB
//!                   the same as once, with memory mapped from that file, copy-on-write
//! floor jail PLACE GROUP…
//!                   the same as once, in a jail made in the folder PLACE and in these new control groups
//! ```
//!
//! With `CHITON_TIMELINE=N` in its environment it says in the descriptor N when the guest's first instruction comes, as
//! `chiton` does.
//!
//! No Rust runtime, no allocation, no clean-up: the process ends and the kernel takes all back.
#![no_main]

mod guest;
mod jail;
mod kvm;
mod timeline;

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
            return c"";
        }
        // SAFETY: by this function's contract there are `argc` C strings, and `at` is below it.
        unsafe { CStr::from_ptr(*argv.add(at)) }
    };
    let exits = match argument(1).to_bytes() {
        b"nothing" => return 0,
        b"once" => 0,
        b"exits" => number(argument(2).to_bytes()),
        b"image" => {
            let Some(memory) = kvm::image(argument(2), number(argument(3).to_bytes()), true) else {
                return 2;
            };
            guest::build(memory, 0);
            return 0;
        }
        b"snapshot" => {
            let machine = kvm::open().and_then(|kvm| {
                let memory = kvm::image(argument(2), number(argument(3).to_bytes()), false)?;
                Machine::with_memory(kvm, memory)
            });
            return machine.and_then(go).map_or(2, |_| 0);
        }
        b"jail" => {
            let groups: [&CStr; 16] = core::array::from_fn(|at| argument(at + 3));
            let count = groups.iter().take_while(|group| !group.is_empty()).count();
            let Some(kvm) = kvm::open() else { return 2 };
            let inside = || run(kvm, 0).map_or(2, |_| 0);
            return jail::run(argument(2), &groups[..count], inside).unwrap_or(3);
        }
        _ => return 64,
    };
    match kvm::open().and_then(|kvm| run(kvm, exits)) {
        Some(seen) if seen == exits => 0,
        Some(_) => 1,
        None => 2,
    }
}

/// Runs the guest and counts its exits; `None` if KVM refuses anything.
fn run(kvm: i32, exits: u32) -> Option<u32> {
    let mut machine = Machine::new(kvm)?;
    guest::build(machine.memory(), exits);
    go(machine)
}

/// Runs the guest in a machine's memory.
fn go(mut machine: Machine) -> Option<u32> {
    machine.enter(guest::CODE, guest::PAGE_TABLES, guest::TSS)?;
    timeline::first_instruction();
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

//! Uses memory and gives it back to the host: `balloon [MIB]`.
//!
//! After each step it says so and waits for a line of input, so that somebody can look at how much
//! memory the host's process has.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;

use chiton_guest::balloon::Balloon;
use chiton_guest::{MIB, console, env, println};

chiton_guest::entry!(main);

fn main() -> Result<(), String> {
    let mib: u64 = env::args()
        .nth(1)
        .map_or(Ok(8), |text| text.parse())
        .map_err(|_| "usage: balloon [MIB]")?;
    let bytes = (mib * MIB) as usize;
    let mut balloon = Balloon::open().map_err(|error| error.to_string())?;
    println!("the host would like to have {} MiB", balloon.target() / MIB);
    drop(vec![1_u8; bytes]);
    step("used")?;
    balloon.inflate(bytes).map_err(|error| error.to_string())?;
    step("inflated")?;
    balloon.deflate().map_err(|error| error.to_string())?;
    let mut memory = vec![2_u8; bytes];
    step("used again")?;
    balloon.report(&mut memory).map_err(|error| error.to_string())?;
    step("reported")?;
    memory.fill(4);
    drop(memory);
    step("dropped")?;
    let free = balloon.report_free().map_err(|error| error.to_string())?;
    if free < bytes {
        return Err(format!("{free} bytes were reported after {bytes} were freed"));
    }
    step("free")?;
    // All that the heap has goes into the balloon, and is back as soon as it is needed.
    let mut pieces = 0;
    while balloon.inflate(64 << 10).is_ok() {
        pieces += 1;
    }
    let held = balloon.held();
    let memory = vec![3_u8; bytes / 2];
    let back = held - balloon.held();
    if back < memory.len() / 2 || balloon.rescues() == 0 {
        return Err(format!("{back} bytes of {held} came back for {}", memory.len()));
    }
    println!(
        "{pieces} pieces given, {} taken back when memory ran out",
        balloon.rescues()
    );
    step("rescued")
}

fn step(what: &str) -> Result<(), String> {
    println!("{what}");
    let mut line = String::new();
    console::read_line(&mut line)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

//! A floating-point workload that checks its own results: `compute [ITERATIONS]` prints how long
//! each iteration took, and a checksum over its results.
//!
//! `cargo run --release --example native` in `workload/` does the same without a guest.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;

use chiton_guest::time::Instant;
use chiton_guest::{env, println};
use compute_workload::Workload;

chiton_guest::entry!(main, heap = MIB);

fn main() -> Result<(), String> {
    let iterations: u64 = match env::args().nth(1) {
        Some(number) => number
            .parse()
            .map_err(|_| String::from("usage: compute [ITERATIONS]"))?,
        None => 10,
    };
    let mut workload = Workload::new();
    let mut best = u64::MAX;
    for iteration in 1..=iterations {
        let start = Instant::now();
        let result = workload.run();
        let ns = start.elapsed().as_nanos() as u64;
        best = best.min(ns);
        let checksum = result.map_err(|wrong| format!("{wrong}"))?;
        println!("iteration {iteration}: {ns} ns, checksum {checksum:016x}");
    }
    println!("best of {iterations}: {best} ns");
    Ok(())
}

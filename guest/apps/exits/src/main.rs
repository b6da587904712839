//! Measures what one exit to the host costs: `exits [N]` makes N exits that do nothing.
#![no_std]
#![no_main]

use chiton_guest::shared::doorbell;
use chiton_guest::time::Instant;
use chiton_guest::{env, host, println};

chiton_guest::entry!(main);

fn main() -> Result<(), &'static str> {
    let count: u64 = match env::args().nth(1) {
        Some(count) => count.parse().map_err(|_| "usage: exits [NUMBER OF EXITS]")?,
        None => 10_000,
    };
    let start = Instant::now();
    for _ in 0..count {
        host::ring(doorbell::NOP, 0);
    }
    let ns = start.elapsed().as_nanos() as u64;
    println!("{count} exits in {} us, {} ns each", ns / 1000, ns / count.max(1));
    Ok(())
}

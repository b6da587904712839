//! The same work on one processor and on all: `parallel [PIECES]` prints how long each took, how
//! many pieces each processor did, and checks that all results agree. Run it with `--cpus N`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use chiton_guest::processors::{self, MAX, PerProcessor};
use chiton_guest::time::Instant;
use chiton_guest::{env, println};
use compute_workload::Workload;

chiton_guest::entry!(main, stack = 64 * KIB, heap = 2 * MIB);

/// How many pieces each processor did.
static DONE: PerProcessor<AtomicU32> = PerProcessor::new([const { AtomicU32::new(0) }; MAX]);

/// A checksum over all results, in whatever order they come.
static SUM: AtomicU64 = AtomicU64::new(0);

fn piece(_: usize) {
    match Workload::new().run() {
        Ok(checksum) => SUM.fetch_add(checksum, Ordering::Relaxed),
        Err(wrong) => panic!("{wrong}"),
    };
    DONE.own().fetch_add(1, Ordering::Relaxed);
}

fn main() -> Result<(), String> {
    let pieces: usize = match env::args().nth(1) {
        Some(number) => number.parse().map_err(|_| String::from("usage: parallel [PIECES]"))?,
        None => 16,
    };
    let start = Instant::now();
    (0..pieces).for_each(piece);
    let alone = start.elapsed();
    let expected = SUM.swap(0, Ordering::Relaxed);
    DONE.own().store(0, Ordering::Relaxed);

    let start = Instant::now();
    processors::for_each(pieces, piece);
    let together = start.elapsed();
    if SUM.load(Ordering::Relaxed) != expected {
        return Err(format!("the results differ: {expected:x}"));
    }
    let count = processors::count();
    let done: Vec<u32> = DONE.all().map(|done| done.load(Ordering::Relaxed)).collect();
    println!("1 processor:  {} us for {pieces} pieces", alone.as_micros());
    println!("{count} processors: {} us; pieces each: {done:?}", together.as_micros());
    Ok(())
}

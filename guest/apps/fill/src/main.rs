//! Writes a pattern over a disk, again and again to its end: `fill PATTERN`. Or to the console:
//! `fill PATTERN BYTES`, with one write however many bytes.
//!
//! The disk is flushed at the end, so that what `fill` reports is on the host's medium.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use chiton_guest::block::{Disk, DiskError, SECTOR};
use chiton_guest::{console, env, println};

chiton_guest::entry!(main, heap = 6 * MIB);

/// Sectors in a request: 128 KiB.
const SECTORS: u64 = 256;
/// The most bytes for the console: the heap has room for them.
const MOST: usize = 4 << 20;

fn main() -> Result<(), String> {
    let mut args = env::args().skip(1);
    let usage = "usage: fill PATTERN [BYTES]";
    let pattern = args.next().filter(|pattern| !pattern.is_empty()).ok_or(usage)?;
    match args.next() {
        None => disk(pattern.as_bytes()).map_err(|error| format!("{error}")),
        Some(bytes) => {
            let bytes = bytes.parse().ok().filter(|bytes| *bytes <= MOST).ok_or(usage)?;
            console::write(&repeated(pattern.as_bytes(), 0, bytes)).map_err(|error| format!("{error}"))
        }
    }
}

/// `len` bytes of the endless pattern, from its byte `from` on.
fn repeated(pattern: &[u8], from: u64, len: usize) -> Vec<u8> {
    let start = (from % pattern.len() as u64) as usize;
    pattern.iter().copied().cycle().skip(start).take(len).collect()
}

fn disk(pattern: &[u8]) -> Result<(), DiskError> {
    let mut disk = Disk::open(0)?;
    let (sectors, depth) = (disk.sectors(), disk.depth().min(16));
    let mut next = 0;
    while next < sectors || disk.in_flight() > 0 {
        while next < sectors && disk.in_flight() < depth {
            let count = (sectors - next).min(SECTORS);
            let bytes = repeated(pattern, next * SECTOR, (count * SECTOR) as usize);
            disk.submit_write(next, bytes)?;
            next += count;
        }
        disk.wait()?.result?;
    }
    disk.flush()?;
    println!("{} bytes written and flushed", sectors * SECTOR);
    Ok(())
}

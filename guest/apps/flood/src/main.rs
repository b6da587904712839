//! One processor echoes the console line by line, while another one
//!
//! ```text
//! flood disk          keeps every disk as busy as it can, until console input ends and 100 reads are done
//! flood file PATH     reads a file of a folder
//! ```
//!
//! and at the end says how much it did. Run it with `--cpus 2`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use chiton_guest::block::{Disk, SECTOR};
use chiton_guest::processors::Task;
use chiton_guest::{console, env, fs, println, processors};

chiton_guest::entry!(main, stack = 64 * KIB, heap = 4 * MIB);

/// Console input has ended.
static OVER: AtomicBool = AtomicBool::new(false);

fn main() -> Result<(), String> {
    let mut args = env::args().skip(1);
    let work: Task<Result<String, String>> = match (args.next(), args.next()) {
        (Some("disk"), None) => processors::spawn_on(1, flood),
        (Some("file"), Some(path)) => processors::spawn_on(1, move || {
            let bytes = fs::read(path).map_err(|error| format!("{error}"))?;
            Ok(format!("{} bytes", bytes.len()))
        }),
        _ => return Err("usage: flood disk|file PATH".into()),
    }
    .map_err(|error| format!("{error}"))?;
    println!("ready");
    let mut buffer = [0; 256];
    loop {
        let len = console::read(&mut buffer).map_err(|error| format!("{error}"))?;
        if len == 0 {
            break;
        }
        console::write(&buffer[..len]).map_err(|error| format!("{error}"))?;
    }
    OVER.store(true, Ordering::Relaxed);
    println!("{}", work.join()?);
    Ok(())
}

/// Keeps every disk busy with reads of 64 KiB.
fn flood() -> Result<String, String> {
    const BYTES: usize = 64 << 10;
    const IN_FLIGHT: usize = 16;
    /// How many each disk does at least.
    const LEAST: u64 = 100;
    let mut disks = Vec::new();
    for index in 0..Disk::count() {
        disks.push((Disk::open(index).map_err(|error| format!("{error}"))?, 0_u64));
    }
    let places = disks
        .first()
        .map_or(0, |(disk, _)| disk.sectors() * SECTOR / BYTES as u64);
    if places == 0 {
        return Err(format!("flood needs disks of {BYTES} bytes or more"));
    }
    let (mut place, mut failures) = (0, 0_u64);
    let few = |disks: &[(Disk, u64)]| disks.iter().any(|(_, done)| *done < LEAST);
    while !OVER.load(Ordering::Relaxed) || few(&disks) {
        for (disk, done) in &mut disks {
            let mut buffer = None;
            if disk.in_flight() >= IN_FLIGHT {
                let completion = disk.wait().map_err(|error| format!("{error}"))?;
                failures += u64::from(completion.result.is_err());
                *done += 1;
                buffer = Some(completion.buffer);
            }
            let buffer = buffer.unwrap_or_else(|| vec![0; BYTES]);
            place = (place + 1) % places;
            disk.submit_read(place * BYTES as u64 / SECTOR, buffer)
                .map_err(|error| format!("{error}"))?;
        }
    }
    let done: Vec<u64> = disks.iter().map(|(_, done)| *done).collect();
    Ok(format!("{done:?} reads, {failures} failed"))
}

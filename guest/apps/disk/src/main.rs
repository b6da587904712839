//! Says what a disk is, or erases a part of it:
//!
//! ```text
//! disk                            its name and size
//! disk queues                     of which format its queues are
//! disk discard SECTOR COUNT       the host need not keep these sectors
//! disk zero SECTOR COUNT          fill them with zeros
//! disk unmap SECTOR COUNT         the same, and the host need not keep their place
//! disk read SECTOR COUNT          reads them one by one, and says how many could be
//! disk wait SECTOR COUNT          the same, once there is console input
//! disk write SECTOR COUNT         writes them one by one, and says how many could be
//! disk reset SECTOR COUNT         reads them all at once and resets the queue meanwhile, then reads
//!                                 those again that were taken back, and so on
//! disk notify SECTOR COUNT        reads them one by one by a disk that it has brought up by itself, with
//!                                 notification data, and kicks for each
//! ```
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use chiton_guest::block::{Disk, DiskError, SECTOR};
use chiton_guest::shared::virtio::feature::NOTIFICATION_DATA;
use chiton_guest::{console, env, println};

chiton_guest::entry!(main, needs = &[BLOCK]);

fn main() -> Result<(), String> {
    let mut args = env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
    let range = (number(), number());
    let more = if what == "notify" { NOTIFICATION_DATA } else { 0 };
    let disk = match more {
        0 => Disk::open(0),
        more => Disk::open_with(0, more),
    };
    let mut disk = disk.map_err(|error| error.to_string())?;
    match (what, range) {
        ("", _) => about(&mut disk),
        ("queues", _) => {
            println!("{}", if disk.is_packed() { "packed" } else { "split" });
            Ok(())
        }
        ("discard", (Some(sector), Some(count))) => disk.discard(sector, count),
        ("zero", (Some(sector), Some(count))) => disk.write_zeroes(sector, count, false),
        ("unmap", (Some(sector), Some(count))) => disk.write_zeroes(sector, count, true),
        ("read" | "wait", (Some(sector), Some(count))) => {
            if what == "wait" {
                println!("ready");
                console::read(&mut [0; 16]).map_err(|error| error.to_string())?;
            }
            let mut buffer = [0; SECTOR as usize];
            each(sector, count, |sector| disk.read(sector, &mut buffer));
            Ok(())
        }
        ("write", (Some(sector), Some(count))) => {
            each(sector, count, |sector| disk.write(sector, &[b'w'; SECTOR as usize]));
            disk.flush()
        }
        ("reset", (Some(sector), Some(count))) => reset(&mut disk, sector, count),
        ("notify", (Some(sector), Some(count))) => notify(&mut disk, sector, count),
        _ => return Err("usage: disk [queues|discard|zero|unmap|read|wait|write|reset|notify SECTOR COUNT]".into()),
    }
    .map_err(|error| format!("{error}"))
}

fn about(disk: &mut Disk) -> Result<(), DiskError> {
    let name = disk.name()?;
    let name = String::from_utf8_lossy(&name);
    let access = if disk.read_only() { "read-only" } else { "writable" };
    println!("{}: {} sectors, {access}", name.trim_end_matches('\0'), disk.sectors());
    Ok(())
}

/// Does something with each sector; failures do not end it.
fn each(sector: u64, count: u64, mut one: impl FnMut(u64) -> Result<(), DiskError>) {
    let done = (sector..sector.saturating_add(count))
        .filter(|sector| one(*sector).is_ok())
        .count();
    println!("{done} of {count} sectors");
}

/// Reads sectors with a kick for each, three at a time; says how many kicks those were, and what the first bytes add up
/// to.
fn notify(disk: &mut Disk, sector: u64, count: u64) -> Result<(), DiskError> {
    let (mut sector, end, mut sum) = (sector, sector.saturating_add(count), 0_u64);
    while sector < end {
        let next = end.min(sector + 3);
        for sector in sector..next {
            disk.submit_read(sector, vec![0; SECTOR as usize])?;
            disk.kick();
        }
        while disk.in_flight() > 0 {
            let completion = disk.wait()?;
            completion.result?;
            sum += u64::from(completion.buffer[0]);
        }
        sector = next;
    }
    println!("{} kicks, sum {sum}", disk.exits().kicks);
    Ok(())
}

/// Reads sectors, which a reset of the queue takes back time and again; says what the first bytes of all add up to.
fn reset(disk: &mut Disk, sector: u64, count: u64) -> Result<(), DiskError> {
    const MINE: u8 = 0xA5;
    let mut wanted: Vec<u64> = (sector..sector.saturating_add(count)).collect();
    let (mut resets, mut sum) = (0_u64, 0_u64);
    let mut taken_back = Vec::new();
    while !wanted.is_empty() {
        // In the last rounds the device gets the time it needs.
        let patient = resets >= 8;
        let now = wanted.len().min(disk.depth());
        for (i, sector) in wanted.drain(wanted.len() - now..).enumerate() {
            disk.submit_read(sector, vec![0; SECTOR as usize])?;
            // Of the rest the device may know or not.
            if i == now / 2 {
                disk.kick();
            }
        }
        let mut done = Vec::new();
        if patient {
            while disk.in_flight() > 0 {
                done.push(disk.wait()?);
            }
        }
        disk.reset_queue()?;
        resets += 1;
        while let Some(completion) = disk.poll()? {
            done.push(completion);
        }
        for mut completion in done {
            match completion.result {
                Ok(()) => sum += u64::from(completion.buffer[0]),
                Err(DiskError::TakenBack) => {
                    completion.buffer.fill(MINE);
                    taken_back.push(completion.buffer);
                    wanted.push(completion.sector);
                }
                Err(error) => return Err(error),
            }
        }
    }
    let touched = taken_back.iter().flatten().filter(|byte| **byte != MINE).count();
    println!(
        "{resets} resets, {} taken back, {touched} bytes touched, sum {sum}",
        taken_back.len()
    );
    Ok(())
}

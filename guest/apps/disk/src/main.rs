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
//! ```
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};

use chiton_guest::block::{Disk, DiskError, SECTOR};
use chiton_guest::{console, env, println};

chiton_guest::entry!(main, needs = &[BLOCK]);

fn main() -> Result<(), String> {
    let mut args = env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
    let range = (number(), number());
    let mut disk = Disk::open(0).map_err(|error| error.to_string())?;
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
        _ => return Err("usage: disk [queues|discard|zero|unmap|read|wait|write SECTOR COUNT]".into()),
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

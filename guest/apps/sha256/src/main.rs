//! Prints the SHA-256 digest of a disk: `sha256 [DISK]`, in the format of `sha256sum`.
//!
//! While one piece of the disk is hashed, the host reads the next ones.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};

use chiton_guest::block::{Disk, DiskError, SECTOR};
use chiton_guest::{env, println};
use sha2::{Digest, Sha256};

chiton_guest::entry!(main, heap = 5 * MIB, needs = &[BLOCK]);

/// How many requests are in flight.
const DEPTH: u64 = 32;
/// Sectors in a request: 128 KiB.
const SECTORS: u64 = 256;

fn main() -> Result<(), String> {
    let number = env::args().nth(1).unwrap_or("0");
    let number = number
        .parse()
        .map_err(|_| format!("usage: sha256 [NUMBER OF THE DISK], not `{number}`"))?;
    let mut disk = Disk::open(number).map_err(|error| format!("{error}"))?;
    let digest = digest(&mut disk).map_err(|error| format!("{error}"))?;
    let mut hex = String::new();
    for byte in digest {
        hex += &format!("{byte:02x}");
    }
    println!("{hex}  disk{number}");
    Ok(())
}

fn digest(disk: &mut Disk) -> Result<[u8; 32], DiskError> {
    let pieces = disk.sectors().div_ceil(SECTORS);
    let mut hash = Sha256::new();
    // Piece `n` stands in place `n % DEPTH` from its arrival until it is hashed.
    let mut arrived: [Option<Vec<u8>>; DEPTH as usize] = [const { None }; DEPTH as usize];
    for piece in 0..pieces.min(DEPTH) {
        request(disk, piece, Vec::new())?;
    }
    disk.kick();
    for piece in 0..pieces {
        let place = (piece % DEPTH) as usize;
        while arrived[place].is_none() {
            let done = disk.wait()?;
            done.result?;
            arrived[(done.sector / SECTORS % DEPTH) as usize] = Some(done.buffer);
        }
        let buffer = arrived[place].take().unwrap_or_default();
        hash.update(&buffer);
        if piece + DEPTH < pieces {
            request(disk, piece + DEPTH, buffer)?;
            // Half the queue is still under way: no hurry to start one more.
            if piece % (DEPTH / 2) == 0 {
                disk.kick();
            }
        }
    }
    Ok(hash.finalize().into())
}

/// Asks for a piece of the disk, into this buffer if it is large enough.
fn request(disk: &mut Disk, piece: u64, mut buffer: Vec<u8>) -> Result<(), DiskError> {
    let sector = piece * SECTORS;
    let len = (disk.sectors() - sector).min(SECTORS) * SECTOR;
    if buffer.is_empty() {
        buffer = vec![0; len as usize];
    } else {
        buffer.truncate(len as usize);
    }
    disk.submit_read(sector, buffer)?;
    Ok(())
}

//! Appends records to a disk and says which are there for good: `log [RECORDS]`.
//!
//! At the start it reads and checks the records of earlier runs, however those ended, and prints
//! `found N`. Then it appends more, eight between flushes, and prints `acked N` when the first N
//! records are on the host's medium.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use chiton_guest::block::Disk;
use chiton_guest::journal::{Journal, JournalError};
use chiton_guest::{env, println};

chiton_guest::entry!(main, heap = 4 * MIB, needs = &[BLOCK]);

/// Records between flushes.
const TOGETHER: u64 = 8;

fn main() -> Result<(), String> {
    let usage = "usage: log [RECORDS]";
    let more = env::args()
        .nth(1)
        .map_or(Ok(100), |text| text.parse::<u64>())
        .map_err(|_| usage)?;
    run(more).map_err(|error| format!("{error}"))?
}

fn run(more: u64) -> Result<Result<(), String>, JournalError> {
    let mut wrong = None;
    let mut journal = Journal::open(Disk::open(0)?, |number, data| {
        if data != record(number) {
            wrong.get_or_insert(number);
        }
    })?;
    if let Some(number) = wrong {
        return Ok(Err(format!("record {number} is not what was appended")));
    }
    println!("found {}", journal.records());
    let end = journal.records().saturating_add(more);
    let mut full = false;
    while journal.records() < end && !full {
        for _ in 0..TOGETHER.min(end - journal.records()) {
            match journal.append(&record(journal.records())) {
                Ok(_) => {}
                Err(JournalError::Full(_)) => full = true,
                Err(error) => return Err(error),
            }
        }
        journal.flush()?;
        println!("acked {}", journal.records());
    }
    if full {
        println!("full");
    }
    Ok(Ok(()))
}

/// The data of a record: its number again and again, of a length that differs from the next one's.
fn record(number: u64) -> Vec<u8> {
    let len = number.wrapping_mul(2_654_435_761) % 1900;
    number.to_le_bytes().into_iter().cycle().take(len as usize).collect()
}

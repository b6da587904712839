//! A file of records that survives a crash: what was flushed is there when the disk is opened again,
//! whole and in order, whenever the machine ended.
//!
//! ```text
//!  sector 0                                                         first that is no record
//!  ┌──────────┬─────────────────────┬──────────┬───────────────────┬ ─ ─ ─
//!  │ record 0 │ record 1            │ record 2 │ record 3          │ a torn record, old bytes, zeros
//!  └──────────┴─────────────────────┴──────────┴───────────────────┴ ─ ─ ─
//!   each begins at a sector; its checksum covers the checksum of the one before
//! ```
//!
//! A write that the end cut short, or that reached the disk before an earlier one, has the wrong
//! checksum: opening ends the journal before it. A record left over from an earlier life fails the
//! same way, since it was chained to another one.
//!
//! ```no_run
//! use chiton_guest::block::Disk;
//! use chiton_guest::journal::{Journal, JournalError};
//! use chiton_guest::println;
//!
//! # fn main() -> Result<(), JournalError> {
//! let disk = Disk::open(0)?;
//! let mut journal = Journal::open(disk, |number, data| println!("{number}: {} bytes", data.len()))?;
//! journal.append(b"a record")?;
//! journal.flush()?; // from here on it is there for good
//! # Ok(())
//! # }
//! ```

mod record;

#[cfg(test)]
mod tests;

use alloc::vec;
use alloc::vec::Vec;

use crate::block::{Disk, DiskError, Driver, SECTOR};
use crate::host::Host;
use record::Header;

/// The most bytes a record can have.
pub const MAX_RECORD: usize = 1 << 20;

/// How many bytes are gathered before they are written.
const GATHER: usize = 128 << 10;

const SECTOR_BYTES: usize = SECTOR as usize;

/// Why a journal does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The disk failed.
    #[error("journal: {0}")]
    Disk(#[from] DiskError),
    /// The disk holds something else.
    #[error("journal: the disk holds something that is no journal; overwrite its first sector with zeros to begin one")]
    Foreign,
    /// The record is too long.
    #[error("journal: {0} bytes are too many for a record: the most is {MAX_RECORD}")]
    TooLong(usize),
    /// The record does not fit on the disk any more.
    #[error("journal: the disk is full after {0} records")]
    Full(u64),
    /// A write or flush failed before, so nobody knows what is on the disk: open it again.
    #[error("journal: it failed before; open it again to see what is there")]
    Failed,
}

/// Where a journal is kept. Sectors have [`SECTOR`] bytes.
pub trait Medium {
    /// How many sectors there are.
    fn sectors(&self) -> u64;

    /// Reads whole sectors.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), DiskError>;

    /// Writes whole sectors, durable after the next flush.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), DiskError>;

    /// Makes every write so far durable.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    fn flush(&mut self) -> Result<(), DiskError>;
}

impl<H: Host> Medium for Driver<'_, H> {
    fn sectors(&self) -> u64 {
        Self::sectors(self)
    }

    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), DiskError> {
        Self::read(self, sector, to)
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), DiskError> {
        Self::write(self, sector, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Self::flush(self)
    }
}

impl Medium for Disk {
    fn sectors(&self) -> u64 {
        (**self).sectors()
    }

    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), DiskError> {
        (**self).read(sector, to)
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), DiskError> {
        (**self).write(sector, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        (**self).flush()
    }
}

/// A journal, open at its end.
#[derive(Debug)]
pub struct Journal<M> {
    medium: M,
    /// Number of the next record.
    next: u64,
    /// Checksum of the last record.
    chain: u32,
    /// First sector behind what has been written.
    end: u64,
    /// Whole records that have not been written.
    gathered: Vec<u8>,
    failed: bool,
}

impl<M: Medium> Journal<M> {
    /// Reads the journal on a disk, calls `each` with the number and the data of every record, and
    /// stands behind the last. A disk whose first sector is zero is an empty journal.
    ///
    /// # Errors
    ///
    /// [`JournalError::Disk`], [`JournalError::Foreign`].
    pub fn open(medium: M, mut each: impl FnMut(u64, &[u8])) -> Result<Self, JournalError> {
        let mut journal = Self {
            medium,
            next: 0,
            chain: 0,
            end: 0,
            gathered: Vec::new(),
            failed: false,
        };
        let mut data = Vec::new();
        while journal.read_next(&mut data)? {
            each(journal.next - 1, &data);
        }
        Ok(journal)
    }

    /// How many records there are.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.next
    }

    /// Adds a record and returns its number, counted from 0. It is there for good after the next
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// Any [`JournalError`]; unless it is [`JournalError::Full`] or [`JournalError::TooLong`] the
    /// journal takes no more.
    pub fn append(&mut self, data: &[u8]) -> Result<u64, JournalError> {
        self.check()?;
        if data.len() > MAX_RECORD {
            return Err(JournalError::TooLong(data.len()));
        }
        let size = Header::sectors(data.len()) * SECTOR_BYTES;
        let after = self.end + ((self.gathered.len() + size) / SECTOR_BYTES) as u64;
        if after > self.medium.sectors() {
            return Err(JournalError::Full(self.next));
        }
        let header = Header::new(self.next, data, self.chain);
        let start = self.gathered.len();
        self.gathered.extend_from_slice(&header.to_bytes());
        self.gathered.extend_from_slice(data);
        self.gathered.resize(start + size, 0);
        self.chain = header.checksum;
        self.next += 1;
        if self.gathered.len() >= GATHER {
            self.write_out()?;
        }
        Ok(self.next - 1)
    }

    /// Makes every record so far durable, and sleeps until that is done.
    ///
    /// # Errors
    ///
    /// [`JournalError::Disk`], and the journal takes no more; [`JournalError::Failed`].
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.check()?;
        self.write_out()?;
        let result = self.medium.flush();
        self.note(result)
    }

    fn write_out(&mut self) -> Result<(), JournalError> {
        if !self.gathered.is_empty() {
            let result = self.medium.write(self.end, &self.gathered);
            self.note(result)?;
            self.end += (self.gathered.len() / SECTOR_BYTES) as u64;
            self.gathered.clear();
        }
        Ok(())
    }

    fn note(&mut self, result: Result<(), DiskError>) -> Result<(), JournalError> {
        self.failed |= result.is_err();
        Ok(result?)
    }

    const fn check(&self) -> Result<(), JournalError> {
        if self.failed { Err(JournalError::Failed) } else { Ok(()) }
    }

    /// Reads the record at the end and steps over it, if there is one.
    fn read_next(&mut self, data: &mut Vec<u8>) -> Result<bool, JournalError> {
        let left = self.medium.sectors().saturating_sub(self.end);
        if left == 0 {
            return Ok(false);
        }
        let mut first = [0; SECTOR_BYTES];
        self.medium.read(self.end, &mut first)?;
        let Some(header) = Header::parse(&first) else {
            if self.end == 0 && first.iter().any(|byte| *byte != 0) {
                return Err(JournalError::Foreign);
            }
            return Ok(false);
        };
        let len = header.len as usize;
        if header.number != self.next || len > MAX_RECORD || Header::sectors(len) as u64 > left {
            return Ok(false);
        }
        let rest = (Header::sectors(len) - 1) * SECTOR_BYTES;
        let mut bytes = vec![0; SECTOR_BYTES + rest];
        bytes[..SECTOR_BYTES].copy_from_slice(&first);
        if rest > 0 {
            self.medium.read(self.end + 1, &mut bytes[SECTOR_BYTES..])?;
        }
        data.clear();
        data.extend_from_slice(&bytes[Header::SIZE..Header::SIZE + len]);
        if header != Header::new(self.next, data, self.chain) {
            return Ok(false);
        }
        self.end += Header::sectors(len) as u64;
        self.next += 1;
        self.chain = header.checksum;
        Ok(true)
    }
}

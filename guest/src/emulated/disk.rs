//! The driver of the emulated disk. Both ways to move data follow the protocols of ATA/ATAPI-6:
//! PIO data-in and data-out (sections 9.5 and 9.6) with polling, and DMA (section 9.7).

use core::sync::atomic::AtomicBool;

use alloc::boxed::Box;

use chiton_shared::emulated::disk::{MAX_SECTORS, Region, command, device, identify, master, register, status};
use chiton_shared::emulated::id;
use chiton_shared::virtio::block::SECTOR;

use super::{Error, Registers};

const SECTOR_BYTES: usize = SECTOR as usize;

/// How data go between the disk and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Word by word through the data register.
    ProgrammedIo,
    /// All at once, by the bus master.
    BusMaster,
}

/// The emulated disk.
#[derive(Debug)]
pub struct Disk {
    registers: Registers,
    /// The bus master's table.
    table: Box<Table>,
    sectors: u64,
}

/// Enough regions for 256 sectors, which is two times 64 KiB, wherever the buffer begins.
#[repr(C, align(32))]
#[derive(Debug, Default)]
struct Table([[u8; Region::SIZE]; 3]);

static OPENED: AtomicBool = AtomicBool::new(false);

impl Disk {
    /// Opens the emulated disk, once.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::Opened`], and [`Error::Failed`] if it does not answer.
    pub fn open() -> Result<Self, Error> {
        let mut disk = Self {
            registers: Registers::open(id::DISK, "disk", &OPENED)?,
            table: Box::default(),
            sectors: 0,
        };
        disk.select(0, 0)?;
        let mut answer = [0; SECTOR_BYTES];
        disk.start(command::IDENTIFY);
        disk.take(command::IDENTIFY, &mut answer)?;
        let word = |index: usize| u64::from(u16::from_le_bytes([answer[2 * index], answer[2 * index + 1]]));
        disk.sectors = word(identify::SECTORS + 1) << 16 | word(identify::SECTORS);
        Ok(disk)
    }

    /// Size of the disk, in sectors of 512 bytes.
    #[must_use]
    pub const fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Reads 1 to 256 whole sectors.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a disk; the buffer then holds anything.
    pub fn read(&mut self, method: Method, sector: u64, to: &mut [u8]) -> Result<(), Error> {
        self.select(sector, count(to.len())?)?;
        match method {
            Method::ProgrammedIo => {
                self.start(command::READ);
                to.chunks_exact_mut(SECTOR_BYTES)
                    .try_for_each(|to| self.take(command::READ, to))
            }
            Method::BusMaster => {
                let (start, len) = (to.as_mut_ptr().expose_provenance(), to.len());
                self.transfer(command::READ_DMA, master::TO_MEMORY, start, len)
            }
        }
    }

    /// Writes 1 to 256 whole sectors, which are durable after the next [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a disk; the sectors then hold anything.
    pub fn write(&mut self, method: Method, sector: u64, from: &[u8]) -> Result<(), Error> {
        self.select(sector, count(from.len())?)?;
        match method {
            Method::ProgrammedIo => {
                self.start(command::WRITE);
                for from in from.chunks_exact(SECTOR_BYTES) {
                    self.give(from)?;
                }
                self.end(command::WRITE)
            }
            Method::BusMaster => {
                let (start, len) = (from.as_ptr().expose_provenance(), from.len());
                self.transfer(command::WRITE_DMA, 0, start, len)
            }
        }
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if it may be lost.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.select(0, 0)?;
        self.start(command::FLUSH);
        self.end(command::FLUSH)
    }

    /// Writes the task file, when the device is ready for it.
    fn select(&self, sector: u64, count: u8) -> Result<(), Error> {
        if sector >= MAX_SECTORS {
            return Err(Error::Address(sector));
        }
        let now: u8 = self.registers.read(register::STATUS);
        if now & (status::BSY | status::DRQ) != 0 || now & status::DRDY == 0 {
            return Err(Error::Status(now));
        }
        let [low, mid, high, top, ..] = sector.to_le_bytes();
        self.registers.write(register::DEVICE, device::LBA | top);
        self.registers.write(register::COUNT, count);
        self.registers.write(register::LBA_LOW, low);
        self.registers.write(register::LBA_MID, mid);
        self.registers.write(register::LBA_HIGH, high);
        Ok(())
    }

    fn start(&self, command: u8) {
        self.registers.write(register::STATUS, command);
    }

    /// Waits until the device is at rest or has or wants a sector, which takes a look at Alternate
    /// Status first: its first answer after a command does not count (section 9.5).
    fn status(&self) -> u8 {
        let _: u8 = self.registers.read(register::CONTROL);
        loop {
            let now: u8 = self.registers.read(register::STATUS);
            if now & status::BSY == 0 {
                return now;
            }
        }
    }

    fn failed(&self, command: u8, status: u8) -> Error {
        let error = self.registers.read(register::ERROR);
        Error::Failed { command, status, error }
    }

    /// Reads a sector through the data register.
    fn take(&self, command: u8, to: &mut [u8]) -> Result<(), Error> {
        let now = self.status();
        if now & (status::ERR | status::DRQ) != status::DRQ {
            return Err(self.failed(command, now));
        }
        for word in to.as_chunks_mut().0 {
            *word = self.registers.read::<u16>(register::DATA).to_le_bytes();
        }
        Ok(())
    }

    /// Writes a sector through the data register.
    fn give(&self, from: &[u8]) -> Result<(), Error> {
        let now = self.status();
        if now & (status::ERR | status::DRQ) != status::DRQ {
            return Err(self.failed(command::WRITE, now));
        }
        for word in from.as_chunks().0 {
            self.registers.write(register::DATA, u16::from_le_bytes(*word));
        }
        Ok(())
    }

    /// The end of a command without data, or after its data.
    fn end(&self, command: u8) -> Result<(), Error> {
        match self.status() {
            now if now & (status::ERR | status::DRQ) == 0 => Ok(()),
            now => Err(self.failed(command, now)),
        }
    }

    /// Has the bus master move `len` bytes at `start`, which its caller lends for that long.
    fn transfer(&mut self, command: u8, direction: u8, start: usize, len: usize) -> Result<(), Error> {
        self.list(start, len)?;
        let table = self.table.0.as_ptr().expose_provenance();
        let table = u32::try_from(table).map_err(|_| Error::Buffer)?;
        self.registers.write(register::MASTER_TABLE, table);
        self.registers.write(register::MASTER_COMMAND, direction);
        self.registers
            .write(register::MASTER_STATUS, master::FAILED | master::INTERRUPT);
        self.start(command);
        self.registers
            .write(register::MASTER_COMMAND, direction | master::START);
        // The device asks for an interrupt when it is done, or cannot begin: then the bus master
        // would be active for ever.
        while self.registers.read::<u8>(register::MASTER_STATUS) & master::INTERRUPT == 0 {}
        self.registers.write(register::MASTER_COMMAND, direction);
        self.end(command)
    }

    /// Lists a buffer's regions, none of which crosses a multiple of 64 KiB.
    fn list(&mut self, start: usize, len: usize) -> Result<(), Error> {
        const LIMIT: usize = 1 << 16;
        let (mut at, end) = (start, start + len);
        // A region's address is even; a word at a time is how such a device moves data.
        if !start.is_multiple_of(2) || u32::try_from(end).is_err() {
            return Err(Error::Buffer);
        }
        for region in &mut self.table.0 {
            let to = end.min((at / LIMIT + 1) * LIMIT);
            let last = to == end;
            *region = Region {
                address: at as u32,
                len: (to - at) as u16,
                last,
            }
            .to_bytes();
            if last {
                break;
            }
            at = to;
        }
        Ok(())
    }
}

/// A length as the Sector Count register has it.
fn count(len: usize) -> Result<u8, Error> {
    match len / SECTOR_BYTES {
        sectors @ 1..=256 if len.is_multiple_of(SECTOR_BYTES) => Ok(sectors as u8),
        _ => Err(Error::Length(len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        Disk {
            registers: Registers(0),
            table: Box::default(),
            sectors: 0,
        }
    }

    #[test]
    fn regions_do_not_cross_64_kib() {
        let mut disk = disk();
        let mut regions = |start, len| {
            disk.list(start, len).unwrap();
            let all = disk.table.0.map(Region::from_bytes);
            let count = 1 + all.iter().position(|region| region.last).unwrap();
            all[..count]
                .iter()
                .map(|region| (region.address, region.bytes()))
                .collect::<Vec<_>>()
        };
        assert_eq!(regions(0x2_0000, 0x1_0000), [(0x2_0000, 0x1_0000)]);
        assert_eq!(regions(0x2_FE00, 0x400), [(0x2_FE00, 0x200), (0x3_0000, 0x200)]);
        let all = [(0x2_0002, 0xFFFE), (0x3_0000, 0x1_0000), (0x4_0000, 2)];
        assert_eq!(regions(0x2_0002, 0x2_0000), all);
    }

    #[test]
    fn buffers_out_of_reach_are_refused() {
        for start in [0x2_0001, 0xFFFF_FF00, 1 << 40] {
            assert_eq!(disk().list(start, 512), Err(Error::Buffer), "{start:#x}");
        }
    }

    #[test]
    fn lengths_are_whole_sectors() {
        assert_eq!((count(512), count(131_072)), (Ok(1), Ok(0)));
        for len in [0, 511, 513, 131_584] {
            assert_eq!(count(len), Err(Error::Length(len)));
        }
    }
}

//! A disk as an ATA device: a task file, a data port, and a bus master beside them. The registers
//! are in [`chiton_shared::emulated::disk`].
//!
//! ```text
//!  command ─▶ READ, WRITE, IDENTIFY ─▶ a sector at a time through the data port, 256 words each
//!          └▶ READ DMA, WRITE DMA ─▶ START ─▶ regions of guest memory, all sectors at once
//! ```

use alloc::boxed::Box;
use core::ptr::NonNull;

use chiton_shared::emulated::disk::{
    MAX_COUNT, MAX_REGIONS, MAX_SECTORS, Region, command, control, device, error, identify, master, register, status,
};
use chiton_shared::emulated::id;
use chiton_shared::memory::{GuestMemory, Window};
use chiton_shared::virtio::block::SECTOR;

use super::{Emulated, window};
use crate::devices::block::Disk as Backend;

const SECTOR_BYTES: usize = SECTOR as usize;

/// What the device is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing.
    Idle,
    /// The driver reads the buffer through the data port; so many sectors follow.
    In { left: u32 },
    /// The driver writes the buffer through the data port; so many sectors are to be written, this
    /// one included.
    Out { left: u32 },
    /// A DMA command waits for the bus master.
    Dma { count: u32, read: bool },
}

/// The disk.
pub struct Disk<D> {
    disk: D,
    phase: Phase,
    /// Count, LBA low, mid and high, and device, as the driver wrote them.
    file: [u8; 5],
    status: u8,
    error: u8,
    control: u8,
    interrupt: bool,
    /// The sector that passes the data port, and the offset of its next word.
    buffer: Box<[u8; SECTOR_BYTES]>,
    at: usize,
    /// The next sector of the disk.
    sector: u64,
    master_command: u8,
    master_status: u8,
    table: u32,
    failures: u64,
}

impl<D: Backend> Disk<D> {
    /// A disk that keeps its sectors there; those beyond what 28 bits can address are not used.
    #[must_use]
    pub fn new(disk: D) -> Self {
        let mut new = Self {
            disk,
            phase: Phase::Idle,
            file: [0; 5],
            status: 0,
            error: 0,
            control: 0,
            interrupt: false,
            buffer: Box::new([0; SECTOR_BYTES]),
            at: 0,
            sector: 0,
            master_command: 0,
            master_status: 0,
            table: 0,
            failures: 0,
        };
        new.reset();
        new
    }

    fn sectors(&self) -> u64 {
        self.disk.sectors().min(MAX_SECTORS)
    }

    /// The state after a reset, with the signature of a device that takes no packets (ATA/ATAPI-6
    /// section 9.12).
    const fn reset(&mut self) {
        self.phase = Phase::Idle;
        self.file = [1, 1, 0, 0, 0];
        self.status = status::DRDY | status::DSC;
        self.error = 1;
        self.interrupt = false;
    }

    /// Whether the driver speaks to the second device, which there is not.
    const fn is_absent(&self) -> bool {
        self.file[4] & device::SECOND != 0
    }

    const fn count(&self) -> u32 {
        match self.file[0] {
            0 => MAX_COUNT,
            count => count as u32,
        }
    }

    fn address(&self) -> u64 {
        let [_, low, mid, high, device] = self.file.map(u64::from);
        (device & 0xF) << 24 | high << 16 | mid << 8 | low
    }

    /// A command has ended, or has come to a point where the driver has to do something.
    fn ask(&mut self, phase: Phase, drq: bool) {
        self.phase = phase;
        self.at = 0;
        self.status = status::DRDY | status::DSC | if drq { status::DRQ } else { 0 };
        self.raise();
    }

    const fn raise(&mut self) {
        self.interrupt = true;
        // The bus master sees the line, which is not there for who wants no interrupts.
        if self.control & control::NIEN == 0 {
            self.master_status |= master::INTERRUPT;
        }
    }

    fn finish(&mut self) {
        self.ask(Phase::Idle, false);
    }

    fn fail(&mut self, error: u8) {
        self.failures += 1;
        self.error = error;
        self.ask(Phase::Idle, false);
        self.status |= status::ERR;
    }

    fn command(&mut self, command: u8, memory: &dyn GuestMemory) {
        self.error = 0;
        self.interrupt = false;
        self.sector = self.address();
        let count = self.count();
        match command {
            command::IDENTIFY => {
                self.identify();
                self.ask(Phase::In { left: 0 }, true);
            }
            command::FLUSH => match self.disk.flush() {
                Ok(()) => self.finish(),
                Err(_) => self.fail(error::UNC),
            },
            command::READ | command::WRITE | command::READ_DMA | command::WRITE_DMA
                if self.file[4] & device::LBA == 0 =>
            {
                self.fail(error::ABRT);
            }
            command::WRITE | command::WRITE_DMA if self.disk.is_read_only() => self.fail(error::ABRT),
            command::READ | command::WRITE | command::READ_DMA | command::WRITE_DMA
                if self.sector + u64::from(count) > self.sectors() =>
            {
                self.fail(error::IDNF);
            }
            command::READ => self.load(count),
            command::WRITE => {
                self.ask(Phase::Out { left: count }, true);
                // The first block is asked for without an interrupt (ATA/ATAPI-6 section 9.6).
                self.interrupt = false;
            }
            command::READ_DMA | command::WRITE_DMA => {
                let read = command == command::READ_DMA;
                self.phase = Phase::Dma { count, read };
                self.status = status::DRDY | status::DSC | status::DRQ;
                self.transfer(memory);
            }
            _ => self.fail(error::ABRT),
        }
    }

    /// Fetches the next of `left` sectors for the data port.
    fn load(&mut self, left: u32) {
        let offset = self.sector * SECTOR;
        match self.disk.read_at(offset, &[whole(&mut self.buffer)]) {
            Ok(()) => {
                self.sector += 1;
                self.ask(Phase::In { left: left - 1 }, true);
            }
            Err(_) => self.fail(error::UNC),
        }
    }

    /// Writes the sector that came through the data port; `left` counts it too.
    fn store(&mut self, left: u32) {
        let offset = self.sector * SECTOR;
        match self.disk.write_at(offset, &[whole(&mut self.buffer)]) {
            Ok(()) if left > 1 => {
                self.sector += 1;
                self.ask(Phase::Out { left: left - 1 }, true);
            }
            Ok(()) => self.finish(),
            Err(_) => self.fail(error::UNC),
        }
    }

    fn read_data(&mut self) -> u16 {
        let Phase::In { left } = self.phase else {
            return u16::MAX;
        };
        let word = u16::from_le_bytes([self.buffer[self.at], self.buffer[self.at + 1]]);
        self.at += 2;
        if self.at == SECTOR_BYTES {
            if left > 0 {
                self.load(left);
            } else {
                // The end of reading is no event (ATA/ATAPI-6 section 9.5).
                self.phase = Phase::Idle;
                self.status &= !status::DRQ;
            }
        }
        word
    }

    fn write_data(&mut self, word: u16) {
        let Phase::Out { left } = self.phase else { return };
        self.buffer[self.at..self.at + 2].copy_from_slice(&word.to_le_bytes());
        self.at += 2;
        if self.at == SECTOR_BYTES {
            self.store(left);
        }
    }

    fn identify(&mut self) {
        let mut words = [0_u16; SECTOR_BYTES / 2];
        let mut text = |at: usize, words_long: usize, text: &[u8]| {
            for (i, word) in words[at..at + words_long].iter_mut().enumerate() {
                let of = |i: usize| text.get(i).copied().filter(|byte| *byte != 0).unwrap_or(b' ');
                *word = u16::from_be_bytes([of(2 * i), of(2 * i + 1)]);
            }
        };
        text(identify::SERIAL, 10, &self.disk.name());
        text(identify::MODEL, 20, b"Chiton emulated disk");
        // Fixed, not removable: bit 6. LBA and DMA: bits 9 and 8.
        words[identify::CONFIGURATION] = 1 << 6;
        words[identify::CAPABILITIES] = 1 << 9 | 1 << 8;
        let sectors = self.sectors();
        words[identify::SECTORS] = sectors as u16;
        words[identify::SECTORS + 1] = (sectors >> 16) as u16;
        for (to, word) in self.buffer.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
    }

    /// Lets the bus master work, if both it and the device have been told to.
    fn transfer(&mut self, memory: &dyn GuestMemory) {
        let Phase::Dma { count, read } = self.phase else {
            return;
        };
        if self.master_command & master::START == 0 {
            return;
        }
        let to_memory = self.master_command & master::TO_MEMORY != 0;
        let result = if to_memory == read {
            self.regions(memory, count as usize * SECTOR_BYTES, read)
        } else {
            Err(error::ABRT)
        };
        self.master_status &= !master::ACTIVE;
        match result {
            Ok(()) => self.finish(),
            Err(error) => {
                if error == error::ABRT {
                    self.master_status |= master::FAILED;
                }
                self.fail(error);
            }
        }
    }

    /// Moves `left` bytes between the disk and the regions of the table. An error is a bit of the Error
    /// register: ABRT if the table or its memory cannot be used, UNC if the disk failed.
    fn regions(&mut self, memory: &dyn GuestMemory, left: usize, read: bool) -> Result<(), u8> {
        let (mut left, mut offset) = (left, self.sector * SECTOR);
        for i in 0..MAX_REGIONS {
            let at = u64::from(self.table) + (i * Region::SIZE) as u64;
            let entry = memory.window(at, Region::SIZE).ok_or(error::ABRT)?;
            let mut bytes = [0; Region::SIZE];
            entry.read(0, &mut bytes);
            let region = Region::from_bytes(bytes);
            let len = region.bytes().min(left);
            let piece = window(memory, region.address.into(), len, read).ok_or(error::ABRT)?;
            let result = if read {
                self.disk.read_at(offset, &[piece])
            } else {
                self.disk.write_at(offset, &[piece])
            };
            result.map_err(|_| error::UNC)?;
            left -= len;
            offset += len as u64;
            if left == 0 {
                return Ok(());
            }
            if region.last {
                break;
            }
        }
        // The regions are shorter than what the command moves.
        Err(error::ABRT)
    }

    fn read_byte(&mut self, offset: u64) -> u8 {
        match offset {
            register::MASTER_COMMAND => self.master_command,
            register::MASTER_STATUS => self.master_status,
            _ if self.is_absent() && offset != register::DEVICE => 0,
            register::ERROR => self.error,
            register::COUNT..=register::DEVICE => self.file[(offset - register::COUNT) as usize],
            register::STATUS => {
                self.interrupt = false;
                self.status
            }
            register::CONTROL => self.status,
            _ => u8::MAX,
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8, memory: &dyn GuestMemory) {
        match offset {
            register::MASTER_COMMAND => {
                self.master_command = value & (master::START | master::TO_MEMORY);
                if value & master::START == 0 {
                    self.master_status &= !master::ACTIVE;
                } else {
                    self.master_status |= master::ACTIVE;
                    self.transfer(memory);
                }
            }
            register::MASTER_STATUS => self.master_status &= !(value & (master::FAILED | master::INTERRUPT)),
            register::CONTROL => {
                self.control = value;
                if value & control::SRST != 0 {
                    self.reset();
                }
            }
            // While data are under way the task file is not the driver's (section 7).
            register::COUNT..=register::DEVICE if self.phase == Phase::Idle => {
                self.file[(offset - register::COUNT) as usize] = value;
            }
            register::STATUS if self.phase == Phase::Idle && !self.is_absent() && self.control & control::SRST == 0 => {
                self.command(value, memory);
            }
            _ => {}
        }
    }
}

/// The whole buffer as a window.
const fn whole(buffer: &mut [u8; SECTOR_BYTES]) -> Window<'_> {
    // SAFETY: the buffer is borrowed, and by nobody else, as long as the window lives.
    unsafe { Window::new(NonNull::from_mut(buffer).cast(), SECTOR_BYTES) }
}

impl<D: Backend> Emulated for Disk<D> {
    fn id(&self) -> u32 {
        id::DISK
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match (offset, data) {
            (register::DATA, data @ [_, _]) => data.copy_from_slice(&self.read_data().to_le_bytes()),
            (register::MASTER_TABLE, data @ [_, _, _, _]) => data.copy_from_slice(&self.table.to_le_bytes()),
            (offset, [byte]) if offset != register::DATA => *byte = self.read_byte(offset),
            (_, data) => data.fill(u8::MAX),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8], memory: &dyn GuestMemory) {
        match (offset, data) {
            (register::DATA, &[low, high]) => self.write_data(u16::from_le_bytes([low, high])),
            // The table begins at a multiple of four.
            (register::MASTER_TABLE, &[a, b, c, d]) => self.table = u32::from_le_bytes([a & !3, b, c, d]),
            (offset, &[byte]) => self.write_byte(offset, byte, memory),
            _ => {}
        }
    }

    fn interrupt(&self) -> bool {
        self.interrupt && self.control & control::NIEN == 0
    }

    fn failures(&self) -> u64 {
        self.failures
    }
}

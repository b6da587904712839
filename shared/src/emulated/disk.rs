//! The emulated disk: the task file of an ATA device (ATA/ATAPI-6, T13/1410D), at the offsets that
//! CompactFlash cards have in memory mode, and a bus master beside it (SFF-8038i, revision 1.0).
//!
//! One device, 28-bit addresses, sectors of 512 bytes. A command is carried out within the write
//! that gives it, so BSY is never seen.

/// Offsets in the register block.
pub mod register {
    /// Data, 16 bits: the next word of a sector (ATA/ATAPI-6 section 7.6).
    pub const DATA: u64 = 0x00;
    /// Error when read, Features when written, 8 bits (sections 7.9, 7.10).
    pub const ERROR: u64 = 0x01;
    /// Sector Count, 8 bits; 0 is 256 (section 7.14).
    pub const COUNT: u64 = 0x02;
    /// LBA bits 0 to 7, 8 bits (section 7.12).
    pub const LBA_LOW: u64 = 0x03;
    /// LBA bits 8 to 15, 8 bits (section 7.13).
    pub const LBA_MID: u64 = 0x04;
    /// LBA bits 16 to 23, 8 bits (section 7.11).
    pub const LBA_HIGH: u64 = 0x05;
    /// Device, 8 bits: LBA bits 24 to 27, [`LBA`](super::device::LBA) and
    /// [`SECOND`](super::device::SECOND) (section 7.7).
    pub const DEVICE: u64 = 0x06;
    /// Status when read, which withdraws the interrupt, and Command when written, 8 bits (sections
    /// 7.15, 7.4).
    pub const STATUS: u64 = 0x07;
    /// Alternate Status when read, Device Control when written, 8 bits (sections 7.3, 7.8).
    pub const CONTROL: u64 = 0x0E;
    /// Bus master command, 8 bits (SFF-8038i).
    pub const MASTER_COMMAND: u64 = 0x20;
    /// Bus master status, 8 bits.
    pub const MASTER_STATUS: u64 = 0x22;
    /// Address of the table of [regions](super::Region), 32 bits.
    pub const MASTER_TABLE: u64 = 0x24;
}

/// Bits of the Status register.
pub mod status {
    /// The last command ended in an error.
    pub const ERR: u8 = 1 << 0;
    /// The device has or wants data.
    pub const DRQ: u8 = 1 << 3;
    /// It has finished seeking: always, as old drivers expect.
    pub const DSC: u8 = 1 << 4;
    /// It takes commands.
    pub const DRDY: u8 = 1 << 6;
    /// It is busy.
    pub const BSY: u8 = 1 << 7;
}

/// Bits of the Error register.
pub mod error {
    /// The command is not known, or cannot be done.
    pub const ABRT: u8 = 1 << 2;
    /// The address is beyond the end.
    pub const IDNF: u8 = 1 << 4;
    /// The data could not be read or written.
    pub const UNC: u8 = 1 << 6;
}

/// Bits of the Device register.
pub mod device {
    /// The second device, which there is not.
    pub const SECOND: u8 = 1 << 4;
    /// The address is an LBA, which it must be.
    pub const LBA: u8 = 1 << 6;
}

/// Bits of the Device Control register.
pub mod control {
    /// No interrupts.
    pub const NIEN: u8 = 1 << 1;
    /// Reset.
    pub const SRST: u8 = 1 << 2;
}

/// Commands (ATA/ATAPI-6 section 8).
pub mod command {
    /// READ SECTOR(S), by programmed I/O.
    pub const READ: u8 = 0x20;
    /// WRITE SECTOR(S), by programmed I/O.
    pub const WRITE: u8 = 0x30;
    /// READ DMA.
    pub const READ_DMA: u8 = 0xC8;
    /// WRITE DMA.
    pub const WRITE_DMA: u8 = 0xCA;
    /// FLUSH CACHE.
    pub const FLUSH: u8 = 0xE7;
    /// IDENTIFY DEVICE.
    pub const IDENTIFY: u8 = 0xEC;
}

/// Bits of the bus master's registers (SFF-8038i).
pub mod master {
    /// Command: go.
    pub const START: u8 = 1 << 0;
    /// Command: from the device to memory.
    pub const TO_MEMORY: u8 = 1 << 3;
    /// Status: at work.
    pub const ACTIVE: u8 = 1 << 0;
    /// Status: memory could not be used. Write one to clear.
    pub const FAILED: u8 = 1 << 1;
    /// Status: the device has asked for an interrupt. Write one to clear.
    pub const INTERRUPT: u8 = 1 << 2;
}

/// Words of what IDENTIFY DEVICE answers (ATA/ATAPI-6 section 8.15).
pub mod identify {
    /// General configuration.
    pub const CONFIGURATION: usize = 0;
    /// Serial number, 10 words, two characters each, the first in the upper half.
    pub const SERIAL: usize = 10;
    /// Model number, 20 words likewise.
    pub const MODEL: usize = 27;
    /// Capabilities.
    pub const CAPABILITIES: usize = 49;
    /// Sectors that 28 bits can address, 2 words, the lower first.
    pub const SECTORS: usize = 60;
}

/// The most sectors there can be for 28 bits of address.
pub const MAX_SECTORS: u64 = 1 << 28;

/// The most sectors that one command moves.
pub const MAX_COUNT: u32 = 256;

/// The most regions of a table that are looked at.
pub const MAX_REGIONS: usize = 64;

/// A piece of memory for the bus master: a physical region descriptor (SFF-8038i).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical address, even.
    pub address: u32,
    /// Length in bytes, even; 0 is 64 KiB.
    pub len: u16,
    /// Whether it is the last.
    pub last: bool,
}

impl Region {
    /// Size in memory, in bytes.
    pub const SIZE: usize = 8;

    /// As it stands in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let flags = u32::from(self.last) << 31;
        let words = [self.address, flags | u32::from(self.len)];
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&words[0].to_le_bytes());
        bytes[4..].copy_from_slice(&words[1].to_le_bytes());
        bytes
    }

    /// From how it stands in memory; bit 0 of address and length does not count.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [a, b, c, d, e, f, _, flags] = bytes;
        Self {
            address: u32::from_le_bytes([a & !1, b, c, d]),
            len: u16::from_le_bytes([e & !1, f]),
            last: flags & 0x80 != 0,
        }
    }

    /// Length in bytes, as a number.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        if self.len == 0 { 1 << 16 } else { self.len as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_survives_memory() {
        for region in [
            Region {
                address: 0x0123_4566,
                len: 0x89AA,
                last: true,
            },
            Region {
                address: 0,
                len: 0,
                last: false,
            },
        ] {
            assert_eq!(Region::from_bytes(region.to_bytes()), region);
        }
        assert_eq!(Region::from_bytes([0; 8]).bytes(), 65536);
        assert_eq!(Region::from_bytes([0xFF; 8]).address, 0xFFFF_FFFE);
    }
}

//! The emulated network interface: an Intel 8254x (the e1000 of many emulators) as its Software
//! Developer's Manual has it (317453, "PCI/PCI-X Family of Gigabit Ethernet Controllers"), with
//! legacy descriptors. The registers have the offsets of the 82542, the first of the family, which
//! fit into a page.
//!
//! Left out: everything of the link and of EEPROM, filters, VLANs, offloads, interrupt throttling
//! and frames in more than one descriptor. Rings have at most [`MAX_RING`] descriptors.

/// Offsets in the register block; every register has 32 bits.
pub mod register {
    /// Device Control (section 13.4.1).
    pub const CTRL: u64 = 0x000;
    /// Device Status (section 13.4.2).
    pub const STATUS: u64 = 0x008;
    /// Receive Address, low half (section 13.5.2).
    pub const RAL: u64 = 0x040;
    /// Receive Address, high half, and [`AV`](super::AV).
    pub const RAH: u64 = 0x044;
    /// Interrupt Cause Read: reading clears it (section 13.4.17).
    pub const ICR: u64 = 0x0C0;
    /// Interrupt Cause Set (section 13.4.19).
    pub const ICS: u64 = 0x0C8;
    /// Interrupt Mask Set (section 13.4.20).
    pub const IMS: u64 = 0x0D0;
    /// Interrupt Mask Clear (section 13.4.21).
    pub const IMC: u64 = 0x0D8;
    /// Receive Control (section 13.4.22).
    pub const RCTL: u64 = 0x100;
    /// Receive Descriptor Base Address, low half (section 13.4.25).
    pub const RDBAL: u64 = 0x110;
    /// High half.
    pub const RDBAH: u64 = 0x114;
    /// Receive Descriptor Length, in bytes (section 13.4.27).
    pub const RDLEN: u64 = 0x118;
    /// Receive Descriptor Head (section 13.4.28).
    pub const RDH: u64 = 0x120;
    /// Receive Descriptor Tail (section 13.4.29).
    pub const RDT: u64 = 0x128;
    /// Transmit Control (section 13.4.33).
    pub const TCTL: u64 = 0x400;
    /// Transmit Descriptor Base Address, low half (section 13.4.36).
    pub const TDBAL: u64 = 0x420;
    /// High half.
    pub const TDBAH: u64 = 0x424;
    /// Transmit Descriptor Length, in bytes (section 13.4.38).
    pub const TDLEN: u64 = 0x428;
    /// Transmit Descriptor Head (section 13.4.39).
    pub const TDH: u64 = 0x430;
    /// Transmit Descriptor Tail (section 13.4.40).
    pub const TDT: u64 = 0x438;
}

/// CTRL: reset.
pub const CTRL_RST: u32 = 1 << 26;
/// STATUS: full duplex.
pub const STATUS_FD: u32 = 1 << 0;
/// STATUS: the link is up.
pub const STATUS_LU: u32 = 1 << 1;
/// RCTL: receive.
pub const RCTL_EN: u32 = 1 << 1;
/// TCTL: transmit.
pub const TCTL_EN: u32 = 1 << 1;
/// RAH: the address is valid.
pub const AV: u32 = 1 << 31;

/// Causes of an interrupt (section 13.4.17).
pub mod cause {
    /// A transmit descriptor that asked for it was written back.
    pub const TXDW: u32 = 1 << 0;
    /// The link went up or down.
    pub const LSC: u32 = 1 << 2;
    /// A frame has come and there is no descriptor for another.
    pub const RXDMT0: u32 = 1 << 4;
    /// A frame was received.
    pub const RXT0: u32 = 1 << 7;
    /// All that there are.
    pub const ALL: u32 = TXDW | LSC | RXDMT0 | RXT0;
}

/// The most descriptors a ring has.
pub const MAX_RING: usize = 256;

/// Length of a receive buffer, in bytes (RCTL.BSIZE 00b).
pub const BUFFER: usize = 2048;

/// A legacy descriptor of either ring (sections 3.2.3 and 3.3.3), as far as it is used here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest-physical address of the buffer.
    pub address: u64,
    /// Length in bytes: of what is to be sent, or of what was received.
    pub len: u16,
    /// Transmit: what to do, of [`EOP`](Self::EOP) and [`RS`](Self::RS).
    pub command: u8,
    /// [`DD`](Self::DD) when the device is done with it.
    pub status: u8,
}

impl Descriptor {
    /// Size in memory, in bytes.
    pub const SIZE: usize = 16;
    /// Status: the device is done with it.
    pub const DD: u8 = 1 << 0;
    /// Status of a received frame: it ends here.
    pub const RECEIVED_EOP: u8 = 1 << 1;
    /// Command: the frame ends here.
    pub const EOP: u8 = 1 << 0;
    /// Command: report the status.
    pub const RS: u8 = 1 << 3;
    /// Offset of the command of a transmit descriptor.
    pub const COMMAND_AT: usize = 11;
    /// Offset of the status, in both kinds.
    pub const STATUS_AT: usize = 12;
    /// Offset of the length, in both kinds.
    pub const LEN_AT: usize = 8;

    /// As it stands in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[Self::LEN_AT..Self::LEN_AT + 2].copy_from_slice(&self.len.to_le_bytes());
        bytes[Self::COMMAND_AT] = self.command;
        bytes[Self::STATUS_AT] = self.status;
        bytes
    }

    /// From how it stands in memory.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [a, b, c, d, e, f, g, h, len_low, len_high, _, command, status, ..] = bytes;
        Self {
            address: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            len: u16::from_le_bytes([len_low, len_high]),
            command,
            status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_survives_memory() {
        let descriptor = Descriptor {
            address: 0x0123_4567_89AB_CDEF,
            len: 0x1234,
            command: Descriptor::EOP | Descriptor::RS,
            status: Descriptor::DD,
        };
        let bytes = descriptor.to_bytes();
        assert_eq!(Descriptor::from_bytes(bytes), descriptor);
        assert_eq!((bytes[11], bytes[12]), (9, 1));
    }
}

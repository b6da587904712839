//! Console device (section 5.3): one port, bytes in and bytes out.

/// Feature: the configuration has the console's size.
pub const F_SIZE: u64 = 1 << 0;
/// Feature: several ports. Not offered yet.
pub const F_MULTIPORT: u64 = 1 << 1;
/// Feature: the configuration has an emergency write register.
pub const F_EMERG_WRITE: u64 = 1 << 2;

/// Index of the queue that brings the guest its input.
pub const RECEIVE: usize = 0;
/// Index of the queue that takes the guest's output.
pub const TRANSMIT: usize = 1;
/// How many queues there are without [`F_MULTIPORT`].
pub const QUEUES: usize = 2;

/// The configuration (section 5.3.4).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Columns, with [`F_SIZE`].
    pub cols: u16,
    /// Rows, with [`F_SIZE`].
    pub rows: u16,
    /// Number of ports, with [`F_MULTIPORT`].
    pub max_nr_ports: u32,
    /// A byte written here is output, with [`F_EMERG_WRITE`].
    pub emerg_wr: u32,
}

impl Config {
    /// The bytes of the configuration space.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[0..2].copy_from_slice(&self.cols.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.rows.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.max_nr_ports.to_le_bytes());
        bytes
    }
}

const _: () = {
    assert!(size_of::<Config>() == 12);
    assert!(core::mem::offset_of!(Config, emerg_wr) == 8);
};

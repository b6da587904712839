//! Console device (section 5.3): ports of bytes in and bytes out.

/// Feature: the configuration has the console's size.
pub const F_SIZE: u64 = 1 << 0;
/// Feature: several ports, and a pair of queues by which both sides tell of them.
pub const F_MULTIPORT: u64 = 1 << 1;
/// Feature: the configuration has an emergency write register.
pub const F_EMERG_WRITE: u64 = 1 << 2;

/// Index of the queue that brings the guest its input.
pub const RECEIVE: usize = 0;
/// Index of the queue that takes the guest's output.
pub const TRANSMIT: usize = 1;
/// How many queues there are without [`F_MULTIPORT`].
pub const QUEUES: usize = 2;
/// Index of the queue that brings the driver control messages, with [`F_MULTIPORT`].
pub const CONTROL_RECEIVE: usize = 2;
/// Index of the queue that takes the driver's control messages, with [`F_MULTIPORT`].
pub const CONTROL_TRANSMIT: usize = 3;

/// Index of the queue that brings a port its input; the one behind it takes its output.
#[must_use]
pub const fn port_receive(port: usize) -> usize {
    if port == 0 { RECEIVE } else { 2 + 2 * port }
}

/// What a control message says (section 5.3.6.2).
pub mod event {
    /// Driver: the device is ready (value 1) or cannot be used.
    pub const DEVICE_READY: u16 = 0;
    /// Device: there is a port.
    pub const PORT_ADD: u16 = 1;
    /// Device: a port is gone.
    pub const PORT_REMOVE: u16 = 2;
    /// Driver: the port is ready (value 1) or cannot be used.
    pub const PORT_READY: u16 = 3;
    /// Device: the port is a console.
    pub const CONSOLE_PORT: u16 = 4;
    /// Device: the console of the port has another size; columns and rows follow, 16 bits each.
    pub const RESIZE: u16 = 5;
    /// Both: the port is open on this side (value 1), or closed.
    pub const PORT_OPEN: u16 = 6;
    /// Device: the port's name follows, without a NUL.
    pub const PORT_NAME: u16 = 7;
}

/// The head of a control message (section 5.3.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Which port.
    pub port: u32,
    /// One of [`event`].
    pub event: u16,
    /// What there is to say.
    pub value: u16,
}

impl Control {
    /// Size of the head, in bytes.
    pub const SIZE: usize = 8;

    /// The bytes of the head.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.port.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.event.to_le_bytes());
        bytes[6..].copy_from_slice(&self.value.to_le_bytes());
        bytes
    }

    /// Reads a head.
    #[must_use]
    pub const fn from_bytes(&[a, b, c, d, e, f, g, h]: &[u8; Self::SIZE]) -> Self {
        Self {
            port: u32::from_le_bytes([a, b, c, d]),
            event: u16::from_le_bytes([e, f]),
            value: u16::from_le_bytes([g, h]),
        }
    }
}

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

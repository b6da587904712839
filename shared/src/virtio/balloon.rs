//! Memory balloon device (section 5.5).

/// Feature: the driver may take pages back without asking, when it runs out of memory.
pub const F_DEFLATE_ON_OOM: u64 = 1 << 2;
/// Feature: the driver can report free pages, which it keeps.
pub const F_PAGE_REPORTING: u64 = 1 << 5;

/// Index of the queue for pages that the driver gives to the device.
pub const INFLATE: usize = 0;
/// Index of the queue for pages that the driver takes back.
pub const DEFLATE: usize = 1;
/// Index of the queue for free pages, with [`F_PAGE_REPORTING`]. Queues that belong to features
/// which are not offered are left out and not counted, as Linux does it.
pub const REPORTING: usize = 2;
/// How many queues there are.
pub const QUEUES: usize = 3;

/// Size of a page number in a queue, in bytes: a little-endian address divided by [`PAGE`].
pub const PAGE_NUMBER: usize = 4;
/// What page numbers count, in bytes, whatever a page is elsewhere.
pub const PAGE: u64 = 4096;

/// The start of the configuration (section 5.5.4).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How many pages the host would like to have.
    pub num_pages: u32,
    /// How many it has, as the driver says.
    pub actual: u32,
}

impl Config {
    /// Size of the part of the configuration described here, in bytes.
    pub const SIZE: usize = size_of::<Self>();
    /// Offset of [`actual`](Self::actual).
    pub const ACTUAL: usize = 4;

    /// The bytes of the configuration space.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.num_pages.to_le_bytes());
        bytes[4..].copy_from_slice(&self.actual.to_le_bytes());
        bytes
    }

    /// Reads a configuration; `None` if it is cut short.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[a, b, c, d, e, f, g, h], _) = bytes.split_first_chunk()?;
        Some(Self {
            num_pages: u32::from_le_bytes([a, b, c, d]),
            actual: u32::from_le_bytes([e, f, g, h]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_reads_back() {
        let config = Config {
            num_pages: 0x0102_0304,
            actual: 7,
        };
        assert_eq!(Config::from_bytes(&config.to_bytes()), Some(config));
        assert_eq!(Config::from_bytes(&[0; 7]), None);
    }
}

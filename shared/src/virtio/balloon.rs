//! Memory balloon device (section 5.5).

/// Feature: the driver may take pages back without asking, when it runs out of memory.
pub const F_DEFLATE_ON_OOM: u64 = 1 << 2;
/// Feature: the driver tells how its memory is used.
pub const F_STATS_VQ: u64 = 1 << 1;
/// Feature: the driver can report free pages, which it keeps.
pub const F_PAGE_REPORTING: u64 = 1 << 5;

/// Index of the queue for pages that the driver gives to the device.
pub const INFLATE: usize = 0;
/// Index of the queue for pages that the driver takes back.
pub const DEFLATE: usize = 1;
/// Index of the queue for statistics, with [`F_STATS_VQ`].
pub const STATS: usize = 2;
/// Index of the queue for free pages, with [`F_PAGE_REPORTING`]. Queues that belong to features
/// which are not offered are left out and not counted, as Linux does it.
pub const REPORTING: usize = 3;
/// How many queues there are.
pub const QUEUES: usize = 4;

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

/// Size of one statistic in a buffer, in bytes: a tag of 16 bits and a value of 64, little-endian,
/// without a gap (section 5.5.6.3).
pub const STATISTIC: usize = 10;

macro_rules! statistics {
    ($($(#[$doc:meta])* $name:ident = $tag:literal,)*) => {
        /// What a driver tells of its memory; `None` for what it does not know (section 5.5.6.4).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Statistics {
            $($(#[$doc])* pub $name: Option<u64>,)*
        }

        /// Size of all statistics in a buffer, in bytes.
        pub const STATISTICS: usize = STATISTIC * [$($tag),*].len();

        impl Statistics {
            /// Takes a statistic from a buffer; one that is not known is passed over.
            pub fn read(&mut self, statistic: &[u8; STATISTIC]) {
                let &[a, b, ref value @ ..] = statistic;
                let value = Some(u64::from_le_bytes(*value));
                match u16::from_le_bytes([a, b]) {
                    $($tag => self.$name = value,)*
                    _ => {}
                }
            }

            /// Writes what is known; returns how many bytes that is.
            pub fn write(&self, to: &mut [u8; STATISTICS]) -> usize {
                let mut len = 0;
                $(if let Some(value) = self.$name {
                    to[len..len + 2].copy_from_slice(&u16::to_le_bytes($tag));
                    to[len + 2..len + STATISTIC].copy_from_slice(&value.to_le_bytes());
                    len += STATISTIC;
                })*
                len
            }
        }
    };
}

statistics! {
    /// Memory swapped in, in bytes.
    swapped_in = 0,
    /// Memory swapped out, in bytes.
    swapped_out = 1,
    /// Major page faults.
    major_faults = 2,
    /// Minor page faults.
    minor_faults = 3,
    /// Memory that nobody uses, in bytes.
    free = 4,
    /// All memory, in bytes.
    total = 5,
    /// Memory that programs could have without trouble, in bytes.
    available = 6,
    /// Caches of disks, in bytes.
    caches = 7,
    /// Huge pages that were had.
    huge_pages = 8,
    /// Huge pages that could not be had.
    huge_page_failures = 9,
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

    #[test]
    fn statistics_read_back_and_unknown_ones_are_passed_over() {
        let statistics = Statistics {
            free: Some(1 << 40),
            huge_page_failures: Some(7),
            ..Statistics::default()
        };
        let mut bytes = [0; STATISTICS];
        let len = statistics.write(&mut bytes);
        assert_eq!((len, &bytes[..4]), (20, [4, 0, 0, 0].as_slice()));
        let mut back = Statistics::default();
        back.read(&[10, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
        for statistic in bytes[..len].as_chunks().0 {
            back.read(statistic);
        }
        assert_eq!(back, statistics);
    }
}

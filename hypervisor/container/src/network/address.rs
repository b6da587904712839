//! Ranges of IPv4 addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::NetworkError;

/// The addresses that have their first bits in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    first: u32,
    bits: u8,
}

impl Subnet {
    /// The range that an address is in, of so many bits, 0 to 32.
    pub(super) const fn around(address: Ipv4Addr, bits: u8) -> Self {
        let mask = Self { first: 0, bits }.mask_bits();
        Self {
            first: address.to_bits() & mask,
            bits,
        }
    }

    /// How many bits its addresses have in common.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bits
    }

    const fn mask_bits(self) -> u32 {
        if self.bits == 0 {
            0
        } else {
            u32::MAX << (32 - self.bits)
        }
    }

    /// Those bits.
    #[must_use]
    pub const fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.mask_bits())
    }

    /// The first address, which is nobody's.
    #[must_use]
    pub const fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first)
    }

    /// The host's address on the bridge: the second.
    #[must_use]
    pub const fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first + 1)
    }

    /// How many addresses there are for instances: all but the first, the gateway's and the last.
    #[must_use]
    pub const fn count(self) -> u32 {
        !self.mask_bits() - 2
    }

    /// The address for instances of this number, from 0.
    #[must_use]
    pub const fn nth(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first + 2 + number)
    }

    /// Whether an address is in the range.
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask_bits() == self.first
    }

    /// Whether an address is one for instances.
    #[must_use]
    pub const fn is_for_instances(self, address: Ipv4Addr) -> bool {
        let number = address.to_bits().wrapping_sub(self.first);
        self.contains(address) && number >= 2 && number - 2 < self.count()
    }

    /// Whether two ranges have an address in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.bits)
    }
}

impl FromStr for Subnet {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, bits) = text.split_once('/')?;
            let subnet = Self::around(
                address.parse().ok()?,
                bits.parse().ok().filter(|bits| (8..=29).contains(bits))?,
            );
            (subnet.first().to_string() == address).then_some(subnet)
        };
        parse().ok_or_else(|| NetworkError::Subnet(text.to_owned()))
    }
}

impl TryFrom<String> for Subnet {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written() {
        let subnet: Subnet = "10.87.0.0/16".parse().unwrap();
        assert_eq!(subnet.to_string(), "10.87.0.0/16");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 87, 0, 1));
        assert_eq!(subnet.mask(), Ipv4Addr::new(255, 255, 0, 0));
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.1/24",
            "10.0.0.0/7",
            "10.0.0.0/30",
            "300.0.0.0/8",
            "10.0.0.0/24x",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_smallest_range_has_five_addresses_for_instances() {
        let subnet: Subnet = "192.168.1.8/29".parse().unwrap();
        assert_eq!(subnet.count(), 5);
        let all: Vec<_> = (0..5).map(|n| subnet.nth(n).octets()[3]).collect();
        assert_eq!(all, [10, 11, 12, 13, 14]);
        let good = |last| subnet.is_for_instances(Ipv4Addr::new(192, 168, 1, last));
        assert!((10..=14).all(good) && ![7, 8, 9, 15, 16].into_iter().any(good));
    }

    #[test]
    fn overlaps_go_both_ways() {
        let subnet = |text: &str| text.parse::<Subnet>().unwrap();
        assert!(subnet("10.0.0.0/8").overlaps(subnet("10.87.0.0/16")));
        assert!(subnet("10.87.0.0/16").overlaps(subnet("10.0.0.0/8")));
        assert!(!subnet("10.86.0.0/16").overlaps(subnet("10.87.0.0/16")));
    }
}

//! Addresses and sizes as people read them.

use core::fmt;

use rustc_demangle::demangle;

use crate::loader::{Symbol, Symbols};

/// An address with the function it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    /// The address.
    pub address: u64,
    /// The function, if the symbols know one.
    pub symbol: Option<Symbol<'a>>,
}

impl<'a> Location<'a> {
    /// Looks an address up.
    #[must_use]
    pub fn new(symbols: &Symbols<'a>, address: u64) -> Self {
        Self {
            address,
            symbol: symbols.find(address),
        }
    }
}

impl fmt::Display for Location<'_> {
    /// `function+0x12`, `function` for its first byte, or the bare address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.symbol {
            // The alternate form leaves out the hash.
            Some(symbol) => {
                write!(f, "{:#}", demangle(symbol.name))?;
                match self.address - symbol.address {
                    0 => Ok(()),
                    offset => write!(f, "+{offset:#x}"),
                }
            }
            None => write!(f, "{:#x}", self.address),
        }
    }
}

/// A number of bytes, in the largest unit that divides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units
            .into_iter()
            .find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift))
        {
            Some((shift, unit)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

//! What an entry allows.

use core::fmt;
use core::ops::BitAnd;

/// What a guest may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Read data.
    pub read: bool,
    /// Write data.
    pub write: bool,
    /// Fetch instructions.
    pub execute: bool,
}

impl Rights {
    /// Everything.
    pub const ALL: Self = Self::new(true, true, true);
    /// Reads alone.
    pub const READ: Self = Self::new(true, false, false);
    /// Reads and writes: data.
    pub const READ_WRITE: Self = Self::new(true, true, false);
    /// Reads and fetches: code.
    pub const READ_EXECUTE: Self = Self::new(true, false, true);
    /// Fetches alone: code that nobody can read. Not every processor offers it.
    pub const EXECUTE: Self = Self::new(false, false, true);
    /// Nothing.
    pub const NONE: Self = Self::new(false, false, false);

    /// These rights.
    #[must_use]
    pub const fn new(read: bool, write: bool, execute: bool) -> Self {
        Self { read, write, execute }
    }

    /// Whether all of the other's rights are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        (self.read || !other.read) && (self.write || !other.write) && (self.execute || !other.execute)
    }

    /// Whether nothing at all is allowed.
    #[must_use]
    pub const fn is_none(self) -> bool {
        !(self.read || self.write || self.execute)
    }
}

impl BitAnd for Rights {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self {
            read: self.read & other.read,
            write: self.write & other.write,
            execute: self.execute & other.execute,
        }
    }
}

impl fmt::Display for Rights {
    /// `rwx`, with a dash for what is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(self.read, 'r'), (self.write, 'w'), (self.execute, 'x')];
        for (allowed, letter) in letters {
            write!(f, "{}", if allowed { letter } else { '-' })?;
        }
        Ok(())
    }
}

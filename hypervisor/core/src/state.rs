//! The state of a machine's parts as bytes: what snapshots are made of.
//!
//! Numbers are little-endian and follow one another without a gap. There are no names and no versions in it: who reads
//! it knows what was written, and who keeps it for long writes down which build that was.

use alloc::vec::Vec;

/// Takes the state of one part after the other.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

/// Gives it back, in the same order.
#[derive(Clone, Debug)]
pub struct Reader<'s>(&'s [u8]);

/// Bytes that are not the state of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// They end too early.
    #[error("the state ends {0} bytes too early")]
    Short(usize),
    /// They do not end where the state does.
    #[error("{0} bytes follow the state")]
    Trailing(usize),
    /// A value that cannot be.
    #[error("the state says {value:#x} for {what}, which cannot be")]
    Value {
        /// Of what.
        what: &'static str,
        /// The value.
        value: u64,
    },
}

impl StateError {
    /// A value that cannot be.
    pub fn value(what: &'static str, value: impl Into<u64>) -> Self {
        let value = value.into();
        Self::Value { what, value }
    }
}

/// Numbers of a fixed size.
macro_rules! numbers {
    ($($type:ident),*) => {
        impl Writer {
            $(
                #[doc = concat!("An `", stringify!($type), "`.")]
                pub fn $type(&mut self, value: $type) {
                    self.0.extend_from_slice(&value.to_le_bytes());
                }
            )*
        }

        impl<'s> Reader<'s> {
            $(
                #[doc = concat!("An `", stringify!($type), "`.")]
                ///
                /// # Errors
                ///
                /// [`StateError::Short`].
                pub fn $type(&mut self) -> Result<$type, StateError> {
                    Ok($type::from_le_bytes(*self.array()?))
                }
            )*
        }
    };
}

numbers!(u8, u16, u32, u64);

impl Writer {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Yes or no.
    pub fn flag(&mut self, value: bool) {
        self.u8(value.into());
    }

    /// So many bytes that the reader knows how many.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bytes, with their number before them.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.raw(bytes);
    }

    /// All that was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl<'s> Reader<'s> {
    /// Of these bytes.
    #[must_use]
    pub const fn new(bytes: &'s [u8]) -> Self {
        Self(bytes)
    }

    /// So many bytes.
    ///
    /// # Errors
    ///
    /// [`StateError::Short`].
    pub fn raw(&mut self, len: usize) -> Result<&'s [u8], StateError> {
        let (bytes, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(StateError::Short(len.saturating_sub(self.0.len())))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// An array of bytes.
    ///
    /// # Errors
    ///
    /// [`StateError::Short`].
    pub fn array<const N: usize>(&mut self) -> Result<&'s [u8; N], StateError> {
        let (bytes, rest) = self
            .0
            .split_first_chunk()
            .ok_or(StateError::Short(N - self.0.len().min(N)))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Yes or no.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn flag(&mut self) -> Result<bool, StateError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(StateError::value("yes or no", other)),
        }
    }

    /// Bytes, with their number before them.
    ///
    /// # Errors
    ///
    /// [`StateError::Short`].
    pub fn bytes(&mut self) -> Result<&'s [u8], StateError> {
        let len = self.u32()?;
        self.raw(len as usize)
    }

    /// There is nothing more.
    ///
    /// # Errors
    ///
    /// [`StateError::Trailing`].
    pub const fn end(self) -> Result<(), StateError> {
        match self.0.len() {
            0 => Ok(()),
            len => Err(StateError::Trailing(len)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_what_is_missing_or_too_much_is_told() {
        let mut writer = Writer::new();
        writer.u8(1);
        writer.u16(0x203);
        writer.u32(0x405_0607);
        writer.u64(u64::MAX - 1);
        writer.flag(true);
        writer.bytes(b"abc");
        let bytes = writer.into_bytes();
        let read = |bytes| {
            let mut reader = Reader::new(bytes);
            let all = (
                reader.u8()?,
                reader.u16()?,
                reader.u32()?,
                reader.u64()?,
                reader.flag()?,
                reader.bytes()?,
            );
            reader.end()?;
            Ok(all)
        };
        assert_eq!(
            read(&bytes),
            Ok((1, 0x203, 0x405_0607, u64::MAX - 1, true, &b"abc"[..]))
        );
        for len in 0..bytes.len() {
            assert!(matches!(read(&bytes[..len]), Err(StateError::Short(_))), "{len}");
        }
        assert_eq!(read(&[&bytes[..], b"x"].concat()), Err(StateError::Trailing(1)));
        assert_eq!(Reader::new(&[2]).flag(), Err(StateError::value("yes or no", 2_u8)));
    }
}

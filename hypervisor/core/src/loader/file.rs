//! Bounded access to the bytes of a file.

use super::LoadError;

/// The bytes of an ELF file.
#[derive(Clone, Copy, Debug)]
pub(super) struct File<'a>(pub(super) &'a [u8]);

impl<'a> File<'a> {
    /// `len` bytes from `offset` on; `what` names them if the file ends too early.
    pub(super) fn range(self, what: &'static str, offset: u64, len: u64) -> Result<&'a [u8], LoadError> {
        let truncated = |needs: u64| LoadError::Truncated {
            what,
            needs,
            has: u64::try_from(self.0.len()).unwrap_or(u64::MAX),
        };
        let end = offset.checked_add(len).ok_or(truncated(u64::MAX))?;
        let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
        range
            .and_then(|(start, end)| self.0.get(start..end))
            .ok_or(truncated(end))
    }
}

/// The little-endian 64-bit value at `offset`, if it is there.
pub(super) fn quad(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    Some(u64::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

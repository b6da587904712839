//! A message, as it is put together and taken apart.

/// Length of `struct nlmsghdr`, in bytes.
pub(super) const HEADER: usize = 16;
/// Bit of an attribute's type: there are attributes in it.
const NESTED: u16 = 1 << 15;
/// The bits of an attribute's type that are its type.
const KIND: u16 = 0x3FFF;

/// What is asked of the kernel.
#[derive(Clone, Debug)]
pub(in crate::network) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of this type with these flags (besides those of every request), and this header of its
    /// family's.
    pub(in crate::network) fn new(kind: u16, flags: u16, family_header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(family_header);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    /// Adds an attribute.
    #[must_use]
    pub(in crate::network) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let start = self.begin(kind);
        self.bytes.extend_from_slice(value);
        self.end(start);
        self
    }

    /// Adds a number, as the host writes it.
    #[must_use]
    pub(in crate::network) fn with_u32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// Adds a number, as the network writes it.
    #[must_use]
    pub(in crate::network) fn with_be32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_be_bytes())
    }

    /// Adds a string, ended by a NUL.
    #[must_use]
    pub(in crate::network) fn with_str(self, kind: u16, value: &str) -> Self {
        self.with(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute that holds what `inside` adds.
    #[must_use]
    pub(in crate::network) fn nested(mut self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let start = self.begin(kind | NESTED);
        self = inside(self);
        self.end(start);
        self
    }

    /// Adds bytes that are no attribute, as some attributes begin with.
    #[must_use]
    pub(in crate::network) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The message as it is sent, with these flags besides its own.
    pub(super) fn finish(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        let own = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[6..8].copy_from_slice(&(own | flags).to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// The attributes of an answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) struct Attributes<'a>(pub(in crate::network) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this type.
    pub(in crate::network) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// A string, up to its NUL.
    pub(in crate::network) fn string(self, kind: u16) -> Option<&'a str> {
        let bytes = self.find(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & KIND;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_aligned_and_nest() {
        let message = Message::new(7, 1, &[9; 4])
            .with_str(1, "ab")
            .nested(2, |inside| inside.with(3, &[5]).with_be32(4, 6));
        let bytes = message.finish(11, 4);
        assert_eq!(bytes.len() as u32, u32::from_ne_bytes(bytes[..4].try_into().unwrap()));
        assert_eq!(bytes[6], 5);
        let all = Attributes(&bytes[HEADER + 4..]);
        assert_eq!(all.string(1), Some("ab"));
        let inside = Attributes(all.find(2).unwrap());
        assert_eq!(inside.find(3), Some(&[5][..]));
        assert_eq!(inside.find(4), Some(&[0, 0, 0, 6][..]));
        assert_eq!(all.find(3), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_and_come_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Attributes(&bytes).count() <= bytes.len() / 4);
        }
    }
}

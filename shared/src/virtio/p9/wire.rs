//! Fields of messages, one after the other.

/// Takes fields from the front of bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What is left.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// So many bytes; `None` if there are fewer.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A string.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.bytes(len.into())
    }

    /// Bytes behind a length of four bytes.
    pub fn data(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).ok()?)
    }
}

/// Puts fields into bytes, as long as there is room.
#[derive(Debug)]
pub struct Writer<'a> {
    to: &'a mut [u8],
    at: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    /// Writes to these bytes.
    pub const fn new(to: &'a mut [u8]) -> Self {
        Self { to, at: 0, full: false }
    }

    /// How many bytes were written; `None` if something did not fit.
    #[must_use]
    pub const fn finish(&self) -> Option<usize> {
        if self.full { None } else { Some(self.at) }
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        match self.to.get_mut(self.at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(place) if !self.full => {
                place.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            _ => self.full = true,
        }
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A string, which does not fit if it is longer than its length can say.
    pub fn string(&mut self, string: &[u8]) -> &mut Self {
        match u16::try_from(string.len()) {
            Ok(len) => self.u16(len).bytes(string),
            Err(_) => self.overflow(),
        }
    }

    /// Bytes behind a length of four bytes.
    pub fn data(&mut self, data: &[u8]) -> &mut Self {
        match u32::try_from(data.len()) {
            Ok(len) => self.u32(len).bytes(data),
            Err(_) => self.overflow(),
        }
    }

    const fn overflow(&mut self) -> &mut Self {
        self.full = true;
        self
    }

    /// Puts the size of all into the first four bytes, and returns it; `None` if something did not
    /// fit.
    pub(super) fn seal(&mut self) -> Option<usize> {
        let len = self.finish()?;
        self.to
            .first_chunk_mut::<4>()?
            .copy_from_slice(&u32::try_from(len).ok()?.to_le_bytes());
        Some(len)
    }
}

/// Splits a message into type, tag and fields; `None` if it is cut short or longer than it says.
pub(super) fn open(message: &[u8]) -> Option<(u8, u16, Reader<'_>)> {
    let mut reader = Reader::new(message);
    let size = usize::try_from(reader.u32()?).ok()?;
    let (kind, tag) = (reader.u8()?, reader.u16()?);
    (size == message.len()).then_some((kind, tag, reader))
}

//! The fuzzer's bytes, read as numbers; when they end, everything is zero.

/// A reader of bytes.
pub struct Script<'d>(&'d [u8]);

impl<'d> Script<'d> {
    /// Splits the input: a script, whose length the first two bytes say, and the rest.
    pub fn split(data: &'d [u8]) -> (Self, &'d [u8]) {
        let mut all = Self(data);
        let len = usize::from(all.u16()).min(all.0.len());
        let (script, rest) = all.0.split_at(len);
        (Self(script), rest)
    }

    /// All of the input as a script.
    pub fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    /// Whether it has come to its end.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let len = N.min(self.0.len());
        bytes[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        bytes
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

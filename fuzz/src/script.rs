//! The fuzzer's bytes, read as numbers; when they end, everything is zero.

/// A reader of bytes.
pub struct Script<'d> {
    bytes: &'d [u8],
    packed: bool,
}

/// The bit of a script's length that says that queues are packed.
pub const PACKED: u16 = 1 << 15;

impl<'d> Script<'d> {
    /// Splits the input: a script, whose length the first two bytes say but for [`PACKED`], and the rest.
    pub fn split(data: &'d [u8]) -> (Self, &'d [u8]) {
        let mut all = Self::new(data);
        let first = all.u16();
        let len = usize::from(first & !PACKED).min(all.bytes.len());
        let (bytes, rest) = all.bytes.split_at(len);
        let packed = first & PACKED != 0;
        (Self { bytes, packed }, rest)
    }

    /// All of the input as a script.
    pub fn new(bytes: &'d [u8]) -> Self {
        Self { bytes, packed: false }
    }

    /// Whether the queues of a guest are packed.
    pub fn packed(&self) -> bool {
        self.packed
    }

    /// Whether it has come to its end.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let len = N.min(self.bytes.len());
        bytes[..len].copy_from_slice(&self.bytes[..len]);
        self.bytes = &self.bytes[len..];
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

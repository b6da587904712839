//! What may stand before an opcode (SDM volume 2A, sections 2.1.1 and 2.2.1).

use super::{Operation, Reader, Repeat, Segment, Why, Width};

/// The prefixes of one instruction.
pub(super) struct Prefixes {
    /// 0x66.
    operand_size: bool,
    /// 0x67: addresses of 32 bits.
    pub(super) short_addresses: bool,
    /// 0xF0.
    lock: bool,
    /// 0xF2 or 0xF3, the last of them.
    repeat: Option<u8>,
    /// FS or GS, the last of them: the others are ignored in 64-bit mode.
    pub(super) segment: Segment,
    /// The last segment prefix of all, by the segment's number.
    pub(super) named_segment: Option<u8>,
    /// Whether there is a REX prefix.
    pub(super) rex: bool,
    /// REX.W: operands of 64 bits.
    pub(super) wide: bool,
    /// REX.R, as it belongs in a register's number: 8 or 0.
    pub(super) register_high: u8,
}

impl Prefixes {
    /// Reads all of them, so that an opcode is next.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Why> {
        let mut prefixes = Self {
            operand_size: false,
            short_addresses: false,
            lock: false,
            repeat: None,
            segment: Segment::Flat,
            named_segment: None,
            rex: false,
            wide: false,
            register_high: 0,
        };
        let mut rex = 0;
        loop {
            let start = reader.at;
            let byte = reader.u8()?;
            match byte {
                0x66 => prefixes.operand_size = true,
                0x67 => prefixes.short_addresses = true,
                0xf0 => prefixes.lock = true,
                0xf2 | 0xf3 => prefixes.repeat = Some(byte),
                0x64 => (prefixes.segment, prefixes.named_segment) = (Segment::Fs, Some(4)),
                0x65 => (prefixes.segment, prefixes.named_segment) = (Segment::Gs, Some(5)),
                0x26 | 0x2e | 0x36 | 0x3e => prefixes.named_segment = Some(byte >> 3 & 3),
                0x40..=0x4f => {
                    rex = byte;
                    continue;
                }
                _ => {
                    reader.at = start;
                    break;
                }
            }
            // A REX prefix counts only right before the opcode.
            rex = 0;
        }
        prefixes.rex = rex != 0;
        prefixes.wide = rex & 8 != 0;
        prefixes.register_high = (rex & 4) << 1;
        Ok(prefixes)
    }

    /// The width of an operand that is no byte.
    pub(super) const fn width(&self) -> Width {
        if self.wide {
            Width::Quadword
        } else if self.operand_size {
            Width::Word
        } else {
            Width::Doubleword
        }
    }

    pub(super) const fn repeat(&self) -> Repeat {
        Repeat {
            counted: matches!(self.repeat, Some(0xf3)),
            short: self.short_addresses,
        }
    }

    /// Refuses prefixes that make another instruction of it, or none.
    pub(super) const fn check(&self, operation: &Operation) -> Result<(), Why> {
        let string = matches!(
            operation,
            Operation::StoreString(_) | Operation::LoadString(_) | Operation::MoveString(..)
        );
        let may_repeat = match self.repeat {
            None => true,
            Some(prefix) => string && prefix == 0xf3,
        };
        // Only a read that becomes a write can be locked (SDM volume 2A, LOCK).
        let may_lock = match operation {
            Operation::Update(arithmetic, _) => arithmetic.has_result(),
            Operation::Exchange(_) => true,
            _ => false,
        };
        if may_repeat && (may_lock || !self.lock) {
            Ok(())
        } else {
            Err(Why::Unknown)
        }
    }
}

//! The page attribute table (SDM volume 3A, section 13.12; APM volume 2, section 7.8).

use super::MemoryType;

/// IA32_PAT: eight memory types, from which the PWT, PCD and PAT bits of an entry select one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pat(u64);

impl Pat {
    /// What a processor has in it after a reset: WB, WT, UC-, UC, and the same again.
    pub const RESET: Self = Self(0x0007_0406_0007_0406);

    /// The table with this value; `None` if one of its bytes is no memory type, which a processor
    /// refuses to hold (#GP).
    #[must_use]
    pub fn new(value: u64) -> Option<Self> {
        let known = value
            .to_le_bytes()
            .into_iter()
            .all(|byte| MemoryType::of(byte).is_some());
        known.then_some(Self(value))
    }

    /// The value of the MSR.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The type of an entry, by its number.
    #[must_use]
    pub fn get(self, number: usize) -> Option<MemoryType> {
        MemoryType::of(*self.0.to_le_bytes().get(number)?)
    }

    /// The first entry with this type.
    #[must_use]
    pub fn find(self, memory_type: MemoryType) -> Option<usize> {
        self.0.to_le_bytes().iter().position(|byte| *byte == memory_type as u8)
    }
}

impl Default for Pat {
    fn default() -> Self {
        Self::RESET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_the_processor_refuses_is_none() {
        assert_eq!(Pat::new(0x0007_0406_0007_0406), Some(Pat::RESET));
        assert_eq!(Pat::new(0x0007_0406_0007_0206), None, "2 is reserved");
        assert_eq!(Pat::new(0x8007_0406_0007_0406), None, "so are the upper bits");
    }

    #[test]
    fn after_a_reset_four_types_can_be_selected() {
        let types: Vec<_> = (0..9).map(|number| Pat::RESET.get(number)).collect();
        let four = [
            MemoryType::WriteBack,
            MemoryType::WriteThrough,
            MemoryType::UncacheableMinus,
            MemoryType::Uncacheable,
        ];
        assert_eq!(types[..4], four.map(Some));
        assert_eq!(types[4..8], four.map(Some));
        assert_eq!(types[8], None);
        assert_eq!(Pat::RESET.find(MemoryType::Uncacheable), Some(3));
        assert_eq!(Pat::RESET.find(MemoryType::WriteCombining), None);
    }
}

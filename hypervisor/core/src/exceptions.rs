//! Two exceptions, of which the second comes while the first is delivered (SDM volume 3A, tables 7-4 and 7-5;
//! APM volume 2, section 8.2.9).
//!
//! A processor decides this by itself, unless one of the two is a hypervisor's doing.

/// What is delivered then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Both {
    /// The second. The first is not lost: its instruction runs again.
    Second,
    /// A double fault in place of both.
    DoubleFault,
    /// Nothing: a triple fault, which shuts the processor down.
    Shutdown,
}

/// The double fault's vector.
pub const DOUBLE_FAULT: u8 = 8;

/// What becomes of two exceptions, by their vectors.
#[must_use]
pub const fn both(first: u8, second: u8) -> Both {
    match (Class::of(first), Class::of(second)) {
        (Class::DoubleFault, Class::Contributory | Class::PageFault) => Both::Shutdown,
        (Class::Contributory, Class::Contributory) => Both::DoubleFault,
        (Class::PageFault, Class::Contributory | Class::PageFault) => Both::DoubleFault,
        _ => Both::Second,
    }
}

/// Classes of exceptions.
#[derive(Clone, Copy)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

impl Class {
    const fn of(vector: u8) -> Self {
        match vector {
            0 | 10..=13 | 21 => Self::Contributory,
            // 20 is #VE, which AMD's processors do not have.
            14 | 20 => Self::PageFault,
            DOUBLE_FAULT => Self::DoubleFault,
            _ => Self::Benign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DB: u8 = 1;
    const GP: u8 = 13;
    const PF: u8 = 14;
    const VE: u8 = 20;

    #[test]
    fn two_exceptions_become_what_the_manuals_say() {
        for (first, second, becomes) in [
            (DB, GP, Both::Second),
            (GP, DB, Both::Second),
            (GP, GP, Both::DoubleFault),
            (GP, PF, Both::Second),
            (PF, GP, Both::DoubleFault),
            (PF, PF, Both::DoubleFault),
            (PF, VE, Both::DoubleFault),
            (DOUBLE_FAULT, DB, Both::Second),
            (DOUBLE_FAULT, GP, Both::Shutdown),
            (DOUBLE_FAULT, PF, Both::Shutdown),
        ] {
            assert_eq!(both(first, second), becomes, "{first}, then {second}");
        }
    }
}

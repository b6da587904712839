//! A place in the descriptor ring, with the wrap counter that holds there (section 2.8.1).

use super::layout::{F_AVAIL, F_USED};

/// The next descriptor that a side makes available, reads, or uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Index of the descriptor, below the queue's size.
    pub(super) slot: u16,
    /// The ring wrap counter.
    pub(super) wrap: bool,
}

impl Position {
    /// Where both sides begin: the counters are initialized to 1.
    pub(super) const START: Self = Self { slot: 0, wrap: true };

    /// The place `descriptors` further on, which are no more than the ring has.
    #[inline]
    pub(super) const fn after(self, descriptors: u16, size: u16) -> Self {
        let slot = self.slot + descriptors;
        if slot < size {
            Self { slot, wrap: self.wrap }
        } else {
            Self {
                slot: slot - size,
                wrap: !self.wrap,
            }
        }
    }

    /// The place that is reached by `descriptors` from the start on.
    #[cfg(test)]
    pub(super) const fn from_start(descriptors: u16, size: u16) -> Self {
        Self {
            slot: descriptors % size,
            wrap: (descriptors / size).is_multiple_of(2),
        }
    }

    /// The two flags that make the descriptor here available.
    #[inline]
    pub(super) const fn available(self) -> u16 {
        if self.wrap { F_AVAIL } else { F_USED }
    }

    /// The two flags that make the descriptor here used.
    #[inline]
    pub(super) const fn used(self) -> u16 {
        if self.wrap { F_AVAIL | F_USED } else { 0 }
    }

    /// Whether a descriptor with these flags is available here.
    #[inline]
    pub(super) const fn is_available(self, flags: u16) -> bool {
        flags & (F_AVAIL | F_USED) == self.available()
    }

    /// Whether a descriptor with these flags is used here.
    #[inline]
    pub(super) const fn is_used(self, flags: u16) -> bool {
        flags & (F_AVAIL | F_USED) == self.used()
    }

    /// The place as 16 bits: the wrap counter above 15 bits of offset (sections 2.8.14 and 2.9).
    pub(super) const fn bits(self) -> u16 {
        self.slot | (self.wrap as u16) << 15
    }

    /// The place that these [`bits`](Self::bits) name.
    pub(super) const fn of_bits(bits: u16) -> Self {
        Self {
            slot: bits & 0x7fff,
            wrap: bits >> 15 != 0,
        }
    }

    /// Whether moving on by `moved` descriptors to this place has passed the one that `bits` names.
    /// Of one that is not in the ring that is true, so that nobody waits for it.
    pub(super) const fn has_passed(self, bits: u16, moved: u16, size: u16) -> bool {
        let (slot, wrap) = (bits & 0x7fff, bits >> 15 != 0);
        if slot >= size {
            return moved != 0;
        }
        // Behind by this much, in two rounds, after which all is as it was.
        let lap = if self.wrap == wrap { 0 } else { size };
        let behind = (self.slot + lap + 2 * size - slot) % (2 * size);
        behind != 0 && behind <= moved || moved >= 2 * size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_flips_the_counter_and_two_rounds_lead_back() {
        for size in [1, 2, 3, 7] {
            let mut at = Position::START;
            for step in 0..4 * size {
                assert_eq!(at, Position::from_start(step, size));
                at = at.after(1, size);
            }
            assert_eq!(at, Position::START);
            assert_eq!(at.after(size, size), Position { slot: 0, wrap: false });
        }
    }

    #[test]
    fn a_descriptor_is_available_or_used_or_neither() {
        for wrap in [false, true] {
            let at = Position { slot: 0, wrap };
            let before = Position { slot: 0, wrap: !wrap };
            assert!(at.is_available(at.available()) && !at.is_used(at.available()));
            assert!(at.is_used(at.used()) && !at.is_available(at.used()));
            for old in [before.available(), before.used()] {
                assert!(!at.is_available(old) && !at.is_used(old));
            }
        }
        assert!(!Position::START.is_available(0) && !Position::START.is_used(0));
    }

    #[test]
    fn an_event_is_passed_exactly_by_stepping_over_it() {
        for size in [1, 3, 4] {
            for old in 0..2 * size {
                for moved in 0..=2 * size {
                    for event in 0..2 * size {
                        let over = (old..old + moved).any(|at| at % (2 * size) == event);
                        let new = Position::from_start(old + moved, size);
                        let event = Position::from_start(event, size).bits();
                        assert_eq!(
                            new.has_passed(event, moved, size),
                            over,
                            "{old} {moved} {event} of {size}"
                        );
                    }
                }
            }
            assert!(Position::START.has_passed(size, 1, size), "not in the ring");
            assert!(!Position::START.has_passed(size, 0, size));
        }
    }
}

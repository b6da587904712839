//! What a change of the tables asks of the processors that may remember them.

use super::Format;

/// What a change of the tables asks for before the guest runs on.
///
/// A processor remembers translations and parts of them (SDM volume 3C, section 30.4.1; APM
/// volume 2, section 15.16), and it need not look at the tables again until it is told to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invalidation {
    /// Nothing. Entries that were not present became present, and a processor remembers nothing
    /// of an entry that is not present (SDM volume 3C, section 30.4.3.4).
    #[default]
    None,
    /// Nothing that is needed. Rights were added; at worst a processor that remembers the old
    /// ones reports a violation that is none, which makes it forget them
    /// (SDM volume 3C, section 30.4.3.4).
    MayFault,
    /// All translations by this root are to be forgotten: INVEPT of the type single-context with
    /// this EPTP, or a flush of the guest's ASID (`TLB_CONTROL`, APM volume 2, section 15.16.1).
    Context,
}

impl Invalidation {
    /// What the change of one entry asks for (SDM volume 3C, section 30.4.3.4, and for NPT APM
    /// volume 2, section 5.5.2, which says the same of a host's own tables).
    pub(super) fn of<F: Format>(format: &F, before: u64, after: u64) -> Self {
        let (old, new) = (format.rights(before), format.rights(after));
        if old.is_none() || before == after {
            return Self::None;
        }
        // The processor itself sets accessed and dirty flags; clearing one is news to it.
        let flags = F::ACCESSED | F::DIRTY;
        let cleared = before & !after & flags != 0;
        let rights_alone = format.with_rights(before, new).unwrap_or(before) & !flags == after & !flags;
        if cleared || !new.contains(old) || !rights_alone {
            return Self::Context;
        }
        if old == new { Self::None } else { Self::MayFault }
    }
}

//! What a guest may write to CR0 and CR4 on bare metal, of VMX as of SVM (SDM volume 2B, MOV to control registers,
//! and volume 3A, section 2.5).
//!
//! Where an exit comes before such a write, the hypervisor answers it as a processor would that has the features of
//! the guest's CPUID, and no others.

use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};

/// Bits of CR4 that the guest may change: the features that its CPUID has. Any other bit is reserved in it, but for
/// [`CR4_BOTH`].
pub const CR4_GUESTS: Cr4Flags = Cr4Flags::TIMESTAMP_DISABLE
    .union(Cr4Flags::DEBUGGING_EXTENSIONS)
    .union(Cr4Flags::PAGE_SIZE_EXTENSION)
    .union(Cr4Flags::PHYSICAL_ADDRESS_EXTENSION)
    .union(Cr4Flags::PAGE_GLOBAL)
    .union(Cr4Flags::OSFXSR)
    .union(Cr4Flags::OSXMMEXCPT_ENABLE)
    .union(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION)
    .union(Cr4Flags::FSGSBASE)
    .union(Cr4Flags::OSXSAVE)
    .union(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION)
    .union(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION);

/// A bit of CR4 that the guest may set and that is set for real all the time: without it, a machine check in the
/// guest would shut the processor down (SDM volume 3B, section 17.8).
pub const CR4_BOTH: Cr4Flags = Cr4Flags::MACHINE_CHECK_EXCEPTION;

/// What CR0 holds when the guest writes a value; `None` if it takes no such value, which is a general-protection
/// exception.
#[must_use]
pub fn cr0(value: u64) -> Option<u64> {
    let flags = Cr0Flags::from_bits_truncate(value);
    let has = |flag| flags.contains(flag);
    let bad = value >> 32 != 0
        || has(Cr0Flags::PAGING) && !has(Cr0Flags::PROTECTED_MODE_ENABLE)
        || has(Cr0Flags::NOT_WRITE_THROUGH) && !has(Cr0Flags::CACHE_DISABLE);
    // ET is always set; bits that mean nothing are not kept.
    (!bad).then_some((flags | Cr0Flags::EXTENSION_TYPE).bits())
}

/// Whether CR4 takes a value, of a processor that has `supported` bits, in long mode or not.
#[must_use]
pub const fn takes_cr4(value: u64, supported: u64, long: bool) -> bool {
    let known = value & !(CR4_GUESTS.union(CR4_BOTH).bits() & supported) == 0;
    known && (!long || value & Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits() != 0)
}

/// The hypervisor's own CR0 (SDM volume 3A, section 2.5), whatever the firmware has left: without EM and TS, with which
/// XSAVE and XRSTOR, FXSAVE and FXRSTOR fault; and with caches on, which on VMX no entry or exit changes (volume 3C,
/// section 28.3.2.1), so that the guest has the hypervisor's.
#[must_use]
pub const fn hypervisors_cr0(value: u64) -> u64 {
    let off = Cr0Flags::EMULATE_COPROCESSOR
        .union(Cr0Flags::TASK_SWITCHED)
        .union(Cr0Flags::CACHE_DISABLE)
        .union(Cr0Flags::NOT_WRITE_THROUGH);
    value & !off.bits() | Cr0Flags::MONITOR_COPROCESSOR.bits()
}

/// EFER when paging is switched on or off, and long mode with it (SDM volume 3A, section 11.8.5); `None` if that
/// cannot be now.
#[must_use]
pub fn switch_paging(on: bool, efer: u64, cr4: u64, in_64_bit_mode: bool) -> Option<u64> {
    let extended = cr4 & Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits() != 0;
    let long = on && efer & EferFlags::LONG_MODE_ENABLE.bits() != 0;
    if !on && in_64_bit_mode || long && (in_64_bit_mode || !extended) {
        return None;
    }
    let active = EferFlags::LONG_MODE_ACTIVE.bits();
    Some(if long { efer | active } else { efer & !active })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PE: u64 = 1;
    const PG: u64 = 1 << 31;
    const PAE: u64 = 1 << 5;
    const LME: u64 = 1 << 8;
    const LMA: u64 = 1 << 10;

    #[test]
    fn cr0_takes_what_a_processor_takes() {
        assert_eq!(cr0(PE | PG), Some(PE | PG | 0x10), "ET is always set");
        assert_eq!(cr0(PG), None, "paging without protection");
        assert_eq!(cr0(PE | 1 << 29), None, "NW without CD");
        assert_eq!(cr0(PE | 1 << 29 | 1 << 30), Some(PE | 3 << 29 | 0x10));
        assert_eq!(cr0(PE | 1 << 32), None);
        assert_eq!(cr0(PE | 1 << 28), Some(PE | 0x10), "a bit that means nothing is lost");
    }

    #[test]
    fn floating_point_and_caches_are_on_whatever_was_left() {
        assert_eq!(hypervisors_cr0(PE | PG | 0b1100), PE | PG | 0b10);
        assert_eq!(
            hypervisors_cr0(0xe001_0033),
            0x8001_0033,
            "as Bochs' firmware leaves it"
        );
    }

    #[test]
    fn cr4_takes_the_features_that_the_guest_has() {
        const SMAP: u64 = 1 << 21;
        let supported = u64::MAX;
        assert!(takes_cr4(PAE | SMAP | 1 << 6, supported, true));
        assert!(!takes_cr4(PAE | SMAP, PAE, true), "the processor has not SMAP");
        assert!(!takes_cr4(0, supported, true), "long mode without PAE");
        assert!(takes_cr4(0, supported, false));
        for hidden in [12, 13, 14, 17, 22, 23, 24, 63] {
            assert!(!takes_cr4(PAE | 1 << hidden, supported, true), "bit {hidden}");
        }
    }

    #[test]
    fn long_mode_comes_and_goes_with_paging() {
        assert_eq!(switch_paging(true, LME, PAE, false), Some(LME | LMA));
        assert_eq!(switch_paging(true, LME, 0, false), None, "without PAE");
        assert_eq!(switch_paging(true, 0, 0, false), Some(0), "paging of 32 bits");
        assert_eq!(
            switch_paging(false, LME | LMA, PAE, false),
            Some(LME),
            "from compatibility mode"
        );
        assert_eq!(switch_paging(false, LME | LMA, PAE, true), None, "from 64-bit mode");
    }
}

//! What the rules look at: the VMCS with its controls as questions, the processor, and memory.

use super::PhysicalRead;
use crate::vmx::controls::{exit, primary};
use crate::vmx::field::{AnyField, Field, Width};
use crate::vmx::{Capabilities, VmcsFields, VmcsRead, fields::*};

/// A VM entry that is about to be.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The VMCS.
    pub(super) vmcs: &'a dyn VmcsRead,
    /// What the processor can.
    pub(super) capabilities: &'a Capabilities,
    /// Physical memory.
    pub(super) memory: &'a dyn PhysicalRead,
}

impl Entry<'_> {
    /// A field by its name.
    pub(super) fn get<W: Width, A>(&self, field: Field<W, A>) -> W::Value {
        self.vmcs.get(field)
    }

    /// A field whose type is known at run time only.
    pub(super) fn raw(&self, field: AnyField) -> u64 {
        self.vmcs.read(field.encoding).unwrap_or(0)
    }

    /// Whether pin-based controls are 1.
    pub(super) fn pin(&self, bits: u64) -> bool {
        u64::from(self.get(PIN_BASED_CONTROLS)) & bits == bits
    }

    /// Whether primary controls are 1.
    pub(super) fn primary(&self, bits: u64) -> bool {
        u64::from(self.get(PRIMARY_CONTROLS)) & bits == bits
    }

    /// Whether secondary controls are 1; all are 0 unless activated.
    pub(super) fn secondary(&self, bits: u64) -> bool {
        self.primary(primary::ACTIVATE_SECONDARY_CONTROLS) && u64::from(self.get(SECONDARY_CONTROLS)) & bits == bits
    }

    /// Whether tertiary controls are 1; all are 0 unless activated.
    pub(super) fn tertiary(&self, bits: u64) -> bool {
        self.primary(primary::ACTIVATE_TERTIARY_CONTROLS) && self.get(TERTIARY_CONTROLS) & bits == bits
    }

    /// Whether primary VM-exit controls are 1.
    pub(super) fn exit(&self, bits: u64) -> bool {
        u64::from(self.get(EXIT_CONTROLS)) & bits == bits
    }

    /// Whether secondary VM-exit controls are 1; all are 0 unless activated.
    pub(super) fn secondary_exit(&self, bits: u64) -> bool {
        self.exit(exit::ACTIVATE_SECONDARY_CONTROLS) && self.get(SECONDARY_EXIT_CONTROLS) & bits == bits
    }

    /// Whether VM-entry controls are 1.
    pub(super) fn entry(&self, bits: u64) -> bool {
        u64::from(self.get(ENTRY_CONTROLS)) & bits == bits
    }

    /// Whether the processor has "monitor trap flag".
    pub(super) const fn offers_monitor_trap(&self) -> bool {
        self.capabilities.primary.may & primary::MONITOR_TRAP_FLAG != 0
    }

    /// Whether the processor has FRED transitions: CR4 may have bit 32.
    pub(super) const fn offers_fred(&self) -> bool {
        self.capabilities.cr4_fixed1 >> 32 & 1 != 0
    }

    /// Whether an address of a VMX structure has a bit that the processor has no line for.
    pub(super) fn beyond_memory(&self, address: u64) -> bool {
        let bits = if self.capabilities.basic.below_4_gib() {
            32
        } else {
            self.capabilities.processor.physical_bits
        };
        beyond(address, bits)
    }

    /// Whether an address is not that of a page of memory.
    pub(super) fn no_page(&self, address: u64) -> bool {
        address & 0xfff != 0 || self.beyond_memory(address)
    }

    /// Whether a linear address is canonical for the most that the processor can.
    pub(super) fn canonical(&self, address: u64) -> bool {
        canonical(address, self.capabilities.processor.linear_bits)
    }

    /// The list of MSRs at an address with so many entries of 16 bytes: whether it is aligned and all
    /// in memory. An empty list may be anywhere.
    pub(super) fn no_msr_list(&self, address: u64, count: u32) -> bool {
        let last = u64::from(count).wrapping_mul(16).wrapping_sub(1);
        count != 0 && (address & 0xf != 0 || address.checked_add(last).is_none_or(|last| self.beyond_memory(last)))
    }

    /// Four bytes of memory.
    pub(super) fn word(&self, address: u64) -> Option<u32> {
        let both = self.memory.read_physical(address & !7)?;
        Some(if address & 4 == 0 {
            (both & 0xffff_ffff) as u32
        } else {
            (both >> 32) as u32
        })
    }
}

/// Whether a value has a bit at or above a position.
pub(super) fn beyond(value: u64, bits: u8) -> bool {
    value.checked_shr(u32::from(bits)).unwrap_or(0) != 0
}

/// Whether all bits of an address from the highest that counts are alike (SDM volume 1, section 3.3.7.1).
pub(super) fn canonical(address: u64, bits: u8) -> bool {
    let spare = 64_u32.saturating_sub(u32::from(bits)).min(63);
    ((address << spare) as i64 >> spare) as u64 == address
}

/// Whether all bits of an address above those that count are alike, which is less than canonical.
pub(super) fn upper_alike(address: u64, bits: u8) -> bool {
    let upper = (address as i64).checked_shr(u32::from(bits)).unwrap_or(0);
    upper == 0 || upper == -1
}

/// Whether each byte is a memory type that IA32_PAT takes (SDM volume 3A, section 13.12.2).
pub(super) fn valid_pat(pat: u64) -> bool {
    pat.to_le_bytes()
        .into_iter()
        .all(|entry| matches!(entry, 0 | 1 | 4..=7))
}

/// A bit of a value.
pub(super) const fn bit(value: u64, bit: u32) -> bool {
    value >> bit & 1 != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_is_canonical_when_its_upper_bits_repeat_the_highest(address: u64, bits in 33_u8..=64) {
            let upper = (address as i64) >> (bits - 1);
            prop_assert_eq!(canonical(address, bits), upper == 0 || upper == -1);
            prop_assert!(!canonical(address, bits) || upper_alike(address, bits));
        }

        #[test]
        fn a_value_is_beyond_when_it_does_not_fit(value: u64, bits in 1_u8..64) {
            prop_assert_eq!(beyond(value, bits), value >= 1 << bits);
            prop_assert!(!beyond(value, 64));
        }
    }

    #[test]
    fn upper_bits_may_be_alike_and_not_canonical() {
        assert!(upper_alike(1 << 47, 48) && !canonical(1 << 47, 48));
        assert!(!upper_alike(1 << 48, 48) && upper_alike(u64::MAX << 48, 48));
    }

    #[test]
    fn memory_types_of_the_pat_are_six() {
        assert!(valid_pat(0x0007_0406_0007_0406) && valid_pat(0x0501_0000_0000_0000));
        assert!(!valid_pat(0x0200_0000_0000_0000) && !valid_pat(3) && !valid_pat(8));
    }
}

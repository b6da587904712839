//! The VMX-preemption timer: a guest's time slice (SDM volume 3C, section 27.5.1).
//!
//! It counts down in the guest, by one whenever bit N of the TSC changes, and exits at zero. Exits
//! save what is left, so that a guest that exits often is interrupted too.

use chiton_core::vmx::{Capabilities, NoSuchField, VmcsFields, VmcsWrite, fields};

/// Begins a slice of so many ticks of the TSC.
pub(crate) fn arm(vmcs: &mut impl VmcsWrite, capabilities: &Capabilities, ticks: u64) -> Result<(), NoSuchField> {
    vmcs.set(fields::PREEMPTION_TIMER_VALUE, value(capabilities, ticks))
}

/// Ends the slice after so many ticks, if it does not end before.
pub(crate) fn arm_at_most(
    vmcs: &mut (impl VmcsFields + VmcsWrite),
    capabilities: &Capabilities,
    ticks: u64,
) -> Result<(), NoSuchField> {
    let value = value(capabilities, ticks);
    if value < vmcs.get(fields::PREEMPTION_TIMER_VALUE) {
        vmcs.set(fields::PREEMPTION_TIMER_VALUE, value)?;
    }
    Ok(())
}

/// What the timer counts down from. The field has 32 bits; what is longer is a longer slice than
/// anybody wants to wait for.
fn value(capabilities: &Capabilities, ticks: u64) -> u32 {
    let value = ticks >> capabilities.misc.preemption_timer_shift();
    u32::try_from(value).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use chiton_core::vmx::capability::Misc;

    use super::*;

    #[test]
    fn a_slice_is_counted_in_the_steps_of_the_processor() {
        let every = |shift| Capabilities {
            misc: Misc(shift),
            ..Capabilities::default()
        };
        assert_eq!(value(&every(5), 3200), 100);
        assert_eq!(value(&every(0), 3200), 3200);
        assert_eq!(value(&every(5), 3), 1, "a slice is never nothing");
        assert_eq!(value(&every(0), u64::MAX), u32::MAX);
    }
}

//! How fast the time-stamp counter counts, from what a machine says of it.

/// The slowest counter that is believed, in kHz: a timer that does not run, and whose output is up from the start, makes
/// a measurement that is over at once.
const SLOWEST: u64 = 5_000;

/// By a measurement: so many ticks of the counter passed in `count` ticks of a clock of `hz`. In kHz.
#[must_use]
pub fn measured(ticks: u64, count: u64, hz: u64) -> Option<u64> {
    let khz = u128::from(ticks) * u128::from(hz) / 1000;
    let khz = u64::try_from(khz.checked_div(count.into())?).ok()?;
    (khz >= SLOWEST).then_some(khz)
}

/// By EAX, EBX and ECX of CPUID leaf 0x15: the counter's ratio to a crystal, and the crystal's frequency (SDM volume 3B,
/// section 21.7.3), any of which may be missing. In kHz.
#[must_use]
pub fn told([denominator, numerator, hz]: [u32; 3]) -> Option<u64> {
    let khz = u64::from(hz) * u64::from(numerator) / 1000;
    khz.checked_div(denominator.into()).filter(|khz| *khz >= SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_believed_if_the_timer_ran() {
        const PIT: u64 = 1_193_182;
        assert_eq!(measured(30_000_000, 11_932, PIT), Some(2_999_954));
        assert_eq!(
            measured(200_000, 11_932, PIT),
            Some(19_999),
            "the slow machine of an emulator"
        );
        assert_eq!(measured(9_000, 11_932, PIT), None, "its output was up at once");
        assert_eq!(measured(1, 0, PIT), None);
        assert_eq!(measured(u64::MAX, 1, u64::MAX), None);
    }

    #[test]
    fn a_ratio_without_its_crystal_tells_nothing() {
        assert_eq!(told([2, 216, 24_000_000]), Some(2_592_000));
        assert_eq!(told([2, 216, 0]), None, "of a Skylake, which does not tell its crystal");
        assert_eq!(told([0, 0, 0]), None);
        assert_eq!(
            told([1, u32::MAX, u32::MAX]),
            Some(u64::from(u32::MAX) * u64::from(u32::MAX) / 1000)
        );
    }
}

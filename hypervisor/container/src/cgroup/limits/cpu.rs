//! Processor time: a quota in each period, and a weight against others.

use std::fmt;
use std::str::FromStr;

use super::BadLimit;

/// The usual period, the kernel's own default.
const PERIOD: u32 = 100_000;

/// Processor time in each period (cgroup-v2.rst, `cpu.max`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMax {
    /// How long all tasks together may run in a period, in microseconds, at least 1000; none is no
    /// limit.
    pub quota: Option<u64>,
    /// The period in microseconds, 1000 to 1000000.
    pub period: u32,
}

impl CpuMax {
    /// No limit.
    pub const MAX: Self = Self {
        quota: None,
        period: PERIOD,
    };
}

/// `0.5` of a processor, `2`, `max`, or a quota and a period in microseconds: `5000/10000`.
impl FromStr for CpuMax {
    type Err = BadLimit;

    fn from_str(text: &str) -> Result<Self, BadLimit> {
        let bad = |why: &str| BadLimit(format!("`{text}` is not an amount of processor time: {why}"));
        if text == "max" {
            return Ok(Self::MAX);
        }
        if let Some((quota, period)) = text.split_once('/') {
            let quota = quota.parse().ok().filter(|quota| (1_000..=MAX_QUOTA).contains(quota));
            let period = period
                .parse()
                .ok()
                .filter(|period| (1_000..=1_000_000).contains(period));
            return Ok(Self {
                quota: Some(quota.ok_or_else(|| bad("the quota is at least 1000 microseconds"))?),
                period: period.ok_or_else(|| bad("the period is 1000 to 1000000 microseconds"))?,
            });
        }
        // Decimal digits only: no exponent, no sign, no infinity.
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
        if whole.is_empty() && part.is_empty() || !digits(whole) || !digits(part) || text.len() > 16 {
            return Err(bad("write 0.5 for half a processor, 2 for two, 5000/10000, or max"));
        }
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| bad("no machine has so many processors"))?
        };
        // Five decimals are all that a period of 100000 microseconds tells apart.
        let part: u64 = format!("{part:0<5}")[..5].parse().unwrap_or(0);
        let quota = whole
            .checked_mul(u64::from(PERIOD))
            .and_then(|quota| quota.checked_add(part))
            .filter(|quota| *quota <= MAX_QUOTA)
            .ok_or_else(|| bad("no machine has so many processors"))?;
        if quota < 1_000 {
            return Err(bad("less than 0.01 is less than the kernel divides"));
        }
        Ok(Self {
            quota: Some(quota),
            period: PERIOD,
        })
    }
}

/// More than 8192 processors, the most Linux has, in the longest period.
const MAX_QUOTA: u64 = 8192 * 1_000_000;

impl fmt::Display for CpuMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.quota {
            None => f.write_str("max"),
            Some(quota) => write!(f, "{quota}/{}", self.period),
        }
    }
}

/// A share of what others want too: 1 to 10000; 100 is the share of those that have none set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(u16);

impl Weight {
    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// The `cpu.shares` of v1: 1024 for the weight 100, as the kernel itself converts
    /// (`sched_weight_from_cgroup` in kernel/sched/sched.h), so that proportions stay.
    #[must_use]
    pub fn shares(self) -> u32 {
        (u32::from(self.0) * 1024 + 50) / 100
    }

    /// The weight of the BFQ scheduler, 1 to 1000: the same up to the default of 100, and above it
    /// drawn from 100..10000 onto 100..1000, as systemd does.
    #[must_use]
    pub fn bfq(self) -> u32 {
        match u32::from(self.0) {
            weight @ ..=100 => weight,
            weight => 100 + (weight - 100) * 900 / 9900,
        }
    }
}

impl FromStr for Weight {
    type Err = BadLimit;

    fn from_str(text: &str) -> Result<Self, BadLimit> {
        match text.parse() {
            Ok(weight @ 1..=10_000) => Ok(Self(weight)),
            _ => Err(BadLimit(format!(
                "`{text}` is not a weight: write 1 to 10000; 100 is everyone's share"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn processors_are_read_in_decimals() {
        for (text, quota) in [
            ("0.5", 50_000),
            ("2", 200_000),
            (".01", 1_000),
            ("1.5", 150_000),
            ("0.123456", 12_345),
            ("2.", 200_000),
        ] {
            let expected = CpuMax {
                quota: Some(quota),
                period: 100_000,
            };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        assert_eq!("max".parse(), Ok(CpuMax::MAX));
    }

    #[test]
    fn quota_and_period_are_read_in_microseconds() {
        let expected = CpuMax {
            quota: Some(5_000),
            period: 10_000,
        };
        assert_eq!("5000/10000".parse(), Ok(expected));
        assert_eq!(expected.to_string(), "5000/10000");
    }

    #[test]
    fn what_is_no_amount_of_time_is_refused() {
        for text in [
            "",
            ".",
            "0",
            "0.001",
            "-1",
            "1e3",
            "inf",
            "nan",
            "9999999",
            "999/10000",
            "5000/999",
            "5000/1000001",
            "half",
            "1/",
            "99999999999999999",
        ] {
            let error = text.parse::<CpuMax>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is not an amount of processor time: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_weight_keeps_its_proportion_on_v1() {
        let shares = |text: &str| text.parse::<Weight>().unwrap().shares();
        assert_eq!(
            (shares("1"), shares("100"), shares("200"), shares("10000")),
            (10, 1024, 2048, 102_400)
        );
        let bfq = |text: &str| text.parse::<Weight>().unwrap().bfq();
        assert_eq!((bfq("1"), bfq("100"), bfq("10000")), (1, 100, 1000));
    }

    #[test]
    fn a_weight_out_of_range_is_refused() {
        for text in ["0", "10001", "-1", "", "x"] {
            assert!(
                text.parse::<Weight>().unwrap_err().to_string().contains("1 to 10000"),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_amount_or_refused(text in ".{0,20}") {
            let _ = text.parse::<CpuMax>();
            let _ = text.parse::<Weight>();
        }

        #[test]
        fn an_amount_written_is_the_amount_read(quota in 1_000..MAX_QUOTA, period in 1_000..1_000_000_u32) {
            let max = CpuMax { quota: Some(quota), period };
            prop_assert_eq!(max.to_string().parse(), Ok(max));
        }
    }
}

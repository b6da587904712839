//! Sets of processors or memory nodes: `0-3,5` (cpuset(7), "List format").

use std::fmt;
use std::str::FromStr;

use super::BadLimit;

/// More than Linux has of either.
const LARGEST: u32 = 8191;

/// Processors or memory nodes, as ranges in order that do not touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set(Vec<(u32, u32)>);

impl Set {
    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }
}

impl FromStr for Set {
    type Err = BadLimit;

    fn from_str(text: &str) -> Result<Self, BadLimit> {
        let bad = |why: String| BadLimit(format!("`{text}` is not a set of numbers: {why}"));
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let number = |text: &str| {
                text.parse::<u32>()
                    .ok()
                    .filter(|number| *number <= LARGEST && text.bytes().all(|byte| byte.is_ascii_digit()))
                    .ok_or_else(|| bad("write 0-3,5".into()))
            };
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(bad(format!("{last} comes before {first}")));
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Ok(Self(merged))
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if first == last {
                write!(f, "{first}")?;
            } else {
                write!(f, "{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_put_in_order_and_together() {
        let set: Set = "5,0-2,2-3".parse().unwrap();
        assert_eq!(set.to_string(), "0-3,5");
        assert!(set.contains(3) && !set.contains(4));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["", ",", "0-", "-1", "a", "0,,1", "8192", "+1", "1 2"] {
            let error = text.parse::<Set>().unwrap_err().to_string();
            assert!(error.ends_with("write 0-3,5"), "{error}");
        }
        assert!(
            "3-1"
                .parse::<Set>()
                .unwrap_err()
                .to_string()
                .ends_with("1 comes before 3")
        );
    }

    proptest! {
        #[test]
        fn a_set_holds_what_was_written(numbers in proptest::collection::btree_set(0..200_u32, 1..20)) {
            let text: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            let set: Set = text.join(",").parse().unwrap();
            for number in 0..200 {
                prop_assert_eq!(set.contains(number), numbers.contains(&number));
            }
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn any_text_is_a_set_or_refused(text in ".{0,20}") {
            let _ = text.parse::<Set>();
        }
    }
}

//! Amounts: bytes of memory, numbers of tasks.

use std::fmt;
use std::str::FromStr;

use super::BadLimit;

const UNITS: [(char, u32); 5] = [('T', 40), ('G', 30), ('M', 20), ('K', 10), ('B', 0)];

/// An amount of memory, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// No limit: `max`.
    Max,
    /// So many bytes. The kernel rounds them down to whole pages.
    Bytes(u64),
}

impl FromStr for Size {
    type Err = BadLimit;

    fn from_str(text: &str) -> Result<Self, BadLimit> {
        match text {
            "max" | "-1" => Ok(Self::Max),
            text => bytes(text).map(Self::Bytes),
        }
    }
}

/// `4096`, `64K`, `64M`, `64MiB`, `1g`: powers of 1024, as docker reads them.
pub(super) fn bytes(text: &str) -> Result<u64, BadLimit> {
    let bad = |why: &str| BadLimit(format!("`{text}` is not a size: {why}"));
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number
        .parse()
        .map_err(|_| bad("write 64M, 1G, a number of bytes, or max"))?;
    let unit = unit.to_ascii_uppercase();
    let unit = unit.strip_suffix("IB").unwrap_or(&unit);
    // `MB`, but not `BB`.
    let unit = match unit.strip_suffix('B') {
        Some(prefix) if !prefix.is_empty() && prefix != "B" => prefix,
        _ => unit,
    };
    let shift = match unit {
        "" => 0,
        unit => UNITS
            .iter()
            .find(|(name, _)| unit.len() == 1 && unit.starts_with(*name))
            .map(|(_, shift)| *shift)
            .ok_or_else(|| bad("its unit is none of K, M, G and T"))?,
    };
    number
        .checked_mul(1 << shift)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| bad("it is more than any machine has"))
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Bytes(bytes) = *self else {
            return f.write_str("max");
        };
        match UNITS
            .iter()
            .find(|(_, shift)| *shift > 0 && bytes > 0 && bytes.trailing_zeros() >= *shift)
        {
            Some((unit, shift)) => write!(f, "{}{unit}", bytes >> shift),
            None => write!(f, "{bytes}"),
        }
    }
}

/// A number of tasks, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// No limit: `max`.
    Max,
    /// So many.
    Tasks(u32),
}

impl FromStr for Count {
    type Err = BadLimit;

    fn from_str(text: &str) -> Result<Self, BadLimit> {
        match text {
            "max" | "-1" => Ok(Self::Max),
            text => match text.parse() {
                // 0 would let nothing start; the kernel's largest is PID_MAX_LIMIT.
                Ok(tasks @ 1..=4_194_304) => Ok(Self::Tasks(tasks)),
                _ => Err(BadLimit(format!(
                    "`{text}` is not a number of tasks: write 1 to 4194304, or max"
                ))),
            },
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::Tasks(tasks) => write!(f, "{tasks}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("4096", 4096),
            ("1b", 1),
            ("64K", 65536),
            ("64kb", 65536),
            ("16M", 16 << 20),
            ("2GiB", 2 << 30),
            ("1g", 1 << 30),
        ] {
            assert_eq!(text.parse(), Ok(Size::Bytes(bytes)), "{text}");
        }
        assert_eq!("max".parse(), Ok(Size::Max));
        assert_eq!("-1".parse(), Ok(Size::Max));
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_to_write() {
        for text in [
            "",
            "M",
            "-2",
            "1.5M",
            "3X",
            "1BB",
            "1MK",
            "8388608T",
            "99999999999999999999",
        ] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` is not a size: ")), "{error}");
        }
    }

    #[test]
    fn no_tasks_at_all_are_refused() {
        for text in ["0", "-2", "many", "4194305", ""] {
            let error = text.parse::<Count>().unwrap_err().to_string();
            assert!(error.contains("write 1 to 4194304, or max"), "{error}");
        }
        assert_eq!("64".parse(), Ok(Count::Tasks(64)));
    }

    proptest! {
        #[test]
        fn a_size_written_is_the_size_read(bytes in 0..=i64::MAX as u64) {
            prop_assert_eq!(Size::Bytes(bytes).to_string().parse(), Ok(Size::Bytes(bytes)));
        }

        #[test]
        fn any_text_is_a_size_or_refused(text in ".{0,20}") {
            let _ = text.parse::<Size>();
            let _ = text.parse::<Count>();
        }
    }
}

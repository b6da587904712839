//! The date of a PC's clock as seconds since 1970.

/// What the registers of an MC146818, or what a PC has in its place, say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of what a clock shows")]
pub struct Reading {
    pub seconds: u8,
    pub minutes: u8,
    pub hours: u8,
    pub day: u8,
    pub month: u8,
    pub year: u8,
    /// Register B, which says in which way the others are written.
    pub format: u8,
}

/// Register B: the values are binary, not BCD.
const BINARY: u8 = 1 << 2;
/// Register B: hours are 0 to 23, not 1 to 12.
const HOURS_24: u8 = 1 << 1;
/// In the hours, where they are 1 to 12: after noon.
const AFTER_NOON: u8 = 1 << 7;

impl Reading {
    /// Seconds since 1970-01-01 00:00, if the clock is right and shows UTC; `None` for what is no
    /// date. Years are those from 2000 on.
    #[must_use]
    pub fn unix(self) -> Option<u64> {
        let number = |value: u8| -> Option<u64> {
            let (tens, ones) = (value >> 4, value & 0xf);
            match self.format & BINARY {
                0 => (tens < 10 && ones < 10).then_some(u64::from(tens) * 10 + u64::from(ones)),
                _ => Some(value.into()),
            }
        };
        let hours = if self.format & HOURS_24 != 0 {
            number(self.hours)?
        } else {
            let hours = number(self.hours & !AFTER_NOON).filter(|hours| (1..=12).contains(hours))?;
            hours % 12 + if self.hours & AFTER_NOON != 0 { 12 } else { 0 }
        };
        let (minutes, seconds) = (number(self.minutes)?, number(self.seconds)?);
        let (year, month, day) = (2000 + number(self.year)?, number(self.month)?, number(self.day)?);
        let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
        let is_time = hours < 24 && minutes < 60 && seconds < 61;
        (is_date && is_time).then(|| days(year, month, day) * 86_400 + hours * 3600 + minutes * 60 + seconds)
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. The year begins in March here, so that
/// the day of a leap year comes last, and months have 30.6 days when rounded down.
const fn days(year: u64, month: u64, day: u64) -> u64 {
    /// From March of the year 0 to 1970-01-01.
    const BEFORE: u64 = 719_468;
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - BEFORE
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: Reading = Reading {
        seconds: 0x56,
        minutes: 0x34,
        hours: 0x12,
        day: 0x29,
        month: 0x02,
        year: 0x24,
        format: HOURS_24,
    };

    #[test]
    fn a_date_is_the_seconds_that_other_programs_say() {
        // date -u -d '2024-02-29 12:34:56' +%s
        assert_eq!(DATE.unix(), Some(1_709_210_096));
        let start = Reading {
            seconds: 0,
            minutes: 0,
            hours: 0,
            day: 1,
            month: 1,
            year: 0,
            format: HOURS_24,
        };
        assert_eq!(start.unix(), Some(946_684_800));
        let end = Reading {
            day: 0x31,
            month: 0x12,
            year: 0x99,
            ..DATE
        };
        // date -u -d '2099-12-31 12:34:56' +%s
        assert_eq!(end.unix(), Some(4_102_403_696));
    }

    #[test]
    fn binary_and_twelve_hours_say_the_same() {
        let binary = Reading {
            seconds: 56,
            minutes: 34,
            hours: 12,
            day: 29,
            month: 2,
            year: 24,
            format: BINARY | HOURS_24,
        };
        assert_eq!(binary.unix(), DATE.unix());
        let noon = Reading {
            hours: AFTER_NOON | 0x12,
            format: 0,
            ..DATE
        };
        assert_eq!(noon.unix(), DATE.unix());
        let midnight = Reading {
            hours: 0x12,
            format: 0,
            ..DATE
        };
        assert_eq!(midnight.unix(), DATE.unix().map(|seconds| seconds - 12 * 3600));
    }

    #[test]
    fn a_clock_that_is_not_there_shows_no_date() {
        let none = Reading {
            seconds: 0xff,
            minutes: 0xff,
            hours: 0xff,
            day: 0xff,
            month: 0xff,
            year: 0xff,
            format: 0xff,
        };
        assert_eq!(none.unix(), None);
        assert_eq!(Reading::default().unix(), None);
    }
}

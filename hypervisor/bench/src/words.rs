//! Figures and texts as people read them.

use crate::run::Unit;

/// A value with its unit: three digits that count, `4.21 µs`, and whole numbers of ticks and things.
#[must_use]
pub fn value(value: u64, unit: Unit) -> String {
    real(value as f64, unit)
}

/// The same of a value that need not be whole, such as a mean.
#[must_use]
pub fn real(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Nanoseconds => scaled(value, 1000.0, &["ns", "µs", "ms", "s"]),
        Unit::Bytes => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
        Unit::Ticks | Unit::Count => grouped(value),
    }
}

/// A part as a percentage, with what digits it needs.
#[must_use]
pub fn percent(part: f64) -> String {
    match part * 100.0 {
        percent if percent == 0.0 || percent >= 9.95 => format!("{percent:.0} %"),
        percent if percent >= 0.1 => format!("{percent:.1} %"),
        _ => "< 0.1 %".into(),
    }
}

/// A number of things, in groups of three digits.
#[must_use]
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            // Narrow, and never the end of a line.
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A text of a file, for a terminal: what could steer the terminal is made visible.
#[must_use]
pub fn plain(text: &str) -> String {
    let shown = |letter: char| {
        if letter.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            letter
        }
    };
    text.chars().map(shown).collect()
}

fn scaled(value: f64, step: f64, names: &[&str]) -> String {
    let mut value = value;
    let mut names = names.iter();
    let mut name = names.next().copied().unwrap_or_default();
    let first = name;
    // What would be rounded up to the next unit is shown in it.
    while value >= step - 0.5 {
        let Some(next) = names.next() else { break };
        (value, name) = (value / step, next);
    }
    if name == first && value.fract() == 0.0 {
        return format!("{value} {name}");
    }
    format!("{value:.*} {name}", decimals(value))
}

fn grouped(value: f64) -> String {
    match value {
        value if value.fract() != 0.0 && value < 1000.0 => format!("{value:.*}", decimals(value)),
        // A float that is too large becomes the largest number there is.
        value => number(value.round() as u64),
    }
}

/// How many digits after the point make three that count.
fn decimals(value: f64) -> usize {
    match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_count() {
        let ns = |value| real(value, Unit::Nanoseconds);
        assert_eq!(ns(0.0), "0 ns");
        assert_eq!(ns(31.0), "31 ns");
        assert_eq!(ns(31.25), "31.2 ns");
        assert_eq!(ns(999.9), "1.00 µs");
        assert_eq!(ns(4215.0), "4.21 µs");
        assert_eq!(ns(42_150.0), "42.1 µs");
        assert_eq!(ns(421_500.0), "422 µs");
        assert_eq!(ns(12_000_000_000_000.0), "12000 s");
        assert_eq!(value(1536, Unit::Bytes), "1.50 KiB");
        assert_eq!(value(1_234_567, Unit::Ticks), "1\u{202f}234\u{202f}567");
        assert_eq!(real(1.5, Unit::Count), "1.50");
    }

    #[test]
    fn parts_are_percentages() {
        assert_eq!(
            [0.0, 0.00001, 0.012, 0.5].map(percent),
            ["0 %", "< 0.1 %", "1.2 %", "50 %"]
        );
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\r\u{9b}c"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c");
    }
}

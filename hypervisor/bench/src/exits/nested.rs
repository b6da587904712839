//! The same work natively, in a guest, and in a guest of a guest, side by side.
//!
//! A guest of a guest is measured where it can be: this suite runs inside a machine that has a KVM of its own, and
//! measures there what it takes for native, and its guest. Both pairs are compared within themselves, since a machine
//! that is emulated is slow by itself; what two levels cost together is the product of the two ratios.

use crate::run::Run;
use crate::stats::Summary;

/// What the table has a line for: a kind of work, the case that does it, and what that is in words.
pub const WORK: [(&str, &str, &str); 8] = [
    (
        "Memory access",
        "walk_4k_warm",
        "a load that the processor need not walk for",
    ),
    ("I/O", "virtio_kick", "16 random bytes: of the kernel, or by virtio"),
    (
        "Context switch",
        "ipi_halt",
        "until another processor that sleeps is seen to run",
    ),
    (
        "Memory access, walked",
        "walk_4k_cold",
        "a load of a page that has to be looked up, by pages of 4 KiB",
    ),
    ("Memory access, large", "walk_2m_cold", "the same, by pages of 2 MiB"),
    ("First touch", "first_touch", "the first write to a page"),
    ("Instruction", "cpuid", "CPUID"),
    (
        "Turn and back",
        "ple_round_robin",
        "to another processor that spins, and back",
    ),
];

/// Two levels: without a guest, and with one.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'r> {
    /// Without.
    pub without: &'r Run,
    /// With.
    pub with: &'r Run,
}

/// The table: how many times as long each kind of work takes in a guest and in a guest of that; then what that comes
/// from: nanoseconds on the two levels that are measured here, and how many times as long the second guest takes as
/// the first.
#[must_use]
pub fn table(outer: Pair<'_>, inner: Option<Pair<'_>>) -> String {
    let mut text = format!(
        "{:<22} {:>8} {:>8} {:>12}   {:>12} {:>12} {:>8}  {}\n",
        "Operation", "Native", "L1 VM", "Nested L2 VM", "native, ns", "L1, ns", "L2 / L1", "what"
    );
    for (work, case, what) in WORK {
        let here = [outer.without, outer.with].map(|run| median_ns(run, case));
        let ratio = ratio(here);
        let inside = inner.map(|pair| [pair.without, pair.with].map(|run| median_ns(run, case)));
        let inside = inside.and_then(self::ratio);
        let both = ratio.zip(inside).map(|(one, other)| one * other);
        text += &format!(
            "{work:<22} {:>8} {:>8} {:>12}   {:>12} {:>12} {:>8}  {what}\n",
            figure(here[0].map(|_| 1.0), "x"),
            figure(ratio, "x"),
            figure(both, "x"),
            figure(here[0], ""),
            figure(here[1], ""),
            figure(inside, "x"),
        );
    }
    text
}

fn ratio([without, with]: [Option<f64>; 2]) -> Option<f64> {
    let (without, with) = (without?, with?);
    (without > 0.0).then(|| with / without)
}

/// The median of a case in nanoseconds, if it was measured.
fn median_ns(run: &Run, name: &str) -> Option<f64> {
    let case = run.cases.iter().find(|case| case.name == name)?;
    let hz = run.calibration.as_ref()?.tsc_hz;
    let summary = Summary::of(case.repeats())?;
    (hz > 0).then(|| summary.p50 as f64 * 1e9 / hz as f64)
}

/// A figure that was measured, or a dash: there is no other.
fn figure(value: Option<f64>, unit: &str) -> String {
    match value {
        Some(value) if value >= 100.0 => format!("{value:.0}{unit}"),
        Some(value) => format!("{value:.1}{unit}"),
        None => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Calibration, Case, Kind, Machine, Samples, Unit};

    fn run(ticks: Option<u64>) -> Run {
        let mut run = Run::begin(Kind::Exits, Machine::Kvm, 1);
        run.calibration = Some(Calibration {
            tsc_hz: 1_000_000_000,
            null_ticks: 0,
        });
        run.cases.extend(ticks.map(|ticks| {
            let samples = Samples::of([ticks]).unwrap();
            Case::measured("cpuid", "instructions", "CPUID", Unit::Ticks, vec![samples])
        }));
        run
    }

    fn line(table: &str) -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with("Instruction")).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn levels_are_compared_each_with_the_one_below_it() {
        let (native, guest) = (run(Some(10)), run(Some(40)));
        let (inner, innermost) = (run(Some(1000)), run(Some(3000)));
        let outer = Pair {
            without: &native,
            with: &guest,
        };
        let inner = Pair {
            without: &inner,
            with: &innermost,
        };
        assert_eq!(
            line(&table(outer, Some(inner)))[1..6],
            ["1.0x", "4.0x", "12.0x", "10.0", "40.0"]
        );
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let (native, guest) = (run(Some(10)), run(None));
        let outer = Pair {
            without: &native,
            with: &guest,
        };
        assert_eq!(line(&table(outer, None))[1..6], ["1.0x", "-", "-", "10.0", "-"]);
    }
}

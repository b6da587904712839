//! From what a guest has recorded to the case of a run: ticks for one operation, less what the clock takes.

use super::catalogue::Entry;
use super::records::{Recorded, Records, Repeat};
use crate::Result;
use crate::run::{Case, Outcome, Samples, SamplesBuilder, Unit};
use crate::stats::subtract_null;

/// The case that measures nothing.
pub const NULL: &str = "null";
/// Cases whose samples are not the distance of two readings by one clock, from which nothing is taken off.
const AS_THEY_ARE: [&str; 8] = [
    "phase_to_kernel",
    "phase_to_program",
    "phase_out",
    "phase_dispatch",
    "phase_back",
    "tscdeadline",
    "irqfd_injection",
    "hlt_wake",
];

/// What the clock takes by itself, by the records of one machine: the median of its empty case, in ticks.
#[must_use]
pub fn null_ticks(records: &Records) -> Option<u64> {
    null_of(records.get(NULL)?)
}

/// The median of a case, in ticks.
#[must_use]
pub fn null_of(null: &Recorded) -> Option<u64> {
    let repeats = &null.repeats;
    let mut values: Vec<(u64, u64)> = repeats
        .iter()
        .flat_map(|repeat| repeat.values.iter().copied())
        .collect();
    values.sort_unstable();
    let all: u64 = values.iter().map(|(_, count)| count).sum();
    let mut seen = 0;
    let median = values.into_iter().find(|(_, count)| {
        seen += count;
        seen * 2 >= all
    });
    median.map(|(value, _)| value)
}

/// The case of an entry, as it was recorded on one machine, of which these notes are to be made.
///
/// # Errors
///
/// If the samples are none that can be kept.
pub fn case(entry: &Entry, recorded: &Recorded, null: u64, notes: &[String]) -> Result<Case> {
    if let Some(reason) = &recorded.skipped {
        return Ok(skipped(entry, reason));
    }
    let null = if AS_THEY_ARE.contains(&entry.name) { 0 } else { null };
    let repeats: Result<Vec<_>> = recorded
        .repeats
        .iter()
        .map(|repeat| samples(repeat, recorded.operations, null))
        .collect();
    let mut case = with_cause(
        entry,
        Case::measured(entry.name, entry.group, entry.what, Unit::Ticks, repeats?),
    );
    if let Outcome::Measured(measured) = &mut case.outcome {
        measured.per_operation_exits = exits(&recorded.repeats);
        measured.notes = notes.to_vec();
    }
    Ok(case)
}

/// The case of an entry that was not measured.
#[must_use]
pub fn skipped(entry: &Entry, reason: &str) -> Case {
    with_cause(
        entry,
        Case::skipped(entry.name, entry.group, entry.what, Unit::Ticks, reason),
    )
}

fn with_cause(entry: &Entry, mut case: Case) -> Case {
    case.cause = (!entry.cause.is_empty()).then(|| entry.cause.to_owned());
    case
}

fn samples(repeat: &Repeat, operations: u32, null: u64) -> Result<Samples> {
    let mut raw = SamplesBuilder::default();
    for (value, count) in &repeat.values {
        raw.add(*value, *count)?;
    }
    let mut samples = subtract_null(&raw.build()?, null)?;
    if operations > 1 {
        let operations = u64::from(operations);
        let mut each = SamplesBuilder::default();
        for (value, count) in &samples.values {
            each.add((value + operations / 2) / operations, *count)?;
        }
        samples = each.build()?;
    }
    samples.steal = repeat.seen.steal;
    samples.migrations = repeat.seen.migrations;
    Ok(samples)
}

/// Exits of one operation, where all repeats were counted: in the repeat that had the fewest, since what a case does
/// before its first sample, such as touching its memory, and what the host does meanwhile only come on top.
fn exits(repeats: &[Repeat]) -> Option<f64> {
    let of = |repeat: &Repeat| Some(repeat.seen.exits? as f64 / repeat.rounds as f64);
    let each: Option<Vec<_>> = repeats.iter().map(of).collect();
    each?.into_iter().min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::super::catalogue;
    use super::*;

    fn records(text: &str) -> Records {
        Records::read(&format!("@measure 1 tsc_khz=1 ring=0 processors=1\n{text}")).unwrap()
    }

    #[test]
    fn the_clock_takes_what_the_median_of_nothing_takes() {
        let records = records(
            "@begin null repeat=0\n@samples 40x3 90\n@end null operations=1 warmup=0 count=4 sum=210\n\
             @begin null repeat=1\n@samples 41x2 50x9\n@end null operations=1 warmup=0 count=11 sum=532\n",
        );
        assert_eq!(null_ticks(&records), Some(50));
    }

    #[test]
    fn samples_are_for_one_operation_and_without_the_clock() {
        let records =
            records("@begin cpuid repeat=0\n@samples 30 50 450\n@end cpuid operations=4 warmup=0 count=3 sum=530\n");
        let entry = catalogue::find("cpuid").unwrap();
        let case = case(entry, records.get("cpuid").unwrap(), 50, &[]).unwrap();
        assert_eq!(case.repeats()[0].values, [(0, 2), (100, 1)]);
        assert!(case.cause.unwrap().contains("CPUID"));
    }

    #[test]
    fn a_case_that_was_skipped_keeps_its_reason() {
        let records = records("@skip vmcall it needs ring 0\n");
        let entry = catalogue::find("vmcall").unwrap();
        let case = case(entry, records.get("vmcall").unwrap(), 0, &[]).unwrap();
        assert_eq!(
            case.outcome,
            Outcome::Skipped {
                reason: "it needs ring 0".into()
            }
        );
    }

    #[test]
    fn exits_are_counted_for_one_operation() {
        let mut records = records(
            "@begin cpuid repeat=0\n@samples 5x10\n@end cpuid operations=1 warmup=10 count=10 sum=50\n\
             @begin cpuid repeat=1\n@samples 5x10\n@end cpuid operations=2 warmup=0 count=10 sum=50\n",
        );
        for (repeat, exits) in records.cases[0].repeats.iter_mut().zip([60, 40]) {
            repeat.seen.exits = Some(exits);
        }
        // The first had more, of what it did before.
        assert_eq!(exits(&records.get("cpuid").unwrap().repeats), Some(2.0));
        records.last_repeat().unwrap().seen.exits = None;
        assert_eq!(exits(&records.get("cpuid").unwrap().repeats), None);
    }
}

use std::collections::BTreeMap;

use super::{Interval, Over, Summary, median_interval};
use crate::run::{Case, Outcome, Run, Unit};

/// When a difference counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The least change of the median, as a part of it.
    pub least: f64,
    /// The least confidence that both intervals need.
    pub confidence: f64,
}

impl Default for Rule {
    /// A twentieth; and what five repeats give.
    fn default() -> Self {
        Self {
            least: 0.05,
            confidence: 0.9,
        }
    }
}

/// What happened to a case from one run to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The median rose, beyond noise.
    More,
    /// The median fell, beyond noise.
    Less,
    /// Nothing that the noise does not explain, or too little to matter.
    Same,
    /// The repeats are too few to tell.
    Undecided,
    /// It was not measured before.
    Appeared,
    /// It is not measured any more.
    Vanished {
        /// Why, if the new run says so.
        reason: Option<String>,
    },
    /// The two are not of the same unit.
    Incomparable,
}

impl Change {
    /// One word or two for a table.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::More => "more",
            Self::Less => "less",
            Self::Same => "same",
            Self::Undecided => "too few repeats",
            Self::Appeared => "appeared",
            Self::Vanished { .. } => "vanished",
            Self::Incomparable => "other unit",
        }
    }
}

/// A case in two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The group of the case.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Median and interval before; nothing if it was not measured.
    pub before: Option<(u64, Interval)>,
    /// Median and interval after.
    pub after: Option<(u64, Interval)>,
    /// What they are in, after if that is not the same.
    pub unit: Unit,
    /// What happened.
    pub change: Change,
}

impl Comparison {
    /// The median after, by the one before.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let (before, after) = (self.before?.0, self.after?.0);
        (before > 0 && self.change != Change::Incomparable).then(|| after as f64 / before as f64)
    }
}

/// What differs between two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Each case that was measured in either, in the order of the run after, then what vanished.
    pub cases: Vec<Comparison>,
    /// Facts of the two machines that are not the same: name, before, after. If there are any, a change may be
    /// theirs.
    pub environment: Vec<(String, String, String)>,
}

impl Difference {
    /// Whether a case changed beyond noise, or vanished, or cannot be compared any more.
    #[must_use]
    pub fn is_change(&self) -> bool {
        let counts = |change: &Change| {
            matches!(
                change,
                Change::More | Change::Less | Change::Vanished { .. } | Change::Incomparable
            )
        };
        self.cases.iter().any(|case| counts(&case.change))
    }
}

/// Compares two runs.
///
/// A case changed if the intervals of its two medians do not overlap, both of the confidence that the
/// rule wants, and the medians differ by the least change of the rule. If nothing
/// changed, two intervals of 0.95 fail to overlap about once in two hundred times and the least
/// change makes it rarer still, so among a hundred cases a false alarm is possible and two are not likely.
/// A case with too few repeats for that confidence is [`Change::Undecided`], not unchanged.
#[must_use]
pub fn compare(before: &Run, after: &Run, rule: Rule) -> Difference {
    let find = |run: &Run, case: &Case| {
        let mut cases = run.cases.iter();
        cases
            .find(|other| other.group == case.group && other.name == case.name)
            .cloned()
    };
    let lasting = after.cases.iter().map(|new| (find(before, new), Some(new.clone())));
    let vanished = before
        .cases
        .iter()
        .filter(|old| find(after, old).is_none())
        .map(|old| (Some(old.clone()), None));
    Difference {
        cases: lasting
            .chain(vanished)
            .filter_map(|(old, new)| compare_case(old.as_ref(), new.as_ref(), rule))
            .collect(),
        environment: environment(before, after),
    }
}

/// Compares one case; nothing if it was measured in neither run.
#[must_use]
pub fn compare_case(old: Option<&Case>, new: Option<&Case>, rule: Rule) -> Option<Comparison> {
    let case = new.or(old)?;
    let median = |case: Option<&Case>| {
        let repeats = case?.repeats();
        Some((Summary::of(repeats)?.p50, median_interval(repeats)?))
    };
    let (before, after) = (median(old), median(new));
    let units = old.zip(new).map(|(old, new)| old.unit == new.unit);
    let change = match (before, after) {
        (None, None) => return None,
        (None, Some(_)) => Change::Appeared,
        (Some(_), None) => Change::Vanished {
            reason: new.and_then(|new| match &new.outcome {
                Outcome::Skipped { reason } => Some(reason.clone()),
                Outcome::Measured(_) => None,
            }),
        },
        (Some(_), Some(_)) if units == Some(false) => Change::Incomparable,
        (Some(before), Some(after)) => judge(before, after, rule),
    };
    Some(Comparison {
        group: case.group.clone(),
        name: case.name.clone(),
        before,
        after,
        unit: case.unit,
        change,
    })
}

fn judge(before: (u64, Interval), after: (u64, Interval), rule: Rule) -> Change {
    let sure = |interval: Interval| interval.confidence >= rule.confidence && matches!(interval.over, Over::Repeats(_));
    if !(sure(before.1) && sure(after.1)) {
        return Change::Undecided;
    }
    let apart = before.1.high < after.1.low || after.1.high < before.1.low;
    let difference = after.0.abs_diff(before.0) as f64;
    let enough = difference >= rule.least * before.0 as f64 && difference > 0.0;
    match (apart && enough, after.0 > before.0) {
        (false, _) => Change::Same,
        (true, true) => Change::More,
        (true, false) => Change::Less,
    }
}

/// What is different about the two machines, and about what was measured there.
fn environment(before: &Run, after: &Run) -> Vec<(String, String, String)> {
    let facts = |run: &Run| {
        let mut facts: BTreeMap<String, String> = run
            .environment
            .all()
            .into_iter()
            .map(|(name, fact)| (name, fact.to_string()))
            .collect();
        facts.insert("machine".into(), run.machine.word().into());
        facts.insert("level".into(), run.level.to_string());
        facts.insert("what is measured".into(), run.kind.word().into());
        // Ticks of clocks that are not equally quick are not the same unit. Calibration is exact to less than this.
        if let Some(calibration) = run.calibration {
            let clock = format!("{:.2} GHz", calibration.tsc_hz as f64 / 1e9);
            facts.insert("time stamp counter".into(), clock);
        }
        facts
    };
    let (before, after) = (facts(before), facts(after));
    let absent = || "not recorded".to_owned();
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let both = names.into_iter().map(|name| {
        let value = |facts: &BTreeMap<String, String>| facts.get(name).cloned().unwrap_or_else(absent);
        (name.clone(), value(&before), value(&after))
    });
    both.filter(|(_, before, after)| before != after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Kind, Machine, Samples};

    fn run(cases: Vec<Case>) -> Run {
        let mut run = Run::begin(Kind::Exits, Machine::Kvm, 1);
        run.cases = cases;
        run
    }

    /// A case of six repeats whose medians are spread by `noise` around `median`.
    fn case(name: &str, median: u64, noise: u64) -> Case {
        let repeats = (0..6).map(|at| Samples::of([median + at * noise / 5]).unwrap());
        Case::measured(name, "group", "what", Unit::Nanoseconds, repeats.collect())
    }

    fn change(before: Case, after: Case) -> Change {
        let difference = compare(&run(vec![before]), &run(vec![after]), Rule::default());
        difference.cases[0].change.clone()
    }

    #[test]
    fn a_difference_beyond_the_noise_is_a_change_in_its_direction() {
        assert_eq!(change(case("x", 1000, 40), case("x", 1200, 40)), Change::More);
        assert_eq!(change(case("x", 1200, 40), case("x", 1000, 40)), Change::Less);
    }

    #[test]
    fn a_difference_within_the_noise_is_none() {
        assert_eq!(change(case("x", 1000, 300), case("x", 1200, 300)), Change::Same);
    }

    #[test]
    fn a_difference_too_small_to_matter_is_none() {
        assert_eq!(change(case("x", 1000, 0), case("x", 1049, 0)), Change::Same);
        assert_eq!(change(case("x", 1000, 0), case("x", 1050, 0)), Change::More);
        assert_eq!(change(case("x", 0, 0), case("x", 0, 0)), Change::Same);
    }

    #[test]
    fn too_few_repeats_decide_nothing() {
        let mut few = case("x", 1000, 0);
        if let Outcome::Measured(measured) = &mut few.outcome {
            measured.repeats.truncate(4);
        }
        assert_eq!(change(few.clone(), case("x", 9000, 0)), Change::Undecided);
        if let Outcome::Measured(measured) = &mut few.outcome {
            measured.repeats = vec![Samples::of(vec![1000; 5000]).unwrap()];
        }
        assert_eq!(change(few, case("x", 9000, 0)), Change::Undecided);
    }

    #[test]
    fn what_appears_and_what_vanishes_is_named_with_the_reason() {
        let skipped = |name: &str| Case::skipped(name, "group", "what", Unit::Ticks, "no such instruction");
        let before = run(vec![
            case("gone", 1, 0),
            case("lost", 1, 0),
            skipped("new"),
            skipped("never"),
        ]);
        let after = run(vec![skipped("lost"), case("new", 1, 0), skipped("never")]);
        let difference = compare(&before, &after, Rule::default());
        let seen: Vec<_> = difference
            .cases
            .iter()
            .map(|case| (case.name.as_str(), &case.change))
            .collect();
        let reason = Some("no such instruction".into());
        let expected = [
            ("lost", &Change::Vanished { reason }),
            ("new", &Change::Appeared),
            ("gone", &Change::Vanished { reason: None }),
        ];
        assert_eq!(seen, expected);
        assert!(difference.is_change());
    }

    #[test]
    fn other_units_are_not_compared() {
        let mut ticks = case("x", 1000, 0);
        ticks.unit = Unit::Ticks;
        assert_eq!(change(case("x", 1000, 0), ticks), Change::Incomparable);
    }

    #[test]
    fn a_run_is_no_change_from_itself() {
        let same = run(vec![case("x", 1000, 40)]);
        let difference = compare(&same, &same, Rule::default());
        assert!(!difference.is_change() && difference.environment.is_empty());
    }

    #[test]
    fn clocks_that_are_not_equally_quick_are_named() {
        let at = |tsc_hz| {
            let mut run = run(vec![]);
            run.calibration = Some(crate::run::Calibration { tsc_hz, null_ticks: 40 });
            run
        };
        let names = |other| compare(&at(2_445_430_000), &at(other), Rule::default()).environment;
        assert!(names(2_445_000_000).is_empty());
        let expected = ("time stamp counter", "2.45 GHz", "3.00 GHz");
        let found = names(3_000_000_000);
        assert_eq!(
            found
                .iter()
                .map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str()))
                .collect::<Vec<_>>(),
            [expected]
        );
    }

    #[test]
    fn machines_that_differ_are_named() {
        let (before, mut after) = (run(vec![]), run(vec![]));
        after.machine = Machine::Svm;
        after.environment.kernel = crate::run::Fact::Known("9.9".into());
        after.environment.load = crate::run::Fact::Known("99".into());
        let names: Vec<_> = compare(&before, &after, Rule::default())
            .environment
            .into_iter()
            .map(|row| row.0)
            .collect();
        assert_eq!(names, ["kernel", "machine"]);
    }
}

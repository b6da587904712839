//! What is left of the instances.

use std::time::Duration;

use chiton_bench::{
    Result,
    host::Left,
    run::{Case, Samples, Unit},
    trial::TrialError,
};

use super::show;

/// Adds how long it took to remove all, and why there were no more of them, if it is known.
///
/// # Errors
///
/// If something is left.
pub(super) fn check(
    cases: &mut Vec<Case>,
    left: Left,
    took: Duration,
    count: usize,
    full: Option<String>,
) -> Result<()> {
    if left != Left::default() {
        let figures = left.figures().map(|(name, count)| format!("{count} {name}"));
        return Err(TrialError::Found(format!("instances left something behind: {}", figures.join(", "))).into());
    }
    let each = took.as_nanos() / count.max(1) as u128;
    let samples = Samples::of([u64::try_from(each).unwrap_or(u64::MAX)])?;
    let what = "`chiton rm --force` of all, the time of one; nothing is left of them afterwards";
    let mut case = Case::measured(show::REMOVE, show::END, what, Unit::Nanoseconds, vec![samples]);
    let zero = left.figures().map(|(name, count)| format!("{count} {name}"));
    case.note(format!("left behind: {}", zero.join(", ")));
    if let Some(why) = full {
        case.note(format!("{count} fit, and no more: {why}"));
    }
    cases.push(case);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_that_is_left_is_a_failure() {
        let mut cases = Vec::new();
        let left = Left {
            mounts: 1,
            ..Left::default()
        };
        let said = check(&mut cases, left, Duration::from_secs(1), 3, None)
            .unwrap_err()
            .to_string();
        assert_eq!(
            said,
            "instances left something behind: 1 mounts, 0 cgroups, 0 processes, 0 files and folders of the home"
        );
        let full = Some("there is no room".to_owned());
        check(&mut cases, Left::default(), Duration::from_secs(3), 3, full).unwrap();
        assert_eq!(cases[0].notes()[1], "3 fit, and no more: there is no room");
        assert_eq!(cases[0].repeats()[0].max, 1_000_000_000);
    }
}

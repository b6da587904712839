//! What memory so many instances take.

use std::path::Path;

use chiton_bench::{
    Result,
    host::{Charged, Footprint, Memory, Processes},
    run::{Case, GROWTH, Samples, Unit},
    trial::{self, TrialError},
};

use super::show;

/// Looks at them; `before` is of when there were none.
pub(super) fn at(home: &Path, count: usize, before: &Memory) -> Result<Vec<Case>> {
    let processes = Processes::of(home)?;
    let alive = processes.instances.iter().filter(|instance| instance.len() > 1).count();
    if alive != count {
        return Err(TrialError::Found(format!(
            "of {count} instances {alive} run: the others have ended, and what they said is gone with them"
        ))
        .into());
    }
    let group = format!("{count}{GROWTH}");
    let case = |name: &str, what: &str, values: Vec<u64>| -> Result<Case> {
        Ok(Case::measured(
            name,
            &group,
            what,
            Unit::Bytes,
            vec![Samples::of(values)?],
        ))
    };
    // What an instance takes of the memory of its processes, supervisor and guest.
    let footprints = processes.instances.iter().map(|instance| footprint(instance));
    let footprints: Vec<Footprint> = footprints.collect::<trial::Result<_>>()?;
    let each = |of: fn(&Footprint) -> u64| footprints.iter().map(of).collect();
    let mut cases = vec![
        case(
            show::PSS,
            "memory of its processes, of which shared pages count by their share",
            each(|footprint| footprint.pss),
        )?,
        case(
            "private",
            "pages of its processes that nobody else has",
            each(|footprint| footprint.private),
        )?,
        case(
            "shared",
            "pages of its processes that other processes have too, in full for each of both",
            each(Footprint::shared),
        )?,
    ];
    cases.extend(charged(&processes, &group)?);
    let now = Memory::read()?;
    for ((name, what, now), (_, _, before)) in now.kernel().into_iter().zip(before.kernel()) {
        cases.push(case(name, what, vec![share(now, before, count)])?);
    }
    let taken = share(before.available, now.available, count);
    let what = "MemAvailable that went, all in all, with what else the host did meanwhile";
    cases.push(case(show::TAKEN, what, vec![taken])?);
    Ok(cases)
}

/// By how much a figure of the host grew, for each instance. What became less is nothing.
fn share(more: u64, less: u64, count: usize) -> u64 {
    more.saturating_sub(less) / count.max(1) as u64
}

fn footprint(instance: &[u32]) -> trial::Result<Footprint> {
    let mut all = Footprint::default();
    for pid in instance {
        all += Footprint::of(*pid)?;
    }
    Ok(all)
}

/// What control groups are charged, those of guests' processes: supervisors are not in them.
fn charged(processes: &Processes, group: &str) -> Result<Vec<Case>> {
    let texts = [
        (
            "cgroup",
            "memory charged to its control group, pages of files that it read first among it",
        ),
        ("cgroup, kernel", "of it, memory of the kernel"),
    ];
    let guests = processes.instances.iter().filter_map(|instance| instance.get(1));
    let found: trial::Result<Vec<Charged>> = guests.map(|pid| Charged::to(*pid)).collect();
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            let skipped = texts.map(|(name, what)| Case::skipped(name, group, what, Unit::Bytes, &error.to_string()));
            return Ok(skipped.into());
        }
    };
    let values = [
        found.iter().map(|charged| charged.all).collect::<Vec<_>>(),
        found.iter().map(|charged| charged.kernel).collect(),
    ];
    let cases = texts.into_iter().zip(values).map(|((name, what), values)| {
        Ok(Case::measured(
            name,
            group,
            what,
            Unit::Bytes,
            vec![Samples::of(values)?],
        ))
    });
    cases.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_less_than_nothing() {
        assert_eq!((share(100, 40, 3), share(40, 100, 3)), (20, 0));
    }

    #[test]
    fn instances_that_have_ended_are_missed() {
        let home = tempfile::tempdir().unwrap();
        let said = at(home.path(), 2, &Memory::default()).unwrap_err().to_string();
        assert!(said.starts_with("of 2 instances 0 run"), "{said}");
    }
}

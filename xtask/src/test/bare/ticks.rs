//! How long `hello` takes, in ticks of the processor that Bochs emulates: the same in every run of the same
//! image, however busy this machine is.

use std::fs;

use super::Took;
use crate::{
    error::{Error, Result},
    paths,
};

/// Where the numbers are recorded, each behind what it is of.
const RECORD: &str = "xtask/src/test/bare/ticks.txt";
/// How much more is a regression, in percent.
const TOLERANCE: u64 = 5;

/// What is wrong with the ticks in Bochs' log, and with those that the hypervisor tells.
///
/// # Errors
///
/// If the log or the record has none.
pub(super) fn compare(took: &Took) -> Result<Vec<String>> {
    let record = paths::root().join(RECORD);
    let text = fs::read_to_string(&record).map_err(Error::file("read", &record))?;
    let bytes = fs::read(&took.log).map_err(Error::file("read", &took.log))?;
    let whole = last(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| Error::Found(format!("{} tells no ticks", took.log.display())))?;
    let mut found = Vec::new();
    for (of, now) in [
        ("machine", whole),
        ("hypervisor", took.ended.ticks),
        ("guest", took.ended.guest_ticks),
    ] {
        let recorded =
            recorded(&text, of).ok_or_else(|| Error::Found(format!("{RECORD} records no number of the {of}")))?;
        eprintln!("  hello took {now} ticks of the {of}, of which {recorded} are recorded");
        found.extend(verdict(of, now, recorded));
    }
    Ok(found)
}

fn verdict(of: &str, now: u64, recorded: u64) -> Option<String> {
    (now > recorded + recorded * TOLERANCE / 100).then(|| {
        format!(
            "`hello` takes {now} ticks of the {of} in Bochs, more than {TOLERANCE}% above the {recorded} of {RECORD}: \
             make it faster, or record the new number and give the reason in the commit"
        )
    })
}

/// The number of this in the record, whose other lines are of something else.
fn recorded(text: &str, of: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, number) = lines.find(|(name, _)| *name == of)?;
    number.trim().parse().ok()
}

/// The ticks in the last line of the log that begins with them.
fn last(log: &str) -> Option<u64> {
    log.lines().rev().find_map(|line| line.get(..11)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ticks_of_a_log_are_found() {
        let log = "00000000000i[      ] start\n00662991372i[CPU0  ] | RIP=0\nno ticks here\n";
        assert_eq!(last(log), Some(662_991_372));
        assert_eq!(last("nothing\n"), None);
    }

    #[test]
    fn a_rise_by_more_than_a_twentieth_is_told() {
        assert_eq!(verdict("guest", 1050, 1000), None);
        assert!(verdict("guest", 1051, 1000).is_some_and(|words| words.contains("1051 ticks of the guest")));
        assert_eq!(verdict("guest", 1, 1000), None);
    }

    #[test]
    fn a_record_has_remarks_and_numbers() {
        let text = "# of hello\nmachine 17\nguest 3\n";
        assert_eq!(recorded(text, "machine"), Some(17));
        assert_eq!(recorded(text, "guest"), Some(3));
        assert_eq!(recorded(text, "hypervisor"), None);
    }
}

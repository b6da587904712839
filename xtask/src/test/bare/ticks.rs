//! How long `hello` takes, in ticks of the processor that Bochs emulates: the same in every run of the same
//! image, however busy this machine is.

use std::{fs, path::Path};

use crate::{
    error::{Error, Result},
    paths,
};

/// Where the number is recorded, with a line on what it is.
const RECORD: &str = "xtask/src/test/bare/ticks.txt";
/// How much more is a regression, in percent.
const TOLERANCE: u64 = 5;

/// What is wrong with the number in Bochs' log, if anything.
///
/// # Errors
///
/// If the log or the record has none.
pub(super) fn compare(log: &Path) -> Result<Option<String>> {
    let record = paths::root().join(RECORD);
    let text = fs::read_to_string(&record).map_err(Error::file("read", &record))?;
    let recorded = recorded(&text).ok_or_else(|| Error::Found(format!("{RECORD} records no number")))?;
    let bytes = fs::read(log).map_err(Error::file("read", log))?;
    let now = last(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| Error::Found(format!("{} tells no ticks", log.display())))?;
    eprintln!("  hello took {now} ticks, of which {recorded} are recorded");
    Ok(verdict(now, recorded))
}

fn verdict(now: u64, recorded: u64) -> Option<String> {
    (now > recorded + recorded * TOLERANCE / 100).then(|| {
        format!(
            "`hello` takes {now} ticks in Bochs, more than {TOLERANCE}% above the {recorded} of {RECORD}: make it \
             faster, or record the new number and give the reason in the commit"
        )
    })
}

/// The number of the record, whose other lines are remarks.
fn recorded(text: &str) -> Option<u64> {
    text.lines().find(|line| !line.starts_with('#'))?.trim().parse().ok()
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
        assert_eq!(verdict(1050, 1000), None);
        assert!(verdict(1051, 1000).is_some_and(|words| words.contains("1051 ticks")));
        assert_eq!(verdict(1, 1000), None);
    }

    #[test]
    fn a_record_has_remarks_and_a_number() {
        assert_eq!(recorded("# of hello\n17\n"), Some(17));
        assert_eq!(recorded("# of hello\n"), None);
    }
}

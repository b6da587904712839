//! What happens on the host while a case is measured, which is recorded with its samples.
//!
//! The line `#seen exits=N migrations=N steal=N` follows the end of each repeat; what is not known is left out.

use std::fmt::Write;

use chiton_kvm::KernelStats;

use crate::environment::Meanwhile;
use crate::exits::records::Seen;
use crate::run::Disturbed;

/// With what the line begins.
const WORD: &str = "#seen";
/// The counts at the beginning.
pub(super) struct Before {
    exits: Option<u64>,
    meanwhile: Meanwhile,
    /// How many lines the guest has said since, each by an exit.
    pub(super) lines: u64,
}

impl Before {
    /// As they are now.
    pub(super) fn now(stats: Option<&KernelStats>) -> Self {
        Self {
            exits: exits(stats),
            meanwhile: Meanwhile::begin(),
            lines: 0,
        }
    }

    /// The line that says how much they have grown.
    pub(super) fn until_now(&self, stats: Option<&KernelStats>) -> String {
        let grown = |now: Option<u64>| Some(now?.saturating_sub(self.exits?));
        // The exit by which the end was said is not one of the case.
        let exits = grown(exits(stats)).map(|exits| exits.saturating_sub(self.lines + 1));
        let Disturbed { steal, migrations } = self.meanwhile.so_far();
        let mut line = WORD.to_owned();
        for (key, value) in [("exits", exits), ("migrations", migrations), ("steal", steal)] {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = write!(line, " {key}={value}");
            }
        }
        line
    }
}

/// Reads such a line; `None` for any other.
pub(crate) fn read(line: &str) -> Option<Seen> {
    let mut seen = Seen::default();
    for word in line.strip_prefix(WORD)?.split_ascii_whitespace() {
        let (key, value) = word.split_once('=')?;
        let value = Some(value.parse().ok()?);
        match key {
            "exits" => seen.exits = value,
            "migrations" => seen.migrations = value,
            "steal" => seen.steal = value,
            _ => return None,
        }
    }
    Some(seen)
}

/// The processor's exits so far, by the kernel's count.
fn exits(stats: Option<&KernelStats>) -> Option<u64> {
    let all = stats?.read().ok()?;
    all.into_iter().find(|stat| stat.name == "exits").map(|stat| stat.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_read_as_it_is_written() {
        let line = Before::now(None).until_now(None);
        let seen = read(&line).unwrap();
        assert_eq!(seen.exits, None);
        assert!(seen.steal.is_some(), "{line}");
        assert_eq!(read("#seen exits=5 steal=0").unwrap().exits, Some(5));
        for other in ["", "@done", "#seen exits", "#seen exits=x", "#seen more=1"] {
            assert!(read(other).is_none(), "{other}");
        }
    }
}

//! Limits on resources of a process (`getrlimit(2)`), as `--ulimit` spells them.

use std::fmt;
use std::str::FromStr;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use super::error::{At, Failure, Step};

/// What can be limited, by the names that others have for it. Core files, which are always off, are not among them, and
/// address space, which is no limit for whose memory is a machine's.
const NAMES: [(&str, Resource); 14] = [
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// What holds unless something else is asked for: soft and hard.
///
/// Programs that use `select(2)` break with more than 1024 files, so that is what they begin with. The locked memory is
/// the kernel's own default. Fork bombs are for `pids.max`, which nobody has to set; this ends them, too.
const USUAL: [(Resource, u64, u64); 3] = [
    (Resource::Nofile, 1024, 524_288),
    (Resource::Memlock, 8 << 20, 8 << 20),
    (Resource::Nproc, 4096, 4096),
];

/// A limit on a resource, soft and hard (`getrlimit(2)`); `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub resource: Resource,
    /// The limit that holds.
    pub soft: Option<u64>,
    /// How far it can be raised.
    pub hard: Option<u64>,
}

/// A limit that cannot be: what was written, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no limit of a resource: {1}")]
pub struct BadUlimit(String, String);

/// These limits, and the usual ones of what they do not name, as far as this process can give them.
///
/// A machine looks after what it opens itself: all that it may have it has from its beginning. Processes are counted for
/// each user, so they have a limit only if no other's processes are counted with them: `own_ids`.
#[must_use]
pub fn with_usual(given: &[Limit], is_machine: bool, own_ids: bool) -> Vec<Limit> {
    let named = |resource| given.iter().any(|limit| limit.resource == resource);
    let usual = USUAL
        .into_iter()
        .filter(|(resource, ..)| !named(*resource) && (own_ids || *resource != Resource::Nproc))
        .map(|(resource, soft, hard)| {
            let hard = getrlimit(resource).maximum.map_or(hard, |own| own.min(hard));
            let soft = if is_machine { hard } else { soft.min(hard) };
            Limit {
                resource,
                soft: Some(soft),
                hard: Some(hard),
            }
        });
    usual.chain(given.iter().copied()).collect()
}

impl Limit {
    fn value(self) -> Rlimit {
        Rlimit {
            current: self.soft,
            maximum: self.hard,
        }
    }

    /// Gives a process that is to be jailed what it could not give itself: more than this one may have.
    pub(super) fn raise(self, pid: libc::pid_t) -> Result<(), Failure> {
        let own = getrlimit(self.resource).maximum;
        let is_more = own.is_some_and(|own| self.hard.is_none_or(|hard| hard > own));
        match Pid::from_raw(pid).filter(|_| is_more) {
            None => Ok(()),
            Some(pid) => prlimit(Some(pid), self.resource, self.value())
                .at(Step::Limits, || self.to_string())
                .map(drop),
        }
    }

    pub(super) fn set(self) -> Result<(), Failure> {
        setrlimit(self.resource, self.value()).at(Step::Limits, || self.to_string())
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, resource)| *resource == self.resource);
        let [soft, hard] =
            [self.soft, self.hard].map(|value| value.map_or("unlimited".into(), |value| value.to_string()));
        write!(f, "{}={soft}:{hard}", name.map_or("core", |(name, _)| name))
    }
}

/// `nofile=1024:4096`, `memlock=-1`: a limit that is alone is both; -1, or `unlimited`, is none.
impl FromStr for Limit {
    type Err = BadUlimit;

    fn from_str(text: &str) -> Result<Self, BadUlimit> {
        let bad = |why: &str| BadUlimit(text.to_owned(), why.to_owned());
        let form = || bad("write NAME=SOFT[:HARD], as nofile=1024:4096; -1 is no limit");
        let (name, values) = text.split_once('=').ok_or_else(form)?;
        if name == "core" {
            return Err(bad(
                "core files are always off, since they would hold what the caller has in memory",
            ));
        }
        let known = NAMES.iter().find(|(known, _)| *known == name);
        let Some((_, resource)) = known else {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            return Err(bad(&format!("`{name}` is none of {}", names.join(", "))));
        };
        let value = |text: &str| match text {
            "-1" | "unlimited" => Ok(None),
            // What is all ones is how the kernel spells no limit.
            text => text
                .parse()
                .ok()
                .filter(|value| *value != u64::MAX)
                .map(Some)
                .ok_or_else(form),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (value(soft)?, value(hard)?);
        if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
            return Err(bad(
                "the first, which holds, is at most the second, up to which it can be raised",
            ));
        }
        Ok(Self {
            resource: *resource,
            soft,
            hard,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> Limit {
        text.parse().unwrap()
    }

    #[test]
    fn limits_are_read_as_others_spell_them() {
        for (text, written) in [
            ("nofile=1024:4096", "nofile=1024:4096"),
            ("nproc=5", "nproc=5:5"),
            ("memlock=-1", "memlock=unlimited:unlimited"),
            ("stack=1:unlimited", "stack=1:unlimited"),
        ] {
            assert_eq!(limit(text).to_string(), written);
        }
        for (text, why) in [
            ("nofile", "write NAME=SOFT[:HARD]"),
            ("nofile=", "write NAME=SOFT[:HARD]"),
            ("nofile=1k", "write NAME=SOFT[:HARD]"),
            ("nofile=1:2:3", "write NAME=SOFT[:HARD]"),
            ("nofile=2:1", "is at most the second"),
            ("nofile=-1:1", "is at most the second"),
            ("core=0", "core files are always off"),
            ("files=1", "`files` is none of cpu, data"),
        ] {
            let error = text.parse::<Limit>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is no limit of a resource: ")),
                "{error}"
            );
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_is_asked_for_comes_instead_of_the_usual() {
        let of = |limits: &[Limit], resource| -> Vec<(Option<u64>, Option<u64>)> {
            let found = limits.iter().filter(|limit| limit.resource == resource);
            found.map(|limit| (limit.soft, limit.hard)).collect()
        };
        let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX).min(524_288);
        let process = with_usual(&[limit("nproc=7")], false, true);
        assert_eq!(of(&process, Resource::Nofile), [(Some(most.min(1024)), Some(most))]);
        assert_eq!(of(&process, Resource::Nproc), [(Some(7), Some(7))]);
        let machine = with_usual(&[], true, false);
        assert_eq!(of(&machine, Resource::Nofile), [(Some(most), Some(most))]);
        assert_eq!(of(&machine, Resource::Nproc), []);
    }
}

//! Ranges of ids, one for each jail, from configured spans.
//!
//! There is one file for the whole host, and whoever has the lock of its bytes N to N+65535 has the ids of these
//! numbers. So no two jails share an id, whichever records their instances are in and however the spans of their
//! callers overlap, which is what keeps root of one jail from being root of another. The kernel drops locks of the
//! dead: a range comes back however its owner ended.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::IdMap;
use crate::jail::clone::checked;

/// Ids of a range.
const SIZE: u32 = 0x1_0000;

/// Ids that jails may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Span {
    /// Ids that no distribution gives out: above those of systemd-nspawn, below 2^31, because some programs still
    /// take ids for signed numbers.
    pub const USUAL: Self = Self {
        first: 0x7000_0000,
        count: 0x0FFF * SIZE,
    };

    /// One of which whole ranges can be given.
    fn new(first: u32, count: u32) -> Result<Self, RangeError> {
        let refused = |why| Err(RangeError::Span { first, count, why });
        if first < SIZE {
            return refused("ids below 65536 are the host's own");
        }
        if count < SIZE {
            return refused("each jail has 65536 ids");
        }
        // The last number is none: it is how system calls say "leave it as it is".
        if first.checked_add(count).is_none() {
            return refused("ids end at 4294967294");
        }
        Ok(Self { first, count })
    }

    const fn ranges(self) -> u32 {
        self.count / SIZE
    }
}

/// `FIRST:COUNT`, as behind the name in `/etc/subuid`.
impl FromStr for Span {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let numbers = text
            .split_once(':')
            .and_then(|(first, count)| Some((first.parse().ok()?, count.trim_end().parse().ok()?)));
        let (first, count) = numbers.ok_or_else(|| RangeError::Words(text.to_owned()))?;
        Self::new(first, count)
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.first, self.count)
    }
}

/// The ids that somebody may give to jails by `subuid(5)`: lines that are in `users` and in `groups`, for a jail has the
/// same of both. None, if there are none in `users`.
///
/// # Errors
///
/// If a line of this name cannot be, or the two files have no line in common.
pub fn spans_of(name: &str, users: &Path, groups: &Path) -> Result<Vec<Span>, RangeError> {
    let lines = |path: &Path| -> Result<Vec<Span>, RangeError> {
        // Without the file nobody has any.
        let text = fs::read_to_string(path).unwrap_or_default();
        let own = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        own.map(str::parse).collect()
    };
    let mut spans = lines(users)?;
    if spans.is_empty() {
        return Ok(spans);
    }
    let theirs = lines(groups)?;
    let first = spans[0];
    spans.retain(|span| theirs.contains(span));
    if spans.is_empty() {
        return Err(RangeError::Groups {
            line: format!("{name}:{first}"),
            users: users.to_owned(),
            groups: groups.to_owned(),
        });
    }
    Ok(spans)
}

/// Spans of ids, and the file by whose locks they are given out.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// The file; it is made where it is missing, and stays.
    pub locks: PathBuf,
    /// Where ranges are taken from.
    pub spans: Vec<Span>,
}

/// Why there is no range.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// Every range has an owner.
    #[error(
        "all {count} ranges of 65536 ids ({spans}) are in use; stop an instance, or give more: \
         CHITON_IDS=FIRST:COUNT, or a line chiton:FIRST:COUNT in both /etc/subuid and /etc/subgid"
    )]
    Exhausted {
        /// How many there are.
        count: u32,
        /// Where they are.
        spans: String,
    },
    /// A span of which no range can be given.
    #[error("jails cannot have the ids {first}:{count} (FIRST:COUNT): {why}")]
    Span {
        /// The first id.
        first: u32,
        /// How many.
        count: u32,
        /// Why.
        why: &'static str,
    },
    /// What is no span.
    #[error("`{0}` is no span of ids: write FIRST:COUNT, as 1879048192:6553600 for a hundred jails")]
    Words(String),
    /// Users without groups.
    #[error(
        "`{line}` is in {users}, and not in {groups}: jails have the same ids of users and of groups, so write it into both"
    )]
    Groups {
        /// The line.
        line: String,
        /// The file that has it.
        users: PathBuf,
        /// The file that has not.
        groups: PathBuf,
    },
    /// The file of locks is in trouble.
    #[error("cannot take a range of ids by {path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Ranges {
    /// The usual span.
    #[must_use]
    pub fn usual(locks: &Path) -> Self {
        Self {
            locks: locks.to_owned(),
            spans: vec![Span::USUAL],
        }
    }

    /// The file of locks of a host, whatever CHITON_HOME says: who makes jails there has to use the same.
    pub const LOCKS: &str = "/run/chiton/ids";

    /// Those of a host: of the spans in `text`, with commas between, if there is one; else of lines of `chiton` in
    /// `/etc/subuid` and `/etc/subgid`; else the usual ones. Lines of root are not looked at: other programs give those
    /// ids to containers of theirs.
    ///
    /// # Errors
    ///
    /// If one of the spans cannot be, or the two files have no line in common.
    pub fn configured(text: Option<&str>) -> Result<Self, RangeError> {
        let spans = match text {
            Some(text) => text.split(',').map(str::parse).collect::<Result<_, _>>()?,
            None => spans_of("chiton", Path::new("/etc/subuid"), Path::new("/etc/subgid"))?,
        };
        let mut ranges = Self::usual(Path::new(Self::LOCKS));
        if !spans.is_empty() {
            ranges.spans = spans;
        }
        Ok(ranges)
    }

    /// A map like that of any of them, for who has one to come ([`Jail::begin`](crate::jail::Jail::begin)).
    #[must_use]
    pub fn some_map() -> IdMap {
        IdMap::range(Span::USUAL.first, SIZE)
    }

    /// Takes a range that nobody has.
    ///
    /// # Errors
    ///
    /// If there is none left, or the file of locks cannot be had.
    pub fn lease(&self) -> Result<Lease, RangeError> {
        let count = self.count();
        let file = self.open()?;
        // Each process begins elsewhere, so that the thousandth does not ask a thousand times.
        let start = std::process::id().wrapping_mul(0x9E37_79B1) % count.max(1);
        for first in self.firsts(start).chain(self.firsts(0).take(start as usize)) {
            match checked(lock(&file, libc::F_OFD_SETLK, &mut bytes(first))) {
                Ok(_) => {
                    return Ok(Lease {
                        first,
                        count: SIZE,
                        _file: file,
                    });
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {}
                Err(errno) => return Err(self.trouble(errno.into())),
            }
        }
        let spans: Vec<_> = self.spans.iter().map(ToString::to_string).collect();
        Err(RangeError::Exhausted {
            count,
            spans: spans.join(", "),
        })
    }

    /// How many ranges there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.spans.iter().map(|span| span.ranges()).sum()
    }

    /// The first ids of all ranges but the first so many.
    fn firsts(&self, skipped: u32) -> impl Iterator<Item = u32> {
        let all = self
            .spans
            .iter()
            .flat_map(|span| (0..span.ranges()).map(|index| span.first + index * SIZE));
        all.skip(skipped as usize)
    }

    /// How many ranges have an owner that lives, wholly or in part.
    ///
    /// # Errors
    ///
    /// If the file of locks cannot be had.
    pub fn in_use(&self) -> Result<u32, RangeError> {
        let file = self.open()?;
        let mut used = 0;
        for first in self.firsts(0) {
            let mut range = bytes(first);
            checked(lock(&file, libc::F_OFD_GETLK, &mut range)).map_err(|errno| self.trouble(errno.into()))?;
            used += u32::from(range.l_type != libc::F_UNLCK as libc::c_short);
        }
        Ok(used)
    }

    /// Whoever could open it could keep all ranges from everybody.
    fn open(&self) -> Result<File, RangeError> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = match (options.open(&self.locks), self.locks.parent()) {
            (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(folder).and_then(|()| options.open(&self.locks))
            }
            (file, _) => file,
        };
        file.map_err(|source| self.trouble(source))
    }

    fn trouble(&self, source: io::Error) -> RangeError {
        RangeError::File {
            path: self.locks.clone(),
            source,
        }
    }
}

/// The bytes of a range, for who wants them alone.
fn bytes(first: u32) -> libc::flock {
    // SAFETY: all zeros are a value of it.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = first.into();
    lock.l_len = SIZE.into();
    lock
}

/// Asks for a lock that belongs to the open file, not to the process (`fcntl(2)`).
fn lock(file: &File, command: libc::c_int, range: &mut libc::flock) -> libc::c_int {
    // SAFETY: the descriptor is open, and the kernel reads and writes the structure only now.
    unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(range)) }
}

/// A range; it goes back when this is dropped, and when the process that has it ends in any way.
///
/// The owner must outlive every process that has these ids: a jail dies with its parent for that reason.
#[derive(Debug)]
pub struct Lease {
    /// The first id.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// What has the lock.
    _file: File,
}

impl Lease {
    /// The range as a map.
    #[must_use]
    pub fn map(&self) -> IdMap {
        IdMap::range(self.first, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::until;

    const FIRST: u32 = 0x6000_0000;

    fn ranges(folder: &Path, spans: &[&str]) -> Ranges {
        Ranges {
            locks: folder.join("run/ids"),
            spans: spans.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn no_two_owners_have_the_same_range_and_a_dropped_one_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        // What is over is nobody's.
        let ranges = ranges(folder.path(), &["1610612736:131073", "100000:65536"]);
        let mut leases: Vec<_> = (0..3).map(|_| ranges.lease().unwrap()).collect();
        let mut firsts: Vec<_> = leases.iter().map(|lease| lease.first).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [100_000, FIRST, FIRST + SIZE]);
        assert_eq!(ranges.in_use().unwrap(), 3);
        let error = ranges.lease().unwrap_err().to_string();
        assert!(
            error.starts_with(
                "all 3 ranges of 65536 ids (1610612736:131073, 100000:65536) are in use; stop an instance"
            ),
            "{error}"
        );
        let gone = leases.remove(1).first;
        until(|| ranges.in_use().unwrap() == 2);
        until(|| ranges.lease().is_ok_and(|lease| lease.first == gone));
    }

    #[test]
    fn spans_that_overlap_have_no_id_twice() {
        let folder = tempfile::tempdir().unwrap();
        let one = ranges(folder.path(), &["1610612736:65536"]);
        // Each of its two ranges has a half of that.
        let other = ranges(folder.path(), &["1610579968:131072"]);
        let lease = one.lease().unwrap();
        assert_eq!(other.in_use().unwrap(), 2);
        assert!(matches!(other.lease(), Err(RangeError::Exhausted { count: 2, .. })));
        drop(lease);
        let mut taken = None;
        until(|| {
            taken = other.lease().ok();
            taken.is_some()
        });
        assert!(matches!(one.lease(), Err(RangeError::Exhausted { count: 1, .. })));
    }

    #[test]
    fn those_who_come_and_go_at_once_never_share_a_range() {
        let folder = tempfile::tempdir().unwrap();
        let ranges = ranges(folder.path(), &["1610612736:131072"]);
        let taken = [const { std::sync::Mutex::new(()) }; 2];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(lease) = ranges.lease() {
                            let which = (lease.first - FIRST) / SIZE;
                            let alone = taken[which as usize].try_lock();
                            assert!(alone.is_ok(), "{which} has two owners");
                            drop(alone);
                            drop(lease);
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn what_is_no_span_is_refused_and_it_is_said_why() {
        for (text, why) in [
            ("4294901760:65536", "ids end at 4294967294"),
            ("100000:65535", "each jail has 65536 ids"),
            ("0:131072", "below 65536 are the host's own"),
            ("100000", "write FIRST:COUNT"),
            ("a:b", "write FIRST:COUNT"),
            ("-1:65536", "write FIRST:COUNT"),
        ] {
            let error = text.parse::<Span>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let last: Span = "4294901759:65536".parse().unwrap();
        assert_eq!(last.ranges(), 1);
        let configured = |text| Ranges::configured(Some(text));
        assert_eq!(configured("100000:65536,1610612736:131072").unwrap().count(), 3);
        assert!(matches!(configured("100000:65536,"), Err(RangeError::Words(text)) if text.is_empty()));
    }

    #[test]
    fn lines_of_subordinate_ids_are_those_of_users_and_groups() {
        let folder = tempfile::tempdir().unwrap();
        let [users, groups] = ["subuid", "subgid"].map(|name| folder.path().join(name));
        let spans = || spans_of("chiton", &users, &groups);
        assert_eq!(spans().unwrap(), []);
        let text = "chitons:1:2\nchiton:100000:65536\nroot:5:6\nchiton:300000:131072\n";
        fs::write(&users, text).unwrap();
        let error = spans().unwrap_err().to_string();
        assert!(error.starts_with("`chiton:100000:65536` is in "), "{error}");
        fs::write(&groups, "chiton:300000:131072").unwrap();
        let span = Span {
            first: 300_000,
            count: 131_072,
        };
        assert_eq!(spans().unwrap(), [span]);
        fs::write(&users, "chiton:100000:10\n").unwrap();
        assert!(matches!(spans(), Err(RangeError::Span { count: 10, .. })));
    }
}

//! Ranges of ids, one for each jail, from a configured span.
//!
//! A range is a file in a state directory, and whoever holds the lock of that file has the range. The
//! kernel drops locks of the dead, so a range comes back however its owner ended; and no two owners
//! overlap, which is what keeps root of one jail from being root of another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::IdMap;
use crate::lock::is_at;

/// A span of ids and the directory where its leases are noted.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// The state directory; it is made where it is missing.
    pub directory: PathBuf,
    /// The first id.
    pub first: u32,
    /// Ids of a range.
    pub size: u32,
    /// How many ranges.
    pub count: u32,
}

/// Why there is no range.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// Every range has an owner.
    #[error("all {count} ranges of ids in {directory} are in use; stop an instance, or configure more")]
    Exhausted {
        /// How many there are.
        count: u32,
        /// Where they are noted.
        directory: PathBuf,
    },
    /// The span does not fit into the numbers that are ids.
    #[error("{count} ranges of {size} ids from {first} on: ids end at 4294967294")]
    Span {
        /// The first id.
        first: u32,
        /// Ids of a range.
        size: u32,
        /// How many ranges.
        count: u32,
    },
    /// The state directory is in trouble.
    #[error("cannot note a range of ids in {path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Ranges {
    /// Ids that no distribution gives out: above those of systemd-nspawn, below 2^31, because some
    /// programs still take ids for signed numbers.
    #[must_use]
    pub fn usual(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            first: 0x7000_0000,
            size: 0x1_0000,
            count: 0x0FFF,
        }
    }

    /// The map of any of them, for who has one to come ([`Jail::begin`](crate::jail::Jail::begin)).
    #[must_use]
    pub fn some_map(&self) -> IdMap {
        IdMap::range(self.first, self.size)
    }

    /// Takes a range that nobody has. `owner` is noted beside it, for people to read.
    ///
    /// # Errors
    ///
    /// If there is none left, or the state directory cannot be written.
    pub fn lease(&self, owner: &str) -> Result<Lease, RangeError> {
        let span = u64::from(self.size) * u64::from(self.count);
        if self.size == 0 || self.count == 0 || u64::from(self.first) + span > u64::from(u32::MAX) {
            return Err(RangeError::Span {
                first: self.first,
                size: self.size,
                count: self.count,
            });
        }
        fs::create_dir_all(&self.directory).map_err(|source| self.trouble(&self.directory, source))?;
        // Each process begins elsewhere, so that the thousandth does not ask a thousand times.
        let start = std::process::id().wrapping_mul(0x9E37_79B1) % self.count;
        for step in 0..self.count {
            let index = ((u64::from(start) + u64::from(step)) % u64::from(self.count)) as u32;
            if let Some((path, file)) = self.take(index, owner)? {
                return Ok(Lease {
                    first: self.first + index * self.size,
                    count: self.size,
                    path,
                    _file: file,
                });
            }
        }
        Err(RangeError::Exhausted {
            count: self.count,
            directory: self.directory.clone(),
        })
    }

    fn take(&self, index: u32, owner: &str) -> Result<Option<(PathBuf, File)>, RangeError> {
        let path = self.directory.join(index.to_string());
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let mut file = loop {
            let file = options.open(&path).map_err(|source| self.trouble(&path, source))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(self.trouble(&path, errno.into())),
            }
            // Whoever had it may have removed the file before this process had the lock.
            if is_at(&file, &path) {
                break file;
            }
        };
        let note = format!("{} {owner}\n", std::process::id());
        // A file that was ever cut is written out by some file systems when it is closed, which is to wait for the
        // disk. Only the dead leave one with something in it.
        let empty = file.metadata().map(|found| found.len() == 0);
        empty
            .and_then(|empty| if empty { Ok(()) } else { file.set_len(0) })
            .and_then(|()| file.write_all(note.as_bytes()))
            .map_err(|source| self.trouble(&path, source))?;
        Ok(Some((path, file)))
    }

    /// How many ranges have an owner that lives.
    ///
    /// # Errors
    ///
    /// If the state directory cannot be read.
    pub fn in_use(&self) -> Result<u32, RangeError> {
        let mut used = 0;
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries.map_err(|source| self.trouble(&self.directory, source))?,
        };
        for entry in entries {
            let path = entry.map_err(|source| self.trouble(&self.directory, source))?.path();
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(|source| self.trouble(&path, source))?,
            };
            if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
                used += 1;
            }
        }
        Ok(used)
    }

    fn trouble(&self, path: &Path, source: io::Error) -> RangeError {
        RangeError::File {
            path: path.to_owned(),
            source,
        }
    }
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
    path: PathBuf,
    /// Its lock, which goes last.
    _file: File,
}

impl Lease {
    /// The range as a map.
    #[must_use]
    pub fn map(&self) -> IdMap {
        IdMap::range(self.first, self.count)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Under the lock, so that it is nobody else's. What is left of one that was killed, the next owner takes.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(directory: &Path, count: u32) -> Ranges {
        Ranges {
            count,
            ..Ranges::usual(directory)
        }
    }

    #[test]
    fn no_two_owners_have_the_same_range_and_a_dropped_one_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let ranges = ranges(&folder.path().join("ids"), 3);
        let mut leases: Vec<_> = (0..3).map(|_| ranges.lease("test").unwrap()).collect();
        let mut firsts: Vec<_> = leases.iter().map(|lease| lease.first).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [0x7000_0000, 0x7001_0000, 0x7002_0000]);
        assert_eq!(ranges.in_use().unwrap(), 3);
        assert!(matches!(
            ranges.lease("test"),
            Err(RangeError::Exhausted { count: 3, .. })
        ));
        let gone = leases.remove(1).first;
        assert_eq!(ranges.in_use().unwrap(), 2);
        assert_eq!(ranges.lease("test").unwrap().first, gone);
        drop(leases);
        assert_eq!(fs::read_dir(&ranges.directory).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn those_who_come_and_go_at_once_never_share_a_range() {
        let folder = tempfile::tempdir().unwrap();
        let ranges = ranges(&folder.path().join("ids"), 2);
        let taken = [const { std::sync::Mutex::new(()) }; 2];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(lease) = ranges.lease("test") {
                            let which = (lease.first - ranges.first) / ranges.size;
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
    fn a_span_beyond_the_last_id_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ranges = Ranges {
            first: u32::MAX - 10,
            ..ranges(folder.path(), 1)
        };
        assert!(matches!(ranges.lease("test"), Err(RangeError::Span { .. })));
    }
}

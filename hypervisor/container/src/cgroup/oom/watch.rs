//! Watches a cgroup for deaths by want of memory.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use super::{Culprit, OomKill, log};
use crate::cgroup::controller::{Controller, Version};
use crate::cgroup::error::{Error, Result};
use crate::cgroup::file::{self, flat};
use crate::cgroup::group::Cgroup;
use crate::cgroup::v1;

/// Watches a cgroup; to be made before what it is to watch starts, unless this process made the cgroup: then it knows that
/// there was nothing before.
#[derive(Debug)]
pub struct OomWatch {
    version: Version,
    /// The cgroup's own directory first, then those above it, up to the top.
    line: Vec<Counted>,
    /// Kills there were before.
    kills: u64,
    news: OwnedFd,
    /// v1: the file that the event is registered on has to stay open.
    _control: Option<File>,
    log: Option<File>,
}

/// A cgroup whose limit may be hit, and how often it was before.
#[derive(Debug)]
struct Counted {
    directory: PathBuf,
    before: u64,
}

impl Cgroup {
    /// Watches for kills by want of memory, from now on.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        let branch = self
            .branch(Controller::Memory)
            .filter(|branch| branch.version == Version::V1 || branch.path.join("memory.events").exists());
        let (Some(branch), Some(top)) = (branch, self.top(Controller::Memory)) else {
            return Err(Error::NoController {
                limit: "watching for kills by want of memory",
                controller: Controller::Memory,
                why: "this cgroup does not have".into(),
            });
        };
        let line = branch
            .path
            .ancestors()
            .take_while(|directory| directory.starts_with(top))
            .map(|directory| {
                Ok(Counted {
                    directory: directory.into(),
                    before: if self.is_new && directory == branch.path {
                        0
                    } else {
                        hits(branch.version, directory)?
                    },
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let (news, control) = match branch.version {
            Version::V2 => (watch_file(&branch.path.join("memory.events"))?, None),
            Version::V1 => {
                let (news, control) = register(&branch.path)?;
                (news, Some(control))
            }
        };
        Ok(OomWatch {
            version: branch.version,
            kills: if self.is_new {
                0
            } else {
                kills(branch.version, &branch.path)?
            },
            line,
            news,
            _control: control,
            log: log::follow(),
        })
    }
}

impl OomWatch {
    /// Says whether there was one since the watch began, and all that can be known of it.
    ///
    /// To be asked after a process has died of SIGKILL and before the cgroup is removed.
    pub fn verdict(&mut self) -> Result<Option<OomKill>> {
        let Some(own) = self.line.first() else {
            return Ok(None);
        };
        let directory = own.directory.clone();
        let kills = kills(self.version, &directory)?.saturating_sub(self.kills);
        if kills == 0 {
            return Ok(None);
        }
        let killing = self
            .log
            .as_mut()
            .map(log::killings)
            .unwrap_or_default()
            .into_iter()
            .rfind(|killing| self.is_below(&killing.victims));
        let culprit = match &killing {
            Some(killing) => self.named(killing.limited.as_deref())?,
            None => self.counted()?,
        };
        let peak = directory.join(match self.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        });
        let whole = file::read_optional(&directory.join("memory.oom.group"))?;
        Ok(Some(OomKill {
            kills,
            whole: whole.is_some_and(|text| text.trim() == "1"),
            culprit,
            victim: killing.map(|killing| killing.victim),
            peak: file::read_optional(&peak)?.and_then(|text| text.trim().parse().ok()),
        }))
    }

    /// Forgets the news read until now, so that the descriptor becomes readable at the next.
    pub fn drain(&self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.news, &mut buffer) {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(Error::system("read")(errno)),
            }
        }
    }

    /// The path of a directory as the log writes it: from the top of the tree. From within a cgroup
    /// namespace the log's path has more in front.
    fn is_called(&self, directory: &Path, logged: &str) -> bool {
        let top = self.line.last().map(|top| top.directory.as_path());
        let Some(path) = top.and_then(|top| directory.strip_prefix(top).ok()) else {
            return false;
        };
        if path.as_os_str().is_empty() {
            logged == "/"
        } else {
            Path::new(logged).ends_with(path)
        }
    }

    /// Whether the log's path is the watched cgroup or one below it.
    fn is_below(&self, logged: &str) -> bool {
        self.line.first().is_some_and(|own| {
            Path::new(logged)
                .ancestors()
                .filter_map(Path::to_str)
                .any(|logged| self.is_called(&own.directory, logged))
        })
    }

    /// The culprit by its path in the log.
    fn named(&self, limited: Option<&str>) -> Result<Culprit> {
        let Some(limited) = limited else {
            return Ok(Culprit::Host);
        };
        if self.is_below(limited) {
            return self.culprit(0);
        }
        match self
            .line
            .iter()
            .position(|counted| self.is_called(&counted.directory, limited))
        {
            Some(index) => self.culprit(index),
            None => Ok(Culprit::Host),
        }
    }

    /// The culprit by what has been counted: the nearest whose limit was hit since.
    fn counted(&self) -> Result<Culprit> {
        for (index, counted) in self.line.iter().enumerate() {
            if hits(self.version, &counted.directory)? > counted.before {
                return self.culprit(index);
            }
        }
        Ok(Culprit::Host)
    }

    /// The cgroup of that index in the line, with the limit it has now.
    fn culprit(&self, index: usize) -> Result<Culprit> {
        let directory = &self.line[index].directory;
        let (file, limit) = match self.version {
            Version::V2 => {
                let path = directory.join("memory.max");
                let limit = file::read_optional(&path)?
                    .map(|text| file::number_or_max(&path, &text))
                    .transpose()?;
                (path, limit.flatten())
            }
            Version::V1 => {
                let sum = directory.join("memory.memsw.limit_in_bytes");
                let alone = directory.join("memory.limit_in_bytes");
                let (sum_limit, alone_limit) = (v1::stats::limit(&sum)?.flatten(), v1::stats::limit(&alone)?.flatten());
                // Where both are the same, memory alone is what was limited.
                match (alone_limit, sum_limit) {
                    (None, Some(limit)) => (sum, Some(limit)),
                    (limit, _) => (alone, limit),
                }
            }
        };
        Ok(if index == 0 {
            Culprit::Own { file, limit }
        } else {
            Culprit::Ancestor { file, limit }
        })
    }
}

/// Readable when there is news: of v2 any event of memory, of v1 that memory ran out.
impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

/// How many processes of a cgroup were killed.
fn kills(version: Version, directory: &Path) -> Result<u64> {
    let text = match version {
        // Of those below it too.
        Version::V2 => file::read(&directory.join("memory.events"))?,
        Version::V1 => file::read(&directory.join("memory.oom_control"))?,
    };
    Ok(flat(&text, "oom_kill").unwrap_or(0))
}

/// How often a cgroup's own limit left no way out. v1 counts how often it was hit at all.
fn hits(version: Version, directory: &Path) -> Result<u64> {
    match version {
        Version::V2 => {
            let text = file::read_optional(&directory.join("memory.events.local"))?;
            Ok(text.and_then(|text| flat(&text, "oom")).unwrap_or(0))
        }
        Version::V1 => {
            let mut hits = 0;
            for name in ["memory.failcnt", "memory.memsw.failcnt"] {
                let text = file::read_optional(&directory.join(name))?;
                hits += text.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
            }
            Ok(hits)
        }
    }
}

/// v2: the kernel reports a change of `memory.events` as a modification (cgroup-v2.rst).
fn watch_file(path: &Path) -> Result<OwnedFd> {
    let news = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .map_err(Error::system("inotify_init1"))?;
    inotify::add_watch(&news, path, inotify::WatchFlags::MODIFY).map_err(Error::system("inotify_add_watch"))?;
    Ok(news)
}

/// v1: an eventfd, registered on `memory.oom_control` (cgroup-v1/memory.rst, "OOM Control").
fn register(directory: &Path) -> Result<(OwnedFd, File)> {
    use std::os::fd::AsRawFd;

    let news = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Error::system("eventfd"))?;
    let path = directory.join("memory.oom_control");
    let control = File::open(&path).map_err(|source| Error::Read { path, source })?;
    file::write(
        &directory.join("cgroup.event_control"),
        &format!("{} {}", news.as_raw_fd(), control.as_raw_fd()),
    )?;
    Ok((news, control))
}

//! One cgroup: a directory of the same name in each hierarchy.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::controller::{Controller, Version};
use super::error::{Error, Result};
use super::limits::Limits;
use super::parent::{Parent, Stem, check_name};
use super::{divider, file, remove, v1, v2};

/// A file of a cgroup, what to write to it, and the option that asked for it.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) limit: &'static str,
    pub(super) file: String,
    pub(super) value: String,
}

impl Setting {
    pub(super) fn new(limit: &'static str, file: &str, value: String) -> Self {
        Self {
            limit,
            file: file.into(),
            value,
        }
    }
}

/// A cgroup's directory in one hierarchy.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) version: Version,
    pub(super) controllers: Vec<Controller>,
    pub(super) path: PathBuf,
    /// The directory; locked by who made it.
    file: File,
}

/// A cgroup: one directory of the same name in each hierarchy that it needs.
///
/// The process that made it holds it, by a lock on its directories, until the last copy of their
/// descriptors is closed; then [`Parent::sweep`] may remove it. What is jailed must not inherit them
/// (they are closed on exec).
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    parent: Parent,
    branches: Vec<Branch>,
    /// Nothing has been counted in it: this process made it.
    pub(super) is_new: bool,
    /// Nothing is missing of it.
    is_whole: bool,
}

/// Those that every cgroup has where the host has them: for limits that come later, and for accounts.
const USUAL: [Controller; 5] = [
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Memory,
    Controller::Io,
    Controller::Pids,
];

impl Cgroup {
    /// Makes one, with its limits. What a dead process left under that name is removed first.
    pub fn create(parent: &Parent, name: &str, limits: &Limits) -> Result<Self> {
        let mut group = Self::begin(parent, name, limits)?;
        match group.complete(limits) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.undo();
                Err(error)
            }
        }
    }

    /// Makes what of it is in the v2 hierarchy, if there is one: what a process has to be born into. The rest of it, and
    /// its limits, come with [`complete`](Self::complete), while the process is being made.
    pub fn begin(parent: &Parent, name: &str, limits: &Limits) -> Result<Self> {
        check_name(name)?;
        limits.check()?;
        let mut group = Self {
            name: name.to_owned(),
            parent: parent.clone(),
            branches: Vec::new(),
            is_new: true,
            is_whole: false,
        };
        match group.make(Version::V2, &limits.needs()) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.undo();
                Err(error)
            }
        }
    }

    /// Makes what is missing of one that was [begun](Self::begin), and sets its limits. If that fails, what there is of it
    /// stays, for there may be a process in it: it is to be [removed](Self::remove).
    pub fn complete(&mut self, limits: &Limits) -> Result<()> {
        if std::mem::replace(&mut self.is_whole, true) {
            return Ok(());
        }
        self.make(Version::V1, &limits.needs())?;
        self.apply(limits)
    }

    /// Removes what has been made of it.
    fn undo(&self) {
        for branch in &self.branches {
            // The first error is the one to tell; a sweep finds what stays.
            let _ = fs::remove_dir(&branch.path);
        }
    }

    fn make(&mut self, version: Version, needed: &[(Controller, &'static str)]) -> Result<()> {
        for index in 0..self.parent.stems.len() {
            let stem = &self.parent.stems[index];
            let wanted = stem.version == Version::V2 || stem.controllers.iter().any(|have| self.wants(*have, needed));
            if stem.version == version && wanted {
                self.grow(index, needed)?;
            }
        }
        Ok(())
    }

    /// Whether a controller is used: the usual, the needed, and v1's freezer where v2 has none.
    fn wants(&self, controller: Controller, needed: &[(Controller, &'static str)]) -> bool {
        USUAL.contains(&controller)
            || needed.iter().any(|(needed, _)| *needed == controller)
            || controller == Controller::Freezer && self.unified().is_none()
    }

    /// Makes the directory in one hierarchy.
    fn grow(&mut self, stem: usize, needed: &[(Controller, &'static str)]) -> Result<()> {
        let stem = &self.parent.stems[stem];
        match stem.version {
            Version::V2 => enable(stem, needed)?,
            Version::V1 if stem.controllers.contains(&Controller::Cpuset) => {
                inherit_cpuset(&stem.directory, &stem.base)?
            }
            Version::V1 => {}
        }
        let path = stem.directory.join(&self.name);
        let file = make_and_lock(&path)?;
        self.branches.push(Branch {
            version: stem.version,
            controllers: stem.controllers.clone(),
            path: path.clone(),
            file,
        });
        if stem.version == Version::V1 && stem.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(&path, &stem.directory)?;
        }
        Ok(())
    }

    /// Finds one that is there, without holding it.
    pub fn open(parent: &Parent, name: &str) -> Result<Self> {
        check_name(name)?;
        let mut branches = Vec::new();
        for stem in &parent.stems {
            let path = stem.directory.join(name);
            match open_directory(&path) {
                Ok(file) => branches.push(Branch {
                    version: stem.version,
                    controllers: stem.controllers.clone(),
                    path,
                    file,
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(directory_error("open", &path, source)),
            }
        }
        if branches.is_empty() {
            let first = parent.stems.first().map(|stem| stem.directory.join(name));
            return Err(Error::Missing(first.unwrap_or_else(|| name.into())));
        }
        Ok(Self {
            name: name.to_owned(),
            parent: parent.clone(),
            branches,
            is_new: false,
            is_whole: true,
        })
    }

    /// Changes limits while it runs; what is none in them stays as it is.
    pub fn update(&mut self, limits: &Limits) -> Result<()> {
        limits.check()?;
        let needed = limits.needs();
        for index in 0..self.parent.stems.len() {
            let stem = &self.parent.stems[index];
            let needs = needed
                .iter()
                .any(|(controller, _)| stem.controllers.contains(controller));
            let has = self
                .branches
                .iter()
                .any(|branch| branch.path.starts_with(&stem.directory));
            if needs && has && stem.version == Version::V2 {
                enable(stem, &needed)?;
            } else if needs && !has {
                self.grow(index, &needed)?;
                self.move_into_last()?;
            }
        }
        self.apply(limits)
    }

    /// Brings all processes into the newest directory too: nothing is lost if one ends meanwhile.
    fn move_into_last(&self) -> Result<()> {
        let (Some(first), Some(last)) = (self.branches.first(), self.branches.last()) else {
            return Ok(());
        };
        for pid in file::processes(&first.path)? {
            match file::write(&last.path.join("cgroup.procs"), &pid.to_string()) {
                Err(Error::Write { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn apply(&self, limits: &Limits) -> Result<()> {
        for (controller, limit) in limits.needs() {
            if self.branch(controller).is_none() {
                return Err(Error::NoController {
                    limit,
                    controller,
                    why: self.parent.absence(controller),
                });
            }
        }
        // All is worked out before anything is written, so that most refusals change nothing.
        let mut writes = Vec::new();
        for controller in Controller::ALL {
            let Some(branch) = self.branch(controller) else {
                continue;
            };
            let settings = match branch.version {
                Version::V1 => v1::limits::settings(limits, controller, &branch.path)?,
                Version::V2 => v2::limits::settings(limits, controller, &branch.path)?,
            };
            for setting in settings {
                let path = branch.path.join(&setting.file);
                if !path.exists() {
                    return Err(Error::NoFile {
                        limit: setting.limit,
                        why: why_absent(&setting.file),
                        path,
                    });
                }
                writes.push((path, setting.value));
            }
        }
        if limits.io_weight.is_some()
            && let (Some(branch), Some(top)) = (self.branch(Controller::Io), self.top(Controller::Io))
        {
            divider::check(branch.version, top, &branch.path)?;
        }
        // The whole cgroup dies of want of memory, not some process of it: half a jail is none.
        if let Some(path) = self
            .branch(Controller::Memory)
            .filter(|branch| branch.version == Version::V2)
            .map(|branch| branch.path.join("memory.oom.group"))
            .filter(|path| path.exists())
        {
            file::write(&path, "1")?;
        }
        writes.iter().try_for_each(|(path, value)| file::write(path, value))
    }

    /// Its name below the parent.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory in each hierarchy.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.branches.iter().map(|branch| branch.path.as_path())
    }

    /// The v2 directory, for `clone3` with `CLONE_INTO_CGROUP`; none on a v1 host.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.branches
            .iter()
            .find(|branch| branch.version == Version::V2)
            .map(|branch| branch.file.as_fd())
    }

    /// Moves a process, with all its threads, into it.
    pub fn place(&self, pid: i32) -> Result<()> {
        self.branches
            .iter()
            .try_for_each(|branch| file::write(&branch.path.join("cgroup.procs"), &pid.to_string()))
    }

    /// The processes in it and below it; 0 stands for one that this PID namespace does not see.
    pub fn processes(&self) -> Result<Vec<i32>> {
        match self.branches.first() {
            Some(branch) => remove::all_processes(&branch.path),
            None => Ok(Vec::new()),
        }
    }

    /// Where it is, or would be if it were needed there, in each hierarchy.
    pub(super) fn all_paths(&self) -> impl Iterator<Item = PathBuf> {
        self.parent.stems.iter().map(|stem| stem.directory.join(&self.name))
    }

    pub(super) fn branches(&self) -> impl Iterator<Item = &Branch> {
        self.branches.iter()
    }

    /// The directory that has a controller.
    pub(super) fn branch(&self, controller: Controller) -> Option<&Branch> {
        self.branches
            .iter()
            .find(|branch| branch.controllers.contains(&controller))
    }

    /// The v2 directory.
    pub(super) fn unified(&self) -> Option<&Path> {
        self.branches
            .iter()
            .find(|branch| branch.version == Version::V2)
            .map(|branch| branch.path.as_path())
    }

    pub(super) fn top(&self, controller: Controller) -> Option<&Path> {
        self.parent
            .stems
            .iter()
            .find(|stem| stem.controllers.contains(&controller))
            .map(|stem| stem.top.as_path())
    }
}

fn enable(stem: &Stem, needed: &[(Controller, &'static str)]) -> Result<()> {
    let wanted: Vec<Controller> = stem
        .controllers
        .iter()
        .copied()
        .filter(|controller| USUAL.contains(controller) || needed.iter().any(|(needed, _)| needed == controller))
        .collect();
    Parent::enable(stem, &wanted, needed)
}

/// A new v1 cpuset is empty, and nothing can run in it: it gets what the one above has.
fn inherit_cpuset(directory: &Path, above: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let path = directory.join(name);
        if file::read(&path)?.trim().is_empty() {
            file::write(&path, file::read(&above.join(name))?.trim())?;
        }
    }
    Ok(())
}

/// What would make a file appear.
fn why_absent(file: &str) -> &'static str {
    match file {
        "memory.swap.max" | "memory.memsw.limit_in_bytes" => "it does not count swap; boot with swapaccount=1",
        "io.weight" | "blkio.weight" | "blkio.bfq.weight" => {
            "nothing divides block devices by weight; load the scheduler BFQ (`modprobe bfq`)"
        }
        _ => "it was built without it",
    }
}

fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
}

fn directory_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Directory {
        action,
        path: path.into(),
        source,
    }
}

/// Opens a directory and locks it, unless somebody else holds it or it is gone meanwhile.
pub(super) fn lock(path: &Path) -> Result<Option<File>> {
    let file = match open_directory(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(directory_error("open", path, source)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::InUse(path.into())),
        Err(errno) => return Err(Error::system("flock")(errno)),
    }
    // Between open and lock, a sweep may have removed it and somebody made another.
    let locked = file
        .metadata()
        .map_err(|source| directory_error("open", path, source))?;
    match fs::symlink_metadata(path) {
        Ok(there) if there.ino() == locked.ino() => Ok(Some(file)),
        _ => Ok(None),
    }
}

/// Makes a directory and holds it. One that is there already and that nobody holds is a dead one's.
fn make_and_lock(path: &Path) -> Result<File> {
    // Each round that fails was lost to a sweep of another process, which happens at most a few times.
    for _ in 0..100 {
        let fresh = match fs::create_dir(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(source) => return Err(directory_error("make", path, source)),
        };
        match lock(path) {
            Ok(Some(file)) if fresh => return Ok(file),
            Ok(Some(_held)) => remove::tree(path, remove::WAIT)?,
            Ok(None) => {}
            Err(Error::InUse(_)) if fresh => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    Err(Error::InUse(path.into()))
}

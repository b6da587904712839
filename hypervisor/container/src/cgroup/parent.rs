//! The one cgroup below which everything of ours is, in each hierarchy where we may have one.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use super::controller::{Controller, Version};
use super::error::{Error, Result};
use super::file;
use super::host::{Hierarchy, Host};
use super::limits::BadLimit;

/// Where the parent is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// At the top where that is permitted; else in the largest subtree that is delegated to this
    /// process (cgroup-v2.rst, "Delegation").
    #[default]
    Auto,
    /// At the top.
    Top,
    /// In this process's own cgroup. On v2 that must have no processes, or be the real root.
    Own,
    /// The same, and this process moves into a leaf beside the parent first, named as it with
    /// `-self`, so that its own cgroup has no processes any more.
    OwnLeaf,
    /// In the cgroup of this path from the top, in each hierarchy where there is one.
    Below(PathBuf),
}

impl FromStr for Place {
    type Err = BadLimit;

    fn from_str(text: &str) -> std::result::Result<Self, BadLimit> {
        Ok(match text {
            "auto" => Self::Auto,
            "top" => Self::Top,
            "own" => Self::Own,
            "own-leaf" => Self::OwnLeaf,
            path if path.starts_with('/') && !path.split('/').any(|part| part == "..") => Self::Below(path.into()),
            _ => {
                return Err(BadLimit(format!(
                    "`{text}` is not a place for cgroups: write auto, top, own, own-leaf, or a path from the top as /machine.slice"
                )));
            }
        })
    }
}

/// The cgroup of ours, in one hierarchy.
#[derive(Clone, Debug)]
pub(super) struct Stem {
    pub(super) version: Version,
    pub(super) controllers: Vec<Controller>,
    pub(super) top: PathBuf,
    /// The one above ours.
    pub(super) base: PathBuf,
    /// Ours.
    pub(super) directory: PathBuf,
}

/// The one cgroup below which everything of ours is.
#[derive(Clone, Debug)]
pub struct Parent {
    name: String,
    pub(super) stems: Vec<Stem>,
    /// Hierarchies where none may be made: their controllers, and the directory tried.
    denied: Vec<(Vec<Controller>, PathBuf)>,
}

/// What every name has to be, so that it is one directory and never a control file
/// (`memory.max`): those have a controller's name before a dot.
pub(super) fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let control = name.split_once('.').is_some_and(|(prefix, _)| {
        prefix == "cgroup"
            || [
                "hugetlb",
                "rdma",
                "misc",
                "devices",
                "net_cls",
                "net_prio",
                "perf_event",
                "dmem",
            ]
            .contains(&prefix)
            || [Version::V1, Version::V2]
                .iter()
                .any(|version| Controller::named(prefix, *version).is_some())
    });
    // v1's files without a dot.
    let file = ["tasks", "notify_on_release", "release_agent"].contains(&name);
    let good = (1..=64).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !control
        && !file;
    good.then_some(()).ok_or_else(|| Error::Name(name.into()))
}

impl Parent {
    /// Makes it, or finds it.
    pub fn open(host: &Host, place: &Place, name: &str) -> Result<Self> {
        check_name(name)?;
        let mut parent = Self {
            name: name.to_owned(),
            stems: Vec::new(),
            denied: Vec::new(),
        };
        for hierarchy in &host.hierarchies {
            // Root has made it at the top before, as in most starts, and may do all there that it could then.
            let directory = hierarchy.top.join(name);
            if matches!(place, Place::Auto | Place::Top)
                && geteuid().is_root()
                && access(directory.join("cgroup.procs"), Access::WRITE_OK).is_ok()
            {
                parent.stems.push(Stem {
                    version: hierarchy.version,
                    controllers: hierarchy.controllers.clone(),
                    top: hierarchy.top.clone(),
                    base: hierarchy.top.clone(),
                    directory,
                });
                continue;
            }
            let Some(base) = base(hierarchy, place)? else {
                parent
                    .denied
                    .push((hierarchy.controllers.clone(), hierarchy.top.clone()));
                continue;
            };
            let directory = base.join(name);
            make(&directory, PRIVATE)?;
            parent.stems.push(Stem {
                version: hierarchy.version,
                controllers: hierarchy.controllers.clone(),
                top: hierarchy.top.clone(),
                base,
                directory,
            });
        }
        if let (true, Some((_, top))) = (parent.stems.is_empty(), parent.denied.first()) {
            return Err(match place {
                Place::Below(path) => Error::Missing(top.join(path.strip_prefix("/").unwrap_or(path))),
                _ => Error::NotDelegated(top.clone()),
            });
        }
        if *place == Place::OwnLeaf {
            parent.move_self()?;
        }
        Ok(parent)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory in each hierarchy.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.stems.iter().map(|stem| stem.directory.as_path())
    }

    /// Removes it where nothing is in it any more, and says whether it is gone everywhere.
    ///
    /// Nobody has to: an empty one costs next to nothing, and the next cgroup is made in it.
    pub fn remove(self) -> Result<bool> {
        let mut gone = true;
        for stem in &self.stems {
            match fs::remove_dir(&stem.directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => gone = false,
                Err(source) => {
                    return Err(Error::Directory {
                        action: "remove",
                        path: stem.directory.clone(),
                        source,
                    });
                }
            }
        }
        Ok(gone)
    }

    /// Puts this process into a leaf, so that v2's own cgroup may give controllers to children.
    fn move_self(&self) -> Result<()> {
        for stem in self.stems.iter().filter(|stem| stem.version == Version::V2) {
            let leaf = self.own_leaf(stem);
            make(&leaf, 0o755)?;
            file::write(&leaf.join("cgroup.procs"), "0")?;
        }
        Ok(())
    }

    pub(super) fn own_leaf(&self, stem: &Stem) -> PathBuf {
        stem.base.join(format!("{}-self", self.name))
    }

    /// Why a controller is not to be had.
    pub(super) fn absence(&self, controller: Controller) -> String {
        match self
            .denied
            .iter()
            .find(|(controllers, _)| controllers.contains(&controller))
        {
            Some((_, top)) => format!("you may not use: nothing below {} is delegated to you", top.display()),
            None => {
                "no hierarchy of this host has: see /proc/cgroups, and `cgroup_disable=` on the kernel's command line"
                    .into()
            }
        }
    }

    /// Has a v2 parent give controllers to its children. Those in `needed` must be there, with the
    /// option that needs them; the others, for accounts, are taken where they can be had.
    pub(super) fn enable(stem: &Stem, wanted: &[Controller], needed: &[(Controller, &'static str)]) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        for directory in [&stem.base, &stem.directory] {
            let control = directory.join("cgroup.subtree_control");
            let available = file::read(&directory.join("cgroup.controllers"))?;
            let enabled = file::read(&control)?;
            let lists = |list: &str, name: &str| list.split_whitespace().any(|word| word == name);
            for controller in wanted {
                let name = controller.name(Version::V2);
                if lists(&enabled, name) {
                    continue;
                }
                let need = needed.iter().find(|(needed, _)| needed == controller);
                let result = if lists(&available, name) {
                    file::write(&control, &format!("+{name}")).map_err(|error| internal(directory, error))
                } else {
                    Err(Error::NoController {
                        limit: need.map_or("", |(_, limit)| limit),
                        controller: *controller,
                        why: format!(
                            "{} does not have: add it to cgroup.subtree_control of the cgroup above (with systemd: \
                             `Delegate=cpu cpuset io memory pids` in the unit of user@.service)",
                            directory.display()
                        ),
                    })
                };
                if need.is_some() {
                    result?;
                }
            }
        }
        Ok(())
    }
}

/// EBUSY from `cgroup.subtree_control` is the rule of no internal processes.
fn internal(directory: &Path, error: Error) -> Error {
    match error {
        Error::Write { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => Error::InternalProcesses {
            path: directory.into(),
            count: file::processes(directory).map_or(0, |processes| processes.len()),
        },
        other => other,
    }
}

/// The parent's mode: whoever may open a cgroup's directory could hold its lock, and keep it from
/// being swept.
const PRIVATE: u32 = 0o700;

fn make(directory: &Path, mode: u32) -> Result<()> {
    match fs::DirBuilder::new().mode(mode).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::Directory {
            action: "make",
            path: directory.into(),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// The cgroup to make ours in; none where none may be made.
fn base(hierarchy: &Hierarchy, place: &Place) -> Result<Option<PathBuf>> {
    let own = || hierarchy.own.clone().ok_or(Error::OwnNotMounted);
    Ok(match place {
        Place::Top => Some(hierarchy.top.clone()),
        Place::Own | Place::OwnLeaf => Some(own()?),
        Place::Below(path) => {
            let base = hierarchy.top.join(path.strip_prefix("/").unwrap_or(path));
            base.join("cgroup.procs").exists().then_some(base)
        }
        Place::Auto if writable(&hierarchy.top) => Some(hierarchy.top.clone()),
        // The last of the writable ones on the way up: below its top a delegated subtree is whole.
        Place::Auto => hierarchy.own.as_ref().and_then(|own| {
            own.ancestors()
                .take_while(|directory| directory.starts_with(&hierarchy.top) && writable(directory))
                .last()
                .map(Path::to_path_buf)
        }),
    })
}

/// Whether children may be made in a cgroup, and processes moved between them (cgroup-v2.rst,
/// "Delegation Containment": that takes the right to write the common ancestor's `cgroup.procs`).
fn writable(directory: &Path) -> bool {
    access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
        && access(directory.join("cgroup.procs"), Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_one_directory_and_no_control_file() {
        for name in ["a", "web-1", "0123abc", "a.b_c", "x.memory"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let long = "a".repeat(65);
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "/a",
            "-a",
            "_a",
            "a b",
            "a\n",
            "é",
            "memory.max",
            "blkio.x",
            "cgroup.procs",
            "tasks",
            long.as_str(),
        ] {
            let error = check_name(name).unwrap_err().to_string();
            assert!(error.contains("cannot name a cgroup"), "{error}");
        }
    }

    #[test]
    fn places_are_read() {
        assert_eq!("own-leaf".parse(), Ok(Place::OwnLeaf));
        assert_eq!("/a/b".parse(), Ok(Place::Below("/a/b".into())));
        for text in ["", "a", "/a/../b", "Top"] {
            assert!(
                text.parse::<Place>()
                    .unwrap_err()
                    .to_string()
                    .contains("is not a place"),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_name_that_passes_stays_in_its_folder(name in ".{0,70}") {
            if check_name(&name).is_ok() {
                let path = Path::new("/p").join(&name);
                prop_assert_eq!(path.parent(), Some(Path::new("/p")));
                prop_assert!(!name.contains('/') && name != ".." && name != ".");
            }
        }
    }
}

//! The root file system: what a jail sees of files, and the way in.

mod dev;
mod kernel;
pub(super) mod mount;
mod overlay;
mod pivot;
mod volumes;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{MountPropagationFlags, mount_change};

use super::error::{At, Failure, Step};
use overlay::Layers;

pub use dev::Dev;
pub(super) use kernel::{Owner, passing_proc};
pub use kernel::{Proc, Sys};
pub use volumes::{Volume, VolumeError};

/// A root file system.
#[derive(Clone, Debug, Default)]
pub struct Root {
    /// Directories of the layers, the lowest first, as in an image.
    pub layers: Vec<PathBuf>,
    /// A directory with two empty directories, `upper`, which gets all that is written, and `work`, both on
    /// one file system that is no overlay itself. Without it a single layer is the root as it is, and
    /// several can only be read.
    pub scratch: Option<PathBuf>,
    /// Whether what is written need not survive a crash of the machine. Then the end of the jail does not wait
    /// for the disk, and the scratch directory serves once: the kernel refuses it a second time, by
    /// `work/work/incompat/volatile`.
    pub volatile: bool,
    /// Whether the root cannot be written.
    pub read_only: bool,
    /// Whether `/tmp` is memory of the jail.
    pub tmp: bool,
    /// How much of `/proc` there is.
    pub proc: Proc,
    /// Whether there is `/sys`.
    pub sys: Sys,
    /// Whether there is `/dev`.
    pub dev: Dev,
    /// What else the jail sees of the host.
    pub volumes: Vec<Volume>,
}

/// The parts of a root that are directories of the host, open.
#[derive(Debug)]
pub(super) struct Parts {
    layers: Layers,
    volumes: Vec<OwnedFd>,
}

impl Root {
    /// Opens, outside, all parts as mounts that show owners by the map of the namespace `users`.
    ///
    /// Only the host's root may do that; so the jail's process is sent the result.
    pub(super) fn open_mapped(&self, users: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Failure> {
        let mut parts = Vec::new();
        for path in self.layers.iter().rev().chain(&self.scratch) {
            let what = || path.display().to_string();
            let part = mount::view(CWD, path, false).at(Step::Layers, what)?;
            mount::map_owners(part.as_fd(), users, false).at(Step::Layers, what)?;
            parts.push(part);
        }
        for volume in &self.volumes {
            let part = volume.open()?;
            mount::map_owners(part.as_fd(), users, true).at(Step::Volume, || volume.host.display().to_string())?;
            parts.push(part);
        }
        Ok(parts)
    }

    /// Sorts what `open_mapped` made, after its journey.
    pub(super) fn sort(&self, parts: Vec<OwnedFd>) -> Result<Parts, Failure> {
        let mut parts = parts.into_iter();
        let lower: Vec<_> = parts.by_ref().take(self.layers.len()).collect();
        let scratch = self.scratch.as_ref().and_then(|_| parts.next());
        let volumes: Vec<_> = parts.collect();
        let is_whole = lower.len() == self.layers.len()
            && scratch.is_some() == self.scratch.is_some()
            && volumes.len() == self.volumes.len();
        if !is_whole {
            return Err(Failure::refused(Step::Layers, "not all of them arrived"));
        }
        Ok(Parts {
            layers: Layers {
                lower,
                scratch,
                detached: true,
            },
            volumes,
        })
    }

    /// Opens all parts inside, with the owners that they have.
    pub(super) fn open_plain(&self) -> Result<Parts, Failure> {
        let directory = |path: &PathBuf| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            open(path, flags, Mode::empty()).at(Step::Layers, || path.display().to_string())
        };
        Ok(Parts {
            layers: Layers {
                lower: self.layers.iter().rev().map(directory).collect::<Result<_, _>>()?,
                scratch: self.scratch.as_ref().map(directory).transpose()?,
                detached: false,
            },
            volumes: self.volumes.iter().map(Volume::open).collect::<Result<_, _>>()?,
        })
    }
}

/// No mount of this namespace is seen outside, and none from outside in it (`mount_namespaces(7)`).
pub(super) fn make_private() -> Result<(), Failure> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .at(Step::Mount, || "/, private".into())
}

/// What a root shows of other namespaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Whether this process is root of a user namespace only.
    pub(super) user: bool,
    /// Whether message queues are the jail's own.
    pub(super) queues: bool,
    /// Whose processes there are.
    pub(super) processes: Owner,
    /// Whose network interfaces there are.
    pub(super) interfaces: Owner,
}

/// Builds the root over this process's own, which it covers.
pub(super) fn build(root: &Root, parts: &Parts, view: View) -> Result<OwnedFd, Failure> {
    let top = match (&parts.layers.lower[..], &parts.layers.scratch) {
        ([], _) => {
            return Err(Failure::refused(
                Step::Layers,
                "there is none; name one directory at least",
            ));
        }
        ([only], None) => {
            let what = || "the only layer".to_owned();
            let top = if parts.layers.detached {
                only.try_clone().at(Step::Layers, what)?
            } else {
                mount::view(only.as_fd(), Path::new(""), true).at(Step::Layers, what)?
            };
            mount::cover_root(top.as_fd()).at(Step::Layers, what)?;
            top
        }
        _ => overlay::make(&parts.layers, view.user, root.volatile)?,
    };
    mount::set_attributes(top.as_fd(), libc::MOUNT_ATTR_NODEV, false)
        .at(Step::Mount, || "the root, without devices".into())?;
    kernel::make(top.as_fd(), (root.proc, view.processes), (root.sys, view.interfaces))?;
    if root.dev == Dev::Usual {
        dev::make(top.as_fd(), view.queues)?;
    }
    if root.tmp {
        dev::tmp(top.as_fd())?;
    }
    for (volume, tree) in root.volumes.iter().zip(&parts.volumes) {
        volume.bind(tree, top.as_fd())?;
    }
    if root.read_only {
        mount::set_attributes(top.as_fd(), libc::MOUNT_ATTR_RDONLY, false)
            .at(Step::Mount, || "the root, read-only".into())?;
    }
    Ok(top)
}

pub(super) use pivot::enter;

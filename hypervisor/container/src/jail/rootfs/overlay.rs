//! The root file system of an image: many layers that are only read, one that is written.
//!
//! Layers are given to the kernel as descriptors, so that no path has to be within its reach or free of
//! commas, and as many as it takes. Kernels before 6.13 take paths only, and those are `/proc/self/fd/N`.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsmount, fsopen, mount,
};

use super::mount;
use crate::jail::error::{At, Failure, Step};

/// Bytes of options that `mount(2)` takes: a page, with the zero at its end.
const OPTIONS: usize = 4095;

/// A directory that every Linux has and nobody needs: what is mounted there is out of the way.
const ASIDE: &CStr = c"/proc/fs";

/// What an overlay is made of, open.
#[derive(Debug)]
pub(super) struct Layers {
    /// The uppermost first.
    pub(super) lower: Vec<OwnedFd>,
    /// The directory with `upper` and `work`.
    pub(super) scratch: Option<OwnedFd>,
    /// Whether these are mounts that have no place yet.
    pub(super) detached: bool,
}

/// Makes the overlay and covers this process's root with it. The answer is the root of the overlay.
///
/// `user` says that this process is root in a user namespace only: then the overlay keeps its notes in
/// `user.overlay.*` instead of `trusted.overlay.*` attributes. `volatile` says that what is written need
/// not reach the disk.
pub(super) fn make(layers: &Layers, user: bool, volatile: bool) -> Result<OwnedFd, Failure> {
    let what = || format!("{} layers", layers.lower.len());
    let mut flags = Vec::new();
    if user {
        flags.push("userxattr");
    }
    if volatile && layers.scratch.is_some() {
        flags.push("volatile");
    }
    let writable = match &layers.scratch {
        Some(scratch) => Some((scratch_part(scratch, "upper")?, scratch_part(scratch, "work")?)),
        None => None,
    };
    let writable = writable.as_ref().map(|(upper, work)| (upper.as_fd(), work.as_fd()));
    // The kernel looks into mounts of this namespace only, so they need a place, one that goes with the old
    // root. To take them away one by one would cost a wait for all processors each.
    if layers.detached {
        for layer in layers.lower.iter().chain(&layers.scratch) {
            mount::attach_at(layer.as_fd(), CWD, ASIDE).at(Step::Overlay, what)?;
        }
    }
    let overlay = match by_descriptors(layers, writable, &flags) {
        // Kernels before 6.13 take no descriptors.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => by_paths(layers, writable, &flags)?,
        made => made.at(Step::Overlay, what)?,
    };
    mount::cover_root(overlay.as_fd()).at(Step::Overlay, what)?;
    Ok(overlay)
}

fn scratch_part(scratch: &OwnedFd, name: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(scratch, name, flags, Mode::empty())
        .at(Step::Overlay, || format!("the directory {name} for what is written"))
}

type Writable<'a> = Option<(BorrowedFd<'a>, BorrowedFd<'a>)>;

fn by_descriptors(layers: &Layers, writable: Writable<'_>, flags: &[&str]) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in &layers.lower {
        fsconfig_set_fd(&context, "lowerdir+", layer)?;
    }
    if let Some((upper, work)) = writable {
        fsconfig_set_fd(&context, "upperdir", upper)?;
        fsconfig_set_fd(&context, "workdir", work)?;
    }
    for flag in flags {
        fsconfig_set_flag(&context, *flag)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// The way of older kernels. The overlay gets a place, and the answer is a second view of it.
fn by_paths(layers: &Layers, writable: Writable<'_>, flags: &[&str]) -> Result<OwnedFd, Failure> {
    let count = layers.lower.len();
    let what = || format!("{count} layers, by paths");
    let options = options(layers.lower.iter().map(AsRawFd::as_raw_fd), writable, flags);
    if options.len() > OPTIONS {
        let most = OPTIONS / "/proc/self/fd/1000:".len();
        return Err(Failure::refused(
            Step::Overlay,
            format!("{count} layers; this kernel takes about {most}"),
        ));
    }
    let options = CString::new(options).map_err(|_| Failure::refused(Step::Overlay, what()))?;
    let made = mount(
        "overlay",
        ASIDE,
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    );
    made.at(Step::Overlay, what)?;
    let place = Path::new(OsStr::from_bytes(ASIDE.to_bytes()));
    mount::view(CWD, place, false).at(Step::Overlay, what)
}

fn options(lower: impl Iterator<Item = i32>, writable: Writable<'_>, flags: &[&str]) -> String {
    let path = |fd: i32| format!("/proc/self/fd/{fd}");
    let mut options = format!("lowerdir={}", lower.map(path).collect::<Vec<_>>().join(":"));
    if let Some((upper, work)) = writable {
        let [upper, work] = [upper, work].map(|fd| path(fd.as_raw_fd()));
        options += &format!(",upperdir={upper},workdir={work}");
    }
    for flag in flags {
        options += &format!(",{flag}");
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_descriptors_the_uppermost_first() {
        assert_eq!(
            options([7, 8].into_iter(), None, &["userxattr"]),
            "lowerdir=/proc/self/fd/7:/proc/self/fd/8,userxattr"
        );
    }
}

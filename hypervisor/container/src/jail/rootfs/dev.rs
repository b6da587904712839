//! A minimal `/dev`: devices that every program expects, and none that reaches hardware.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mount;
use crate::jail::error::{At, Failure, Step};

/// Whether there is `/dev`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dev {
    /// No `/dev`: for a process that has open what it needs.
    Absent,
    /// What every program expects.
    #[default]
    Usual,
}

/// Devices that are the host's own: harmless to share, and a user namespace cannot make any.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts `/dev` on a root directory. `queues` is whether message queues are the jail's own.
pub(super) fn make(root: BorrowedFd<'_>, queues: bool) -> Result<(), Failure> {
    let strict = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let dev = mount::new("tmpfs", &[("mode", "755"), ("size", "64k")], strict).at(Step::Mount, || "/dev".into())?;
    mount::mount_on(root, "dev", &dev).at(Step::Mount, || "/dev".into())?;
    for name in DEVICES {
        device(&dev, name).at(Step::Mount, || format!("/dev/{name}"))?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).at(Step::Mount, || format!("/dev/{name}"))?;
    }
    let strict = strict | MountAttrFlags::MOUNT_ATTR_NODEV;
    let pts = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
    let pts = mount::new(
        "devpts",
        &pts,
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    );
    place(&dev, "pts", pts)?;
    place(
        &dev,
        "shm",
        mount::new("tmpfs", &[("mode", "1777"), ("size", "64m")], strict),
    )?;
    if queues {
        place(&dev, "mqueue", mount::new("mqueue", &[], strict))?;
    }
    // Nothing more is to be made here.
    mount::set_attributes(dev.as_fd(), libc::MOUNT_ATTR_RDONLY, false).at(Step::Mount, || "/dev, read-only".into())
}

fn place(dev: &OwnedFd, name: &str, made: Result<OwnedFd, Errno>) -> Result<(), Failure> {
    let what = || format!("/dev/{name}");
    let made = made.at(Step::Mount, what)?;
    mkdirat(dev, name, Mode::from_raw_mode(0o755)).at(Step::Mount, what)?;
    mount::attach_at(made.as_fd(), dev.as_fd(), &c_name(name)).at(Step::Mount, what)
}

fn device(dev: &OwnedFd, name: &str) -> Result<(), Errno> {
    let host = mount::view(CWD, &Path::new("/dev").join(name), false)?;
    // A host whose /dev/null is a plain file must not have it written here.
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&host)?.st_mode);
    if kind != FileType::CharacterDevice {
        return Err(Errno::NOTTY);
    }
    drop(openat(
        dev,
        name,
        OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o666),
    )?);
    mount::attach_at(host.as_fd(), dev.as_fd(), &c_name(name))
}

/// The names here are our own and have no zero byte.
fn c_name(name: &str) -> std::ffi::CString {
    std::ffi::CString::new(name).unwrap_or_default()
}

/// A `/tmp` in memory.
pub(super) fn tmp(root: BorrowedFd<'_>) -> Result<(), Failure> {
    let strict = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let tmp = mount::new("tmpfs", &[("mode", "1777")], strict).at(Step::Mount, || "/tmp".into())?;
    mount::mount_on(root, "tmp", &tmp).at(Step::Mount, || "/tmp".into())
}

//! The kernel's own file systems, `/proc` and `/sys`, without what a jail has no business with.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mount;
use crate::jail::error::{At, Failure, Step};

/// What is read as empty: the default of engines that run OCI images (`maskedPaths`,
/// config-linux.md#masked-paths), below /proc and below /sys, and where the kernel's functions are. They tell of the
/// host, or of its secrets.
const MASKED: [&[&str]; 2] = [
    &[
        "acpi",
        "asound",
        "interrupts",
        "kallsyms",
        "kcore",
        "keys",
        "latency_stats",
        "sched_debug",
        "scsi",
        "timer_list",
        "timer_stats",
    ],
    &["devices/virtual/powercap", "firmware"],
];

/// What is never written (`readonlyPaths`, config-linux.md#readonly-paths), below /proc.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// How much of `/proc` there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proc {
    /// No `/proc`.
    Absent,
    /// Only what is of processes: enough for a program that looks up its own files and maps.
    Processes,
    /// What ordinary programs expect, such as `/proc/cpuinfo`, with masked and read-only parts.
    #[default]
    Full,
}

/// Whether there is `/sys`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sys {
    /// No `/sys`.
    Absent,
    /// It can be read.
    #[default]
    ReadOnly,
}

/// Whose processes and interfaces the two show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jail) enum Owner {
    /// The jail's own: they can be mounted.
    Jail,
    /// The caller's: they are mounted already.
    Caller,
    /// Another jail's: there is no right to mount them.
    Other,
}

/// Mounts both on a root directory.
pub(super) fn make(root: BorrowedFd<'_>, proc: (Proc, Owner), sys: (Sys, Owner)) -> Result<(), Failure> {
    let ((proc, processes), (sys, interfaces)) = (proc, sys);
    // A process sees those that it could trace, which are its own (proc(5), hidepid=2).
    let mounted_proc = match proc {
        Proc::Absent => None,
        Proc::Processes => {
            own(root, "proc", &[("hidepid", "2"), ("subset", "pid")], false, processes)?;
            None
        }
        Proc::Full => Some(own(root, "proc", &[("hidepid", "2")], false, processes)?),
    };
    let mounted_sys = match sys {
        Sys::Absent => None,
        Sys::ReadOnly => Some(own(root, "sys", &[], true, interfaces)?),
    };
    // By the mounts themselves: whoever else has this root might have another thing at the path by now.
    let mut mask = Mask::default();
    for (mounted, masked) in [&mounted_proc, &mounted_sys].into_iter().zip(MASKED) {
        let Some(mounted) = mounted else { continue };
        for path in masked {
            mask.cover(mounted.as_fd(), path)
                .at(Step::Mount, || format!("nothing over {path} of /proc or /sys"))?;
        }
    }
    if let Some(proc) = &mounted_proc {
        for path in READ_ONLY {
            read_only(proc.as_fd(), path).at(Step::Mount, || format!("/proc/{path}, read-only"))?;
        }
    }
    Ok(())
}

/// A `/proc` of the new process namespace over the old one. It goes with the old root: without a place there, the
/// kernel would wait for all processors before it is gone.
pub(in crate::jail) fn passing_proc() -> Result<OwnedFd, Errno> {
    let strict =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = mount::new("proc", &[], strict)?;
    mount::attach_at(proc.as_fd(), CWD, c"/proc")?;
    Ok(proc)
}

fn own(
    root: BorrowedFd<'_>,
    name: &'static str,
    options: &[(&str, &str)],
    read_only: bool,
    owner: Owner,
) -> Result<OwnedFd, Failure> {
    let what = || format!("/{name}");
    let kind = if name == "sys" { "sysfs" } else { name };
    let mut strict =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if read_only {
        strict |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let made = match owner {
        Owner::Jail => mount::new(kind, options, strict).at(Step::Mount, what)?,
        Owner::Caller => {
            let view = mount::view(CWD, Path::new(&what()), true).at(Step::Mount, what)?;
            mount::set_attributes(view.as_fd(), strict.bits().into(), true).at(Step::Mount, what)?;
            view
        }
        Owner::Other => {
            let refusal = format!(
                "/{name} shows what belongs to another jail's user namespace: join that too, or leave /{name} out"
            );
            return Err(Failure::refused(Step::Mount, refusal));
        }
    };
    mount::mount_on(root, name, &made).at(Step::Mount, what)?;
    Ok(made)
}

/// One empty, read-only directory for all that is masked.
#[derive(Default)]
struct Mask(Option<OwnedFd>);

impl Mask {
    fn cover(&mut self, root: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
        let Some((target, kind)) = open(root, path)? else {
            return Ok(());
        };
        if kind != FileType::Directory {
            let null = mount::view(CWD, Path::new("/dev/null"), false)?;
            return mount::attach(null.as_fd(), target.as_fd());
        }
        // Kernels before 6.15 make views only of what has a place: so the first is the thing itself.
        match &self.0 {
            Some(made) => {
                let view = mount::view(made.as_fd(), Path::new(""), false)?;
                mount::attach(view.as_fd(), target.as_fd())
            }
            None => {
                let made = mount::new("tmpfs", &[("nr_inodes", "1")], MountAttrFlags::MOUNT_ATTR_RDONLY)?;
                mount::attach(made.as_fd(), target.as_fd())?;
                self.0 = Some(made);
                Ok(())
            }
        }
    }
}

fn read_only(root: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    let Some((target, _)) = open(root, path)? else {
        return Ok(());
    };
    let view = mount::view(target.as_fd(), Path::new(""), false)?;
    mount::set_attributes(view.as_fd(), libc::MOUNT_ATTR_RDONLY, false)?;
    mount::attach(view.as_fd(), target.as_fd())
}

/// A path of the kernel's, which leads through no link, if the kernel has it.
fn open(root: BorrowedFd<'_>, path: &str) -> Result<Option<(OwnedFd, FileType)>, Errno> {
    match openat(
        root,
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(target) => {
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode);
            Ok(Some((target, kind)))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

//! Into the new root, and the old one away.
//!
//! `chroot` would only change where paths begin: the old root would still be mounted, and a descriptor or
//! a second `chroot` would lead there. After `pivot_root` and a detach there is no old root to lead to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use super::mount;
use crate::jail::error::{At, Failure, Step};

/// Makes `root`, which covers the root of this process, its root.
pub(in crate::jail) fn enter(root: &OwnedFd) -> Result<(), Failure> {
    enter_or(root.as_fd()).at(Step::PivotRoot, || "pivot_root".into())
}

fn enter_or(root: BorrowedFd<'_>) -> Result<(), Errno> {
    fchdir(root)?;
    // The old root is put on top of the new one, so that no directory is needed for it.
    match pivot_root(".", ".") {
        Err(Errno::INVAL) => pivot_from_initramfs()?,
        other => other?,
    }
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

/// The initramfs is the first of all mounts, and the kernel lets nobody pivot away from it. But a mount
/// that covers it is an ordinary root, from which a second view of the same can be pivoted to. What is
/// below both is out of reach: `..` of a mount that covers a whole root leads nowhere.
fn pivot_from_initramfs() -> Result<(), Errno> {
    chroot(".")?;
    let again = mount::view(rustix::fs::CWD, Path::new("."), true)?;
    mount::cover_root(again.as_fd())?;
    fchdir(&again)?;
    pivot_root(".", ".")
}

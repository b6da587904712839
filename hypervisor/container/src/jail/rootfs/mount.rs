//! The mount calls of Linux 5.2 and later: a mount is a descriptor first, and gets its place later.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::jail::clone::last_error;

/// A new file system of a kind, with options; a key with an empty value is a flag.
pub(super) fn new(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&context, *key)?;
        } else {
            fsconfig_set_string(&context, *key, *value)?;
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A second view of a file or directory, with what is mounted below it if it is `whole`.
pub(super) fn view(from: BorrowedFd<'_>, path: &Path, whole: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if whole {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(from, path, flags)
}

/// Gives a mount its place: over a directory or file that is open.
pub(super) fn attach(mount: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", to, c"", flags)
}

/// Gives a mount its place by a path from a directory, over whatever is there already.
pub(super) fn attach_at(mount: BorrowedFd<'_>, directory: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    move_mount(mount, c"", directory, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Covers the root directory of this process, which goes on seeing what is below.
pub(super) fn cover_root(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    attach_at(mount, rustix::fs::CWD, c"/")
}

/// Sets attributes of a mount (`MOUNT_ATTR_*`), of those below it too if it is `whole`.
pub(super) fn set_attributes(mount: BorrowedFd<'_>, attributes: u64, whole: bool) -> Result<(), Errno> {
    change(mount, attributes, 0, None, whole)
}

/// Shows owners of files through the map of a user namespace: what is 0 on disk is root there. What is mounted on it is
/// seen there alone, also where the host shares what it is a view of, as most hosts do.
pub(in crate::jail) fn map_owners(mount: BorrowedFd<'_>, users: BorrowedFd<'_>, whole: bool) -> Result<(), Errno> {
    change(mount, libc::MOUNT_ATTR_IDMAP, libc::MS_PRIVATE, Some(users), whole)
}

fn change(
    mount: BorrowedFd<'_>,
    set: u64,
    propagation: u64,
    users: Option<BorrowedFd<'_>>,
    whole: bool,
) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation,
        userns_fd: users.map_or(0, |users| users.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if whole { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: mount_setattr(2) reads a path that is a C string and a `mount_attr` of the size given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == -1 { Err(last_error()) } else { Ok(()) }
}

/// The directory `name` of a directory, made if it is missing. A symbolic link there is refused: it
/// could lead anywhere, and an image chooses it.
pub(super) fn directory(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)
        }
        other => other,
    }
}

/// Mounts over the directory `name` of `parent`.
pub(super) fn mount_on(parent: BorrowedFd<'_>, name: &str, mount: &OwnedFd) -> Result<(), Errno> {
    attach(mount.as_fd(), directory(parent, name)?.as_fd())
}

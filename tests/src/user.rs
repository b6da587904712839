//! An ordinary user, for tests that run as root: nothing of the machine is changed for one.
//!
//! Each of the user's programs has a mount namespace of its own, in which `/etc/passwd` and its like know the
//! user, and `/dev/kvm` and `/dev/net/tun` are for everybody, as they are where users run guests.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Folder, chiton_path, guest_path, is_installed, is_root};

/// The first of the ids that are the user's besides its own, and how many there are.
pub const SUBORDINATE: (u32, u32) = (900_000_000, 65_536);

/// A user.
#[derive(Debug)]
pub struct User {
    folder: Folder,
    id: u32,
    /// Files that a process of the user's writes itself into.
    cgroups: Vec<PathBuf>,
}

impl User {
    /// A user, who with `subordinate` has [more ids](SUBORDINATE) than one. `None`, with the reason said, where the
    /// tests do not run as root, or the programs for more ids are missing.
    ///
    /// # Panics
    ///
    /// If there can be none and `CHITON_STRICT` is set.
    #[must_use]
    pub fn new(subordinate: bool) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !is_root() {
            assert!(std::env::var_os("CHITON_STRICT").is_none(), "root is required here");
            println!("SKIPPED: only root can be another user");
            return None;
        }
        if subordinate && !(is_installed("newuidmap") && is_installed("newgidmap")) {
            return None;
        }
        let folder = Folder::new();
        let id = 400_000 + std::process::id() % 10_000 * 16 + NEXT.fetch_add(1, Ordering::Relaxed);
        let with = |path: &str, line: String| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let text = text.lines().chain([line.as_str()]).collect::<Vec<_>>().join("\n") + "\n";
            let _ = folder.file(&path.replace('/', "_"), text);
        };
        with("/etc/passwd", format!("limpet:x:{id}:{id}::/:/bin/sh"));
        with("/etc/group", format!("limpet:x:{id}:"));
        for file in ["/etc/subuid", "/etc/subgid"] {
            let (first, count) = SUBORDINATE;
            let line = if subordinate {
                format!("limpet:{first}:{count}")
            } else {
                String::new()
            };
            let _ = folder.file(&file.replace('/', "_"), line + "\n");
        }
        for name in ["dev", "bin", "home"] {
            fs::create_dir(folder.path(name)).expect("a folder");
        }
        chown(folder.path("home"), Some(id), Some(id)).expect("a home");
        let user = Self {
            folder,
            id,
            cgroups: Vec::new(),
        };
        user.program(&chiton_path());
        Some(user)
    }

    /// The user's number.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The user's own folder.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.path("home")
    }

    /// Has the user's programs run in the cgroups of these directories.
    pub fn enter_cgroups(&mut self, directories: &[PathBuf]) {
        self.cgroups = directories.iter().map(|path| path.join("cgroup.procs")).collect();
    }

    /// A program where the user can run it: that of the tests may be in a folder that is closed to others.
    fn program(&self, path: &Path) -> PathBuf {
        let to = self
            .folder
            .path("bin")
            .join(path.file_name().expect("a program's name"));
        if !to.exists() {
            // Another process does it: what this one has open to write, others that are started meanwhile have too,
            // for as long as they are copies of it, and the kernel runs no program that somebody writes.
            let copied = Command::new("cp").args([path, &to]).status().expect("cp starts");
            assert!(copied.success(), "{} cannot be copied", path.display());
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        to
    }

    /// A guest's program, where the user can read it.
    #[must_use]
    pub fn guest(&self, name: &str) -> String {
        self.program(&guest_path(name)).display().to_string()
    }

    /// `chiton`, as the user runs it, in the user's folder.
    #[must_use]
    pub fn chiton(&self) -> Command {
        let mut command = self.command(&self.program(&chiton_path()));
        command
            .env_remove("CHITON_JAIL")
            .env("CHITON_HOME", self.home().join("chiton"));
        command
    }

    /// A program, as the user runs it.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let path = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("a path");
        let bind = |name: &str, to: &str| {
            let exists = Path::new(to).exists();
            exists.then(|| (path(&self.folder.path(name)), path(Path::new(to))))
        };
        let devices = path(&self.folder.path("dev"));
        let nodes = [("dev/kvm", (10, 232)), ("dev/tun", (10, 200))];
        let nodes = nodes.map(|(name, (major, minor))| (path(&self.folder.path(name)), libc::makedev(major, minor)));
        let binds: Vec<_> = [
            bind("_etc_passwd", "/etc/passwd"),
            bind("_etc_group", "/etc/group"),
            bind("_etc_subuid", "/etc/subuid"),
            bind("_etc_subgid", "/etc/subgid"),
            bind("dev/kvm", "/dev/kvm"),
            bind("dev/tun", "/dev/net/tun"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let cgroups: Vec<_> = self.cgroups.iter().map(|file| path(file)).collect();
        let (id, home) = (self.id, path(&self.home()));
        let become_user = move || {
            let check = |result: libc::c_int| match result {
                0.. => Ok(()),
                _ => Err(io::Error::last_os_error()),
            };
            let mount = |from: &CStr, to: &CStr, kind: &CStr, flags| {
                // SAFETY: the strings live until the call is over; the last argument may be null.
                check(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) })
            };
            for file in &cgroups {
                // SAFETY: the string and the byte live until the calls are over.
                unsafe {
                    let fd = libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                    check(fd)?;
                    check(libc::write(fd, b"0".as_ptr().cast(), 1) as libc::c_int)?;
                    libc::close(fd);
                }
            }
            // SAFETY: a number is all it takes.
            check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
            mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE)?;
            cover_root()?;
            mount(c"none", &devices, c"tmpfs", 0)?;
            for (node, device) in &nodes {
                // SAFETY: the strings live until the calls are over.
                unsafe {
                    check(libc::mknod(node.as_ptr(), libc::S_IFCHR, *device))?;
                    check(libc::chmod(node.as_ptr(), 0o666))?;
                }
            }
            for (from, to) in &binds {
                mount(from, to, c"none", libc::MS_BIND)?;
            }
            // SAFETY: the string lives until the call is over; no groups are read from the null pointer.
            unsafe {
                check(libc::chdir(home.as_ptr()))?;
                check(libc::setgroups(0, std::ptr::null()))?;
                check(libc::setresgid(id, id, id))?;
                check(libc::setresuid(id, id, id))
            }
        };
        let mut command = Command::new(program);
        command
            .current_dir(self.home())
            .env("HOME", self.home())
            .env("TMPDIR", self.home());
        // SAFETY: system calls only, with strings that were made before; nothing is allocated.
        unsafe { command.pre_exec(become_user) };
        command
    }

    /// The user's processes: number and name.
    ///
    /// # Panics
    ///
    /// If there is no `/proc`.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        let mut found = Vec::new();
        for process in fs::read_dir("/proc").expect("there is a /proc").flatten() {
            let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
            let uid = field("Uid:").and_then(|uid| uid.split_whitespace().next());
            if uid == Some(&self.id.to_string()) {
                found.push(format!(
                    "{} {}",
                    process.file_name().to_string_lossy(),
                    field("Name:").unwrap_or_default().trim()
                ));
            }
        }
        found
    }
}

/// Has the root of this process be a mount that `pivot_root` can leave, which an initramfs is not.
fn cover_root() -> io::Result<()> {
    let check = |result: libc::c_long| match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: system calls with strings that live for ever, and a descriptor that is open until the last of them.
    unsafe {
        let tree = check(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c"/".as_ptr(), flags))?;
        let (empty, root) = (c"".as_ptr(), c"/".as_ptr());
        let from_descriptor = 4; // MOVE_MOUNT_F_EMPTY_PATH
        check(libc::syscall(
            libc::SYS_move_mount,
            tree,
            empty,
            libc::AT_FDCWD,
            root,
            from_descriptor,
        ))?;
        check(libc::fchdir(tree as libc::c_int).into())?;
        check(libc::chroot(c".".as_ptr()).into())?;
        check(libc::close(tree as libc::c_int).into())?;
    }
    Ok(())
}

//! Who the jail's users are outside: the maps of its user namespace.
//!
//! ```text
//!   inside      0 ──────────── 65535            root caller: a range of its own for each jail
//!   outside     1879048192 ─── 1879113727
//!
//!   inside      0    1 ─────── 65535            ordinary user with newuidmap and /etc/subuid
//!   outside     1000 100000 ── 165534
//!
//!   inside      0                               ordinary user without
//!   outside     1000
//! ```

mod ranges;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{getegid, geteuid};
use rustix::thread::{Gid, Uid};

use super::error::{At, Failure, Step};

pub use ranges::{Lease, RangeError, Ranges, Span, spans_of};

/// A run of ids and what they are outside: a line of `/proc/PID/uid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first id, inside.
    pub inside: u32,
    /// What it is outside.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

/// The maps of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// User ids.
    pub users: Vec<Extent>,
    /// Group ids.
    pub groups: Vec<Extent>,
}

impl IdMap {
    /// One range for users and groups, from id 0 on: for a caller that is root.
    #[must_use]
    pub fn range(first: u32, count: u32) -> Self {
        let extents = vec![Extent {
            inside: 0,
            outside: first,
            count,
        }];
        Self {
            users: extents.clone(),
            groups: extents,
        }
    }

    /// The caller alone, who is root inside.
    #[must_use]
    pub fn caller() -> Self {
        let one = |outside| {
            vec![Extent {
                inside: 0,
                outside,
                count: 1,
            }]
        };
        Self {
            users: one(geteuid().as_raw()),
            groups: one(getegid().as_raw()),
        }
    }

    /// What an ordinary user can have: the caller as root, and the caller's subordinate ids from
    /// `/etc/subuid` and `/etc/subgid` from 1 on, where there are any and `newuidmap` and `newgidmap`
    /// are installed.
    #[must_use]
    pub fn rootless() -> Self {
        let mut map = Self::caller();
        if !["newuidmap", "newgidmap"].into_iter().all(is_installed) {
            return map;
        }
        let name = user_name(geteuid().as_raw());
        let users = subordinate("/etc/subuid", name.as_deref(), geteuid().as_raw());
        let groups = subordinate("/etc/subgid", name.as_deref(), geteuid().as_raw());
        // One without the other would be a surprise.
        if let (Some(users), Some(groups)) = (users, groups) {
            map.users.push(users);
            map.groups.push(groups);
        }
        map
    }

    /// Whether an ordinary process may write the map itself: one id, its own.
    fn is_caller(&self) -> bool {
        *self == Self::caller()
    }

    /// Whether ids are the same inside and outside, so that files need no other owners.
    #[must_use]
    pub fn moves_ids(&self) -> bool {
        let moves = |extents: &[Extent]| extents.iter().any(|extent| extent.inside != extent.outside);
        moves(&self.users) || moves(&self.groups)
    }

    /// Writes the maps of the new process; the caller is its parent.
    pub(super) fn write_for(&self, pid: libc::pid_t) -> Result<(), Failure> {
        let proc = format!("/proc/{pid}");
        if geteuid().is_root() {
            write(&format!("{proc}/gid_map"), &lines(&self.groups))?;
            return write(&format!("{proc}/uid_map"), &lines(&self.users));
        }
        if self.is_caller() {
            // user_namespaces(7): an unprivileged process gives up setgroups(2), with which somebody whom a
            // group is denied could leave that group.
            write(&format!("{proc}/setgroups"), "deny")?;
            write(&format!("{proc}/gid_map"), &lines(&self.groups))?;
            return write(&format!("{proc}/uid_map"), &lines(&self.users));
        }
        help("newgidmap", pid, &self.groups)?;
        help("newuidmap", pid, &self.users)
    }
}

/// The text of a map.
fn lines(extents: &[Extent]) -> String {
    let mut text = String::new();
    for extent in extents {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {} {}", extent.inside, extent.outside, extent.count);
    }
    text
}

/// The kernel wants a map in one write.
fn write(path: &str, text: &str) -> Result<(), Failure> {
    let what = || format!("{path}: {:?}", text.trim_end());
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::IdMap, what)?;
    rustix::io::write(&file, text.as_bytes())
        .at(Step::IdMap, what)
        .map(drop)
}

/// Has a program that is set-user-id root write a map, as far as `/etc/subuid` allows.
fn help(program: &str, pid: libc::pid_t, extents: &[Extent]) -> Result<(), Failure> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for extent in extents {
        command.args([extent.inside, extent.outside, extent.count].map(|number| number.to_string()));
    }
    let output = command.output().at(Step::IdMap, || program.into())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::refused(Step::IdMap, format!("{program}: {}", said.trim())))
}

fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// The name of a user, by `/etc/passwd`.
fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = text
        .lines()
        .find(|line| line.split(':').nth(2) == Some(&uid.to_string()))?;
    line.split(':').next().map(str::to_owned)
}

/// The first range of a user (`subuid(5)`: name or number, first id, count), for ids from 1 on.
fn subordinate(path: impl AsRef<Path>, name: Option<&str>, uid: u32) -> Option<Extent> {
    let text = std::fs::read_to_string(path).ok()?;
    let uid = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        if owner != uid && Some(owner) != name {
            return None;
        }
        Some(Extent {
            inside: 1,
            outside: fields.next()?.parse().ok()?,
            count: fields.next()?.trim().parse().ok().filter(|count| *count > 0)?,
        })
    })
}

/// Becomes root of the jail: until then this process is nobody there.
pub(super) fn become_root() -> Result<(), Failure> {
    // Groups of the caller go where the kernel lets them go.
    let allowed = std::fs::read("/proc/self/setgroups").at(Step::BecomeRoot, || "/proc/self/setgroups".into())?;
    if allowed.starts_with(b"allow") {
        rustix::thread::set_thread_groups(&[]).at(Step::BecomeRoot, || "no further groups".into())?;
    }
    become_user(0, 0).at(Step::BecomeRoot, || "user and group 0".into())?;
    keep_own_files()
}

/// The kernel gives the files in /proc/self of a process that changed its ids, or entered another's user namespace, to the
/// host's root, and some are still to be written. At the end it is not dumpable again.
pub(super) fn keep_own_files() -> Result<(), Failure> {
    let dumpable = rustix::process::DumpableBehavior::Dumpable;
    rustix::process::set_dumpable_behavior(dumpable).at(Step::BecomeRoot, || "its own files in /proc".into())
}

/// Real, effective and saved ids.
pub(super) fn become_user(user: u32, group: u32) -> Result<(), rustix::io::Errno> {
    let group = Gid::from_raw(group);
    rustix::thread::set_thread_res_gid(group, group, group)?;
    let user = Uid::from_raw(user);
    rustix::thread::set_thread_res_uid(user, user, user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_written_as_the_kernel_reads_it() {
        assert_eq!(lines(&IdMap::range(100_000, 65_536).users), "0 100000 65536\n");
    }

    #[test]
    fn subordinate_ids_are_found_by_name_and_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("subuid");
        std::fs::write(&file, "bob:5:0\nalice:100000:65536\n1000:200000:10\nbad:line\n").unwrap();
        let at = |name, uid| subordinate(&file, name, uid).map(|extent| (extent.outside, extent.count));
        assert_eq!(at(Some("alice"), 7), Some((100_000, 65_536)));
        assert_eq!(at(None, 1000), Some((200_000, 10)));
        assert_eq!(at(Some("bob"), 8), None);
        assert_eq!(at(Some("bad"), 8), None);
        assert_eq!(at(Some("eve"), 9), None);
    }
}

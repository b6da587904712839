//! The walls round a process: namespaces, its root file system, its privileges.
//!
//! ```text
//!   caller                                   jailed process
//!     │ compile filter, open what is kept
//!     ├── clone3: user and pid; cgroup v2 ────▶│ the other namespaces; names, clocks, loopback
//!     │ cgroups of v1                          │
//!     │ id maps                                │
//!     │ views of layers with mapped owners     │
//!     ├── go ─────────────────────────────────▶│ cgroup v1; root of the jail
//!     │                                        │ overlay, /proc, /sys, /dev, volumes
//!     │                                        │ pivot_root, the old root detached
//!     │                                        │ capabilities, Landlock, descriptors, limits, seccomp
//!     │◀────────────────────────────── ready ──┤
//!     │                                        │ the payload: in this same process, or a program
//! ```
//!
//! Nothing is executed on the way and no helper runs, so a jail costs its system calls and no more.
//! `inside` below is the whole order, top to bottom.
//!
//! ```no_run
//! use chiton_container::jail::{IdMap, Jail, Root};
//!
//! let root = Root { layers: vec!["/srv/image".into()], ..Root::default() };
//! let mut jail = Jail::new(root, IdMap::rootless());
//! jail.hostname = "cell".into();
//! let mut jailed = jail.spawn(|| {
//!     println!("I am process {}", std::process::id());
//!     0
//! })?;
//! println!("{}", jailed.wait()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apart;
mod channel;
mod clone;
mod error;
mod facilities;
mod idmap;
mod init;
mod keeper;
mod landlock;
mod limits;
mod namespaces;
mod privileges;
mod program;
mod rootfs;
pub mod seccomp;
mod user;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, geteuid, pidfd_send_signal, waitid};

use channel::{Channel, Standing, Word};
use clone::{Side, clone3, exit};
use error::At;
use namespaces::Joined;
use rootfs::Owner;
use seccomp::{Filter, Program as Compiled};
use user::Who;

use crate::network::{LOW_PORTS, open_low_ports};

pub(crate) use apart::remove_tree;
pub use apart::{apart, subordinate_ids};
pub use error::{Error, Failure, Status, Step};
pub use facilities::{filters_calls, landlock_version, maps_owners};
pub use idmap::{Extent, IdMap, Lease, RangeError, Ranges, Span, spans_of};
pub use init::Init;
pub use keeper::Keeper;
pub use landlock::{Enforced, Landlock};
pub use limits::{BadUlimit, Limit, with_usual};
pub use namespaces::{Clocks, Kind, Namespaces, Source};
pub use program::Program;
pub use rootfs::{Dev, Proc, Root, Sys, Volume, VolumeError};
/// Resources that [`Limit`] limits, and signals.
pub use rustix::process::{Resource, Signal};

/// Where the process goes among control groups.
#[derive(Debug, Default)]
pub enum CgroupPlacement {
    /// Where the caller is.
    #[default]
    Caller,
    /// Cgroup v2: it is born in the group of this directory.
    Unified(OwnedFd),
    /// Cgroup v1, and hybrid hosts: it is born in the group of this directory, if there is one, and later, before it has
    /// a root of its own, writes itself into these files, `tasks` of a group of each controller. To do so itself, into
    /// `tasks`, takes microseconds; to have its number written into `cgroup.procs` takes a grace period of the kernel,
    /// some milliseconds.
    PerController {
        /// The directory on the v2 tree of a hybrid host.
        unified: Option<OwnedFd>,
        /// The files, open for writing.
        tasks: Vec<File>,
    },
}

/// A jail that is to be made. Every part is on unless it is turned off.
#[derive(Debug)]
pub struct Jail {
    /// Which namespaces are new, and which are another's.
    pub namespaces: Namespaces,
    /// Who the jail's users are outside. Without a new user namespace it is not looked at.
    pub ids: IdMap,
    /// The host name inside.
    pub hostname: String,
    /// The NIS domain name inside.
    pub domainname: String,
    /// The jail's clocks.
    pub clocks: Clocks,
    /// The root file system. Not looked at where the mount namespace is another jail's.
    pub root: Root,
    /// Its control group.
    pub cgroup: CgroupPlacement,
    /// Who is process 1.
    pub init: Init,
    /// The user that the payload is, inside.
    pub user: u32,
    /// The group that the payload is in, inside.
    pub group: u32,
    /// Who the payload is instead of these two: `user[:group]`, each a name or a number, as `/etc/passwd` and
    /// `/etc/group` of the root have them.
    pub named: Option<String>,
    /// Limits on resources; core files are always off.
    pub limits: Vec<Limit>,
    /// The payload's environment, `NAME=VALUE`; nothing of the caller's is left.
    pub environment: Vec<CString>,
    /// Descriptors that the payload keeps, by their numbers, besides 0, 1 and 2.
    pub keep: Vec<RawFd>,
    /// The system call filter; `None` is no filter.
    pub filter: Option<Filter>,
    /// Landlock.
    pub landlock: Landlock,
    /// Whether the kernel kills the jail when the thread that made it ends, so that no kill of the
    /// caller leaves a jail, or its range of ids, behind.
    pub die_with_parent: bool,
    /// Whether [`Jailed::take_open_namespaces`] has its namespaces. Its process will be closed, so that an ordinary user,
    /// who made it, could not open them later for somebody who is to enter them.
    pub opens_namespaces: bool,
    /// Called, in the new process, when each part of the way in is behind it, with the part's name: for who
    /// measures.
    pub phase: fn(&'static str),
    /// Called in the new process before anything else, for memory that it is about to write: many pages at once take the
    /// kernel less than one by one.
    pub ahead: fn(),
}

impl Jail {
    /// A jail with this root and these owners, in which everything is on and strict.
    #[must_use]
    pub fn new(root: Root, ids: IdMap) -> Self {
        Self {
            namespaces: Namespaces::default(),
            ids,
            hostname: "chiton".into(),
            domainname: "(none)".into(),
            clocks: Clocks::default(),
            root,
            cgroup: CgroupPlacement::Caller,
            init: Init::default(),
            user: 0,
            group: 0,
            named: None,
            limits: Vec::new(),
            environment: Vec::new(),
            keep: Vec::new(),
            filter: Some(seccomp::ordinary()),
            landlock: Landlock::default(),
            die_with_parent: true,
            opens_namespaces: false,
            phase: |_| {},
            ahead: || {},
        }
    }

    /// Makes the jail and runs a function in it, in a copy of this process; what it returns is the exit
    /// status. When this comes back, the jail stands and the function has begun.
    ///
    /// The function finds the caller's memory as it was, and starts threads as it likes. The C library
    /// still has the old number of this thread: signals to it go by `gettid` and `tgkill`, not by
    /// `pthread_kill`.
    ///
    /// As process 1 ([`Init::Payload`]) it begins with those signals blocked that this thread has blocked: of
    /// what is blocked the kernel drops nothing, while one that comes before process 1 has a handler for it
    /// would be lost.
    ///
    /// # Errors
    ///
    /// [`Error::Step`] names the step that failed, and nothing is left of the jail; [`Error::Threads`] if
    /// this process has several threads.
    pub fn spawn(&self, payload: impl FnOnce() -> i32) -> Result<Jailed, Error> {
        self.begin(payload)?.stand(self)
    }

    /// Makes the jail and runs a program of its root in it. When this comes back, the program has begun.
    ///
    /// # Errors
    ///
    /// As [`Jail::spawn`], and [`Step::Exec`] if there is no such program.
    pub fn spawn_program(&self, program: &Program) -> Result<Jailed, Error> {
        self.make(Payload::<fn() -> i32>::Program(program))?.stand(self)
    }

    /// Begins to make the jail for a function, as [`Jail::spawn`] does, and comes back while it is being made: for a
    /// caller that has something else to do meanwhile.
    ///
    /// What only the caller's half looks at may still be found out then, until [`Begun::go`] is called with it: which ids
    /// they are that others than the caller's own are mapped to ([`IdMap::moves_ids`]), the `tasks` of
    /// [`CgroupPlacement::PerController`], and whether the folders of the root are there.
    ///
    /// # Errors
    ///
    /// As [`Jail::spawn`].
    pub fn begin(&self, payload: impl FnOnce() -> i32) -> Result<Begun, Error> {
        self.make(Payload::Function(payload))
    }

    /// The caller's half, up to where there are two processes.
    fn make<F: FnOnce() -> i32>(&self, payload: Payload<'_, F>) -> Result<Begun, Error> {
        one_thread()?;
        let plan = Plan {
            filter: self.filter.as_ref().map(Filter::compile),
            maps_owners: self.maps_owners(),
        };
        let joined = self.namespaces.open_joined()?;
        let (outside, inner) = Channel::pair().map_err(|errno| Error::System("make a channel", errno.into()))?;
        let cgroup = match &self.cgroup {
            CgroupPlacement::Unified(directory) => Some(directory.as_fd()),
            CgroupPlacement::PerController { unified, .. } => unified.as_ref().map(AsFd::as_fd),
            CgroupPlacement::Caller => None,
        };
        let flags = self.namespaces.clone_flags();
        let run = || self.run(&inner, &outside, &plan, payload);
        let (pid, pidfd) = if joined.is_empty() {
            start(flags, cgroup, run)?
        } else {
            start_among(&joined, flags, cgroup, &inner, &outside, run)?
        };
        Ok(Begun {
            maps_owners: plan.maps_owners,
            outside,
            pid,
            pidfd: Some(pidfd),
            gone: false,
        })
    }

    /// What only the caller can do for the new process, before it goes on.
    fn help(&self, pid: libc::pid_t, outside: &Channel, maps_owners: bool) -> Result<(), Failure> {
        if self.namespaces.is_new(Kind::User) {
            self.ids.write_for(pid)?;
        }
        self.limits.iter().try_for_each(|limit| limit.raise(pid))?;
        let parts = if maps_owners {
            let path = format!("/proc/{pid}/ns/user");
            let users =
                open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::IdMap, || path.clone())?;
            self.root.open_mapped(users.as_fd())?
        } else {
            Vec::new()
        };
        let tasks = match &self.cgroup {
            CgroupPlacement::PerController { tasks, .. } => tasks.as_slice(),
            CgroupPlacement::Caller | CgroupPlacement::Unified(_) => &[],
        };
        let mut all: Vec<_> = tasks.iter().map(AsFd::as_fd).collect();
        let groups = all.len() as u32;
        all.extend(parts.iter().map(AsFd::as_fd));
        match outside.send_descriptors(groups, &all) {
            // It died; what it said before is worth more than that.
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            other => other.at(Step::Clone, || "say go".into()),
        }
    }

    /// Whether owners of files have to be mapped, which only root can, and only root has to.
    fn maps_owners(&self) -> bool {
        let moves = match self.namespaces.source(Kind::User) {
            Source::New => self.ids.moves_ids(),
            Source::Caller => false,
            // The kernel lets nobody enter the namespace in which one is: it is another.
            Source::Process(_) | Source::File(_) => true,
        };
        moves && self.namespaces.is_new(Kind::Mount) && geteuid().is_root()
    }

    /// Whose a namespace is, and with it what /proc or /sys shows of it.
    fn owner(&self, kind: Kind) -> Owner {
        match (self.namespaces.source(kind), self.namespaces.source(Kind::User)) {
            (Source::New, _) => Owner::Jail,
            (Source::Caller, _) => Owner::Caller,
            // Who is in the same user namespace, or in none of its own, has the right.
            (_, Source::New) => Owner::Other,
            _ => Owner::Jail,
        }
    }

    /// The new process: builds the jail round itself, and runs the payload.
    fn run<F: FnOnce() -> i32>(
        &self,
        channel: &Channel,
        outside: &Channel,
        plan: &Plan,
        payload: Payload<'_, F>,
    ) -> i32 {
        // With the caller's end open here, this process would never see that the caller is gone.
        outside.close();
        let standing = match self.inside(channel, plan, matches!(payload, Payload::Function(_))) {
            Ok(standing) => standing,
            Err(failure) => {
                channel.failed(&failure);
                return NO_JAIL;
            }
        };
        // Nobody to hear means nobody to mind the jail.
        if channel.ready(&standing).is_err() {
            return NO_JAIL;
        }
        match payload {
            Payload::Function(function) => {
                channel.close();
                let code = function();
                // There are no destructors. Where the output goes is the payload's affair, as is its loss.
                let _ = io::stdout().flush();
                code
            }
            Payload::Program(program) => {
                channel.failed(&program.execute(&self.environment));
                NO_JAIL
            }
        }
    }

    /// The order in which a jail is made.
    fn inside(&self, channel: &Channel, plan: &Plan, is_function: bool) -> Result<Standing, Failure> {
        let new = |kind| self.namespaces.is_new(kind);

        // 1. A session without a terminal, into which nothing can be typed from here.
        (self.phase)("clone");
        (self.ahead)();
        rustix::process::setsid().at(Step::Session, || "setsid".into())?;

        // 2. Namespaces that a process makes for itself, and what is set in those that are new. As yet it is nobody, with
        // all rights over them: the caller makes its groups and maps its ids meanwhile.
        idmap::keep_own_files()?;
        self.namespaces.unshare_early()?;
        if new(Kind::Uts) {
            namespaces::set_names(&self.hostname, &self.domainname)?;
        }
        if new(Kind::Time) {
            namespaces::new_clocks(self.clocks)?;
        }
        if new(Kind::Network) {
            namespaces::loopback_up()?;
            // A machine binds nothing, and is to start fast.
            if !is_function {
                open_low_ports().at(Step::Loopback, || LOW_PORTS.into())?;
            }
        }
        let mut namespaces = namespaces::own()?;
        (self.phase)("namespaces");

        // 3. When the caller says go, into its control groups, before it has anything to account for but the namespaces.
        let go = channel.receive_descriptors().at(Step::Clone, || "wait for go".into())?;
        let Some((groups, mut parts)) = go else { exit(NO_JAIL) };
        (self.phase)("map ids");
        if parts.len() < groups as usize {
            return Err(Failure::refused(Step::Cgroup, "not all of its groups arrived"));
        }
        for group in parts.drain(..groups as usize) {
            rustix::io::write(&group, b"0").at(Step::Cgroup, || "enter a cgroup".into())?;
        }
        if new(Kind::Cgroup) {
            namespaces::unshare_cgroup(&mut namespaces)?;
        }
        (self.phase)("enter cgroups");
        if self.opens_namespaces {
            let shown = channel.show_namespaces(&namespaces::open_own()?);
            shown.at(Step::Join, || "send out its namespaces".into())?;
        }

        // 4. Root of the jail: all rights over its namespaces, none over the host.
        if new(Kind::User) || self.namespaces.joins(Kind::User) {
            idmap::become_root()?;
        }
        // From here on it has ids that are the caller's to give.
        if self.die_with_parent {
            privileges::die_with_parent()?;
        }

        // 5. No user namespace below its own. Who enters another jail's view of mounts, too, is in that jail, which has
        // done it.
        let closes_users = new(Kind::User) || self.namespaces.joins(Kind::User) && !self.namespaces.joins(Kind::Mount);
        if closes_users && !new(Kind::Mount) {
            namespaces::no_more_users(None)?;
        }

        // 6. The root, built over the old one while that is still in reach; then in, and the old one away.
        if new(Kind::Mount) {
            rootfs::make_private()?;
            let parts = if plan.maps_owners {
                self.root.sort(parts)?
            } else {
                self.root.open_plain()?
            };
            if closes_users {
                // Where that may not be mounted, the host's does.
                let proc = new(Kind::Pid).then(rootfs::passing_proc).and_then(Result::ok);
                namespaces::no_more_users(proc.as_ref())?;
            }
            let view = rootfs::View {
                user: new(Kind::User) || self.namespaces.joins(Kind::User),
                queues: new(Kind::Ipc),
                processes: self.owner(Kind::Pid),
                interfaces: self.owner(Kind::Network),
            };
            let root = rootfs::build(&self.root, &parts, view)?;
            (self.phase)("mount root");
            rootfs::enter(&root)?;
            (self.phase)("pivot root");
        }

        // 7. Nothing of the caller's: environment, signals.
        privileges::set_environment(&self.environment)?;
        // What comes meanwhile waits: a minder passes it on, a function reads it, and a program that is process 1
        // can have it from here on.
        if !is_function {
            init::forget_ignored_signals();
            if self.init == Init::Payload {
                init::unblock_signals();
            }
        }

        // 8. No privileges. What comes after needs none.
        let who = match &self.named {
            Some(named) => user::find(named)?,
            None => Who {
                user: self.user,
                group: self.group,
                groups: Vec::new(),
            },
        };
        privileges::drop_all(&who)?;
        (self.phase)("drop privileges");

        // 9. Files below the root only, even if some descriptor or link leads elsewhere.
        let landlock = landlock::restrict(self.landlock)?;
        (self.phase)("Landlock");

        // 10. No descriptor of the caller's but those it means to give.
        let mut keep = self.keep.clone();
        keep.push(channel.number());
        privileges::close_others(&keep)?;

        // 11. Process 1, whose death is the death of all. It dies with the caller.
        if self.die_with_parent {
            privileges::die_with_parent()?;
        }
        match self.init {
            Init::Minder => {
                init::split(plan.filter.is_some()).at(Step::Clone, || "the payload's process".into())?;
                if self.die_with_parent {
                    privileges::die_with_parent()?;
                }
            }
            Init::Payload if is_function => init::ignore_children(),
            Init::Payload => {}
        }

        // 12. Limits on resources, which nothing of the above had to keep to, nor a minder has.
        self.limits.iter().try_for_each(|limit| limit.set())?;

        // 13. The filter last: it need not allow anything of the above.
        if let Some(filter) = &plan.filter {
            filter.install()?;
        }
        (self.phase)("filter");
        Ok(Standing { landlock, namespaces })
    }
}

/// Exit status of a process whose jail could not be made; nobody sees it but the caller's half.
const NO_JAIL: i32 = 125;

/// What the caller's half works out before there are two processes.
#[derive(Debug)]
struct Plan {
    filter: Option<Compiled>,
    maps_owners: bool,
}

/// What runs in a jail.
enum Payload<'a, F> {
    Function(F),
    Program(&'a Program),
}

/// Waits until this process has one thread, for a thread that was joined may take a moment to be gone.
///
/// The number of threads is that of links of `/proc/self/task`, less two: one call instead of a listing.
fn one_thread() -> Result<(), Error> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let start = Instant::now();
    loop {
        let task =
            rustix::fs::stat("/proc/self/task").map_err(|errno| Error::System("look into /proc", errno.into()))?;
        match task.st_nlink.saturating_sub(2) {
            0 | 1 => return Ok(()),
            threads if start.elapsed() > PATIENCE => return Err(Error::Threads(threads)),
            _ => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Starts the jail's process.
fn start(flags: u64, cgroup: Option<BorrowedFd<'_>>, run: impl FnOnce() -> i32) -> Result<(i32, OwnedFd), Failure> {
    // Else what waits in the buffer would be written by both.
    let _ = io::stdout().flush();
    let what = || "clone3".to_owned();
    match clone3(flags, cgroup).at(Step::Clone, what)? {
        // A panic must not unwind into what is the caller's.
        Side::Child => exit(catch_unwind(AssertUnwindSafe(run)).unwrap_or(101)),
        Side::Parent { pid, pidfd } => Ok((pid, pidfd)),
    }
}

/// Starts the jail's process in namespaces of others.
///
/// The caller must not enter them itself, because there is no way back out of some. So a process in
/// between does, starts the jail's process as a child of the caller, tells which it is, and ends.
fn start_among(
    joined: &[Joined],
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    inner: &Channel,
    outside: &Channel,
    run: impl FnOnce() -> i32,
) -> Result<(i32, OwnedFd), Error> {
    let between = || {
        let started = joined
            .iter()
            .try_for_each(Joined::enter)
            .and_then(|()| start(flags | libc::CLONE_PARENT as u64, cgroup, run));
        let told = started.and_then(|(pid, pidfd)| {
            let told = inner.send_descriptors(pid.cast_unsigned(), &[pidfd.as_fd()]);
            told.at(Step::Join, || "tell of the new process".into())
        });
        match told {
            Ok(()) => 0,
            Err(failure) => {
                inner.failed(&failure);
                NO_JAIL
            }
        }
    };
    let (_, between) = start(0, None, between)?;
    let status = wait(&between).map_err(Error::wait)?;
    if status != Status::Exited(0) {
        return Err(match outside.word() {
            Ok(Word::Failed(failure)) => failure.into(),
            _ => Error::Died(status),
        });
    }
    match outside.receive_descriptors() {
        Ok(Some((pid, mut fds))) if fds.len() == 1 => Ok((pid.cast_signed(), fds.remove(0))),
        _ => Err(Error::Died(status)),
    }
}

/// Waits until the payload runs; `None` if the process ended without a word.
fn listen(outside: &Channel, namespaces: &mut Vec<OwnedFd>) -> Result<Option<Standing>, Error> {
    let mut ready = None;
    loop {
        match outside.word_with(namespaces) {
            Ok(Word::Ready(standing)) => ready = Some(standing),
            Ok(Word::Namespaces) => {}
            Ok(Word::Failed(failure)) => return Err(failure.into()),
            Ok(Word::End) => return Ok(ready),
            Err(errno) => return Err(Error::System("hear from the jail", errno.into())),
        }
    }
}

fn wait(pidfd: &OwnedFd) -> io::Result<Status> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Status::Exited(code),
                    (None, signal) => Status::Signalled(signal.unwrap_or(libc::SIGKILL)),
                });
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A jail that is being made: its process waits for what only the caller can do for it, which is [`Begun::go`].
/// If this is dropped, nothing is left of it.
#[derive(Debug)]
pub struct Begun {
    maps_owners: bool,
    outside: Channel,
    pid: libc::pid_t,
    /// The process, until somebody else has it.
    pidfd: Option<OwnedFd>,
    /// Whether it goes on by itself.
    gone: bool,
}

impl Begun {
    /// Maps the ids and lets the process go on by itself, for a caller that has something else to do meanwhile. The jail
    /// is the one that was begun.
    ///
    /// # Errors
    ///
    /// As [`Jail::spawn`].
    pub fn go(&mut self, jail: &Jail) -> Result<(), Error> {
        if std::mem::replace(&mut self.gone, true) {
            return Ok(());
        }
        let helped = jail.help(self.pid, &self.outside, self.maps_owners);
        if let (Err(_), Some(pidfd)) = (&helped, &self.pidfd) {
            // It may be waiting still. What it has said is worth more: it may have failed first.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            listen(&self.outside, &mut Vec::new())?;
        }
        Ok(helped?)
    }

    /// Lets the process go on, if it does not yet, and comes back when the jail stands and the payload has begun.
    ///
    /// # Errors
    ///
    /// As [`Jail::spawn`].
    pub fn stand(mut self, jail: &Jail) -> Result<Jailed, Error> {
        self.go(jail)?;
        let mut namespaces = Vec::new();
        let standing = listen(&self.outside, &mut namespaces)?;
        let pidfd = self.pidfd.take().ok_or(Error::Died(Status::Signalled(libc::SIGKILL)))?;
        match standing {
            Some(standing) => Ok(Jailed {
                pid: self.pid,
                pidfd,
                standing,
                namespaces,
                ended: None,
            }),
            None => Err(Error::Died(wait(&pidfd).map_err(Error::wait)?)),
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            // What went wrong is worth more than what goes wrong while it is taken down.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            let _ = wait(pidfd);
        }
    }
}

/// A jailed process that has begun. It goes on if this is dropped; [`Jailed::kill`] and [`Jailed::wait`]
/// end it.
#[derive(Debug)]
pub struct Jailed {
    pid: i32,
    pidfd: OwnedFd,
    standing: Standing,
    namespaces: Vec<OwnedFd>,
    ended: Option<Status>,
}

impl Jailed {
    /// The number of the jail's process 1, as the caller sees it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The jail's process 1 as a descriptor, which can be polled for its end.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How much of Landlock holds.
    #[must_use]
    pub fn landlock(&self) -> Enforced {
        self.standing.landlock
    }

    /// The inode numbers of its eight namespaces.
    #[must_use]
    pub fn namespaces(&self) -> [(Kind, u64); 8] {
        let mut all = Kind::ALL.map(|kind| (kind, 0));
        for (entry, inode) in all.iter_mut().zip(self.standing.namespaces) {
            entry.1 = inode;
        }
        all
    }

    /// Its namespaces, if [they are open](Jail::opens_namespaces), in the order of [`Kind::ALL`]. They last as long as
    /// somebody has them.
    pub fn take_open_namespaces(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.namespaces)
    }

    /// Sends a signal to process 1; a minder passes it on to the payload.
    ///
    /// # Errors
    ///
    /// If the process has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Kills process 1, and with it all processes of the jail, if its process ids are its own.
    ///
    /// # Errors
    ///
    /// As [`Jailed::signal`].
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Waits for the end of process 1. When it is over, every process of the jail is gone, and with them
    /// its mounts and namespaces.
    ///
    /// # Errors
    ///
    /// If somebody else has waited for it.
    pub fn wait(&mut self) -> io::Result<Status> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let status = wait(&self.pidfd)?;
        self.ended = Some(status);
        Ok(status)
    }
}

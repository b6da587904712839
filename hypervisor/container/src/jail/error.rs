//! What can go wrong when a jail is made: which step, on what, why, and what to do.

use std::io;

use rustix::io::Errno;

/// A step of making a jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Starting the process in its namespaces.
    Clone,
    /// Entering the namespaces of another jail.
    Join,
    /// Moving the process into its control group.
    Cgroup,
    /// Writing the maps of user and group ids.
    IdMap,
    /// Becoming the jail's root.
    BecomeRoot,
    /// Leaving the session, and with it the terminal, of the caller.
    Session,
    /// Setting host and domain name.
    Hostname,
    /// Setting the clocks.
    Clocks,
    /// Bringing up the loopback interface.
    Loopback,
    /// Furnishing a network namespace.
    Network,
    /// Opening the layers of the root file system.
    Layers,
    /// Making the overlay.
    Overlay,
    /// Mounting what is not of the image: /proc, /dev, /sys, /tmp.
    Mount,
    /// Binding a volume.
    Volume,
    /// Making the new root the root.
    PivotRoot,
    /// Becoming the payload's user.
    User,
    /// Giving up privileges.
    Privileges,
    /// Restricting file access with Landlock.
    Landlock,
    /// Limiting resources.
    Limits,
    /// Installing a system call filter.
    Seccomp,
    /// Starting the program.
    Exec,
}

impl Step {
    const ALL: [Self; 21] = [
        Self::Clone,
        Self::Join,
        Self::Cgroup,
        Self::IdMap,
        Self::BecomeRoot,
        Self::Session,
        Self::Hostname,
        Self::Clocks,
        Self::Loopback,
        Self::Network,
        Self::Layers,
        Self::Overlay,
        Self::Mount,
        Self::Volume,
        Self::PivotRoot,
        Self::User,
        Self::Privileges,
        Self::Landlock,
        Self::Limits,
        Self::Seccomp,
        Self::Exec,
    ];

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == byte)
    }

    fn words(self) -> &'static str {
        match self {
            Self::Clone => "start a process in new namespaces",
            Self::Join => "enter a namespace of another jail",
            Self::Cgroup => "move the process into its control group",
            Self::IdMap => "map user and group ids",
            Self::BecomeRoot => "become root of the jail",
            Self::Session => "leave the caller's session",
            Self::Hostname => "set the host name",
            Self::Clocks => "set the clocks",
            Self::Loopback => "bring up the loopback interface",
            Self::Network => "furnish a network namespace",
            Self::Layers => "open a layer",
            Self::Overlay => "make the overlay",
            Self::Mount => "mount",
            Self::Volume => "bind a volume",
            Self::PivotRoot => "make the new root the root",
            Self::User => "become the payload's user",
            Self::Privileges => "give up privileges",
            Self::Landlock => "restrict file access with Landlock",
            Self::Limits => "limit resources",
            Self::Seccomp => "install the system call filter",
            Self::Exec => "start the program",
        }
    }
}

/// A step that failed, inside the jail or outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// What it was doing, and to what.
    pub on: String,
    /// Why, as the kernel put it; 0 if the kernel was not asked.
    pub errno: i32,
}

impl Failure {
    pub(super) fn new(step: Step, on: impl Into<String>, errno: Errno) -> Self {
        Self {
            step,
            on: on.into(),
            errno: errno.raw_os_error(),
        }
    }

    /// A refusal of our own.
    pub(super) fn refused(step: Step, on: impl Into<String>) -> Self {
        Self {
            step,
            on: on.into(),
            errno: 0,
        }
    }

    /// What a person can do about it; empty where the reason says it all.
    fn advice(&self) -> &'static str {
        let fits = |(steps, errno, _): &&(&[Step], i32, &str)| {
            *errno == self.errno && (steps.is_empty() || steps.contains(&self.step))
        };
        ADVICE.iter().find(fits).map_or("", |(_, _, advice)| advice)
    }
}

/// Steps (none is all of them), what the kernel said, and what to do. The first that fits counts.
const ADVICE: &[(&[Step], i32, &str)] = &[
    (
        &[Step::Clone],
        libc::ENOSYS,
        "clone3 needs Linux 5.3 or later (into a cgroup: 5.7), and no filter of system calls round this process that \
         hides it, as older engines have",
    ),
    (
        &[Step::Volume, Step::Layers, Step::Mount],
        libc::ENOSYS,
        "mounts with mapped owners (mount_setattr) need Linux 5.12 or later, open_tree 5.2, openat2 5.6: use such a \
         kernel, and no filter of system calls round this process that hides them",
    ),
    (
        &[Step::Privileges],
        libc::ENOSYS,
        "close_range needs Linux 5.9 or later: use such a kernel, and no filter of system calls round this process that \
         hides it",
    ),
    (
        &[Step::Seccomp, Step::Landlock],
        libc::ENOSYS,
        "this kernel was built without it (CONFIG_SECCOMP_FILTER, CONFIG_SECURITY_LANDLOCK)",
    ),
    (
        &[],
        libc::ENOSYS,
        "this kernel lacks a system call that a jail needs, or a filter of system calls hides it: use Linux 5.12 or \
         later; `chiton doctor` shows what is there",
    ),
    (
        &[Step::User],
        libc::EINVAL,
        "the jail has no such id: a jail made by root has 65536, one of an ordinary user more than one only with \
         newuidmap, newgidmap and lines of this user in /etc/subuid and /etc/subgid",
    ),
    (
        &[Step::Clone],
        libc::ENOSPC,
        "too many namespaces: raise the limits in /proc/sys/user",
    ),
    (
        &[Step::Clone],
        libc::EAGAIN,
        "too many processes: raise pids.max of the cgroup that this one is in, kernel.pid_max, or the limit of processes \
         (`ulimit -u`)",
    ),
    (
        &[Step::Clone, Step::IdMap],
        libc::EPERM,
        "leave the user namespace on, or run as root; an ordinary user needs newuidmap, and an entry in /etc/subuid, for \
         more than one id; some distributions forbid user namespaces with kernel.unprivileged_userns_clone or \
         kernel.apparmor_restrict_unprivileged_userns",
    ),
    (
        &[Step::Clone],
        libc::EINVAL,
        "this kernel lacks one of the namespaces: turn it off, or use Linux 5.7 or later",
    ),
    (
        &[Step::Clocks],
        libc::EINVAL,
        "a time namespace needs Linux 5.6 or later with CONFIG_TIME_NS",
    ),
    (
        &[Step::Join],
        libc::ENOENT,
        "this kernel lacks namespaces of that kind: a jail needs Linux 5.6 or later with CONFIG_TIME_NS",
    ),
    (
        &[Step::Clocks],
        libc::ERANGE,
        "a clock can neither become negative nor pass half of what it can count: add less",
    ),
    (
        &[Step::Cgroup],
        libc::EINVAL,
        "this kernel has no cgroup namespaces: use --namespace cgroup=host, or one with CONFIG_CGROUPS",
    ),
    (
        &[Step::Cgroup],
        libc::EBUSY,
        "the group has groups below it with controllers: put processes in leaves only",
    ),
    (
        &[Step::Layers, Step::Volume],
        libc::EINVAL,
        "this kernel cannot map owners on that file system: keep layers and volumes on ext4, xfs or btrfs, or use a \
         kernel that can (tmpfs: Linux 6.3)",
    ),
    (
        &[Step::Overlay],
        libc::ENODEV,
        "this kernel has no overlay file system: modprobe overlay",
    ),
    (
        &[Step::Overlay],
        libc::EINVAL,
        "the kernel's log has the reason (dmesg)",
    ),
    (
        &[Step::Overlay],
        libc::EPERM,
        "an overlay in a user namespace needs Linux 5.11 or later",
    ),
    (
        &[Step::Mount],
        libc::EPERM,
        "/proc and /sys can be mounted only where the caller's own are whole, with nothing mounted over parts of them",
    ),
    (
        &[Step::Volume],
        libc::EXDEV,
        "nothing goes over the kernel's own files, /proc and /sys",
    ),
    (&[Step::Volume], libc::ENOENT, "the host's side must exist"),
    (
        &[Step::Limits],
        libc::EPERM,
        "beyond the caller's own hard limits (`ulimit -H -a`) only root with CAP_SYS_RESOURCE can go, and nobody has more \
         files than /proc/sys/fs/nr_open",
    ),
    (
        &[Step::Seccomp],
        libc::EINVAL,
        "this kernel was built without filters of system calls (CONFIG_SECCOMP_FILTER)",
    ),
    (
        &[],
        libc::EMFILE,
        "this process has too many files open: raise its limit (`ulimit -n`)",
    ),
    (&[], libc::ENFILE, "the host has too many files open: raise fs.file-max"),
    (&[], libc::ENOMEM, "the host, or the cgroup, is out of memory"),
];

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.step.words(), self.on)?;
        if self.errno != 0 {
            write!(f, ": {}", io::Error::from_raw_os_error(self.errno))?;
        }
        match self.advice() {
            "" => Ok(()),
            advice => write!(f, "; {advice}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Why there is no jail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step failed.
    #[error(transparent)]
    Step(#[from] Failure),
    /// A process with several threads cannot be copied safely: a lock that another thread holds
    /// would stay locked in the copy for ever.
    #[error("a jail is made by a process with one thread, this one has {0}; make it before starting threads")]
    Threads(u64),
    /// The process died before its jail stood.
    #[error("the process died while its jail was made: {0}")]
    Died(Status),
    /// What was done apart went wrong, in its own words.
    #[error("{0}")]
    Said(String),
    /// The caller's process is in trouble of its own.
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
}

impl Error {
    pub(super) fn wait(source: io::Error) -> Self {
        Self::System("wait for a process", source)
    }
}

/// How a jailed process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It returned this, 0 to 255.
    Exited(i32),
    /// This signal killed it.
    Signalled(i32),
}

impl Status {
    /// What a shell would report: 128 and the number of the signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signalled(signal) => 128 + signal,
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signalled(libc::SIGSYS) => f.write_str("killed by its system call filter (SIGSYS)"),
            Self::Signalled(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// Names the step in which a system call failed, and on what.
pub(super) trait At<T> {
    fn at(self, step: Step, on: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step, on: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure::new(step, on(), errno))
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, step: Step, on: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step,
            on: on(),
            errno: error.raw_os_error().unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_survives_its_byte() {
        for step in Step::ALL {
            assert_eq!(Step::from_byte(step as u8), Some(step));
        }
        assert_eq!(Step::from_byte(200), None);
    }

    #[test]
    fn what_a_kernel_lacks_is_told_with_what_to_do_whichever_step_finds_it() {
        for step in Step::ALL {
            let text = Failure::new(step, "x", Errno::NOSYS).to_string();
            assert!(
                text.contains("; ") && text.contains("kernel") || text.contains("Linux"),
                "{text}"
            );
        }
        for (step, errno, words) in [
            (Step::Clone, Errno::NOSYS, "clone3 needs Linux 5.3"),
            (Step::Volume, Errno::NOSYS, "openat2 5.6"),
            (Step::Layers, Errno::NOSYS, "mount_setattr"),
            (Step::Privileges, Errno::NOSYS, "close_range needs Linux 5.9"),
            (Step::Clone, Errno::INVAL, "lacks one of the namespaces"),
            (Step::Clocks, Errno::INVAL, "CONFIG_TIME_NS"),
            (Step::Join, Errno::NOENT, "CONFIG_TIME_NS"),
            (Step::Clocks, Errno::RANGE, "add less"),
            (Step::Cgroup, Errno::INVAL, "--namespace cgroup=host"),
            (Step::IdMap, Errno::PERM, "newuidmap"),
            (Step::Clone, Errno::PERM, "apparmor_restrict"),
            (Step::Limits, Errno::PERM, "ulimit -H"),
            (Step::Seccomp, Errno::INVAL, "CONFIG_SECCOMP_FILTER"),
            (Step::Layers, Errno::MFILE, "ulimit -n"),
        ] {
            let text = Failure::new(step, "x", errno).to_string();
            assert!(text.contains(words), "{step:?}: {text}");
        }
    }

    #[test]
    fn every_advice_can_come() {
        for (index, (steps, errno, advice)) in ADVICE.iter().enumerate() {
            let all: &[Step] = if steps.is_empty() { &Step::ALL } else { steps };
            let comes = |step: &Step| Failure::new(*step, "", Errno::from_raw_os_error(*errno)).advice() == *advice;
            assert!(all.iter().any(comes), "{index}: {advice}");
        }
    }

    #[test]
    fn a_failure_says_what_on_what_why_and_what_to_do() {
        let failure = Failure::new(Step::Overlay, "3 layers", Errno::NODEV);
        assert_eq!(
            failure.to_string(),
            "cannot make the overlay: 3 layers: No such device (os error 19); this kernel has no overlay file system: \
             modprobe overlay"
        );
        let refused = Failure::refused(Step::Volume, "/proc: not over the kernel's own files");
        assert_eq!(
            refused.to_string(),
            "cannot bind a volume: /proc: not over the kernel's own files"
        );
    }
}

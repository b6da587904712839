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
    /// Giving up privileges.
    Privileges,
    /// Restricting file access with Landlock.
    Landlock,
    /// Installing a system call filter.
    Seccomp,
    /// Starting the program.
    Exec,
}

impl Step {
    const ALL: [Self; 19] = [
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
        Self::Privileges,
        Self::Landlock,
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
            Self::Privileges => "give up privileges",
            Self::Landlock => "restrict file access with Landlock",
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
        match (self.step, self.errno) {
            (Step::Clone, libc::ENOSPC) => "; too many namespaces: raise the limits in /proc/sys/user",
            (Step::Clone, libc::EPERM) => {
                "; leave the user namespace on, or run as root; some distributions forbid it with \
                 kernel.unprivileged_userns_clone or kernel.apparmor_restrict_unprivileged_userns"
            }
            (Step::Clone, libc::EINVAL) => {
                "; this kernel lacks one of the namespaces: turn it off, or use Linux 5.7 or later"
            }
            (Step::Cgroup, libc::EBUSY) => {
                "; the group has groups below it with controllers: put processes in leaves only"
            }
            (Step::Layers | Step::Volume, libc::EINVAL) => {
                "; this kernel cannot map owners on that file system: keep layers and volumes on ext4, xfs or btrfs, \
                 or use a kernel that can (tmpfs: Linux 6.3)"
            }
            (Step::IdMap, libc::EPERM) => {
                "; an ordinary user needs newuidmap, and an entry in /etc/subuid, for more than one id"
            }
            (Step::Overlay, libc::ENODEV) => "; this kernel has no overlay file system: modprobe overlay",
            (Step::Overlay, libc::EINVAL) => "; the kernel's log has the reason (dmesg)",
            (Step::Mount, libc::EPERM) => {
                "; /proc and /sys can be mounted only where the caller's own are whole, with nothing mounted over parts of them"
            }
            (Step::Volume, libc::EXDEV) => "; nothing goes over the kernel's own files, /proc and /sys",
            (Step::Volume, libc::ENOENT) => "; the host's side must exist",
            _ => "",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.step.words(), self.on)?;
        if self.errno != 0 {
            write!(f, ": {}", io::Error::from_raw_os_error(self.errno))?;
        }
        f.write_str(self.advice())
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

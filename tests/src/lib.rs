//! What the end-to-end tests need: the programs under test, a place to work in, and a watch over
//! what a run leaves behind.
//!
//! | variable | meaning | without it |
//! |---|---|---|
//! | `CHITON_BIN` | the `chiton` program | where `cargo xtask` builds it |
//! | `CHITON_GUESTS` | the folder of guest programs | where `cargo xtask guests` puts them |
//! | `CHITON_STRICT` | a missing facility fails the test | it skips, and says why |
//! | `CHITON_WITHOUT` | facilities, with commas between, that the machine is known not to have: their tests skip themselves all the same | none |
//! | `CHITON_SLOW` | the machine is emulated: fewer seeds, rounds and sizes | all of them |
//! | `CHITON_TESTS_JAILED` | a folder: every guest runs in a jail, and the record of instances is there | those of tests that ask for one |
//!
//! Every run is a process group of its own, in an empty folder of its own that is its TMPDIR too.
//! When it is over, [`finish`] checks that nobody of the group is left and that the folder is
//! still empty, and compares the [`Traces`].
//!
//! ```no_run
//! let run = chiton_tests::Chiton::new().args(["run"]).guest("hello").run();
//! run.assert_status(0);
//! assert!(run.stdout_text().contains("hello"));
//! ```

mod bad_disk;
mod datagram;
mod folder;
mod loop_device;
mod needs;
mod nft;
mod record;
mod tap;
mod traces;
mod user;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use bad_disk::BadDisk;
pub use datagram::ask_by_datagram;
pub use folder::Folder;
pub use loop_device::LoopDevice;
pub use needs::{busybox, free_port, is_installed, skip};
pub use nft::tables;
pub use record::{Record, ok};
pub use tap::{Tap, frames};
pub use traces::{Traces, disk_is_free, processes_in_group};
pub use user::{SUBORDINATE, User};

/// The longest a run may take before the test gives up on it.
///
/// Generous: emulated machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(180);

fn from_env(name: &str, otherwise: &str) -> PathBuf {
    let path = std::env::var_os(name).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(otherwise),
        PathBuf::from,
    );
    // Runs have another working directory.
    std::path::absolute(path).expect("a path that is not empty")
}

/// The `chiton` program.
#[must_use]
pub fn chiton_path() -> PathBuf {
    from_env("CHITON_BIN", "target/x86_64-unknown-linux-musl/release/chiton")
}

/// A guest program.
#[must_use]
pub fn guest_path(name: &str) -> PathBuf {
    from_env("CHITON_GUESTS", "target/guests").join(name)
}

/// Whether guests can run here; if not, says why on standard output, for a test to skip itself.
///
/// # Panics
///
/// If they cannot and `CHITON_STRICT` is set.
#[must_use]
pub fn kvm_works() -> bool {
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let Err(error) = opened else { return true };
    assert!(
        std::env::var_os("CHITON_STRICT").is_none(),
        "/dev/kvm is required here: {error}"
    );
    println!("SKIPPED: /dev/kvm cannot be opened: {error}");
    false
}

/// Whether the machine is emulated, so that tests should do with little.
#[must_use]
pub fn slow() -> bool {
    std::env::var_os("CHITON_SLOW").is_some_and(|value| value == "1")
}

/// Waits between two looks at what is to come. A look by a command takes an emulated processor longer than it takes to get
/// on with what is waited for.
pub fn nap() {
    std::thread::sleep(Duration::from_millis(if slow() { 100 } else { 5 }));
}

/// The first few of these where the machine is [`slow`], else all.
#[must_use]
pub fn few<T>(all: &[T], few: usize) -> &[T] {
    if slow() { &all[..few.min(all.len())] } else { all }
}

/// Whether this machine's KVM runs ring 0 at hardware speed (it has VMX or SVM).
#[must_use]
pub fn hardware_kvm() -> bool {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|l| l.starts_with("flags")).unwrap_or_default();
    flags
        .split_ascii_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm")
}

/// An invocation of `chiton`.
#[derive(Debug)]
pub struct Chiton {
    command: Command,
    stdin: Vec<u8>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl Chiton {
    /// `chiton` without arguments.
    #[must_use]
    pub fn new() -> Self {
        let path = chiton_path();
        assert!(
            path.exists(),
            "{} is missing: run these tests by `cargo xtask test`",
            path.display()
        );
        let mut command = Command::new(path);
        heed_signals(&mut command);
        // Most tests are of machines, which are the same in a jail and outside; those of jails say so.
        match std::env::var_os("CHITON_TESTS_JAILED") {
            Some(home) => command.env("CHITON_HOME", home),
            None => command.env("CHITON_JAIL", "off"),
        };
        Self {
            command,
            stdin: Vec::new(),
            stdout: None,
            stderr: None,
        }
    }

    /// With these arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// With a jail round each guest, and a record of instances in this folder.
    #[must_use]
    pub fn jailed(mut self, home: &Path) -> Self {
        self.command.env_remove("CHITON_JAIL").env("CHITON_HOME", home);
        self
    }

    /// With this in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// With the path of this guest as the next argument.
    #[must_use]
    pub fn guest(self, name: &str) -> Self {
        let path = guest_path(name);
        assert!(
            path.exists(),
            "{} is missing: run these tests by `cargo xtask test`",
            path.display()
        );
        self.args([path])
    }

    /// With this as standard input, then its end.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// With this as standard output, instead of a pipe.
    #[must_use]
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.stdout = Some(to.into());
        self
    }

    /// With this as standard error, instead of a pipe.
    #[must_use]
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.stderr = Some(to.into());
        self
    }

    /// With this signal ignored, as by `nohup` or for a job in the background of a shell.
    #[must_use]
    pub fn ignoring(mut self, signal: i32) -> Self {
        // SAFETY: `signal` is safe to call between fork and exec, and touches no memory.
        unsafe {
            self.command
                .pre_exec(move || match libc::signal(signal, libc::SIG_IGN) {
                    libc::SIG_ERR => Err(std::io::Error::last_os_error()),
                    _ => Ok(()),
                })
        };
        self
    }

    /// With files that cannot grow, or be written, beyond so many bytes, as on a disk that is full.
    #[must_use]
    pub fn file_limit(self, bytes: u64) -> Self {
        // The signal that goes with it would end the process.
        let mut this = self.ignoring(libc::SIGXFSZ);
        let limit = move || {
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            // SAFETY: `setrlimit` is safe to call between fork and exec; the limit is on the stack.
            match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: as said there.
        unsafe { this.command.pre_exec(limit) };
        this
    }

    /// The kernel refuses io_uring to chiton, as a seccomp filter or `kernel.io_uring_disabled` does.
    #[must_use]
    pub fn without_io_uring(mut self) -> Self {
        let filter = [
            // The number of the system call; io_uring_setup gets EPERM, everything else passes.
            libc::sock_filter {
                code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
                jt: 0,
                jf: 0,
                k: 0,
            },
            libc::sock_filter {
                code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
                jt: 0,
                jf: 1,
                k: libc::SYS_io_uring_setup as u32,
            },
            libc::sock_filter {
                code: (libc::BPF_RET | libc::BPF_K) as u16,
                jt: 0,
                jf: 0,
                k: libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
            },
            libc::sock_filter {
                code: (libc::BPF_RET | libc::BPF_K) as u16,
                jt: 0,
                jf: 0,
                k: libc::SECCOMP_RET_ALLOW,
            },
        ];
        let install = move || {
            let program = libc::sock_fprog {
                len: filter.len() as u16,
                filter: filter.as_ptr().cast_mut(),
            };
            // SAFETY: system calls that touch no memory but the program, which lives until then.
            let refused = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                    || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
            };
            if refused {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: `prctl` is safe to call between fork and exec.
        unsafe { self.command.pre_exec(install) };
        self
    }

    /// With every signal blocked that can be.
    #[must_use]
    pub fn all_signals_blocked(mut self) -> Self {
        let block = || {
            // SAFETY: an all-zero `sigset_t` is a valid value for `sigfillset` to overwrite.
            let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
            // SAFETY: `set` is a valid set; the old mask is not asked for.
            let result = unsafe {
                libc::sigfillset(&raw mut set);
                libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
            };
            if result == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        };
        // SAFETY: what `block` calls is safe between fork and exec, and touches its stack only.
        unsafe { self.command.pre_exec(block) };
        self
    }

    /// Starts it, with pipes for input, and for output that was not given another way.
    #[must_use]
    pub fn spawn(mut self) -> Running {
        let place = Folder::new();
        let before = Traces::now();
        self.command
            .stdin(Stdio::piped())
            .stdout(self.stdout.unwrap_or_else(Stdio::piped))
            .stderr(self.stderr.unwrap_or_else(Stdio::piped))
            .process_group(0)
            .current_dir(place.path(""))
            .env("TMPDIR", place.path(""));
        Running {
            child: self.command.spawn().expect("chiton starts"),
            place,
            before,
        }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    ///
    /// If it does not end within [`PATIENCE`], or leaves anything behind.
    #[must_use]
    #[track_caller]
    pub fn run(mut self) -> Run {
        let input = std::mem::take(&mut self.stdin);
        let mut child = self.spawn();
        let mut stdin = child.stdin.take().expect("a pipe");
        let writer = std::thread::spawn(move || {
            // The guest may end before it has read everything.
            let _ = stdin.write_all(&input);
        });
        let run = finish(child);
        writer.join().expect("the writer ends");
        run
    }
}

impl Default for Chiton {
    fn default() -> Self {
        Self::new()
    }
}

/// A `chiton` at work, which is a [`Child`].
#[derive(Debug)]
pub struct Running {
    child: Child,
    place: Folder,
    before: Traces,
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Running {
    /// Checks that the run, which is over, has left nothing behind.
    #[track_caller]
    fn assert_left_nothing(&self) {
        let group = self.child.id();
        let left = processes_in_group(group);
        assert!(left.is_empty(), "processes of the group {group} are left: {left:?}");
        let files = self.place.names();
        assert!(files.is_empty(), "left in the working directory or TMPDIR: {files:?}");
        assert_eq!(Traces::now(), self.before, "left on the host");
    }
}

/// Waits for a run whose output nobody reads before it is over.
///
/// # Panics
///
/// As [`finish`].
#[must_use]
#[track_caller]
pub fn finish_unread(mut child: Running) -> Run {
    wait(&mut child);
    finish(child)
}

/// Waits for a run whose input is nobody's business any more.
///
/// # Panics
///
/// If it does not end within [`PATIENCE`], or leaves anything behind.
#[must_use]
#[track_caller]
pub fn finish(mut child: Running) -> Run {
    let reader = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut bytes).expect("the pipe can be read");
            }
            bytes
        })
    };
    let stdout = reader(child.stdout.take().map(|p| Box::new(p) as _));
    let stderr = reader(child.stderr.take().map(|p| Box::new(p) as _));
    let status = wait(&mut child);
    child.assert_left_nothing();
    Run {
        status,
        stdout: stdout.join().expect("the reader ends"),
        stderr: stderr.join().expect("the reader ends"),
    }
}

#[track_caller]
fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("chiton did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A run that is over.
#[derive(Debug)]
pub struct Run {
    /// Its status.
    pub status: ExitStatus,
    /// Its output: the guest's console.
    pub stdout: Vec<u8>,
    /// What chiton itself said.
    pub stderr: Vec<u8>,
}

impl Run {
    /// The output as text.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What chiton itself said, as text.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Checks the status.
    ///
    /// # Panics
    ///
    /// If it is another one; the message has the output.
    #[track_caller]
    pub fn assert_status(&self, status: i32) -> &Self {
        assert_eq!(self.status.code(), Some(status), "{self}");
        self
    }

    /// Checks that chiton did not say this.
    ///
    /// # Panics
    ///
    /// If it did; the message has the output.
    #[track_caller]
    pub fn assert_silent_about(&self, words: &str) -> &Self {
        assert!(!self.stderr_text().contains(words), "said: {words}\n{self}");
        self
    }

    /// The count in a line of the table of `--exits`; 0 if there is none.
    ///
    /// # Panics
    ///
    /// If the line has no count.
    #[must_use]
    pub fn exits(&self, cause: &str) -> u64 {
        let text = self.stderr_text();
        let count = text.lines().find_map(|line| line.strip_prefix(cause)).map(|rest| {
            let count = rest.split_whitespace().next().and_then(|count| count.parse().ok());
            count.unwrap_or_else(|| panic!("no count of {cause}: {self}"))
        });
        count.unwrap_or(0)
    }

    /// Checks that chiton said this.
    ///
    /// # Panics
    ///
    /// If it did not; the message has the output.
    #[track_caller]
    pub fn assert_says(&self, words: &str) -> &Self {
        assert!(self.stderr_text().contains(words), "not said: {words}\n{self}");
        self
    }

    /// Checks that chiton refused, with exactly one line that has these words.
    ///
    /// # Panics
    ///
    /// If it did anything else.
    #[track_caller]
    pub fn assert_refused(&self, words: &str) -> &Self {
        self.assert_status(125).assert_says(words);
        let said = self.stderr_text();
        assert!(
            said.starts_with("chiton: ") && said.trim_end().lines().count() == 1,
            "not one sentence\n{self}"
        );
        assert!(self.stdout.is_empty(), "output of a guest that never ran\n{self}");
        self
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.stdout_text(),
            self.stderr_text()
        )
    }
}

/// Sends a signal to a child.
///
/// # Panics
///
/// If the child does not exist.
pub fn signal(child: &Child, signal: i32) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    // SAFETY: no memory is involved; the child has not been waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "the child exists");
}

/// Ends a listener. Closing it is not enough: a child that another test starts just then has a copy of it until it runs its
/// program, and whoever calls would still be heard.
pub fn end_listener(listener: std::os::unix::net::UnixListener) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open, and no memory is involved.
    unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Has a command heed signals that end it: whoever runs the tests may ignore them, as `nohup` does.
pub(crate) fn heed_signals(command: &mut Command) {
    let heed = || {
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: `signal` is safe to call between fork and exec, and touches no memory.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: as said there.
    unsafe { command.pre_exec(heed) };
}

/// Sends a signal as soon as the child has arranged for it, but not within this time. Before that it would die of it,
/// as any program does, and a loaded machine may take long to start one.
///
/// # Panics
///
/// If the child ends, or has not arranged for it within [`PATIENCE`].
#[track_caller]
pub fn signal_late(child: &Child, number: i32, time: Duration) {
    std::thread::sleep(time);
    let begun = Instant::now();
    while !heeds(child, number) {
        assert!(begun.elapsed() < PATIENCE, "the child does not heed signal {number}");
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(child, number);
}

/// Whether it has blocked a signal, in order to read it, or has a handler (`proc_pid_status(5)`).
fn heeds(child: &Child, number: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("the child's status");
    let masks = status
        .lines()
        .filter_map(|line| line.strip_prefix("SigBlk:").or(line.strip_prefix("SigCgt:")));
    masks
        .map(|mask| u64::from_str_radix(mask.trim(), 16).expect("a mask"))
        .any(|mask| mask >> (number - 1) & 1 == 1)
}

/// Whether the tests run as root.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: the call has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

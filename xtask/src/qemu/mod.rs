//! A nested machine: QEMU boots a Debian kernel that has a `/dev/kvm` of its own.
//!
//! With hardware that nests, QEMU runs under KVM; anywhere else it emulates a processor with AMD's
//! SVM. Either way the kernel inside offers real hardware KVM semantics, every namespace and pure
//! cgroup v2. One command runs inside, with its standard streams and status carried out.

mod cpio;
mod disks;
mod init;
mod modules;
mod packages;
mod relay;

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

pub(crate) use disks::Disk;
use packages::Parts;

use crate::{
    command,
    error::{Error, Result},
    kvm,
    ui::Task,
};

/// How long the kernel may take until it asks for the command.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// What the kernel is told. On a busy machine an emulated timer may be too late for the kernel's check that it ticks at
/// all, which then ends in a panic.
const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 no_timer_check";

/// What to run inside.
#[derive(Debug, Default)]
pub(crate) struct Job {
    /// The program's path inside, and its arguments.
    pub(crate) command: Vec<String>,
    /// Its environment, on top of PATH and HOME.
    pub(crate) environment: Vec<(String, String)>,
    /// Directories to make inside, by their absolute paths.
    pub(crate) directories: Vec<String>,
    /// Executables to bring along: the path here, the absolute path inside.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Disk images to bring along.
    pub(crate) disks: Vec<Disk>,
    /// An ext4 image that is `/tmp` inside: a tmpfs of Linux 6.1 has no id-mapped mounts.
    pub(crate) scratch: Option<PathBuf>,
    /// How long the command may run; `None` is for ever.
    pub(crate) limit: Option<Duration>,
}

/// Which processor QEMU shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Processor {
    /// The host's own, with nested VMX or SVM.
    Hardware,
    /// An emulated AMD processor.
    Emulated,
}

impl Processor {
    fn pick() -> Self {
        if kvm::nests() { Self::Hardware } else { Self::Emulated }
    }

    /// One processor where it is emulated: with two, QEMU 7.2 stalls now and then for good, or enters
    /// a guest in the state of a reset.
    fn arguments(self) -> [&'static str; 6] {
        match self {
            Self::Hardware => ["-accel", "kvm", "-cpu", "host", "-smp", "2"],
            Self::Emulated => ["-accel", "tcg", "-cpu", "EPYC,+svm,+npt", "-smp", "1"],
        }
    }

    fn named(self) -> &'static str {
        match self {
            Self::Hardware => "QEMU with nested virtualization in hardware",
            Self::Emulated => "QEMU emulating a processor with SVM",
        }
    }
}

/// In which way a job would run, in words.
pub(crate) fn named() -> &'static str {
    Processor::pick().named()
}

/// Whether the machine's processor would be emulated, and slow.
pub(crate) fn emulates() -> bool {
    Processor::pick() == Processor::Emulated
}

/// Boots a machine, runs the job in it with our standard streams, and returns its exit status.
///
/// # Errors
///
/// If parts are missing, or the machine ends, or time is up, before the command has a status.
pub(crate) fn run(job: &Job) -> Result<i32> {
    run_into(job, &mut io::stdout())
}

/// The same, with the command's standard output going there.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn run_into(job: &Job, output: &mut impl Write) -> Result<i32> {
    let parts = packages::parts()?;
    let place = Place::make()?;
    let mark = mark();
    let archive = init::archive(job, &parts, &mark)?;
    let archive_path = place.dir.join("initramfs");
    fs::write(&archive_path, &archive).map_err(Error::file("write", &archive_path))?;

    let task = Task::start(format!("booting {}", named()));
    let [out, err, status, input] = ["out", "err", "status", "in"].map(|port| place.listen(port));
    let mut machine = Machine {
        child: place.spawn(&parts, job, archive.len())?,
        log: place.dir.join("console.log"),
    };
    let started = Instant::now();
    let mut accept = |listener: Result<UnixListener>| machine.accept(&listener?, started);
    let (mut out, mut err, status, input) = (accept(out)?, accept(err)?, accept(status)?, accept(input)?);

    machine.wait_until_ready(status, started)?;
    task.done();
    thread::spawn(move || feed(&input));

    let marker = format!("\0{mark}").into_bytes();
    let err_marker = marker.clone();
    let errors = thread::spawn(move || relay::until_mark(&mut err, &mut io::stderr(), &err_marker));
    if let Some(limit) = job.limit {
        machine.limit(&out, limit);
    }
    let started = Instant::now();
    let code = relay::until_mark(&mut out, output, &marker);
    match code {
        Ok(Some(code)) => {
            drop(errors.join());
            code.trim()
                .parse()
                .map_err(|_| machine.failed(format!("the command ended with the status {code:?}")))
        }
        Ok(None) | Err(_) => Err(match job.limit {
            Some(limit) if started.elapsed() >= limit => machine.failed(format!(
                "time is up: the command ran for {} s in the nested machine",
                limit.as_secs()
            )),
            _ => machine.failed("the nested machine ended before the command did".into()),
        }),
    }
}

/// Our standard input for the command inside; its end is the command's end of file.
fn feed(mut input: &UnixStream) {
    // An error here means that nobody inside reads any more, which is the command's own business.
    drop(io::copy(&mut io::stdin().lock(), &mut input));
    drop(input.shutdown(Shutdown::Write));
    // A stream closed on both sides would make QEMU drop what it has not passed on.
    loop {
        thread::park();
    }
}

/// A word that no program prints by chance.
fn mark() -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    format!("chiton-lab-{now:x}-{:x}-", std::process::id())
}

/// A directory for one machine, which goes away with it.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
}

impl Place {
    /// Socket paths are at most 107 bytes long, so this is not below `target`.
    const PREFIX: &'static str = "chiton-lab.";

    fn make() -> Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let dir = parent.join(format!("{}{}", Self::PREFIX, std::process::id()));
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(Error::file("create", &dir))?;
        Ok(Self { dir })
    }

    fn listen(&self, port: &str) -> Result<UnixListener> {
        let path = self.dir.join(port);
        UnixListener::bind(&path).map_err(Error::file("listen on", &path))
    }

    fn spawn(&self, parts: &Parts, job: &Job, archive: usize) -> Result<Child> {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let log = self.dir.join("qemu.log");
        let log = fs::File::create(&log).map_err(Error::file("create", &log))?;
        let memory = 1024 + 2 * (archive >> 20) + job.disks.iter().map(Disk::mebibytes).sum::<usize>();
        let mut qemu = Command::new(&parts.qemu);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(Processor::pick().arguments())
            .args([
                "-m",
                &format!("{memory}M"),
                "-serial",
                &format!("file:{}", at("console.log")),
            ])
            .arg("-kernel")
            .arg(&parts.kernel)
            .args(["-initrd", &at("initramfs"), "-append", KERNEL_WORDS])
            .args(["-device", "virtio-serial-pci"]);
        for port in ["out", "err", "status", "in"] {
            qemu.args(["-chardev", &format!("socket,id={port},path={}", at(port))]);
            qemu.args(["-device", &format!("virtserialport,chardev={port},name={port}")]);
        }
        for disk in &job.disks {
            qemu.args(disk.arguments());
        }
        if let Some(scratch) = &job.scratch {
            let path = scratch.display().to_string().replace(',', ",,");
            qemu.args([
                "-drive",
                &format!("if=none,id=scratch,format=raw,cache=unsafe,file={path}"),
            ])
            .args(["-device", "virtio-blk-pci,drive=scratch"]);
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command::dies_with_us(&mut qemu);
        qemu.spawn().map_err(|source| Error::Start {
            program: parts.qemu.display().to_string(),
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Removes what killed tasks have left.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(Place::PREFIX)) else {
            continue;
        };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

/// A running QEMU; it dies with this value.
#[derive(Debug)]
struct Machine {
    child: Child,
    log: PathBuf,
}

impl Machine {
    fn accept(&mut self, listener: &UnixListener, started: Instant) -> Result<UnixStream> {
        listener
            .set_nonblocking(true)
            .map_err(Error::file("listen on", &self.log))?;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(Error::file("use", &self.log))?;
                    return Ok(stream);
                }
                Err(_) if started.elapsed() > BOOT_LIMIT => return Err(self.failed("QEMU does not start".into())),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(format!("QEMU did not start ({status})")));
            }
        }
    }

    /// Waits for the line that says that the command is about to start.
    fn wait_until_ready(&mut self, status: UnixStream, started: Instant) -> Result<()> {
        let left = BOOT_LIMIT.saturating_sub(started.elapsed()).max(Duration::from_secs(1));
        status
            .set_read_timeout(Some(left))
            .map_err(Error::file("use", &self.log))?;
        let mut line = String::new();
        match BufReader::new(status).read_line(&mut line) {
            Ok(_) if line == "ready\n" => Ok(()),
            Ok(_) => Err(self.failed("the nested machine ended while it booted".into())),
            Err(_) => Err(self.failed(format!(
                "the nested machine did not boot within {} s",
                BOOT_LIMIT.as_secs()
            ))),
        }
    }

    /// Ends the stream `out`, and so the wait for its mark, when `limit` is over.
    fn limit(&self, out: &UnixStream, limit: Duration) {
        let Ok(out) = out.try_clone() else { return };
        thread::spawn(move || {
            thread::sleep(limit);
            drop(out.shutdown(Shutdown::Both));
        });
    }

    /// The error for a machine that went wrong, with the end of what it said.
    fn failed(&self, what: String) -> Error {
        let console = fs::read(&self.log).unwrap_or_default();
        let qemu = fs::read(self.log.with_file_name("qemu.log")).unwrap_or_default();
        let kept = crate::paths::lab().join("console.log");
        let both = [qemu.as_slice(), console.as_slice()].concat();
        drop(fs::File::create(&kept).and_then(|mut file| file.write_all(&both)));
        let text = String::from_utf8_lossy(&both).into_owned();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !line.contains("warning: TCG doesn't support"))
            .collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        Error::Machine { what, log: kept, tail }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

//! A guest to be run: its file, what it is given, and how it ended.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chiton_shared::doorbell::LogLevel;
use chiton_shared::manifest::Ring;
use chiton_shared::virtio::ring::Format;
use kvm_ioctls::Kvm;

use crate::control::{Control, ControlSocket};
use crate::devices::EmulatedBackends;
use crate::host::console::Console;
use crate::host::disk::Disk;
use crate::host::folder::Folder;
use crate::host::ports::ConsolePort;
use crate::host::stderr;
use crate::host::tap::Net;
use crate::host::vsock::Vsock;
use crate::outcome::Outcome;
use crate::platform::Role;
use crate::platform::{InterruptSupport, open_kvm};
use crate::snapshot::Snapshot;
use crate::timeline::Timeline;
use crate::{Error, instance};

/// The memory a guest gets if nobody says otherwise, in bytes.
pub const DEFAULT_MEMORY: u64 = 16 << 20;

/// A guest program and everything it is given. See the [crate's page](crate) for an example.
pub struct Guest {
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    pub(crate) memory: u64,
    pub(crate) processors: u32,
    pub(crate) ring: Option<Ring>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) nets: Vec<Net>,
    pub(crate) vsock: Option<Vsock>,
    pub(crate) balloon: Option<u64>,
    pub(crate) folders: Vec<Folder>,
    pub(crate) emulated: EmulatedBackends,
    pub(crate) console: Console,
    pub(crate) ports: Vec<ConsolePort>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) control: Option<Control>,
    pub(crate) control_socket: Option<ControlSocket>,
    pub(crate) stop_timeout: Option<Duration>,
    pub(crate) timed: bool,
    pub(crate) io_thread: bool,
    pub(crate) queue_format: Format,
    pub(crate) end_signals: bool,
    pub(crate) begin_thread: fn(Role) -> std::io::Result<()>,
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) log: Box<dyn Fn(&str) -> bool + Send + Sync>,
    pub(crate) kvm: KvmSource,
    pub(crate) timeline: Timeline,
}

impl Guest {
    /// The guest in this file. Its first argument is the file's name.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`] if the file cannot be read. What it holds is looked at by
    /// [`run`](Self::run).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = read_file(path).map_err(|source| Error::Guest {
            path: path.to_owned(),
            source,
        })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self::new(&name, bytes))
    }

    /// Reads a guest file as [`open`](Self::open) does, without making a guest of it.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`].
    pub fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
        read_file(path).map_err(|source| Error::Guest {
            path: path.to_owned(),
            source,
        })
    }

    /// The guest with this name and these bytes, an ELF file.
    #[must_use]
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self {
            bytes: Arc::new(bytes),
            snapshot: None,
            memory: DEFAULT_MEMORY,
            processors: 1,
            ring: None,
            args: vec![name.to_owned()],
            env: Vec::new(),
            disks: Vec::new(),
            nets: Vec::new(),
            vsock: None,
            balloon: None,
            folders: Vec::new(),
            emulated: EmulatedBackends::default(),
            console: Console::none(),
            ports: Vec::new(),
            timeout: None,
            control: None,
            control_socket: None,
            stop_timeout: None,
            timed: false,
            io_thread: false,
            queue_format: Format::Split,
            end_signals: false,
            begin_thread: |_| Ok(()),
            log_level: Some(LogLevel::Warn),
            log: Box::new(|line| stderr::write_line(line, Duration::ZERO)),
            kvm: KvmSource::Path(PathBuf::from(crate::platform::DEV_KVM)),
            timeline: Timeline::start(),
        }
    }

    /// The guest of a snapshot, which goes on where it was: memory, processors, arguments, environment and ring are those
    /// that it has. It needs the same disks again; and nothing else that it had can be in a snapshot.
    #[must_use]
    pub fn from_snapshot(snapshot: impl Into<Arc<Snapshot>>) -> Self {
        let snapshot = snapshot.into();
        let mut guest = Self::new(snapshot.name(), Vec::new());
        guest.memory = snapshot.memory();
        guest.processors = snapshot.processors();
        guest.ring = snapshot.description.ring;
        guest.balloon = snapshot.description.balloon;
        guest.snapshot = Some(snapshot);
        guest
    }

    /// Its name: the first of its arguments.
    #[must_use]
    pub fn name(&self) -> &str {
        self.args.first().map_or("", String::as_str)
    }

    /// With so many bytes of memory, a whole number of pages.
    #[must_use]
    pub const fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// With so many processors, 1 to 32. Those beyond the first begin when the guest starts them, each
    /// on a thread of its own, and cost nothing before.
    #[must_use]
    pub const fn processors(mut self, count: u32) -> Self {
        self.processors = count;
        self
    }

    /// In this ring, whatever its manifest says.
    #[must_use]
    pub const fn ring(mut self, ring: Ring) -> Self {
        self.ring = Some(ring);
        self
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// With one more environment variable, `KEY=VALUE`.
    #[must_use]
    pub fn env(mut self, variable: impl Into<String>) -> Self {
        self.env.push(variable.into());
        self
    }

    /// With one more disk.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// With one more network interface.
    #[must_use]
    pub fn net(mut self, net: Net) -> Self {
        self.nets.push(net);
        self
    }

    /// With this socket device.
    #[must_use]
    pub fn vsock(mut self, vsock: Vsock) -> Self {
        self.vsock = Some(vsock);
        self
    }

    /// With a balloon, by which it can give memory back; the host would like to have so many bytes.
    #[must_use]
    pub const fn balloon(mut self, bytes: u64) -> Self {
        self.balloon = Some(bytes);
        self
    }

    /// With one more folder, which the guest knows by its [name](Folder::name).
    #[must_use]
    pub fn folder(mut self, folder: Folder) -> Self {
        self.folders.push(folder);
        self
    }

    /// With this disk behind the registers of an ATA device, which no virtio driver finds; each access
    /// to them is an exit. It has no rate limits.
    #[must_use]
    pub fn emulated_disk(mut self, disk: Disk) -> Self {
        self.emulated.disk = Some(disk);
        self
    }

    /// With this interface behind the registers of an Intel 8254x, as
    /// [`emulated_disk`](Self::emulated_disk). The guest is not told of an IP address.
    #[must_use]
    pub fn emulated_net(mut self, net: Net) -> Self {
        self.emulated.net = Some(net);
        self
    }

    /// With this console instead of none.
    #[must_use]
    pub fn console(mut self, console: Console) -> Self {
        self.console = console;
        self
    }

    /// With one more port of the console, which the guest knows by its [name](ConsolePort::name).
    #[must_use]
    pub fn port(mut self, port: ConsolePort) -> Self {
        self.ports.push(port);
        self
    }

    /// For this long at the most.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// With this socket, through which other processes control it.
    #[must_use]
    pub fn control_socket(mut self, socket: ControlSocket) -> Self {
        self.control_socket = Some(socket);
        self
    }

    /// A handle by which other threads control it while it runs.
    #[must_use]
    pub fn control(&mut self) -> Control {
        self.control.get_or_insert_default().clone()
    }

    /// Asked to end by the first of the signals that [`end_on_signals`](Self::end_on_signals)
    /// names, and ended this much later; without, they end it at once.
    #[must_use]
    pub const fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = Some(timeout);
        self
    }

    /// Whether disks and folders are served by a thread of their own, beside the one that serves the
    /// other devices.
    #[must_use]
    pub const fn io_thread(mut self, yes: bool) -> Self {
        self.io_thread = yes;
        self
    }

    /// Whether the queues that the boot page tells of are packed, and not split. The guest library
    /// knows both.
    #[must_use]
    pub const fn packed_queues(mut self, yes: bool) -> Self {
        self.queue_format = if yes { Format::Packed } else { Format::Split };
        self
    }

    /// With the time of each exit measured.
    #[must_use]
    pub const fn timed(mut self, timed: bool) -> Self {
        self.timed = timed;
        self
    }

    /// Each thread calls this when it has everything that it needs for its [role](Role), and begins with it: it is
    /// where a thread gives up what only others need. Threads that a processor starts have its role, and what it
    /// gave up; they do not call it. A guest whose threads cannot begin ends.
    #[must_use]
    pub const fn begin_thread(mut self, begin: fn(Role) -> std::io::Result<()>) -> Self {
        self.begin_thread = begin;
        self
    }

    /// Ended by SIGINT, SIGTERM and SIGHUP, which are blocked in the calling thread from then on.
    #[must_use]
    pub const fn end_on_signals(mut self) -> Self {
        self.end_signals = true;
        self
    }

    /// With its log lines up to this level sent to `log`, which also hears of devices that a guest
    /// broke. It must not wait, since the guest waits for it; it returns whether it took the line.
    /// Without this, warnings and errors go to standard error.
    #[must_use]
    pub fn log(mut self, level: Option<LogLevel>, log: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.log_level = level;
        self.log = Box::new(log);
        self
    }

    /// On the KVM at this path instead of `/dev/kvm`.
    #[must_use]
    pub fn kvm(mut self, path: impl Into<PathBuf>) -> Self {
        self.kvm = KvmSource::Path(path.into());
        self
    }

    /// On a KVM that is [open](crate::platform::open_kvm): for a process that can open it no more.
    #[must_use]
    pub fn open_kvm(mut self, kvm: Kvm) -> Self {
        self.kvm = KvmSource::Open(kvm);
        self
    }

    /// With start-up phases counted from this moment on, for example the start of the process.
    #[must_use]
    pub fn started_at(mut self, start: Instant) -> Self {
        self.timeline = Timeline::since(start);
        self
    }

    /// With start-up phases that go on where these end: what the process did before.
    #[must_use]
    pub fn timeline(mut self, timeline: Timeline) -> Self {
        self.timeline = timeline;
        self
    }

    /// Boots the guest and stays until it ends.
    ///
    /// The calling thread runs the guest, and is interrupted by the signal SIGRTMIN when the guest
    /// has to end: this process's handler for that signal is replaced.
    ///
    /// # Errors
    ///
    /// [`Error`] if it could not be started, or KVM itself failed. However a guest ends, even by
    /// a fault, is an [`Outcome`].
    pub fn run(self) -> Result<Outcome, Error> {
        self.run_then(|outcome| outcome)
    }

    /// Like [`run`](Self::run), but calls `then` as soon as the guest has ended, before its machine
    /// is taken down. A program that ends then and there leaves that to the kernel, which is quicker.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_then<R>(self, then: impl FnOnce(Outcome) -> R) -> Result<R, Error> {
        instance::run(self, then)
    }
}

/// Where KVM comes from.
pub(crate) enum KvmSource {
    Path(PathBuf),
    Open(Kvm),
}

impl KvmSource {
    /// KVM, opened now if it is not yet.
    pub(crate) fn open(self) -> Result<Kvm, Error> {
        match self {
            Self::Path(path) => open_kvm(&path),
            Self::Open(kvm) => Ok(kvm),
        }
    }

    /// What it can do.
    pub(crate) fn interrupt_support(&self) -> Result<InterruptSupport, Error> {
        match self {
            Self::Path(path) => Ok(InterruptSupport::of(&open_kvm(path)?)),
            Self::Open(kvm) => Ok(InterruptSupport::of(kvm)),
        }
    }
}

/// The most a guest file may have, in bytes.
const MAX_FILE: u64 = 1 << 30;

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    if metadata.len() > MAX_FILE {
        return Err(std::io::Error::other("it is larger than 1 GiB"));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest")
            .field("args", &self.args)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

//! `chiton run`: boots a guest and stays until it ends.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chiton_core::exits::Micros;
use chiton_core::explain;
use chiton_kvm::control::ControlError;
use chiton_kvm::host::stderr;
use chiton_kvm::platform::open_kvm;
use chiton_kvm::{
    Connector, Console, ConsolePort, ControlSocket, Disk, Ending, Folder, Guest, Kvm, Net, Outcome, Snapshot,
    SocketFile, Vsock, hold_end_signals,
};
use chiton_shared::doorbell::LogLevel;

use crate::complain;
use crate::net::NetOption;
use crate::options::{DiskOption, PortOption, RunOptions};
use crate::phases;
use chiton_kvm::arguments::VsockArgument;

/// An option that there is not, in the place of a guest.
#[derive(Debug, thiserror::Error)]
#[error("{name} is no option of `chiton run`: see `chiton run --help`, or write ./{name} if it is a guest's name", name = .0.display())]
struct UnknownOption(PathBuf);

/// What a guest has of the host, open: a jail is closed to it afterwards.
pub(crate) struct Devices {
    kvm: Kvm,
    disks: Vec<Disk>,
    pub(crate) nets: Vec<Net>,
    vsock: Option<Vsock>,
    ports: Vec<ConsolePort>,
    pub(crate) control: Option<ControlSocket>,
    emulated_disk: Option<Disk>,
    emulated_net: Option<Net>,
}

impl Devices {
    /// Opens what the options name.
    pub(crate) fn open(options: &RunOptions) -> Result<Self, Box<dyn Error>> {
        let disk = |option: &DiskOption| option.options.clone().open(&option.path);
        let vsock = VsockArgument::listen;
        let port = |option: &PortOption| ConsolePort::open(&option.name, &option.path);
        let memory = options.memory();
        if let Some(asked) = options.balloon.filter(|asked| *asked > memory) {
            return Err(ControlError::BalloonSize { asked, memory }.into());
        }
        Ok(Self {
            disks: options.disk.iter().map(disk).collect::<Result<_, _>>()?,
            nets: options.net.iter().map(NetOption::open).collect::<Result<_, _>>()?,
            vsock: options.vsock.as_ref().map(vsock).transpose()?,
            ports: options.port.iter().map(port).collect::<Result<_, _>>()?,
            control: options.control.as_ref().map(ControlSocket::listen).transpose()?,
            emulated_disk: options.emulated_disk.as_ref().map(disk).transpose()?,
            emulated_net: options.emulated_net.as_ref().map(NetOption::open).transpose()?,
            // What is wrong with what the user named is told first.
            kvm: open_kvm(&options.kvm)?,
        })
    }

    /// The files of sockets, for who is to remove them when the guest, which runs where it cannot, has ended.
    pub(crate) fn take_files(&mut self) -> Vec<SocketFile> {
        let control = self.control.as_mut().and_then(ControlSocket::take_file);
        let vsock = self.vsock.as_mut().and_then(Vsock::take_file);
        let ports = self.ports.iter_mut().filter_map(ConsolePort::take_file);
        ports.chain(control).chain(vsock).collect()
    }

    /// Who makes the guest's connections to the host, likewise.
    pub(crate) fn take_connector(&mut self) -> io::Result<Option<Connector>> {
        let connector = self.vsock.as_mut().map(Vsock::take_connector);
        Ok(connector.transpose()?.flatten())
    }
}

/// Runs a guest as a part of this process, with its rights. Does not return once it has run.
pub(crate) fn run(options: &RunOptions, verbose: u8, start: Instant) -> Result<Infallible, Box<dyn Error>> {
    options.jail.check_without_jail()?;
    options.check_from()?;
    if let Some(path) = &options.from {
        let guest = Guest::from_snapshot(open_snapshot(path, options.verify)?);
        return go(guest, options, verbose, start);
    }
    let mut words = options.guest.iter();
    let path = PathBuf::from(words.next().map_or("", String::as_str));
    if path.to_string_lossy().starts_with('-') {
        return Err(UnknownOption(path).into());
    }
    let mut guest = Guest::open(&path)?;
    for arg in words {
        guest = guest.arg(arg);
    }
    for folder in &options.folder {
        guest = guest.folder(Folder::open(&folder.path, folder.writable)?);
    }
    go(guest, options, verbose, start)
}

/// Opens a snapshot, and reads all of it if that is wanted.
pub(crate) fn open_snapshot(path: &Path, verify: bool) -> Result<Snapshot, chiton_kvm::Error> {
    let snapshot = Snapshot::open(path)?;
    if verify {
        let refused = |source| chiton_kvm::Error::Snapshot {
            path: path.to_owned(),
            source,
        };
        snapshot.verify().map_err(refused)?;
    }
    Ok(snapshot)
}

/// Runs what is to run.
fn go(guest: Guest, options: &RunOptions, verbose: u8, start: Instant) -> Result<Infallible, Box<dyn Error>> {
    let name = guest.name().to_owned();
    hold_end_signals()?;
    let guest = build(guest, options, Devices::open(options)?, &name, verbose, start);
    // The kernel takes the machine down with the process, quicker than step by step.
    Ok(guest.console(Console::stdio()?).run_then(|outcome| -> Infallible {
        report(&name, &outcome, options.exits, verbose);
        // SAFETY: it does not return. What would be done at an exit is for memory that is about to be gone;
        // nothing waits in a buffer, since consoles and the log have none.
        unsafe { libc::_exit(outcome.ending.status().into()) }
    })?)
}

/// Gives a guest what the options say, but for its arguments, its console and its files.
pub(crate) fn build(
    guest: Guest,
    options: &RunOptions,
    devices: Devices,
    name: &str,
    verbose: u8,
    start: Instant,
) -> Guest {
    let mut guest = guest
        .timeline(phases::so_far(start))
        .open_kvm(devices.kvm)
        .timed(options.exits)
        .io_thread(options.io_thread)
        .packed_queues(options.packed)
        .end_on_signals()
        .log(Some(level(verbose)), {
            let name = name.to_owned();
            move |line| stderr::write_line(&format!("{name}: {line}"), Duration::ZERO)
        });
    if options.from.is_none() {
        guest = guest.memory(options.memory()).processors(options.cpus());
    }
    for variable in &options.env {
        guest = guest.env(variable);
    }
    guest = devices.disks.into_iter().fold(guest, Guest::disk);
    guest = devices.nets.into_iter().fold(guest, Guest::net);
    guest = devices.ports.into_iter().fold(guest, Guest::port);
    if let Some(vsock) = devices.vsock {
        guest = guest.vsock(vsock);
    }
    if let Some(bytes) = options.balloon {
        guest = guest.balloon(bytes);
    }
    if let Some(disk) = devices.emulated_disk {
        guest = guest.emulated_disk(disk);
    }
    if let Some(net) = devices.emulated_net {
        guest = guest.emulated_net(net);
    }
    if let Some(ring) = options.ring {
        guest = guest.ring(ring.into());
    }
    if let Some(timeout) = options.timeout {
        guest = guest.timeout(timeout);
    }
    if let Some(socket) = devices.control {
        guest = guest.control_socket(socket);
    }
    if let Some(timeout) = options.stop_timeout {
        guest = guest.stop_timeout(timeout);
    }
    guest
}

/// Tells what there is to tell of a guest that has ended.
pub(crate) fn report(name: &str, outcome: &Outcome, with_exits: bool, verbose: u8) {
    phases::tell_of_guest(&outcome.timeline);
    let mut report = ending(name, outcome);
    if with_exits {
        report += &exits(outcome);
    }
    if verbose > 0 {
        report += &format!("\n{}\n", outcome.timeline);
    }
    if !report.is_empty() {
        complain(report.trim_end_matches('\n'));
    }
}

pub(crate) const fn level(verbose: u8) -> LogLevel {
    match verbose {
        0 => LogLevel::Warn,
        1 => LogLevel::Info,
        2 => LogLevel::Debug,
        _ => LogLevel::Trace,
    }
}

/// How the guest ended, unless it did so by itself, and what else went wrong.
fn ending(name: &str, outcome: &Outcome) -> String {
    let mut text = match &outcome.ending {
        Ending::Exit(_) | Ending::OutputClosed | Ending::Snapshot => String::new(),
        Ending::Panic { message, place } => explain::panicked(name, message, place),
        Ending::Fault { report } => explain::met_a_fault(name, report),
        Ending::Timeout { limit, place } => explain::out_of_time(name, *limit, place),
        Ending::NotStopped { limit, place } => {
            format!("chiton: {name} was asked to end, did not within {limit:?}, and was stopped\n{place}\n")
        }
        Ending::Signal(signal) => format!("chiton: {name} was ended by {}\n", signal_name(*signal)),
        Ending::HostFailed { doing, errno } => {
            format!(
                "chiton: {name} was stopped: cannot {doing}: {}\n",
                io::Error::from_raw_os_error(*errno)
            )
        }
    };
    if outcome.device_failures > 0 {
        text += &explain::requests_failed(name, outcome.device_failures);
    }
    text
}

fn signal_name(signal: i32) -> String {
    match signal {
        1 => "SIGHUP".into(),
        2 => "SIGINT".into(),
        15 => "SIGTERM".into(),
        other => format!("signal {other}"),
    }
}

/// The table of exits, with what the kernel counted.
fn exits(outcome: &Outcome) -> String {
    let in_guest = Micros(outcome.exits.guest_ns).to_string();
    let mut text = format!("\n{}\n", outcome.exits);
    text += &format!(
        "{:<16} {:>9}   (kicks that were no exits)\n",
        "ioeventfd", outcome.kicks
    );
    text += &format!("{:<16} {in_guest:>22}\n", "in the guest");
    if !outcome.kernel.is_empty() {
        text += &format!("\n{:<32} {:>9}\n", "counted by the kernel", "count");
    }
    for stat in &outcome.kernel {
        text += &format!("{:<32} {:>9}\n", stat.name, stat.count);
    }
    text
}

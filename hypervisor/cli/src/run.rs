//! `chiton run`: boots a guest and stays until it ends.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chiton_core::exits::Micros;
use chiton_kvm::host::stderr;
use chiton_kvm::{Console, ConsolePort, ControlSocket, Ending, Folder, Guest, Outcome, Vsock};
use chiton_shared::doorbell::LogLevel;

use crate::complain;
use crate::options::RunOptions;

/// An option that there is not, in the place of a guest.
#[derive(Debug, thiserror::Error)]
#[error("{name} is no option of `chiton run`: see `chiton run --help`, or write ./{name} if it is a guest's name", name = .0.display())]
struct UnknownOption(PathBuf);

/// Does not return once the guest has run.
pub(crate) fn run(options: RunOptions, verbose: u8, start: Instant) -> Result<Infallible, Box<dyn Error>> {
    let mut words = options.guest.into_iter();
    let path = PathBuf::from(words.next().unwrap_or_default());
    if path.to_string_lossy().starts_with('-') {
        return Err(UnknownOption(path).into());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut guest = Guest::open(&path)?
        .started_at(start)
        .memory(options.memory)
        .processors(options.cpus)
        .kvm(options.kvm)
        .console(Console::stdio()?)
        .timed(options.exits)
        .io_thread(options.io_thread)
        .end_on_signals()
        .log(Some(level(verbose)), {
            let name = name.clone();
            move |line| stderr::write_line(&format!("{name}: {line}"), Duration::ZERO)
        });
    for arg in words {
        guest = guest.arg(arg);
    }
    for variable in options.env {
        guest = guest.env(variable);
    }
    for disk in options.disk {
        guest = guest.disk(disk.options.open(&disk.path)?);
    }
    for net in options.net {
        guest = guest.net(net.open()?);
    }
    if let Some(vsock) = options.vsock {
        guest = guest.vsock(Vsock::listen(&vsock.path, vsock.cid)?);
    }
    if let Some(bytes) = options.balloon {
        guest = guest.balloon(bytes);
    }
    for folder in options.folder {
        guest = guest.folder(Folder::open(&folder.path, folder.writable)?);
    }
    if let Some(disk) = options.emulated_disk {
        guest = guest.emulated_disk(disk.options.open(&disk.path)?);
    }
    if let Some(net) = options.emulated_net {
        guest = guest.emulated_net(net.open()?);
    }
    if let Some(ring) = options.ring {
        guest = guest.ring(ring.into());
    }
    if let Some(timeout) = options.timeout {
        guest = guest.timeout(timeout);
    }
    for port in options.port {
        guest = guest.port(ConsolePort::open(&port.name, &port.path)?);
    }
    if let Some(path) = options.control {
        guest = guest.control_socket(ControlSocket::listen(path)?);
    }
    if let Some(timeout) = options.stop_timeout {
        guest = guest.stop_timeout(timeout);
    }
    // The kernel takes the machine down with the process, quicker than step by step.
    Ok(guest.run_then(|outcome| -> Infallible {
        report(&name, &outcome, options.exits, verbose);
        std::process::exit(outcome.ending.status().into())
    })?)
}

/// Tells what there is to tell of a guest that has ended.
fn report(name: &str, outcome: &Outcome, with_exits: bool, verbose: u8) {
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

const fn level(verbose: u8) -> LogLevel {
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
        Ending::Exit(_) | Ending::OutputClosed => String::new(),
        Ending::Panic { message, place } => {
            // Every line but the first is indented: the guest chose the words.
            format!(
                "chiton: {name} panicked: {}\n{place}\n",
                message.replace('\n', "\n    ")
            )
        }
        Ending::Fault { report } => format!("chiton: {name} met a fault: {report}\n"),
        Ending::Timeout { limit, place } => {
            format!("chiton: {name} did not end within {limit:?} and was stopped\n{place}\n")
        }
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
        text += &format!("chiton: {} device requests of {name} failed\n", outcome.device_failures);
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

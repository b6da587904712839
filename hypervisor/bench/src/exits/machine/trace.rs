//! The kernel's own stamp of an exit: a tracepoint of KVM, by the time-stamp counter, in an instance of tracefs that is
//! this process's alone (Documentation/trace/ftrace.rst, "Instances").
//!
//! `kvm_exit` comes first thing after the guest is left. A KVM that has no such tracepoint, as one in software, still
//! has `kvm_pio`, at which it has seen that a port is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::exits::ExitsError;

/// Where instances are.
const INSTANCES: &str = "/sys/kernel/tracing/instances";
/// With what the names of ours begin; the number of the process follows.
const PREFIX: &str = "chiton-bench-";
/// The tracepoints, the better one first.
const EVENTS: [&str; 2] = ["kvm_exit", "kvm_pio"];

/// An instance. Whoever has started this process removes it, since it may be killed: see [`remove`].
pub(super) struct Trace {
    pipe: File,
}

impl Trace {
    /// Begins to trace the calling thread.
    pub(super) fn begin() -> Result<Self, ExitsError> {
        let trace = || -> io::Result<Self> {
            sweep();
            let folder = folder(std::process::id());
            fs::create_dir(&folder)?;
            fs::write(folder.join("trace_clock"), "x86-tsc")?;
            fs::write(folder.join("set_event_pid"), rustix::thread::gettid().to_string())?;
            for event in EVENTS {
                fs::write(folder.join("events/kvm").join(event).join("enable"), "1")?;
            }
            let pipe = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(folder.join("trace_pipe"))?;
            Ok(Self { pipe })
        };
        trace().map_err(ExitsError::system(
            "trace exits in an instance of /sys/kernel/tracing (tracefs, as root)",
        ))
    }

    /// When the last exit came to the kernel, in ticks; of those that it was not asked for before.
    pub(super) fn last_exit(&mut self) -> Option<u64> {
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match self.pipe.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(len) => text.extend_from_slice(&chunk[..len]),
            }
        }
        last_of(&String::from_utf8_lossy(&text))
    }
}

/// The stamp of the last of the better tracepoint's lines: `half-42 [000] d..1. 1677120: kvm_pio: …`.
fn last_of(text: &str) -> Option<u64> {
    EVENTS.iter().find_map(|event| {
        let mark = format!(": {event}: ");
        let mut stamps = text.lines().filter_map(|line| line.split_once(&mark));
        let (before, _) = stamps.next_back()?;
        before.rsplit(' ').next()?.parse().ok()
    })
}

fn folder(process: u32) -> PathBuf {
    Path::new(INSTANCES).join(format!("{PREFIX}{process}"))
}

/// Removes the instance of a process that has ended, if it had one.
pub(crate) fn remove(process: u32) {
    // Most have none; and if it stays, the next one that is made removes it.
    let _ = fs::remove_dir(folder(process));
}

/// Removes what is left of processes whose starter was killed too.
fn sweep() {
    for entry in fs::read_dir(INSTANCES).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if let Some(process) = process
            && fs::metadata(format!("/proc/{process}")).is_err_and(|error| error.kind() == ErrorKind::NotFound)
        {
            remove(process);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_last_exit_counts_and_the_better_tracepoint_if_there_is_one() {
        let pio = "  a-1  [000] ..... 100: kvm_pio: pio_write at 0xc5c size 4 count 1 val 0x0\n";
        let later = pio.replace("100", "300");
        assert_eq!(last_of(&format!("{pio}{later}")), Some(300));
        let exit = "  a-1  [000] d..1. 200: kvm_exit: vcpu 0 reason io rip 0x2: kvm_pio: 7\n";
        assert_eq!(last_of(&format!("{pio}{exit}{later}")), Some(200));
        assert_eq!(last_of("CPU:0 [LOST EVENTS]\n"), None);
        assert_eq!(last_of(""), None);
    }

    #[test]
    fn an_instance_goes_with_its_process() {
        let Ok(trace) = Trace::begin() else {
            println!("SKIPPED: no tracefs here");
            return;
        };
        let process = std::process::id();
        assert!(folder(process).is_dir());
        drop(trace);
        // A child that another test starts has the pipe until it runs its program.
        let begun = Instant::now();
        while folder(process).exists() {
            assert!(begun.elapsed().as_secs() < 60, "it is still there");
            remove(process);
        }
    }
}

//! `chiton kill`: a signal for instances. Who is killed stays dead, whatever the policy of restarts: see [`ENDS`].

use std::error::Error;
use std::str::FromStr;

use chiton_container::instance::{EventKind, Instance, InstanceError, Mark, Status};
use clap::Args;
use nix::sys::signal::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::say;

/// Signals that are sent to end something. By others an instance is told something, and its policy holds.
const ENDS: [Signal; 4] = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The signal: a name, with or without SIG, or a number.
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = named)]
    signal: Signal,

    /// The instances: names, IDs, or beginnings of IDs.
    #[arg(value_name = "INSTANCE", required = true)]
    targets: Vec<String>,
}

fn named(text: &str) -> Result<Signal, String> {
    let number = text.parse().ok().and_then(|number: i32| Signal::try_from(number).ok());
    let name = text.to_uppercase();
    let name = if name.starts_with("SIG") {
        name
    } else {
        format!("SIG{name}")
    };
    number
        .or_else(|| Signal::from_str(&name).ok())
        .ok_or_else(|| format!("`{text}` is no signal: write KILL, TERM, HUP or a number up to 31"))
}

pub(super) fn run(options: &Options) -> Result<u8, Box<dyn Error>> {
    super::for_each(&options.targets, |_, instance| {
        let paused = instance.status()? == Status::Paused;
        // Before: it may have ended by the time that this comes back.
        let marks = ENDS.contains(&options.signal) && !instance.is_marked(Mark::Stop);
        if marks {
            super::stop::mark(&instance, true)?;
        }
        if let Err(error) = send(&instance, options.signal) {
            if marks {
                super::stop::mark(&instance, false)?;
            }
            return Err(error.into());
        }
        if paused && options.signal == Signal::SIGKILL {
            // On cgroup v1 who is frozen dies only then.
            super::pause::let_go(&instance)?;
        }
        say(&format!("{}\n", instance.name()))?;
        Ok(())
    })
}

/// Sends a signal to the process of an instance, and writes that down.
fn send(instance: &Instance, signal: Signal) -> Result<(), InstanceError> {
    self::signal(instance, signal)?;
    instance.event(EventKind::Kill, signal.to_string())
}

/// Sends a signal to the process of an instance.
pub(super) fn signal(instance: &Instance, signal: Signal) -> Result<(), InstanceError> {
    let state = instance.state()?;
    let not_running = || instance.wrong(state.status, "only an instance that runs can be sent a signal");
    let pid = state.pid.filter(|_| state.status.is_live()).ok_or_else(not_running)?;
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(not_running)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| not_running())?;
    // The number may have become another process's while it was looked up: the record, read again, says
    // whether it was still the instance's when the descriptor was opened.
    if instance.state()?.pid != state.pid {
        return Err(not_running());
    }
    let number = rustix::process::Signal::from_named_raw(signal as i32).ok_or_else(not_running)?;
    pidfd_send_signal(&pidfd, number).map_err(|_| not_running())
}

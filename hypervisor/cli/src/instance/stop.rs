//! `chiton stop`: asks guests to end, and ends those that do not.

use std::error::Error;
use std::time::Duration;

use chiton_container::instance::{EventKind, Instance, InstanceError, Mark, Status};
use nix::sys::signal::Signal;
use rustix::process::pidfd_send_signal;

use crate::control;
use crate::options::StopOptions;

pub(crate) fn stop(options: &StopOptions) -> Result<u8, Box<dyn Error>> {
    super::for_each_target(
        &options.targets,
        |socket| Ok(control::ask(socket, &control::stop(options.timeout.timeout))?),
        |instance| stop_one(instance, options.timeout.limit()),
    )
}

/// Has an instance end: by itself if it does so within this time. Returns when everything of it is taken down.
pub(crate) fn stop_one(instance: &Instance, limit: Duration) -> Result<(), Box<dyn Error>> {
    let status = instance.status()?;
    if !status.is_live() {
        return Ok(());
    }
    mark(instance, true)?;
    instance.event(EventKind::Stop, String::new())?;
    if status == Status::Paused {
        super::pause::let_go(instance)?;
    }
    if !limit.is_zero() {
        ask(instance)?;
    }
    if !instance.wait_for(limit)? {
        kill_one(instance)?;
    }
    Ok(())
}

/// Whether no policy starts it again.
pub(super) fn mark(instance: &Instance, stopped: bool) -> Result<(), InstanceError> {
    match instance.mark(Mark::Stop, stopped) {
        // It ended, and was removed, at this moment.
        Err(_) if !instance.is_live() => Ok(()),
        result => result,
    }
}

/// Asks a guest through its control socket, and a process by SIGTERM; a supervisor that waits for the time of
/// a restart too. It may end by itself at any moment: what cannot be asked is not, and is seen by who waits.
fn ask(instance: &Instance) -> Result<(), InstanceError> {
    let asked = super::control(instance)
        .ok()
        .flatten()
        .is_some_and(|socket| control::ask(socket.as_ref(), &control::stop(None)).is_ok());
    if asked || super::kill::signal(instance, Signal::SIGTERM).is_ok() {
        return Ok(());
    }
    if let Some(supervisor) = instance.supervisor()? {
        let _ = pidfd_send_signal(supervisor, rustix::process::Signal::TERM);
    }
    Ok(())
}

/// Ends an instance at once. Returns when everything of it is taken down.
pub(super) fn kill_one(instance: &Instance) -> Result<(), Box<dyn Error>> {
    mark(instance, true)?;
    while instance.is_live() {
        let paused = instance.status()? == Status::Paused;
        if super::kill::signal(instance, Signal::SIGKILL).is_err() {
            // It has no process now: it ends, or is about to be started again.
            if let Some(supervisor) = instance.supervisor()? {
                let _ = pidfd_send_signal(supervisor, rustix::process::Signal::TERM);
            }
        } else if paused {
            super::pause::let_go(instance)?;
        }
        instance.wait_for(AGAIN)?;
    }
    Ok(())
}

/// How soon it is killed again: it may have been started anew at the moment of the first time.
const AGAIN: Duration = Duration::from_millis(200);

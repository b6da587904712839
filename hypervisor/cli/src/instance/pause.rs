//! `chiton pause` and `chiton resume`: holds all threads of an instance, and lets them go on.
//!
//! The cgroup's freezer does it, which holds ordinary processes too. Where an instance has no cgroup, its guest's
//! processors are held through the control socket.

use std::error::Error;

use chiton_container::instance::{EventKind, Instance, Mark, State, Status};
use chiton_kvm::control::protocol::Request;
use rustix::process::{Pid, test_kill_process};

use crate::control;
use crate::options::Targets;

pub(crate) fn pause(targets: &Targets) -> Result<u8, Box<dyn Error>> {
    super::for_each_target(
        targets,
        |socket| Ok(control::ask(socket, &Request::Pause {})?),
        |instance| {
            let status = instance.status()?;
            if status != Status::Running {
                return Err(instance
                    .wrong(status, "only an instance that runs can be paused")
                    .into());
            }
            hold(instance)?;
            instance.mark(Mark::Paused, true)?;
            Ok(instance.event(EventKind::Pause, String::new())?)
        },
    )
}

pub(crate) fn resume(targets: &Targets) -> Result<u8, Box<dyn Error>> {
    super::for_each_target(
        targets,
        |socket| Ok(control::ask(socket, &Request::Resume {})?),
        |instance| {
            let status = instance.status()?;
            if status != Status::Paused {
                return Err(instance
                    .wrong(status, "only an instance that is paused can go on")
                    .into());
            }
            let_go(instance)
        },
    )
}

/// Holds it.
pub(super) fn hold(instance: &Instance) -> Result<(), Box<dyn Error>> {
    if let Some(cgroup) = super::cgroup(instance)? {
        return match cgroup.freeze() {
            Ok(()) => Ok(()),
            Err(error) => {
                // Half of it held is worse than none.
                let _ = cgroup.thaw();
                Err(error.into())
            }
        };
    }
    match super::control(instance)? {
        Some(socket) => Ok(control::ask(socket.as_ref(), &Request::Pause {})?),
        None => Err("a process without a cgroup cannot be paused: have one delegated, see `chiton doctor`".into()),
    }
}

/// Lets it go on.
pub(super) fn let_go(instance: &Instance) -> Result<(), Box<dyn Error>> {
    match release(instance) {
        // Whoever has ended meanwhile is not held.
        Err(_) if !instance.is_live() || has_ended(instance) => return Ok(()),
        result => result?,
    }
    instance.mark(Mark::Paused, false)?;
    Ok(instance.event(EventKind::Resume, String::new())?)
}

/// Whether its process is gone, though its supervisor still takes down what was made for it.
pub(super) fn has_ended(instance: &Instance) -> bool {
    let pid = |state: State| {
        let pid = state.pid.and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(Pid::from_raw)
    };
    let lives = |pid| test_kill_process(pid).is_ok();
    instance.state().is_ok_and(|state| !pid(state).is_some_and(lives))
}

/// What [`hold`] did, undone.
pub(super) fn release(instance: &Instance) -> Result<(), Box<dyn Error>> {
    if let Some(cgroup) = super::cgroup(instance)? {
        return Ok(cgroup.thaw()?);
    }
    if let Some(socket) = super::control(instance)? {
        control::ask(socket.as_ref(), &Request::Resume {})?;
    }
    Ok(())
}

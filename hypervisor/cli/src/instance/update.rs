//! `chiton update`: other limits while a guest runs.
//!
//! Those of the jail go to the cgroup, those of devices through the control socket, and all of them into the
//! record, for the next start.

use std::error::Error;

use chiton_container::instance::{EventKind, Instance};
use chiton_kvm::control::protocol::{Request, Settings};

use crate::control;
use crate::jailed;
use crate::options::{Target, UpdateOptions};

pub(crate) fn update(options: UpdateOptions) -> Result<(), Box<dyn Error>> {
    let limits = options.limits.limits();
    let settings = control::settings(options.devices, options.console);
    let of_jail = limits != Default::default() || options.restart.is_some();
    if settings == Settings::default() && !of_jail {
        return Err("nothing to update: see `chiton update --help`".into());
    }
    let name = match options.target {
        Target::Socket(path) if of_jail => {
            return Err(format!(
                "{} is a control socket, which knows nothing of the jail: name the instance",
                path.display()
            )
            .into());
        }
        Target::Socket(path) => return Ok(control::ask(&path, &Request::Set(settings))?),
        Target::Instance(name) => name,
    };
    let mut instance = super::open()?.find(&name)?;
    limits.check()?;
    if instance.status()?.is_live() {
        if limits != Default::default() {
            let cgroup = super::cgroup(&instance)?;
            let mut cgroup = cgroup.ok_or("it runs without a cgroup, which has the limits: see `chiton doctor`")?;
            cgroup.update(&limits)?;
        }
        set(&instance, settings)?;
    }
    let words = jailed::words_of_update();
    instance.change(|spec| {
        spec.restart = options.restart.unwrap_or(spec.restart);
        jailed::remember(&mut spec.options, words);
    })?;
    instance.event(EventKind::Update, String::new())?;
    Ok(crate::say(&format!("{}\n", instance.name()))?)
}

/// Changes devices.
fn set(instance: &Instance, settings: Settings) -> Result<(), Box<dyn Error>> {
    if settings == Settings::default() {
        return Ok(());
    }
    match super::control(instance)? {
        Some(socket) => Ok(control::ask(socket.as_ref(), &Request::Set(settings))?),
        None => Err(format!("{} is a process, which has no devices", instance.name()).into()),
    }
}

//! `chiton wait`: until instances have ended.

use std::error::Error;

use chiton_container::instance::{EventKind, Instance, InstanceError};
use clap::Args;

use crate::say;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The instances: names, IDs, or beginnings of IDs.
    #[arg(value_name = "INSTANCE", required = true)]
    targets: Vec<String>,
}

pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let home = super::open()?;
    // All are found before the first is waited for: one that is removed when it ends still has a status.
    let instances: Result<Vec<_>, _> = options.targets.iter().map(|target| home.find(target)).collect();
    for instance in instances? {
        instance.wait()?;
        let status = status_of(&instance)?;
        let status = status.ok_or_else(|| instance.wrong_now("start it first: it has not run yet"))?;
        say(&format!("{status}\n"))?;
    }
    Ok(())
}

/// The status with which an instance last ended, also if it was removed then.
pub(super) fn status_of(instance: &Instance) -> Result<Option<u8>, InstanceError> {
    let exit = instance.state()?.exit.map(|exit| exit.code.to_string());
    let code = match exit {
        Some(code) => Some(code),
        None => {
            let events = instance.home().events()?.into_iter().rev();
            let mut of_it = events.filter(|event| event.id == *instance.id());
            of_it
                .find(|event| event.kind == EventKind::Die)
                .map(|event| event.detail)
        }
    };
    Ok(code.and_then(|code| code.parse::<i32>().ok()).map(|code| code as u8))
}

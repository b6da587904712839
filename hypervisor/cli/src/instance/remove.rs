//! `chiton rm`, `chiton prune` and `chiton rename`.

use std::error::Error;

use chiton_container::instance::{Home, Instance, InstanceError, Name};
use clap::Args;

use crate::say;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// End those that still run.
    #[arg(short, long)]
    force: bool,

    /// The instances: names, IDs, or beginnings of IDs.
    #[arg(value_name = "INSTANCE", required = true)]
    targets: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PruneOptions {}

#[derive(Debug, Args)]
pub(crate) struct RenameOptions {
    /// The instance: a name, an ID, or the beginning of one.
    #[arg(value_name = "INSTANCE")]
    target: String,

    /// What it is to be called.
    #[arg(value_name = "NAME")]
    name: Name,
}

pub(super) fn run(options: &Options) -> Result<u8, Box<dyn Error>> {
    super::for_each(&options.targets, |home, instance| {
        remove(home, &instance, options.force)?;
        say(&format!("{}\n", instance.name()))?;
        Ok(())
    })
}

fn remove(home: &Home, instance: &Instance, force: bool) -> Result<(), Box<dyn Error>> {
    if force && instance.is_live() {
        super::stop::kill_one(instance)?;
    }
    match home.remove(instance) {
        // It was to be removed at its end.
        Err(InstanceError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => Ok(result?),
    }
}

pub(super) fn prune(_: &PruneOptions) -> Result<(), Box<dyn Error>> {
    let home = super::open()?;
    crate::jailed::sweep_all(&home)?;
    for instance in home.list()? {
        if !instance.is_live() {
            home.remove(&instance)?;
            say(&format!("{}\n", instance.id()))?;
        }
    }
    Ok(())
}

pub(super) fn rename(options: &RenameOptions) -> Result<(), Box<dyn Error>> {
    let home = super::open()?;
    let mut instance = home.find(&options.target)?;
    home.rename(&mut instance, options.name.clone())?;
    Ok(())
}

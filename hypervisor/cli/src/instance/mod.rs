//! Instances: the commands that list them, show them and end them.
//!
//! One file a command. What they have in common is here: how an instance is found, and how a list is
//! printed.

mod attach;
mod events;
mod inspect;
mod kill;
mod logs;
mod ps;
mod remove;
mod table;
mod template;
mod top;
mod wait;

use std::error::Error;

use chiton_container::instance::{Home, Instance, InstanceError};
use clap::Subcommand;

use crate::home::home;

pub(crate) use inspect::show as inspect;
pub(crate) use template::Template;

/// What can be done with instances.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List instances.
    Ps(ps::Options),
    /// Show what an instance wrote.
    Logs(logs::Options),
    /// See what an instance writes, and write to it.
    Attach(attach::Options),
    /// Wait until instances have ended, and print their statuses.
    Wait(wait::Options),
    /// Send a signal to instances.
    Kill(kill::Options),
    /// Remove instances that have ended.
    Rm(remove::Options),
    /// Remove all instances that have ended, and what dead processes left.
    Prune(remove::PruneOptions),
    /// Give an instance another name.
    Rename(remove::RenameOptions),
    /// List the threads of an instance.
    Top(top::Options),
    /// Tell what happens to instances, as it happens.
    Events(events::Options),
}

impl Command {
    /// Does it; the status of this process.
    pub(crate) fn run(self) -> Result<u8, Box<dyn Error>> {
        match self {
            Self::Ps(options) => ps::run(&options).map(|()| 0),
            Self::Logs(options) => logs::run(&options).map(|()| 0),
            Self::Attach(options) => attach::run(&options),
            Self::Wait(options) => wait::run(&options).map(|()| 0),
            Self::Kill(options) => kill::run(&options),
            Self::Rm(options) => remove::run(&options),
            Self::Prune(options) => remove::prune(&options).map(|()| 0),
            Self::Rename(options) => remove::rename(&options).map(|()| 0),
            Self::Top(options) => top::run(&options).map(|()| 0),
            Self::Events(options) => events::run(&options).map(|()| 0),
        }
    }
}

/// The list of instances.
pub(crate) fn open() -> Result<Home, InstanceError> {
    Home::open(home())
}

/// Does something with each of these instances. What cannot be done with one is said, and the others
/// follow; the status is then 1.
fn for_each(
    targets: &[String],
    mut act: impl FnMut(&Home, Instance) -> Result<(), Box<dyn Error>>,
) -> Result<u8, Box<dyn Error>> {
    let home = open()?;
    let mut status = 0;
    for target in targets {
        let result = home
            .find(target)
            .map_err(Into::into)
            .and_then(|instance| act(&home, instance));
        if let Err(error) = result {
            crate::report(error.as_ref(), 0);
            status = 1;
        }
    }
    Ok(status)
}

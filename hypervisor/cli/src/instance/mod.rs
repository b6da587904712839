//! Instances: the commands that list them, show them and end them.
//!
//! One file a command. What they have in common is here: how an instance is found, and how a list is
//! printed.

mod attach;
mod commit;
mod events;
mod inspect;
mod kill;
mod logs;
mod pause;
mod privileges;
mod ps;
mod remove;
mod snapshot;
mod stats;
mod stop;
mod table;
mod template;
mod top;
mod update;
mod wait;

use std::error::Error;
use std::path::Path;

use chiton_container::cgroup::Cgroup;
use chiton_container::instance::{Home, Instance, InstanceError, SocketPath};
use clap::Subcommand;

use crate::home::home;
use crate::options::{Target, Targets};

pub(crate) use inspect::show as inspect;
pub(crate) use pause::{pause, resume};
pub(crate) use snapshot::snapshot;
pub(crate) use stats::stats;
pub(crate) use stop::{stop, stop_one};
pub(crate) use template::Template;
pub(crate) use update::update;

pub(crate) use crate::options::StopTimeout;

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
    /// Make an image of what an instance was made from and what it has written since.
    Commit(commit::Options),
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
            Self::Commit(options) => commit::run(options).map(|()| 0),
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

/// The cgroup of an instance that runs; `None` if it runs without one.
fn cgroup(instance: &Instance) -> Result<Option<Cgroup>, Box<dyn Error>> {
    if !instance.report()?["cgroup"].is_array() {
        return Ok(None);
    }
    Ok(Some(Cgroup::open(&crate::jailed::cgroups()?, instance.id().short())?))
}

/// The control socket of an instance's guest, while it runs; `None` if what runs is no guest.
fn control(instance: &Instance) -> Result<Option<SocketPath>, InstanceError> {
    let socket = instance.socket(crate::jailed::CONTROL)?;
    Ok(socket.as_ref().exists().then_some(socket))
}

/// Does something with each of these guests, as [`for_each`] does.
fn for_each_target(
    targets: &Targets,
    mut by_socket: impl FnMut(&Path) -> Result<(), Box<dyn Error>>,
    mut act: impl FnMut(&Instance) -> Result<(), Box<dyn Error>>,
) -> Result<u8, Box<dyn Error>> {
    // What goes wrong with the only one is the command's own error.
    if let [Target::Socket(path)] = targets.targets.as_slice() {
        return by_socket(path).map(|()| 0);
    }
    let mut status = 0;
    for target in &targets.targets {
        let result = match target {
            Target::Socket(path) => by_socket(path),
            Target::Instance(name) => {
                open()
                    .and_then(|home| home.find(name))
                    .map_err(Into::into)
                    .and_then(|instance| {
                        act(&instance)?;
                        Ok(crate::say(&format!("{}\n", instance.name()))?)
                    })
            }
        };
        if let Err(error) = result {
            crate::report(error.as_ref(), 0);
            status = 1;
        }
    }
    Ok(status)
}

/// Does something with each of these instances. What cannot be done with one is said, and the others
/// follow; the status is then 1.
pub(crate) fn for_each(
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

//! `chiton create` and `chiton start`.

use std::error::Error;
use std::time::Instant;

use chiton_container::instance::Instance;
use clap::{Args, Parser};
use serde_json::Value;

use super::{parts, supervise, updates};
use crate::options::{Options, Run};

#[derive(Debug, Args)]
pub(crate) struct StartOptions {
    /// Stay, with the instance's output; without it, it goes on in the background.
    #[arg(short, long)]
    attach: bool,

    /// The instances: names, IDs, or beginnings of IDs.
    #[arg(value_name = "INSTANCE", required = true)]
    targets: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RestartOptions {
    #[command(flatten)]
    stop: crate::instance::StopTimeout,

    /// The instances: names, IDs, or beginnings of IDs.
    #[arg(value_name = "INSTANCE", required = true)]
    targets: Vec<String>,
}

/// The record of an instance does not say what it was.
#[derive(Debug, thiserror::Error)]
#[error("the record of {0} does not say how it was made: remove it")]
struct Forgotten(String);

/// Starts instances that were made, or have ended.
pub(crate) fn start(options: &StartOptions, verbose: u8, began: Instant) -> Result<u8, Box<dyn Error>> {
    if options.attach && options.targets.len() > 1 {
        return Err("only one instance can have the terminal: leave --attach out, or start one at a time".into());
    }
    let home = crate::instance::open()?;
    parts::sweep(&home, super::SWEPT)?;
    crate::instance::for_each(&options.targets, |_, instance| {
        let status = instance.status()?;
        if status.is_live() {
            return Err(instance.wrong(status, "there is nothing to start").into());
        }
        start_one(&instance, options.attach, verbose, began)?;
        Ok(crate::say(&format!("{}\n", instance.name()))?)
    })
}

/// Stops instances that run, and starts all of them.
pub(crate) fn restart(options: &RestartOptions, verbose: u8, began: Instant) -> Result<u8, Box<dyn Error>> {
    crate::instance::for_each(&options.targets, |_, instance| {
        if instance.spec().remove && instance.is_live() {
            return Err("it is removed when it ends (--rm), and cannot be started again: run it anew".into());
        }
        crate::instance::stop_one(&instance, options.stop.limit())?;
        start_one(&instance, false, verbose, began)?;
        Ok(crate::say(&format!("{}\n", instance.name()))?)
    })
}

/// Comes back if it goes on in the background.
fn start_one(instance: &Instance, attach: bool, verbose: u8, began: Instant) -> Result<(), Box<dyn Error>> {
    let mut run = asked(instance)?;
    run.jail.detach = !attach;
    updates::apply(instance, &mut run)?;
    supervise(instance, run, verbose, began, None)
}

/// What was asked for when the instance was made.
fn asked(instance: &Instance) -> Result<crate::options::RunOptions, Box<dyn Error>> {
    let forgotten = || Forgotten(instance.name().to_string());
    let options = &instance.spec().options;
    let words = options["arguments"].as_array().ok_or_else(forgotten)?;
    let words: Option<Vec<_>> = words.iter().map(Value::as_str).collect();
    let mut words = words.ok_or_else(forgotten)?;
    // `create` has the options of `run`.
    if let Some(command) = words.iter_mut().find(|word| **word == "create") {
        *command = "run";
    }
    let directory = options["directory"].as_str().ok_or_else(forgotten)?;
    std::env::set_current_dir(directory).map_err(|error| {
        format!(
            "{directory}, where {} was made, cannot be entered: {error}",
            instance.name()
        )
    })?;
    let Run::Run(run) = Options::<Run>::try_parse_from(std::iter::once("chiton").chain(words))?.command;
    Ok(*run)
}

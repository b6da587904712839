//! `chiton create` and `chiton start`.

use std::convert::Infallible;
use std::error::Error;
use std::time::Instant;

use chiton_container::instance::Instance;
use clap::{Args, Parser};
use serde_json::Value;

use super::{parts, supervise};
use crate::options::{Options, Run};

#[derive(Debug, Args)]
pub(crate) struct StartOptions {
    /// Stay, with the instance's output; without it, it goes on in the background.
    #[arg(short, long)]
    attach: bool,

    /// The instance: a name, an ID, or the beginning of one.
    #[arg(value_name = "INSTANCE")]
    target: String,
}

/// The record of an instance does not say what it was.
#[derive(Debug, thiserror::Error)]
#[error("the record of {0} does not say how it was made: remove it")]
struct Forgotten(String);

/// Starts an instance that was made, or has ended. Comes back only with an error.
pub(crate) fn start(options: &StartOptions, verbose: u8, began: Instant) -> Result<Infallible, Box<dyn Error>> {
    let home = crate::instance::open()?;
    parts::sweep(&home, super::SWEPT)?;
    let instance = home.find(&options.target)?;
    let status = instance.status()?;
    if status.is_live() {
        return Err(instance.wrong(status, "there is nothing to start").into());
    }
    let mut run = asked(&instance)?;
    run.jail.detach = !options.attach;
    supervise(&instance, run, verbose, began)
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
    std::env::set_current_dir(options["directory"].as_str().ok_or_else(forgotten)?)?;
    let Run::Run(run) = Options::<Run>::try_parse_from(std::iter::once("chiton").chain(words))?.command;
    Ok(*run)
}

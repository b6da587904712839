//! What `chiton update` changed, kept for the next start.
//!
//! It is kept as words of a command line, one for each thing that was changed: an instance is started again from
//! the words it was made by, and then from these.

use std::error::Error;

use chiton_container::cgroup::IoMax;
use chiton_container::instance::Instance;
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};

use super::options::LimitOptions;
use crate::options::{Command, DeviceOptions, Options, RunOptions};

/// Where they are kept in an instance's options.
const KEY: &str = "updates";

/// The words, as clap reads them.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Updates {
    #[command(flatten)]
    limits: LimitOptions,

    #[command(flatten)]
    devices: DeviceOptions,
}

/// Keeps words, each `--OPTION=VALUE`; those about the same thing are forgotten.
pub(crate) fn remember(options: &mut Value, new: Vec<String>) {
    let mut words = words_of(options);
    words.retain(|old| new.iter().all(|new| subject(new) != subject(old)));
    words.extend(new);
    options[KEY] = json!(words);
}

/// The words of this process's own command line that are to be remembered, in the form they are kept in.
pub(crate) fn words() -> Vec<String> {
    let matches = Options::<Command>::command().get_matches();
    let Some((_, update)) = matches.subcommand() else {
        return Vec::new();
    };
    let mut words = Vec::new();
    for argument in Updates::command().get_arguments() {
        let values = update.try_get_raw(argument.get_id().as_str()).ok().flatten();
        if let (Some(option), Some(values)) = (argument.get_long(), values) {
            words.extend(values.map(|value| format!("--{option}={}", value.to_string_lossy())));
        }
    }
    words
}

fn words_of(options: &Value) -> Vec<String> {
    let words = options[KEY].as_array().into_iter().flatten();
    words.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What a word is about: an option, or one of the devices that the option is for.
fn subject(word: &str) -> (&str, String) {
    let (option, value) = word.split_once('=').unwrap_or((word, ""));
    let device = match option {
        "--disk" | "--net" => value.split(':').next().map(str::to_owned),
        "--io-max" => value.parse().ok().map(|limit: IoMax| limit.device.to_string()),
        _ => None,
    };
    (option, device.unwrap_or_default())
}

/// Has options say what was changed since.
pub(super) fn apply(instance: &Instance, run: &mut RunOptions) -> Result<(), Box<dyn Error>> {
    let words = words_of(&instance.spec().options);
    if words.is_empty() {
        return Ok(());
    }
    let Updates { limits, devices } = Updates::try_parse_from(words)?;
    run.jail.limits.take(limits);
    for new in devices.disk {
        if let Some(disk) = run.disk.get_mut(new.number) {
            disk.options = disk.options.clone().limits(new.limits);
        }
    }
    for new in devices.net {
        if let Some(net) = run.net.get_mut(new.number) {
            net.set_limits(new.limits);
        }
    }
    run.balloon = devices.balloon.or(run.balloon);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_word_takes_the_place_of_one_about_the_same_thing() {
        let mut options = json!({});
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        remember(
            &mut options,
            words(&["--memory-max=64M", "--disk=0:ops=1", "--disk=1:ops=1"]),
        );
        remember(
            &mut options,
            words(&["--memory-max=32M", "--disk=1:none", "--io-max=8:0,rbps=1"]),
        );
        remember(&mut options, words(&["--io-max=8:16,rbps=1", "--io-max=8:0,rbps=2"]));
        let kept = [
            "--disk=0:ops=1",
            "--memory-max=32M",
            "--disk=1:none",
            "--io-max=8:16,rbps=1",
            "--io-max=8:0,rbps=2",
        ];
        assert_eq!(words_of(&options), kept);
    }
}

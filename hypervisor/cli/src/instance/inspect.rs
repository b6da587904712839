//! `chiton inspect INSTANCE`: all that is known of one, as JSON.

use std::error::Error;

use chiton_container::instance::Instance;
use serde_json::{Map, Value, json};

use super::privileges;
use super::template::Template;
use crate::say;

/// Prints what is known of an instance, or the line that `format` makes of it.
pub(crate) fn show(target: &str, format: Option<&Template>) -> Result<(), Box<dyn Error>> {
    let instance = super::open()?.find(target)?;
    let state = instance.state()?;
    let process = state.pid.filter(|_| state.status.is_live());
    let all = json!({
        "Id": instance.id(),
        "Name": instance.name(),
        "Folder": instance.dir(),
        "Log": instance.log_path(),
        "State": state,
        "Spec": instance.spec(),
        "Jail": instance.report()?,
        "Limits": process.map(|_| limits(&instance)).transpose()?,
        "Privileges": process.and_then(privileges::of),
    });
    let text = match format {
        None | Some(Template::Json) => serde_json::to_string_pretty(&all)?,
        Some(format) => format.line(&all)?,
    };
    say(&(text + "\n"))?;
    Ok(())
}

/// The limits that hold, by the names that `update` has for them, as the kernel has them.
fn limits(instance: &Instance) -> Result<Value, Box<dyn Error>> {
    let held = super::cgroup(instance).and_then(|cgroup| Ok(cgroup.map(|cgroup| cgroup.held()).transpose()?));
    match held {
        Ok(held) => {
            let held = held.into_iter().flatten();
            let limits: Map<_, _> = held.map(|held| (held.name.to_owned(), json!(held))).collect();
            Ok(Value::Object(limits))
        }
        // It ended at this moment; a policy may start it again.
        Err(_) if super::pause::has_ended(instance) => Ok(Value::Null),
        Err(error) => Err(error),
    }
}

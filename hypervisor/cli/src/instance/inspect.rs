//! `chiton inspect INSTANCE`: all that is known of one, as JSON.

use std::error::Error;

use serde_json::json;

use super::template::Template;
use crate::say;

/// Prints what is known of an instance, or the line that `format` makes of it.
pub(crate) fn show(target: &str, format: Option<&Template>) -> Result<(), Box<dyn Error>> {
    let instance = super::open()?.find(target)?;
    let all = json!({
        "Id": instance.id(),
        "Name": instance.name(),
        "Folder": instance.dir(),
        "Log": instance.log_path(),
        "State": instance.state()?,
        "Spec": instance.spec(),
        "Jail": instance.report()?,
    });
    let text = match format {
        None | Some(Template::Json) => serde_json::to_string_pretty(&all)?,
        Some(format) => format.line(&all)?,
    };
    say(&(text + "\n"))?;
    Ok(())
}

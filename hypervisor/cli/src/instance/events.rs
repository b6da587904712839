//! `chiton events`: what happens to instances.

use std::error::Error;
use std::time::{Duration, SystemTime};

use chiton_container::instance::{Event, Watch};
use clap::Args;

use super::logs::moment;
use super::template::Template;
use crate::say;

/// How long to wait before looking again, where nothing happens.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What happened since then too: a time like 10m, or a moment like 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<SystemTime>,

    /// Until then, and no longer; `0s` is until now.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<SystemTime>,

    /// `json`, or a text with {{.time}}, {{.kind}}, {{.id}}, {{.name}} or {{.detail}} in it.
    #[arg(long, value_name = "FORMAT", value_parser = Template::parse)]
    format: Option<Template>,
}

pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let home = super::open()?;
    let watch = Watch::new(&[home.path()])?;
    let since = options.since.unwrap_or_else(SystemTime::now);
    let mut seen = 0;
    loop {
        let now = SystemTime::now();
        let events = home.events()?;
        // The list may have been put aside meanwhile, and be shorter: times tell what is new.
        let new: Vec<_> = events
            .iter()
            .filter(|event| event.time.system_time() >= since)
            .collect();
        for event in new.iter().skip(seen) {
            if options.until.is_none_or(|until| event.time.system_time() <= until) {
                say(&(line(options, event)? + "\n"))?;
            }
        }
        seen = new.len();
        if options.until.is_some_and(|until| now >= until) {
            return Ok(());
        }
        watch.wait(LOOK)?;
    }
}

fn line(options: &Options, event: &Event) -> Result<String, Box<dyn Error>> {
    let value = serde_json::to_value(event)?;
    if let Some(format) = &options.format {
        return Ok(format.line(&value)?);
    }
    let kind = value["kind"].as_str().unwrap_or_default();
    let text = format!(
        "{}  {}  {kind:<8} {}  {}",
        event.time,
        event.id.short(),
        event.name,
        event.detail
    );
    Ok(text.trim_end().to_owned())
}

//! `chiton ps`: the instances there are.

use std::error::Error;
use std::time::Duration;

use chiton_container::instance::{Instance, State, Status};
use clap::Args;
use serde_json::{Value, json};

use super::table;
use super::template::Template;
use crate::say;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Those that have ended, or were never started, too.
    #[arg(short, long)]
    all: bool,

    /// Only the IDs.
    #[arg(short, long)]
    quiet: bool,

    /// Whole IDs and commands.
    #[arg(long)]
    no_trunc: bool,

    /// Only those for which this holds. May be given several times.
    #[arg(short, long, value_name = "name=TEXT|status=STATUS|image=TEXT|label=KEY[=VALUE]", value_parser = filter)]
    filter: Vec<Filter>,

    /// `json`, or a text with {{.ID}}, {{.Name}}, {{.Image}}, {{.Command}}, {{.Created}}, {{.Status}},
    /// {{.State}}, {{.Pid}} or {{.Ports}} in it.
    #[arg(long, value_name = "FORMAT", value_parser = Template::parse)]
    format: Option<Template>,
}

/// What has to hold for an instance to be listed.
#[derive(Clone, Debug)]
enum Filter {
    Name(String),
    Status(String),
    Image(String),
    Label(String),
}

fn filter(text: &str) -> Result<Filter, String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let value = value.to_owned();
    match key {
        "name" => Ok(Filter::Name(value)),
        "status" => Ok(Filter::Status(value)),
        "image" | "ancestor" => Ok(Filter::Image(value)),
        "label" => Ok(Filter::Label(value)),
        _ => Err(format!(
            "`{key}` is nothing to filter by: use name, status, image or label"
        )),
    }
}

impl Filter {
    fn holds(&self, instance: &Instance, state: &State) -> bool {
        let spec = instance.spec();
        match self {
            Self::Name(text) => spec.name.as_str().contains(text.as_str()),
            Self::Status(status) => state.status.to_string() == *status,
            Self::Image(text) => spec.image.as_ref().is_some_and(|image| image.contains(text.as_str())),
            Self::Label(text) => spec
                .labels
                .iter()
                .any(|label| label == text || label.split_once('=').is_some_and(|(key, _)| key == text)),
        }
    }
}

pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut listed = Vec::new();
    for instance in super::open()?.list()? {
        // It may be removed at this moment.
        let Ok(state) = instance.state() else { continue };
        let wanted = options.all || state.status.is_live() || filters_status(&options.filter);
        if wanted && options.filter.iter().all(|filter| filter.holds(&instance, &state)) {
            listed.push((instance, state));
        }
    }
    say(&text(options, &listed)?)?;
    Ok(())
}

/// Who asks for a status gets those that have ended too.
fn filters_status(filters: &[Filter]) -> bool {
    filters.iter().any(|filter| matches!(filter, Filter::Status(_)))
}

fn text(options: &Options, listed: &[(Instance, State)]) -> Result<String, String> {
    let id = |instance: &Instance| {
        let id = instance.id();
        if options.no_trunc { id.as_str() } else { id.short() }.to_owned()
    };
    if options.quiet {
        return Ok(listed.iter().map(|(instance, _)| id(instance) + "\n").collect());
    }
    let entries = listed
        .iter()
        .map(|(instance, state)| entry(id(instance), instance, state));
    if let Some(format) = &options.format {
        return entries.map(|entry| Ok(format.line(&entry)? + "\n")).collect();
    }
    let header = ["ID", "NAME", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS"];
    let cell = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let rows: Vec<_> = entries
        .map(|entry| {
            let mut cells =
                ["ID", "Name", "Image", "Command", "Created", "Status", "Ports"].map(|key| cell(&entry, key));
            if !options.no_trunc {
                cells[3] = short(&cells[3]);
            }
            cells.to_vec()
        })
        .collect();
    Ok(table::lines(&header, &rows))
}

fn entry(id: String, instance: &Instance, state: &State) -> Value {
    let spec = instance.spec();
    let ports = instance.report().unwrap_or_default();
    let ports = ports["network"]["ports"].as_array().map(|ports| {
        let ports: Vec<_> = ports.iter().filter_map(Value::as_str).collect();
        ports.join(", ")
    });
    let age = Duration::from_secs(spec.created.elapsed().as_secs());
    json!({
        "ID": id,
        "Name": spec.name,
        "Image": spec.image.clone().unwrap_or_default(),
        "Command": spec.command.join(" "),
        "Created": format!("{} ago", humantime::format_duration(age)),
        "Status": state.in_words(),
        "State": state.status.to_string(),
        "Pid": state.pid.unwrap_or(0),
        "Ports": ports.filter(|_| state.status != Status::Exited).unwrap_or_default(),
        "Labels": spec.labels,
    })
}

/// The beginning of a command.
fn short(command: &str) -> String {
    const MOST: usize = 32;
    if command.chars().count() <= MOST {
        return command.to_owned();
    }
    command.chars().take(MOST - 1).chain(['…']).collect()
}

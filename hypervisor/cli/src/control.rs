//! What is asked of a running guest's host through its control socket.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use chiton_kvm::control::protocol::{
    Answer, BalloonStatistics, ConsoleSize, DeviceState, LimitsValue, NumberedLimits, RateValue, Request, Settings,
    State,
};
use chiton_kvm::control::{Client, ClientError};

use crate::options::{DeviceOptions, LimitsOption};

/// Asks for something that is either done or refused.
pub(crate) fn ask(socket: &Path, request: &Request) -> Result<(), ClientError> {
    Client::connect(socket)?.ask(request).map(drop)
}

/// What an update changes by the control socket.
pub(crate) fn settings(devices: DeviceOptions, console: Option<ConsoleSize>) -> Settings {
    Settings {
        disks: numbered(devices.disk),
        nets: numbered(devices.net),
        balloon: devices.balloon,
        console,
    }
}

fn numbered(options: Vec<LimitsOption>) -> Vec<NumberedLimits> {
    let value = |LimitsOption { number, limits }| NumberedLimits {
        number,
        limits: limits.into(),
    };
    options.into_iter().map(value).collect()
}

/// How long a guest may take to end, as it is asked for.
pub(crate) fn stop(timeout: Option<Duration>) -> Request {
    Request::Stop {
        timeout_ms: timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// How things are with a guest.
pub(crate) fn state(socket: &Path) -> Result<Box<State>, ClientError> {
    match Client::connect(socket)?.ask(&Request::Query {})? {
        Answer::State(state) => Ok(state),
        _ => Err(ClientError::NoControlSocket(socket.to_owned())),
    }
}

/// Shows how things are with the guest that has this socket.
pub(crate) fn stats(socket: &Path, json: bool) -> Result<(), Box<dyn Error>> {
    let state = state(socket)?;
    let text = if json {
        String::from_utf8_lossy(&Answer::State(state).line()).into_owned()
    } else {
        table(&state)
    };
    Ok(crate::say(&text)?)
}

/// The state for people.
fn table(state: &State) -> String {
    let mut text = String::new();
    let seconds = state.running_ms / 1000;
    let milliseconds = state.running_ms % 1000;
    let how = match (state.paused, state.stop_requested) {
        (true, _) => ", paused",
        (false, true) => ", asked to end",
        (false, false) => "",
    };
    // Writing to a string does not fail.
    let _ = writeln!(text, "running for {seconds}.{milliseconds:03} s{how}");
    let _ = writeln!(text, "\n{:<10} {:<16} {:>9}", "processor", "exit to host", "count");
    for processor in &state.processors {
        for (cause, count) in &processor.exits {
            let _ = writeln!(text, "{:<10} {cause:<16} {count:>9}", processor.number);
        }
        let all: u64 = processor.exits.values().sum();
        let _ = writeln!(text, "{:<10} {:<16} {all:>9}", processor.number, "all");
    }
    let _ = writeln!(text, "{:<10} {:<16} {:>9}", "", "ioeventfd", state.kicks);
    let _ = writeln!(text, "\n{:<20} {:>9}  limits", "device", "failures");
    for device in &state.devices {
        let name = format!("{} {}", device.kind, device.number);
        let _ = writeln!(text, "{name:<20} {:>9}  {}", device.failures, remarks(device));
    }
    if let Some(balloon) = &state.balloon {
        let (actual, target) = (balloon.actual >> 10, balloon.target >> 10);
        let _ = writeln!(text, "\nballoon: {actual} KiB of {target} KiB wanted");
        if let Some(statistics) = &balloon.statistics {
            let _ = writeln!(text, "{}", used(statistics));
        }
    }
    text
}

/// What the guest says of its memory.
fn used(statistics: &BalloonStatistics) -> String {
    let word = |name: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{} KiB {name}", bytes >> 10));
    let words: Vec<_> = [
        word("in all", statistics.total),
        word("free", statistics.free),
        word("available", statistics.available),
    ]
    .into_iter()
    .flatten()
    .collect();
    format!("guest memory: {}, {} ms ago", words.join(", "), statistics.age_ms)
}

fn remarks(device: &DeviceState) -> String {
    let limits = match &device.limits {
        None => "-".to_owned(),
        Some(limits) => words(limits),
    };
    match &device.broken {
        None => limits,
        Some(why) => format!("{limits}; needs a reset: {why}"),
    }
}

fn words(limits: &LimitsValue) -> String {
    let word =
        |name: &str, rate: Option<RateValue>| rate.map(|rate| format!("{name}={}/{}", rate.per_second, rate.burst));
    let words: Vec<_> = [word("ops", limits.ops), word("bytes", limits.bytes)]
        .into_iter()
        .flatten()
        .collect();
    if words.is_empty() {
        "none".into()
    } else {
        words.join(",")
    }
}

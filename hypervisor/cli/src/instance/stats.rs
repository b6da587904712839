//! `chiton stats`: what instances use, from their cgroups and from their guests.

use std::collections::HashMap;
use std::error::Error;
use std::io::IsTerminal;
use std::thread;
use std::time::{Duration, Instant};

use chiton_container::cgroup::{Pressure, Scope, Stats};
use chiton_container::instance::{Id, Instance, Status};
use chiton_kvm::control::protocol::State;
use indicatif::BinaryBytes;
use serde_json::{Value, json};

use super::table;
use crate::options::{StatsOptions, Target};
use crate::{control, say};

/// Between two looks for people who go on looking.
const TURN: Duration = Duration::from_secs(1);
/// Between the two looks of which a rate is told once.
const ONCE: Duration = Duration::from_millis(250);
/// To the upper left, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[J";

const HEADER: [&str; 10] = [
    "NAME",
    "CPU %",
    "THROTTLED",
    "MEMORY / LIMIT",
    "OOM",
    "IO READ / WRITTEN",
    "PIDS",
    "WAITS % CPU MEM IO",
    "EXITS/S",
    "STATUS",
];

/// What was found at one look.
struct Look {
    at: Instant,
    status: Status,
    cgroup: Option<Stats>,
    guest: Option<Box<State>>,
}

/// What happened a second between two looks.
#[derive(Clone, Copy, Default)]
struct Rates {
    cpu_percent: Option<f64>,
    exits: Option<f64>,
}

pub(crate) fn stats(options: &StatsOptions) -> Result<(), Box<dyn Error>> {
    if let [Target::Socket(path)] = options.targets.as_slice() {
        return control::stats(path, options.json);
    }
    let stream = !options.json && !options.no_stream && std::io::stdout().is_terminal();
    let mut before = look_at_all(&instances(options)?)?;
    if !stream {
        thread::sleep(ONCE);
    }
    loop {
        let instances = instances(options)?;
        let now = look_at_all(&instances)?;
        let looks: Vec<_> = instances
            .iter()
            .filter_map(|instance| {
                let look = now.get(instance.id())?;
                Some((instance, look, rates(before.get(instance.id()), look)))
            })
            .collect();
        if options.json {
            return Ok(say(&looks
                .iter()
                .map(|(i, look, rates)| line(i, look, *rates))
                .collect::<String>())?);
        }
        let rows: Vec<_> = looks.iter().map(|(i, look, rates)| row(i, look, *rates)).collect();
        let text = table::lines(&HEADER, &rows);
        if !stream {
            return Ok(say(&text)?);
        }
        say(&format!("{CLEAR}{text}"))?;
        before = now;
        thread::sleep(TURN);
    }
}

/// Those asked for, or all that run.
fn instances(options: &StatsOptions) -> Result<Vec<Instance>, Box<dyn Error>> {
    let home = super::open()?;
    if options.targets.is_empty() {
        let mut all = home.list()?;
        // It may be removed at this moment.
        all.retain(|instance| instance.status().is_ok_and(Status::is_live));
        return Ok(all);
    }
    let find = |target: &Target| match target {
        Target::Instance(name) => Ok(home.find(name)?),
        Target::Socket(path) => Err(format!(
            "{} is a control socket, which is looked at alone: name instances",
            path.display()
        )
        .into()),
    };
    options.targets.iter().map(find).collect()
}

fn look_at_all(instances: &[Instance]) -> Result<HashMap<Id, Look>, Box<dyn Error>> {
    let mut looks = HashMap::new();
    for instance in instances {
        match look_at(instance) {
            Ok(look) => drop(looks.insert(instance.id().clone(), look)),
            // It was removed at this moment.
            Err(_) if !instance.dir().exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(looks)
}

fn look_at(instance: &Instance) -> Result<Look, Box<dyn Error>> {
    let status = instance.status()?;
    let mut look = Look {
        at: Instant::now(),
        status,
        cgroup: None,
        guest: None,
    };
    if !status.is_live() {
        return Ok(look);
    }
    let found = super::cgroup(instance).and_then(|cgroup| Ok(cgroup.map(|cgroup| cgroup.stats()).transpose()?));
    look.cgroup = match found {
        Ok(stats) => stats,
        // Its cgroup goes with it, and comes anew with a restart.
        Err(_) if instance.status()? != Status::Running => None,
        Err(error) => return Err(error),
    };
    // Who is held does not answer; who ends at this moment does not either.
    if status == Status::Running
        && let Ok(Some(socket)) = super::control(instance)
    {
        look.guest = control::state(socket.as_ref()).ok();
    }
    Ok(look)
}

fn exits(state: &State) -> u64 {
    let each = state.processors.iter().flat_map(|processor| processor.exits.values());
    each.fold(0, |sum, count| sum.wrapping_add(*count))
}

fn rates(before: Option<&Look>, now: &Look) -> Rates {
    let Some(before) = before else {
        return Rates::default();
    };
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(f64::MIN_POSITIVE);
    let cpu = |look: &Look| Some(look.cgroup.as_ref()?.cpu.as_ref()?.usage_usec);
    let guest = |look: &Look| look.guest.as_ref().map(|state| exits(state));
    let rate = |before: Option<u64>, now: Option<u64>| Some(now?.saturating_sub(before?) as f64 / seconds);
    Rates {
        cpu_percent: rate(cpu(before), cpu(now)).map(|microseconds| microseconds / 1e4),
        exits: rate(guest(before), guest(now)),
    }
}

/// Everything, as one line of JSON.
fn line(instance: &Instance, look: &Look, rates: Rates) -> String {
    let value: Value = json!({
        "id": instance.id(),
        "name": instance.name(),
        "status": look.status,
        "cpu_percent": rates.cpu_percent,
        "exits_per_second": rates.exits,
        "cgroup": look.cgroup,
        "guest": look.guest,
    });
    format!("{value}\n")
}

fn row(instance: &Instance, look: &Look, rates: Rates) -> Vec<String> {
    let none = || "-".to_owned();
    let stats = look.cgroup.as_ref();
    let throttled = stats
        .and_then(|stats| stats.cpu.as_ref()?.throttled_usec)
        .map_or_else(none, |time| format!("{:.1} s", time as f64 / 1e6));
    let memory = stats.and_then(|stats| stats.memory.as_ref());
    let bytes = |bytes: u64| BinaryBytes(bytes).to_string();
    let io = stats.and_then(|stats| stats.io.as_ref()).map_or_else(none, |all| {
        let sum = |of: fn(&chiton_container::cgroup::Io) -> u64| bytes(all.iter().map(of).fold(0, u64::wrapping_add));
        format!("{} / {}", sum(|io| io.rbytes), sum(|io| io.wbytes))
    });
    vec![
        instance.name().to_string(),
        rates.cpu_percent.map_or_else(none, |percent| format!("{percent:.1}")),
        throttled,
        memory.map_or_else(none, |memory| {
            format!("{} / {}", bytes(memory.current), memory.max.map_or_else(none, bytes))
        }),
        memory
            .and_then(|memory| memory.events.oom_kill)
            .map_or_else(none, |kills| kills.to_string()),
        io,
        stats
            .and_then(|stats| stats.pids.as_ref())
            .map_or_else(none, |pids| pids.current.to_string()),
        stats.map_or_else(none, waits),
        rates.exits.map_or_else(none, |exits| format!("{exits:.0}")),
        look.status.to_string(),
    ]
}

/// How much of the last 10 seconds was lost by waiting.
fn waits(stats: &Stats) -> String {
    let pressure = &stats.pressure;
    let percent = |pressure: Option<Pressure>| {
        pressure.map_or_else(|| "-".into(), |pressure| format!("{:.1}", pressure.some.avg10))
    };
    let all = [pressure.cpu, pressure.memory, pressure.io].map(percent).join(" ");
    match pressure.scope {
        Scope::Cgroup => all,
        Scope::Host => all + " (host)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, exits: u64) -> Look {
        let mut state = State::default();
        state.processors.push(Default::default());
        state.processors[0].exits.insert("doorbell".into(), exits);
        Look {
            at,
            status: Status::Running,
            cgroup: None,
            guest: Some(Box::new(state)),
        }
    }

    #[test]
    fn a_rate_is_what_came_between_two_looks() {
        let start = Instant::now();
        let (first, second) = (look(start, 100), look(start + Duration::from_secs(2), 700));
        assert_eq!(rates(Some(&first), &second).exits, Some(300.0));
        assert_eq!(rates(None, &second).exits, None);
        // A guest that was started anew has fewer.
        assert_eq!(rates(Some(&second), &first).exits, Some(0.0));
        assert_eq!(rates(Some(&first), &second).cpu_percent, None);
    }
}

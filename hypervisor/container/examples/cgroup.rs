//! Runs an ordinary command inside limits, and says at the end what it cost.
//!
//! ```text
//! cargo run -p chiton-container --example cgroup -- --memory-max 64M --cpu-max 0.5 -- COMMAND…
//! ```

use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::str::FromStr;

use chiton_container::cgroup::{Cgroup, Host, Limits, OomKill, Parent, Place, Pressure, Scope, Size, Stats};

const USAGE: &str = "\
usage: cgroup [LIMIT…] [--parent auto|top|own|own-leaf|/PATH] [--json] -- COMMAND [ARGUMENT…]

limits: --cpu-max 0.5  --cpu-weight 1..10000  --cpuset-cpus 0-3,5  --cpuset-mems 0
        --memory-max 64M  --memory-high 48M  --memory-low 16M  --memory-min 8M  --memory-reservation 16M
        --swap-max 64M, or --memory-swap 128M (the sum of memory and swap)  --pids-max 32
        --io-max /dev/vda:rbps=10M,wiops=100  --io-weight 1..10000";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cgroup: {error}");
            ExitCode::from(125)
        }
    }
}

struct Options {
    limits: Limits,
    place: Place,
    json: bool,
    command: Vec<String>,
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    fn parse<T: FromStr<Err: Error + 'static>>(value: &str) -> Result<Option<T>, Box<dyn Error>> {
        Ok(Some(value.parse()?))
    }

    let (mut limits, mut place, mut json, mut sum) = (Limits::default(), Place::Auto, false, None);
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        if word == "--json" {
            json = true;
            continue;
        }
        if !word.starts_with("--") || word == "--help" {
            return Err(USAGE.into());
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"))?;
        let value = value.as_str();
        match word.as_str() {
            "--cpu-max" => limits.cpu_max = parse(value)?,
            "--cpu-weight" => limits.cpu_weight = parse(value)?,
            "--cpuset-cpus" => limits.cpuset_cpus = parse(value)?,
            "--cpuset-mems" => limits.cpuset_mems = parse(value)?,
            "--memory-max" => limits.memory_max = parse(value)?,
            "--memory-high" => limits.memory_high = parse(value)?,
            "--memory-low" => limits.memory_low = parse(value)?,
            "--memory-min" => limits.memory_min = parse(value)?,
            "--memory-reservation" => limits.memory_reservation = parse(value)?,
            "--swap-max" => limits.swap_max = parse(value)?,
            "--memory-swap" => sum = parse::<Size>(value)?,
            "--pids-max" => limits.pids_max = parse(value)?,
            "--io-max" => limits.io_max.push(value.parse()?),
            "--io-weight" => limits.io_weight = parse(value)?,
            "--parent" => place = value.parse()?,
            _ => return Err(format!("{word} is not an option\n{USAGE}").into()),
        }
    }
    if let Some(sum) = sum {
        limits.swap_max = Some(Limits::swap_of_total(limits.memory_max, sum)?);
    }
    let command: Vec<String> = words.collect();
    if command.is_empty() {
        return Err(USAGE.into());
    }
    Ok(Options {
        limits,
        place,
        json,
        command,
    })
}

fn run(words: impl Iterator<Item = String>) -> Result<ExitCode, Box<dyn Error>> {
    let options = options(words)?;
    let parent = Parent::open(&Host::read()?, &options.place, "chiton")?;
    for swept in parent.sweep()? {
        eprintln!("cgroup: removed {}, left by a dead process", swept.name);
    }
    let group = Cgroup::create(&parent, &format!("example-{}", std::process::id()), &options.limits)?;
    // Without the memory controller there is no such death to be told.
    let mut watch = group.oom_watch().ok();

    let mut command = Command::new(&options.command[0]);
    command.args(&options.command[1..]);
    group.enclose(&mut command)?;
    let started = std::time::Instant::now();
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => {
            group.remove()?;
            return Err(format!("cannot run {}: {error}", options.command[0]).into());
        }
    };
    let took = started.elapsed();

    let stats = group.stats()?;
    let verdict = match watch.as_mut() {
        Some(watch) => watch.verdict()?,
        None => None,
    };
    if options.json {
        eprintln!("{}", serde_json::json!({ "stats": stats, "oom": verdict }));
    } else {
        for path in group.paths() {
            eprintln!("cgroup     {}", path.display());
        }
        eprintln!("time       {:.3} s, {status}", took.as_secs_f64());
        print(&stats, verdict.as_ref());
    }
    drop(watch);
    group.remove()?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into())
}

fn print(stats: &Stats, verdict: Option<&OomKill>) {
    let seconds = |microseconds: u64| microseconds as f64 / 1e6;
    if let Some(cpu) = &stats.cpu {
        let (user, system) = (seconds(cpu.user_usec), seconds(cpu.system_usec));
        eprintln!(
            "processor  {:.3} s: {user:.3} user, {system:.3} system",
            seconds(cpu.usage_usec)
        );
        if let (Some(throttled @ 1..), Some(periods)) = (cpu.nr_throttled, cpu.nr_periods) {
            let time = seconds(cpu.throttled_usec.unwrap_or(0));
            eprintln!("throttled  in {throttled} of {periods} periods, {time:.3} s");
        }
    }
    if let Some(memory) = &stats.memory {
        let limit = memory.max.map_or("none".into(), amount);
        let peak = memory.peak.map_or("unknown".into(), amount);
        eprintln!("memory     {peak} at most, limit {limit}");
        let events = &memory.events;
        for (what, count) in [
            ("high", events.high),
            ("max", events.max),
            ("oom_kill", events.oom_kill),
        ] {
            if let Some(count @ 1..) = count {
                eprintln!("           {what}: {count} times");
            }
        }
    }
    if let Some(pids) = &stats.pids {
        let limit = pids.max.map_or("none".into(), |max| max.to_string());
        let peak = pids.peak.map_or("unknown".into(), |peak| peak.to_string());
        let refused = pids.refused.unwrap_or(0);
        eprintln!("tasks      {peak} at most, limit {limit}, {refused} refused");
    }
    for io in stats.io.iter().flatten() {
        let (read, written) = (amount(io.rbytes), amount(io.wbytes));
        eprintln!(
            "disk {:<5} {read} read in {}, {written} written in {}",
            io.device, io.rios, io.wios
        );
    }
    let whose = match stats.pressure.scope {
        Scope::Cgroup => "its own",
        Scope::Host => "the whole host's",
    };
    let stalls = [
        ("processor", stats.pressure.cpu),
        ("memory", stats.pressure.memory),
        ("disk", stats.pressure.io),
    ];
    let waited: Vec<String> = stalls
        .iter()
        .filter_map(|(what, pressure): &(_, Option<Pressure>)| {
            Some(format!("{:.3} s for {what}", seconds(pressure.as_ref()?.some.total)))
        })
        .collect();
    if !waited.is_empty() {
        eprintln!("waited     {} ({whose})", waited.join(", "));
    }
    if let Some(kill) = verdict {
        eprintln!("killed     {kill}");
    }
}

fn amount(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

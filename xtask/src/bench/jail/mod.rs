//! A guest in its jail, beside programs that make jails for ordinary processes; what each wall of
//! the jail costs, what is left behind, and whether many instances slow down the next.

mod host;
mod least;
mod peers;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    floor,
    start::verdict,
    stats::{Program, Samples, interleaved},
};
use crate::{
    build, command,
    error::{Error, Result},
    guests, paths,
    ui::Task,
};
use chiton_bench::{
    host::Left,
    peers::oci::{Bundle, WithoutUnified},
};
use host::Host;

const MILLI: f64 = 1e3;
/// At most so many times `unshare` and an unjailed start together.
const GOAL: f64 = 1.3;
/// At most this part of what crun takes for an ordinary process.
const GOAL_CRUN: f64 = 0.5;
/// The last start of many may take so much longer than the first: what medians differ by anyway.
const GOAL_MANY: f64 = 1.1;

/// Measures and prints.
pub(super) fn run(runs: usize, instances: usize, stopped: usize) -> Result<()> {
    if !command::is_root() {
        return Err(Error::Usage(
            "the jails that are compared are those of root: run this as root".into(),
        ));
    }
    let chiton = build::chiton()?;
    let place = Place::new()?;
    let hello = guests::resolve("hello")?;
    place.home("speed").image(&chiton, &hello)?;
    speed(&chiton, &hello, &place, runs)?;
    walls(runs)?;
    leaks(&chiton, &hello, &place, instances)?;
    many(&chiton, &hello, &place, runs, stopped)
}

/// A folder that is gone afterwards.
#[derive(Debug)]
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self> {
        let path = paths::target().join(format!("bench-jail-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
        Ok(Self(path))
    }

    fn home(&self, name: &str) -> Home {
        Home(self.0.join(name))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed is below `target`.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where instances are kept, apart from those of the user.
#[derive(Debug)]
struct Home(PathBuf);

impl Home {
    /// `chiton`, with a jail whatever the environment says, and with these arguments.
    fn chiton(&self, chiton: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(chiton);
        command
            .env("CHITON_HOME", &self.0)
            .env_remove("CHITON_JAIL")
            .args(arguments);
        command
    }

    /// An image of the guest, named `hello:bench`.
    fn image(&self, chiton: &Path, guest: &Path) -> Result<()> {
        let mut build = self.chiton(chiton, &["image", "build", "-t", "hello:bench", "--guest"]);
        command::quietly(&Task::silent(), build.arg(guest)).map(drop)
    }
}

/// From exec to exit, jailed and not, ours and others'.
fn speed(chiton: &Path, hello: &Path, place: &Place, runs: usize) -> Result<()> {
    let home = place.home("speed");
    let floor = floor::build()?;
    let bundle = Bundle::new(&place.0.join("bundle"))?;
    // It makes what is made once, such as the parents of cgroups.
    command::quietly(&Task::silent(), home.chiton(chiton, &["run", "--rm"]).arg(hello))?;
    let least = least::command(&floor, &place.0.join("least"))?;
    let run = |arguments: &[&str], guest: &Path| {
        let mut run = home.chiton(chiton, arguments);
        run.arg(guest);
        run
    };
    let limits = [
        "run",
        "--rm",
        "--memory-max",
        "64M",
        "--pids-max",
        "64",
        "--cpu-max",
        "2",
    ];
    let mut bare = build::without_jail(chiton);
    bare.arg("run").arg(hello);
    let mut programs = vec![
        Program::new("chiton run hello, no jail", bare),
        Program::new("unshare, the same namespaces", peers::unshare(&bundle)),
        Program::new("chiton run --rm hello, a file", run(&["run", "--rm"], hello)),
        Program::new("  an image: overlay and limits", run(&limits, Path::new("hello:bench"))),
        Program::new(least::LEAST, least),
    ];
    let beside = WithoutUnified::new()?;
    let (found, missing) = peers::installed(&bundle, beside.as_ref());
    programs.extend(found);
    let samples = interleaved("jailed, from exec to exit", &mut programs, runs)?;
    println!("exec to exit, ms, {runs} interleaved runs");
    println!("{:<34} {:>9} {:>9} {:>9}", "", "median", "p10", "p90");
    for (program, samples) in programs.iter().zip(&samples) {
        println!("{:<34} {}", program.name, samples.columns(MILLI));
    }
    for why in missing {
        println!("{why}");
    }
    let sum = samples[0].median() + samples[1].median();
    let whole = samples[3].median();
    let ratio = whole / sum;
    println!(
        "the whole jail takes {ratio:.2} times unshare and an unjailed start; goal: at most {GOAL}, {}",
        verdict(ratio <= GOAL)
    );
    println!(
        "it takes {:.2} times what the kernel alone takes for such a jail with a machine in it, which is {:.2} times \
         unshare and an unjailed start",
        whole / samples[4].median(),
        samples[4].median() / sum,
    );
    let median = |name| {
        let at = programs.iter().position(|program| program.name == name)?;
        Some(samples[at].median())
    };
    let crun = median(peers::CRUN).map(|crun| crun - median(peers::WAY).unwrap_or(0.0));
    match crun.map(|crun| whole / crun) {
        Some(part) => println!(
            "it takes {part:.2} of crun; goal: less than {GOAL_CRUN}, {}",
            verdict(part < GOAL_CRUN)
        ),
        None => println!("no crun: nothing to say of the goal of less than {GOAL_CRUN} of it"),
    }
    Ok(())
}

/// The example of the container layer that leaves out one wall at a time.
fn walls(runs: usize) -> Result<()> {
    let task = Task::start("building the jails with a wall left out");
    let mut build = build::cargo();
    let example = ["--release", "--package", "chiton-container", "--example", "cost"];
    command::quietly(&task, build.arg("build").args(example))?;
    task.done();
    println!("\nwhat each wall costs: the whole jail of an ordinary process, with one thing left out");
    let mut run = build::cargo();
    run.args(["run", "--quiet"])
        .args(example)
        .args(["--", &runs.to_string()]);
    command::openly(&mut run).map(drop)
}

/// Makes, runs and removes instances, and looks for what is left of them.
fn leaks(chiton: &Path, hello: &Path, place: &Place, instances: usize) -> Result<()> {
    let home = place.home("leaks");
    let task = Task::start("instances made, run and removed");
    let one = || -> Result<String> {
        let mut create = home.chiton(chiton, &["create"]);
        let id = command::quietly(&task, create.arg(hello))?.trim().to_owned();
        command::quietly(&task, &mut home.chiton(chiton, &["start", "--attach", &id]))?;
        command::quietly(&task, &mut home.chiton(chiton, &["rm", &id]))?;
        Ok(id)
    };
    // What is made once is no leak.
    one()?;
    let noise = Host::noise()?;
    let (left, host) = (Left::of(&home.0, &[])?, Host::read()?);
    let mut ids = Vec::new();
    for count in 0..instances {
        task.detail(&format!("{count} of {instances}"));
        ids.push(one()?);
    }
    // Namespaces are taken down by the kernel's own threads, after the last process is gone.
    std::thread::sleep(host::SETTLE);
    let (left_after, host_after) = (Left::of(&home.0, &ids)?, Host::read()?);
    task.done();
    println!("\n{instances} instances made, run and removed");
    println!("{:<34} {:>9} {:>9}", "of theirs", "before", "after");
    for ((name, before), (_, after)) in left.figures().into_iter().zip(left_after.figures()) {
        println!("{name:<34} {before:>9} {after:>9}");
    }
    println!("nothing left behind: {}", verdict(left == left_after));
    println!(
        "{:<34} {:>9} {:>9} {:>9}",
        "of the host, and what else it does", "before", "after", "noise"
    );
    let figures = host.figures().into_iter().zip(host_after.figures());
    for (((name, before), (_, after)), noise) in figures.zip(noise) {
        println!("{name:<34} {before:>9} {after:>9} {noise:>9}");
    }
    Ok(())
}

/// Starts beside many that are stopped, and alone.
fn many(chiton: &Path, hello: &Path, place: &Place, runs: usize, stopped: usize) -> Result<()> {
    let (empty, full) = (place.home("empty"), place.home("full"));
    let task = Task::start("making instances that stay");
    for count in 0..stopped {
        task.detail(&format!("{count} of {stopped}"));
        command::quietly(&task, full.chiton(chiton, &["create"]).arg(hello))?;
    }
    task.done();
    let start = |home: &Home| {
        let mut run = home.chiton(chiton, &["run", "--rm"]);
        run.arg(hello);
        run
    };
    let mut programs = [
        Program::new("the first instance", start(&empty)),
        Program::new(&format!("beside {stopped} that are stopped"), start(&full)),
    ];
    let samples: Vec<Samples> = interleaved("the first instance and one of many", &mut programs, runs)?;
    println!("\nexec to exit, ms, {runs} interleaved runs");
    println!("{:<34} {:>9} {:>9} {:>9}", "", "median", "p10", "p90");
    for (program, samples) in programs.iter().zip(&samples) {
        println!("{:<34} {}", program.name, samples.columns(MILLI));
    }
    let ratio = samples[1].median() / samples[0].median();
    println!(
        "{ratio:.2} times the first; goal: at most {GOAL_MANY}, {}",
        verdict(ratio <= GOAL_MANY)
    );
    Ok(())
}

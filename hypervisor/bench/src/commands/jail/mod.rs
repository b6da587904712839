//! `cargo xtask bench jail`, which builds what is measured here: a guest in its jail, beside programs that make jails
//! for ordinary processes; what each wall of the jail costs, what is left behind, and whether many instances slow
//! down the next.

mod host;
mod least;
mod peers;
mod slope;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use chiton_bench::{
    Error, Result,
    host::Left,
    output::{Live, Output},
    peers::oci::{Bundle, WithoutUnified},
    run::Samples,
    stats::Summary,
    trial::{self, Chiton, Interrupt, Place, Program, Programs, TrialError, answer},
    words::plain,
};
use host::Host;
use slope::Slope;

/// Nanoseconds in milliseconds.
const MILLI: f64 = 1e-6;
/// At most so many times `unshare` and an unjailed start together.
const GOAL: f64 = 1.3;
/// At most this part of what crun takes for an ordinary process.
const GOAL_CRUN: f64 = 0.5;
/// The last start of many may take so much longer than the first: what medians differ by anyway.
const GOAL_MANY: f64 = 1.1;
/// What an instance may leave in the kernel's memory is less than this, in kB.
const GOAL_LEFT: f64 = 1.0;
/// How often that memory is looked at while instances are made and removed.
const LOOKS: u32 = 20;
/// The name of the image.
const IMAGE: &str = "hello:bench";

/// A guest in its jail beside crun, runc, bubblewrap and unshare; what each wall costs; what is left behind.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each program runs.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,

    /// How many instances are made, run and removed to see what they leave.
    #[arg(long, default_value_t = 200)]
    instances: u32,

    /// How many are stopped when the next starts.
    #[arg(long, default_value_t = 1000)]
    stopped: u32,

    /// The program that makes the bare calls.
    #[arg(long, value_name = "FILE")]
    floor: PathBuf,

    /// The example of the container layer that leaves out one wall at a time.
    #[arg(long, value_name = "FILE")]
    walls: PathBuf,

    /// Where homes of instances are made.
    #[arg(long, value_name = "FOLDER")]
    place: PathBuf,

    #[command(flatten)]
    programs: Programs,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        return Err(
            TrialError::Refused("the jails that are compared are those of root: run this as root".into()).into(),
        );
    }
    let place = Place::below(&args.place)?;
    let interrupt = Interrupt::listen()?;
    let live = Output::default().live(0)?;
    let bench = Bench {
        guest: args.programs.guest("hello")?,
        args,
        place: place.path(),
        interrupt: &interrupt,
        live: &live,
    };
    bench.speed()?;
    bench.walls()?;
    bench.leaks()?;
    bench.many()?;
    Ok(ExitCode::SUCCESS)
}

/// What is measured with.
struct Bench<'a> {
    args: &'a Args,
    guest: PathBuf,
    place: &'a Path,
    interrupt: &'a Interrupt,
    live: &'a Live,
}

impl Bench<'_> {
    /// `chiton`, with a home apart from the user's.
    fn home(&self, name: &str) -> trial::Result<Chiton> {
        self.args.programs.chiton(self.place.join(name))
    }

    /// Says a line.
    fn say(&self, line: &str) {
        self.live.print(&format!("{line}\n"));
    }

    /// Times all of them, prints a row each, and returns their medians in milliseconds.
    fn table(&self, programs: &mut [Program]) -> Result<Vec<f64>> {
        let runs = self.args.runs;
        let samples = trial::interleaved(programs, runs as usize, self.interrupt, self.live)?;
        self.say(&format!("exec to exit, ms, {runs} interleaved runs"));
        self.say(&format!("{:<34} {:>9} {:>9} {:>9}", "", "median", "p10", "p90"));
        let mut medians = Vec::new();
        for (program, samples) in programs.iter().zip(samples) {
            let summary = Summary::of(&[Samples::of(samples)?]).ok_or(Error::Samples("there are none"))?;
            let [median, low, high] = [summary.p50, summary.p10, summary.p90].map(|ns| ns as f64 * MILLI);
            self.say(&format!("{:<34} {median:>9.2} {low:>9.2} {high:>9.2}", program.name));
            medians.push(median);
        }
        Ok(medians)
    }

    /// From exec to exit, jailed and not, ours and others'.
    fn speed(&self) -> Result<()> {
        let home = self.home("speed")?;
        let mut build = home.command(&["image", "build", "-t", IMAGE, "--guest"]);
        answer(build.arg(&self.guest))?;
        let bundle = Bundle::new(&self.place.join("bundle"))?;
        // It makes what is made once, such as the parents of cgroups.
        answer(home.command(&["run", "--rm"]).arg(&self.guest))?;
        let least = least::command(&self.args.floor, &self.place.join("least"))?;
        let run = |arguments: &[&str], guest: &Path| {
            let mut run = home.command(arguments);
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
        let mut bare = run(&["run"], &self.guest);
        bare.env("CHITON_JAIL", "off");
        let mut programs = vec![
            Program::new("chiton run hello, no jail", bare),
            Program::new("unshare, the same namespaces", peers::unshare(&bundle)),
            Program::new("chiton run --rm hello, a file", run(&["run", "--rm"], &self.guest)),
            Program::new("  an image: overlay and limits", run(&limits, Path::new(IMAGE))),
            Program::new(least::LEAST, least),
        ];
        let beside = WithoutUnified::new()?;
        let (found, missing) = peers::installed(&bundle, beside.as_ref());
        programs.extend(found);
        let medians = self.table(&mut programs)?;
        for why in missing {
            self.say(&plain(&why));
        }
        let sum = medians[0] + medians[1];
        let whole = medians[3];
        let ratio = whole / sum;
        self.say(&format!(
            "the whole jail takes {ratio:.2} times unshare and an unjailed start; goal: at most {GOAL}, {}",
            verdict(ratio <= GOAL)
        ));
        self.say(&format!(
            "it takes {:.2} times what the kernel alone takes for such a jail with a machine in it, which is {:.2} \
             times unshare and an unjailed start",
            whole / medians[4],
            medians[4] / sum,
        ));
        let median = |name| {
            let at = programs.iter().position(|program| program.name == name)?;
            Some(medians[at])
        };
        let crun = median(peers::CRUN).map(|crun| crun - median(peers::WAY).unwrap_or(0.0));
        self.say(&match crun.map(|crun| whole / crun) {
            Some(part) => format!(
                "it takes {part:.2} of crun; goal: less than {GOAL_CRUN}, {}",
                verdict(part < GOAL_CRUN)
            ),
            None => format!("no crun: nothing to say of the goal of less than {GOAL_CRUN} of it"),
        });
        Ok(())
    }

    /// The example of the container layer that leaves out one wall at a time.
    fn walls(&self) -> Result<()> {
        self.say("\nwhat each wall costs: the whole jail of an ordinary process, with one thing left out");
        let mut walls = Command::new(&self.args.walls);
        walls.arg(self.args.runs.to_string());
        let status = self.live.aside(|| walls.status());
        match status.map_err(TrialError::start(&walls))? {
            status if status.success() => Ok(()),
            status => Err(TrialError::failed(&walls, status, "").into()),
        }
    }

    /// Makes, runs and removes instances, and looks for what is left of them.
    fn leaks(&self) -> Result<()> {
        let home = self.home("leaks")?;
        let instances = self.args.instances;
        let one = || -> trial::Result<String> {
            let id = answer(home.command(&["create"]).arg(&self.guest))?.trim().to_owned();
            answer(&mut home.command(&["start", "--attach", &id]))?;
            answer(&mut home.command(&["rm", &id]))?;
            Ok(id)
        };
        // What is made once is no leak.
        one()?;
        let noise = Host::noise()?;
        let (left, host) = (Left::of(home.home(), &[])?, Host::read()?);
        let mut ids = Vec::new();
        let part = (instances / LOOKS).max(1);
        let mut looks = Vec::new();
        for count in 0..instances {
            self.live
                .part(count as usize, instances as usize, "instances made, run and removed");
            self.interrupt.check()?;
            ids.push(one()?);
            if (count + 1) % part == 0 {
                looks.push(Host::read()?);
            }
        }
        // Namespaces are taken down by the kernel's own threads, after the last process is gone.
        std::thread::sleep(host::SETTLE);
        let (left_after, host_after) = (Left::of(home.home(), &ids)?, Host::read()?);
        self.say(&format!("\n{instances} instances made, run and removed"));
        self.say(&format!("{:<34} {:>9} {:>9}", "of theirs", "before", "after"));
        for ((name, before), (_, after)) in left.figures().into_iter().zip(left_after.figures()) {
            self.say(&format!("{name:<34} {before:>9} {after:>9}"));
        }
        self.say(&format!("nothing left behind: {}", verdict(left == left_after)));
        self.say(&format!(
            "{:<34} {:>9} {:>9} {:>9}",
            "of the host, and what else it does", "before", "after", "noise"
        ));
        let figures = host.figures().into_iter().zip(host_after.figures());
        for (((name, before), (_, after)), noise) in figures.zip(noise) {
            self.say(&format!("{name:<34} {before:>9} {after:>9} {noise:>9}"));
        }
        for (name, figures) in Host::memory(&looks) {
            self.say(&match Slope::of(&figures, part) {
                Some(slope) => format!(
                    "{name}: {:+.2} kB an instance, give or take {:.2}; goal: less than {GOAL_LEFT}, {}",
                    slope.each,
                    slope.uncertain,
                    slope.verdict(GOAL_LEFT)
                ),
                None => format!("{name}: too few instances to tell what each leaves (--instances)"),
            });
        }
        Ok(())
    }

    /// Starts beside many that are stopped, and alone.
    fn many(&self) -> Result<()> {
        let (empty, full) = (self.home("empty")?, self.home("full")?);
        let stopped = self.args.stopped;
        for count in 0..stopped {
            self.live
                .part(count as usize, stopped as usize, "instances made that stay");
            self.interrupt.check()?;
            answer(full.command(&["create"]).arg(&self.guest))?;
        }
        let start = |home: &Chiton| {
            let mut run = home.command(&["run", "--rm"]);
            run.arg(&self.guest);
            run
        };
        let mut programs = [
            Program::new("the first instance", start(&empty)),
            Program::new(&format!("beside {stopped} that are stopped"), start(&full)),
        ];
        self.say("");
        let medians = self.table(&mut programs)?;
        let ratio = medians[1] / medians[0];
        self.say(&format!(
            "{ratio:.2} times the first; goal: at most {GOAL_MANY}, {}",
            verdict(ratio <= GOAL_MANY)
        ));
        Ok(())
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

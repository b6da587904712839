//! `chiton bench density`: many instances at a time, and what each costs.
//!
//! ```text
//!   before ─▶ start some ─▶ look ─▶ start more ─▶ look ─▶ … ─▶ all idle, watched ─▶ removed ─▶ look again
//!                                                                                    │ by the keeper, which lives
//!                                                                                    │ on if this program is killed
//! ```

mod end;
mod idle;
mod keeper;
mod look;
mod room;
mod show;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use chiton_bench::{
    Result,
    environment::Meanwhile,
    host::Memory,
    output::{Live, Output},
    run::{Case, Disturbed, GROWTH, Kind, Machine, Run, Samples, Unit, write},
    trial::{self, Chiton, Interrupt, Place, Programs, TrialError, answer},
};
use keeper::Keeper;
pub(crate) use keeper::{KeeperArgs, keep};
use room::{Count, Room};

/// How long the host gets to come to rest before it is looked at.
const SETTLE: Duration = Duration::from_secs(1);

/// The name of the image.
const IMAGE: &str = "idle:bench";

/// Many instances in their jails: how fast they start, what memory each takes, that they are idle; then
/// all are removed, and it is made sure that nothing is left.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many; `max` is until no more fit, of which the last line tells why.
    #[arg(value_name = "N|max")]
    count: Count,

    /// How many are started at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,

    /// How long they are watched while they are idle, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    watch: u16,

    /// The memory that stays free, in MiB; a quarter of all if not given.
    #[arg(long, value_name = "MIB")]
    keep_free: Option<u64>,

    #[command(flatten)]
    programs: Programs,

    #[command(flatten)]
    output: Output,
}

/// Measures, shows and cleans up.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let memory = Memory::read()?;
    let room = Room::new(&memory, args.keep_free.map(|mib| mib << 20))?;
    let target = room.check(args.count)?;
    let place = Place::below(&std::env::temp_dir())?;
    let chiton = args.programs.chiton(place.path().join("home"))?;
    let guest = args.programs.guest("cat")?;
    let live = args.output.live(target)?;
    let mut run = Run::begin(Kind::Density, Machine::Kvm, 1);

    let keeper = Keeper::begin(&chiton, place.path())?;
    let bench = Bench {
        chiton: &chiton,
        interrupt: &interrupt,
        live: &live,
        room: &room,
        jobs: args.jobs.into(),
    };
    let measured = bench.measure(&guest, args.count, target, Duration::from_secs(args.watch.into()));
    // Whatever came of it.
    live.begin("removing all");
    let began = Instant::now();
    let left = keeper.end();
    let took = began.elapsed();
    drop(live);
    let Grown { cases, count, full } = measured?;
    run.cases = cases;
    end::check(&mut run.cases, left?, took, count, full)?;
    if !args.output.is_quiet() {
        write("-".as_ref(), &show::all(&run))?;
    }
    args.output.write(&run)?;
    drop(place);
    Ok(ExitCode::SUCCESS)
}

/// What came of it.
struct Grown {
    cases: Vec<Case>,
    /// How many there were in the end.
    count: usize,
    /// Why there were no more, if as many as possible were asked for.
    full: Option<String>,
}

/// Why there are no more.
#[derive(Debug)]
enum Full {
    /// So little memory is left.
    Memory(Memory),
    /// The next one does not start.
    Refused(TrialError),
}

/// What is measured with.
struct Bench<'a> {
    chiton: &'a Chiton,
    interrupt: &'a Interrupt,
    live: &'a Live,
    room: &'a Room,
    jobs: usize,
}

impl Bench<'_> {
    /// Starts instances, and looks at them now and then.
    fn measure(&self, guest: &PathBuf, asked: Count, target: usize, watch: Duration) -> Result<Grown> {
        let mut build = self.chiton.command(&["image", "build", "-t", IMAGE, "--guest"]);
        answer(build.arg(guest))?;
        // What is made once is no part of what one more takes: parents of groups, the store's files in memory.
        let once = self.start_one()?;
        answer(&mut self.chiton.command(&["rm", "--force", &once]))?;
        thread::sleep(SETTLE);
        let before = Memory::read()?;
        let mut cases = Vec::new();
        let mut count = 0;
        let mut why = None;
        for next in steps(target) {
            let began = Instant::now();
            let meanwhile = Meanwhile::begin();
            let (times, migrations, full) = self.start(count, next - count)?;
            let disturbed = Disturbed {
                migrations,
                ..meanwhile.so_far()
            };
            if let (Some(full), Count::Exactly(asked)) = (&full, asked) {
                return Err(match full {
                    Full::Memory(now) => self.room.full(count + times.len(), asked, &before, now),
                    Full::Refused(error) => TrialError::Found(format!(
                        "{asked} instances do not fit: with {}, the next one does not start: {error}",
                        count + times.len()
                    )),
                }
                .into());
            }
            why = full.map(|full| match full {
                Full::Memory(now) => self.room.no_memory(&now),
                Full::Refused(error) => format!("the next one does not start: {error}"),
            });
            if times.is_empty() {
                break;
            }
            let took = began.elapsed();
            cases.extend(starts(count, &times, took, disturbed)?);
            count += times.len();
            thread::sleep(SETTLE);
            self.interrupt.check()?;
            self.live.begin(&format!("looking at {count}"));
            cases.extend(look::at(self.chiton.home(), count, &before)?);
            if why.is_some() {
                break;
            }
        }
        cases.extend(idle::watch(self, watch, count)?);
        let full = match asked {
            Count::Max => Some(why.unwrap_or_else(|| self.room.no_more())),
            Count::Exactly(_) => None,
        };
        Ok(Grown { cases, count, full })
    }

    /// Starts more, or as many as there is room for. Returns how long each took, in nanoseconds, how often the threads
    /// that start them moved, and why there was room for fewer.
    fn start(&self, already: usize, more: usize) -> trial::Result<(Vec<u64>, Option<u64>, Option<Full>)> {
        let next = AtomicUsize::new(0);
        let one_after_the_other = || -> trial::Result<(Vec<u64>, Disturbed, Option<Full>)> {
            let meanwhile = Meanwhile::begin();
            let mut times = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < more {
                self.interrupt.check()?;
                let now = Memory::read()?;
                if !self.room.has_some(&now) {
                    return Ok((times, meanwhile.so_far(), Some(Full::Memory(now))));
                }
                let began = Instant::now();
                if let Err(error) = self.start_one() {
                    // After a failure nobody starts another. A first one that does not start is no matter of room.
                    next.store(more, Ordering::Relaxed);
                    if already + times.len() == 0 {
                        return Err(error);
                    }
                    return Ok((times, meanwhile.so_far(), Some(Full::Refused(error))));
                }
                times.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
                self.live
                    .part(already + times.len(), already + more, "instances started");
            }
            Ok((times, meanwhile.so_far(), None))
        };
        thread::scope(|scope| {
            let jobs: Vec<_> = (0..self.jobs).map(|_| scope.spawn(one_after_the_other)).collect();
            let (mut all, mut disturbed, mut full) = (Vec::new(), Vec::new(), None);
            for job in jobs {
                let (times, by, no_room) = job
                    .join()
                    .map_err(|_| TrialError::Found("a thread that starts instances panicked".into()))??;
                all.extend(times);
                disturbed.push(by);
                full = full.or(no_room);
            }
            Ok((all, Disturbed::by_all(&disturbed).migrations, full))
        })
    }

    /// Starts one, which then waits for input; its ID.
    fn start_one(&self) -> trial::Result<String> {
        Ok(answer(&mut self.start_command())?.trim().to_owned())
    }

    fn start_command(&self) -> Command {
        let limits = ["--memory-max", "64M", "--pids-max", "64"];
        let words = [&["run", "--detach", "--interactive", "--rm"], &limits[..], &[IMAGE]].concat();
        self.chiton.command(&words)
    }
}

/// The numbers of instances at which one looks: 1, 2, 5, 10, …, and the last.
fn steps(last: usize) -> Vec<usize> {
    let decades = (0..).map_while(|power| 10_usize.checked_pow(power));
    let all = decades.flat_map(|ten| [1, 2, 5].map(|times| ten.saturating_mul(times)));
    let mut steps: Vec<_> = all.take_while(|step| *step < last).collect();
    steps.push(last);
    steps
}

/// How long each of those that were started last took, and how many were started in a second.
fn starts(before: usize, times: &[u64], took: Duration, disturbed: Disturbed) -> Result<Vec<Case>> {
    let group = format!("{}{GROWTH}", before + times.len());
    let what = format!(
        "`chiton run --detach` of an image, from before exec to the guest's start, the instances {} to {}",
        before + 1,
        before + times.len()
    );
    let mut samples = Samples::of(times.iter().copied())?;
    samples.disturbed(disturbed);
    let mut case = Case::measured(show::START, &group, &what, Unit::Nanoseconds, vec![samples]);
    let rate = times.len() as f64 / took.as_secs_f64();
    case.note(format!("{rate:.1} starts a second"));
    Ok(vec![case])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_disturbed_the_starts_is_written_down_with_them() {
        let by = Disturbed {
            steal: Some(5),
            migrations: Some(1),
        };
        let cases = starts(0, &[2, 1], Duration::from_secs(1), by).unwrap();
        let samples = &cases[0].repeats()[0];
        assert_eq!(
            (samples.count, samples.steal, samples.migrations),
            (2, Some(5), Some(1))
        );
    }

    #[test]
    fn one_looks_at_round_numbers_and_at_the_last() {
        assert_eq!(steps(1), [1]);
        assert_eq!(steps(3), [1, 2, 3]);
        assert_eq!(steps(10), [1, 2, 5, 10]);
        assert_eq!(steps(700), [1, 2, 5, 10, 20, 50, 100, 200, 500, 700]);
    }
}

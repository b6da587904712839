//! The same work over emulated registers, over virtio, and by the host itself: exits, throughput,
//! latency. Then everything that virtio is to reach beside the host, with whether it does.

mod bench;
mod disk;
mod figures;
mod frames;
mod guest;
mod net;
mod packet;
mod processors;
mod rpc;

use std::path::PathBuf;
use std::process::ExitCode;

use chiton_bench::Error;
use chiton_bench::trial::{Result, TrialError};

use bench::Bench;
use figures::{Figures, verdict};

/// At most so many exits for a packet or a request under load.
const EXITS_UNDER_LOAD: f64 = 0.05;
/// At most so many for a packet that comes or goes alone.
const EXITS_ALONE: f64 = 1.0;

/// Devices whose registers are emulated beside virtio and the host itself; then all that virtio is to reach.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each program runs.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,

    /// Only these parts, else all.
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,

    /// How many processors a guest has that computes on several; as many as the machine has, if not said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=32))]
    cpus: Option<u32>,

    /// The program `chiton`; else the one beside this program, or in PATH.
    #[arg(long, value_name = "FILE")]
    chiton: Option<PathBuf>,

    /// Where the file is that is read, on a file system of a disk: memory has no reads past the page cache.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    place: PathBuf,
}

/// What is measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Reads of a disk.
    Disks,
    /// Ethernet frames, as root.
    Frames,
    /// A call over vsock.
    Vsock,
    /// Several processors.
    Processors,
    /// TCP and HTTP, as root.
    Tcp,
}

impl Part {
    /// What a note calls it.
    const fn name(self) -> &'static str {
        match self {
            Self::Disks => "disks",
            Self::Frames => "frames",
            Self::Vsock => "a call over vsock",
            Self::Processors => "processors",
            Self::Tcp => "TCP and HTTP",
        }
    }
}

/// Whose figures a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Registers only, data too.
    Words,
    /// Registers, and data moved by the device.
    Registers,
    /// Virtio.
    Virtio,
    /// No guest.
    Native,
}

impl Way {
    const ALL: [Self; 4] = [Self::Words, Self::Registers, Self::Virtio, Self::Native];

    /// The heading of its column.
    const fn name(self) -> &'static str {
        match self {
            Self::Words => "emulated, PIO",
            Self::Registers => "emulated, DMA",
            Self::Virtio => "virtio",
            Self::Native => "native",
        }
    }
}

/// What is measured of one kind of work, a column for each way; empty where there is no such thing.
#[derive(Debug, Default)]
struct Row([Figures; 4]);

impl Row {
    fn of(&mut self, way: Way) -> &mut Figures {
        &mut self.0[way as usize]
    }

    fn median(&self, way: Way) -> f64 {
        self.0[way as usize].median()
    }

    /// Says a line, in units of which 1 has `factor`.
    fn say(&self, bench: &Bench, name: &str, factor: f64) {
        let cells: Vec<_> = self.0.iter().map(|figures| figures.cell(factor)).collect();
        bench.say(&format!("{name:<30} {}", cells.join(" ")));
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> chiton_bench::Result<ExitCode> {
    let bench = Bench::new(args.runs as usize, args.chiton.as_deref(), &args.place)?;
    let mut parts = Parts {
        bench: &bench,
        only: &args.only,
        missing: Vec::new(),
    };
    let disks = parts.measure(Part::Disks, || disk::measure(&bench));
    let frames = parts.measure(Part::Frames, || frames::measure(&bench));
    if disks.is_some() || frames.is_some() {
        let names = Way::ALL.map(|way| format!("{:>24}", way.name()));
        bench.say(&format!(
            "median (tenth to ninetieth percentile) of {} interleaved runs\n",
            bench.runs
        ));
        bench.say(&format!("{:<30} {}", "", names.join(" ")));
        frames.iter().for_each(|frames| frames.say(&bench));
        disks.iter().for_each(|disks| disks.say(&bench));
        bench.say("\nwhat virtio is to reach");
        frames.iter().for_each(|frames| frames.goals(&bench));
        disks.iter().for_each(|disks| disks.goals(&bench));
    }
    parts.measure(Part::Vsock, || rpc::run(&bench));
    parts.measure(Part::Processors, || {
        let here = std::thread::available_parallelism().map_or(1, usize::from).min(32);
        processors::run(&bench, args.cpus.map_or(here, |cpus| cpus as usize))
    });
    // Last, since it is the longest, and other programs have their part in it.
    parts.measure(Part::Tcp, || net::run(&bench));
    parts.end()
}

/// What is measured, part by part.
struct Parts<'a> {
    bench: &'a Bench,
    /// Those that are asked for; all, if there is none.
    only: &'a [Part],
    /// Those that failed.
    missing: Vec<&'static str>,
}

impl Parts<'_> {
    /// Measures one part, if it is asked for, and a second time if it fails: other programs have their part in most, and
    /// one that stumbles costs neither this part nor the others. What cannot be measured here is named in a note.
    fn measure<T>(&mut self, part: Part, measure: impl Fn() -> Result<T>) -> Option<T> {
        if !self.only.is_empty() && !self.only.contains(&part) {
            return None;
        }
        let name = part.name();
        twice(name, measure, |note| self.bench.note(note)).unwrap_or_else(|Twice| {
            self.missing.push(name);
            None
        })
    }

    /// What failed is an error.
    fn end(self) -> chiton_bench::Result<ExitCode> {
        if self.missing.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let missing = self.missing.join(", ");
        Err(Error::Trial(TrialError::Found(format!("not measured: {missing}"))))
    }
}

/// It failed twice, and has said why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Twice;

/// What is measured; nothing if that cannot be here, an error if it failed twice.
fn twice<T>(name: &str, measure: impl Fn() -> Result<T>, note: impl Fn(&str)) -> std::result::Result<Option<T>, Twice> {
    let mut again = false;
    loop {
        let error = match measure() {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        match error {
            TrialError::Missing(_) | TrialError::Refused(_) => {
                note(&format!("  {name}: not measured: {error}"));
                return Ok(None);
            }
            TrialError::Interrupted => return Err(Twice),
            _ if again => {
                note(&format!("  {name}: not measured: {error}"));
                return Err(Twice);
            }
            _ => note(&format!("  {name}: once more, because of this: {error}")),
        }
        again = true;
    }
}

/// Says whether a figure is small enough.
fn goal_at_most(bench: &Bench, name: &str, value: f64, most: f64) {
    bench.say(&format!(
        "{name:<42} {value:>8.3}  goal: at most {most}, {}",
        verdict(value <= most)
    ));
}

/// Says whether a figure is large enough.
fn goal_at_least(bench: &Bench, name: &str, value: f64, least: f64) {
    bench.say(&format!(
        "{name:<42} {value:>8.3}  goal: at least {least}, {}",
        verdict(value >= least)
    ));
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What comes of a part that fails so often in this way, and how often it was tried.
    fn failing(times: u32, with: impl Fn() -> TrialError) -> (std::result::Result<Option<u32>, Twice>, u32) {
        let tries = Cell::new(0);
        let measure = || {
            tries.set(tries.get() + 1);
            if tries.get() <= times { Err(with()) } else { Ok(7) }
        };
        (twice("it", measure, |_| ()), tries.get())
    }

    #[test]
    fn a_part_that_fails_is_tried_once_more_and_then_noted() {
        let stumble = || TrialError::Found("a stumble".into());
        assert_eq!(failing(0, stumble), (Ok(Some(7)), 1));
        assert_eq!(failing(1, stumble), (Ok(Some(7)), 2));
        assert_eq!(failing(2, stumble), (Err(Twice), 2));
    }

    #[test]
    fn a_part_that_cannot_be_measured_here_is_no_failure() {
        let absent = || TrialError::Missing("no root".into());
        assert_eq!(failing(1, absent), (Ok(None), 1));
    }
}

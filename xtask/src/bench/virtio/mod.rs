//! The same work over emulated registers, over virtio, and by the host itself: exits, throughput,
//! latency. Then everything that virtio is to reach beside the host, with whether it does.

mod disk;
mod frames;
mod guest;
mod packet;
mod rpc;

use super::{
    exits, net, processors,
    start::verdict,
    stats::{Samples, cell},
};
use crate::error::{Error, Result};

/// At most so many exits for a packet or a request under load.
const EXITS_UNDER_LOAD: f64 = 0.05;
/// At most so many for a packet that comes or goes alone.
const EXITS_ALONE: f64 = 1.0;

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
struct Row([Samples; 4]);

impl Row {
    fn of(&mut self, way: Way) -> &mut Samples {
        &mut self.0[way as usize]
    }

    fn median(&self, way: Way) -> f64 {
        self.0[way as usize].median()
    }

    /// Prints a line, in units of which 1 has `factor`.
    fn print(&self, name: &str, factor: f64) {
        let cells: Vec<_> = self.0.iter().map(|samples| cell(samples, factor)).collect();
        println!("{name:<30} {}", cells.join(" "));
    }
}

/// Measures and prints.
pub(super) fn run(runs: usize) -> Result<()> {
    let disk = disk::measure(runs)?;
    // Interfaces take root; the rest does not.
    let frames = match frames::measure(runs) {
        Ok(frames) => Some(frames),
        Err(Error::Missing(why)) => {
            eprintln!("  no network: {why}");
            None
        }
        Err(error) => return Err(error),
    };

    let names = Way::ALL.map(|way| format!("{:>24}", way.name()));
    println!("median (tenth to ninetieth percentile) of {runs} interleaved runs\n");
    println!("{:<30} {}", "", names.join(" "));
    if let Some(frames) = &frames {
        frames.print();
    }
    disk.print();

    println!("\nwhat virtio is to reach");
    if let Some(frames) = &frames {
        frames.goals();
    }
    disk.goals();

    println!("\none exit, and a call over vsock");
    let floor = exits::measure(runs, 5000)?;
    rpc::run(runs, floor)?;

    println!("\nprocessors");
    processors::run(runs, super::processors_here())?;

    // Last, since it is the longest, and other programs have their part in it.
    if frames.is_some() {
        println!("\nTCP and HTTP");
        net::run(runs)?;
    }
    Ok(())
}

/// Prints whether a figure is small enough.
fn goal_at_most(name: &str, value: f64, most: f64) {
    println!(
        "{name:<42} {value:>8.3}  goal: at most {most}, {}",
        verdict(value <= most)
    );
}

/// Prints whether a figure is large enough.
fn goal_at_least(name: &str, value: f64, least: f64) {
    println!(
        "{name:<42} {value:>8.3}  goal: at least {least}, {}",
        verdict(value >= least)
    );
}

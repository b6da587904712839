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
    let mut missing = Vec::new();
    let disk = part("disks", &mut missing, || disk::measure(runs));
    // Interfaces take root; the rest does not.
    let frames = part("frames", &mut missing, || frames::measure(runs));

    let names = Way::ALL.map(|way| format!("{:>24}", way.name()));
    println!("median (tenth to ninetieth percentile) of {runs} interleaved runs\n");
    println!("{:<30} {}", "", names.join(" "));
    frames.iter().for_each(frames::Frames::print);
    disk.iter().for_each(disk::Disks::print);

    println!("\nwhat virtio is to reach");
    frames.iter().for_each(frames::Frames::goals);
    disk.iter().for_each(disk::Disks::goals);

    println!("\none exit, and a call over vsock");
    part("a call over vsock", &mut missing, || {
        let floor = exits::measure(runs, 5000)?;
        rpc::run(runs, floor)
    });

    println!("\nprocessors");
    part("processors", &mut missing, || {
        processors::run(runs, super::processors_here())
    });

    // Last, since it is the longest, and other programs have their part in it.
    println!("\nTCP and HTTP");
    part("TCP and HTTP", &mut missing, || net::run(runs));
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Found(format!("not measured: {}", missing.join(", "))))
}

/// Measures one part, a second time if it fails: other programs have their part in most, and one that
/// stumbles costs neither this part nor the others. What cannot be measured here is named in a note,
/// and what failed twice in `missing` too.
fn part<T>(name: &'static str, missing: &mut Vec<&'static str>, measure: impl Fn() -> Result<T>) -> Option<T> {
    let first = match measure() {
        Ok(value) => return Some(value),
        Err(Error::Missing(why)) => {
            eprintln!("  {name}: not measured: {why}");
            return None;
        }
        Err(error) => error,
    };
    eprintln!("  {name}: once more, because of this: {first}");
    match measure() {
        Ok(value) => Some(value),
        Err(error) => {
            eprintln!("  {name}: not measured: {error}");
            missing.push(name);
            None
        }
    }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What comes of a part that fails so often in this way, what was noted, and how often it was tried.
    fn failing(times: u32, with: impl Fn() -> Error) -> (Option<u32>, Vec<&'static str>, u32) {
        let (tries, mut missing) = (Cell::new(0), Vec::new());
        let value = part("it", &mut missing, || {
            tries.set(tries.get() + 1);
            if tries.get() <= times { Err(with()) } else { Ok(7) }
        });
        (value, missing, tries.get())
    }

    #[test]
    fn a_part_that_fails_is_tried_once_more_and_then_noted() {
        let stumble = || Error::Found("a stumble".into());
        assert_eq!(failing(0, stumble), (Some(7), vec![], 1));
        assert_eq!(failing(1, stumble), (Some(7), vec![], 2));
        assert_eq!(failing(2, stumble), (None, vec!["it"], 2));
    }

    #[test]
    fn a_part_that_cannot_be_measured_here_is_no_failure() {
        let absent = || Error::Missing("no root".into());
        assert_eq!(failing(1, absent), (None, vec![], 1));
    }
}

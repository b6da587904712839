//! Reads of a file: by the guest `compare-disk` over each kind of disk, by this process, and by fio.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    time::Instant,
};

use super::{EXITS_UNDER_LOAD, Row, Way, goal_at_least, goal_at_most, guest};
use crate::{
    command,
    error::{Error, Result},
    paths, tools,
    ui::Task,
};

/// Size of the disk, in bytes: it stays in the page cache, so that the way there is measured.
const DISK: u64 = 64 << 20;
const SMALL: u64 = 4096;
const LARGE: u64 = 1 << 20;
/// How many requests are in flight under load, of either size.
const DEPTH: u64 = 32;
const LARGE_DEPTH: u64 = 4;
/// How many small and large reads under load.
const SMALL_COUNT: u64 = 100_000;
const LARGE_COUNT: u64 = 2000;
/// How many small reads one after the other; fewer where each takes thousands of exits.
const ALONE: u64 = 2000;
const ALONE_DMA: u64 = 200;
const ALONE_PIO: u64 = 20;
/// What part of fio is to be reached, by small and large reads.
const OF_FIO: [f64; 2] = [0.8, 0.9];

/// What was measured; under load there are virtio and fio only.
#[derive(Debug, Default)]
pub(super) struct Disks {
    alone_exits: Row,
    alone: Row,
    small_exits: Row,
    small: Row,
    large_exits: Row,
    large: Row,
}

/// Measures.
pub(super) fn measure(runs: usize) -> Result<Disks> {
    let program = guest::Program::build("compare-disk")?;
    let fio = tools::debian("fio", "fio")?;
    let image = paths::target().join("bench-virtio.img");
    make(&image).map_err(Error::file("write", &image))?;
    let disk = format!("{}:ro", image.display());
    let mut disks = Disks::default();
    let task = Task::start("reading a disk");
    for round in 1..=runs {
        task.detail(&format!("round {round} of {runs}"));
        for (way, option, kind, count) in [
            (Way::Words, "--emulated-disk", "pio", ALONE_PIO),
            (Way::Registers, "--emulated-disk", "dma", ALONE_DMA),
            (Way::Virtio, "--disk", "virtio", ALONE),
        ] {
            // What the start costs is not theirs.
            let without = program.run(&[option, &disk], &[kind, "random", "0"])?;
            let ended = program.run(&[option, &disk], &[kind, "random", &count.to_string()])?;
            let exits = ended.exits - without.exits;
            disks.alone_exits.of(way).push(exits / count as f64);
            disks.alone.of(way).push(guest::seconds(&ended.output)? / count as f64);
        }
        let native = read_natively(&image, ALONE).map_err(Error::file("read", &image))?;
        disks.alone.of(Way::Native).push(native / ALONE as f64);

        let small = (SMALL_COUNT, SMALL, DEPTH, "random", "randread");
        let large = (LARGE_COUNT, LARGE, LARGE_DEPTH, "sequential", "read");
        for ((count, bytes, depth, what, fio_what), exits, rates) in [
            (small, &mut disks.small_exits, &mut disks.small),
            (large, &mut disks.large_exits, &mut disks.large),
        ] {
            let words = [count, bytes, depth].map(|number| number.to_string());
            let ended = program.run(&["--disk", &disk], &["virtio", what, &words[0], &words[1], &words[2]])?;
            exits.of(Way::Virtio).push(ended.exits / count as f64);
            rates
                .of(Way::Virtio)
                .push(count as f64 / guest::seconds(&ended.output)?);
            let mut fio = Command::new(&fio);
            fio.args(["--name=beside", "--ioengine=io_uring", "--readonly", "--invalidate=0"])
                .args(["--norandommap", "--gtod_reduce=1", "--minimal", "--terse-version=3"])
                .arg(format!("--filename={}", image.display()))
                .arg(format!("--rw={fio_what}"))
                .arg(format!("--bs={bytes}"))
                .arg(format!("--iodepth={depth}"))
                .arg(format!("--size={DISK}"))
                .arg(format!("--io_size={}", count * bytes));
            rates
                .of(Way::Native)
                .push(fio_rate(&command::quietly(&task, &mut fio)?, bytes)?);
        }
    }
    task.done();
    let _ = fs::remove_file(&image);
    Ok(disks)
}

impl Disks {
    /// Prints the lines of the table.
    pub(super) fn print(&self) {
        println!("disk, reads of 4 KiB");
        self.alone_exits.print("  alone: exits", 1.0);
        self.alone.print("  alone: µs", 1e6);
        let rate = Row(self.alone.0.each_ref().map(super::super::stats::Samples::inverse));
        rate.print("  alone: 1000 a second", 1e-3);
        self.small_exits.print("  32 in flight: exits", 1.0);
        self.small.print("  32 in flight: 1000 a second", 1e-3);
        println!("disk, reads of 1 MiB in order");
        self.large_exits.print("  4 in flight: exits", 1.0);
        self.large.print("  4 in flight: MB/s", LARGE as f64 / 1e6);
    }

    /// Prints what virtio is to reach.
    pub(super) fn goals(&self) {
        let exits = self.small_exits.median(Way::Virtio);
        goal_at_most("exits a block request of 4 KiB, under load", exits, EXITS_UNDER_LOAD);
        let of_fio = |row: &Row| row.median(Way::Virtio) / row.median(Way::Native);
        goal_at_least("of fio, 4 KiB at random, 32 in flight", of_fio(&self.small), OF_FIO[0]);
        goal_at_least("of fio, 1 MiB in order, 4 in flight", of_fio(&self.large), OF_FIO[1]);
    }
}

fn make(image: &Path) -> std::io::Result<()> {
    let mut file = File::create(image)?;
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    for _ in 0..DISK >> 20 {
        file.write_all(&block)?;
    }
    Ok(())
}

/// Reads at random places of the file, one after the other; returns the seconds it took.
fn read_natively(image: &Path, count: u64) -> std::io::Result<f64> {
    let file = File::open(image)?;
    let mut buffer = [0; SMALL as usize];
    let mut state = 1_u64;
    let start = Instant::now();
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.read_exact_at(&mut buffer, state % (DISK / SMALL) * SMALL)?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Operations a second of `bytes` each, from a line of fio's terse format 3 (fio(1)): field 6 has
/// the KiB that were read, field 9 the milliseconds it took, and field 7 KiB a second.
fn fio_rate(line: &str, bytes: u64) -> Result<f64> {
    let line = line.lines().find(|line| line.starts_with("3;"));
    let rate = line.and_then(|line| line.split(';').nth(6)?.parse::<f64>().ok());
    rate.map(|kib| kib * 1024.0 / bytes as f64)
        .ok_or_else(|| Error::Found(format!("no rate of fio in: {line:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_fio_is_read() {
        let line = "fio: a word\n3;fio-3.33;beside;0;0;409600;1600000;400000;256;0;0\n";
        assert_eq!(fio_rate(line, 4096).ok(), Some(400_000.0));
        assert!(fio_rate("2;a;b;0;0;1;2;3;4", 4096).is_err());
    }
}

//! Reads of a file: by the guest `compare-disk` over each kind of disk, by this process, and by fio.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    time::Instant,
};

use chiton_bench::trial::{Result, TrialError, answer};

use super::bench::{Bench, tool};
use super::{EXITS_UNDER_LOAD, Figures, Row, Way, goal_at_least, goal_at_most, guest};

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
/// How many large reads that go to the medium.
const DIRECT_COUNT: u64 = 256;
/// What part of fio is to be reached, by small and large reads.
const OF_FIO: [f64; 2] = [0.8, 0.9];

/// What was measured.
#[derive(Debug)]
pub(super) struct Disks {
    alone_exits: Row,
    alone: Row,
    loads: [Load; 3],
}

/// Reads with many in flight, by virtio and by fio.
#[derive(Debug)]
struct Load {
    /// What a line calls it.
    name: &'static str,
    count: u64,
    bytes: u64,
    depth: u64,
    random: bool,
    /// Past the page cache.
    direct: bool,
    /// What part of fio is to be reached.
    goal: f64,
    exits: Row,
    /// Operations a second.
    rate: Row,
    /// The same by virtio with `--io-thread`.
    apart_exits: Row,
    apart: Row,
}

/// Measures.
pub(super) fn measure(bench: &Bench) -> Result<Disks> {
    let program = bench.guest("compare-disk")?;
    let fio = tool("fio", "fio")?;
    let image = bench.file("disk.img");
    make(&image).map_err(TrialError::file("write", &image))?;
    let disk = format!("{}:ro", image.display());
    let mut disks = Disks {
        alone_exits: Row::default(),
        alone: Row::default(),
        loads: [
            Load::new("4 KiB at random", (SMALL_COUNT, SMALL, DEPTH), OF_FIO[0]),
            Load::new("1 MiB in order", (LARGE_COUNT, LARGE, LARGE_DEPTH), OF_FIO[1]),
            Load {
                direct: true,
                ..Load::new("1 MiB direct", (DIRECT_COUNT, LARGE, LARGE_DEPTH), OF_FIO[1])
            },
        ],
    };
    for round in 0..bench.runs {
        bench.round(round, "reading a disk")?;
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
        let native = read_natively(&image, ALONE).map_err(TrialError::file("read", &image))?;
        disks.alone.of(Way::Native).push(native / ALONE as f64);

        for load in &mut disks.loads {
            load.measure(&program, &fio, &image)?;
        }
    }
    let _ = fs::remove_file(&image);
    Ok(disks)
}

impl Disks {
    /// Says the lines of the table.
    pub(super) fn say(&self, bench: &Bench) {
        bench.say("disk, reads of 4 KiB");
        self.alone_exits.say(bench, "  alone: exits", 1.0);
        self.alone.say(bench, "  alone: µs", 1e6);
        let rate = Row(self.alone.0.each_ref().map(Figures::inverse));
        rate.say(bench, "  alone: 1000 a second", 1e-3);
        for load in &self.loads {
            let bytes = load.bytes as f64;
            bench.say(&format!("disk, {}, {} in flight", load.name, load.depth));
            for (who, exits, rate) in [
                ("", &load.exits, &load.rate),
                (", I/O thread", &load.apart_exits, &load.apart),
            ] {
                exits.say(bench, &format!("  exits{who}"), 1.0);
                rate.say(bench, &format!("  1000 a second{who}"), 1e-3);
                rate.say(bench, &format!("  MB/s{who}"), bytes / 1e6);
            }
        }
    }

    /// Says what virtio is to reach.
    pub(super) fn goals(&self, bench: &Bench) {
        let [small, ..] = &self.loads;
        for (who, exits) in [("", &small.exits), (", I/O thread", &small.apart_exits)] {
            let name = format!("exits a block request of 4 KiB{who}");
            goal_at_most(bench, &name, exits.median(Way::Virtio), EXITS_UNDER_LOAD);
        }
        for load in &self.loads {
            for (who, rate) in [("", &load.rate), (", I/O thread", &load.apart)] {
                let ratio = rate.median(Way::Virtio) / load.rate.median(Way::Native);
                goal_at_least(bench, &format!("of fio, {}{who}", load.name), ratio, load.goal);
            }
        }
    }
}

impl Load {
    fn new(name: &'static str, (count, bytes, depth): (u64, u64, u64), goal: f64) -> Self {
        Self {
            name,
            count,
            bytes,
            depth,
            random: bytes == SMALL,
            direct: false,
            goal,
            exits: Row::default(),
            rate: Row::default(),
            apart_exits: Row::default(),
            apart: Row::default(),
        }
    }

    /// One round: a guest, a guest whose disk has a thread of its own, fio.
    fn measure(&mut self, program: &guest::Program, fio: &Path, image: &Path) -> Result<()> {
        let count = self.count as f64;
        let direct = if self.direct { ",direct" } else { "" };
        let disk = format!("{}:ro{direct}", image.display());
        let what = if self.random { "random" } else { "sequential" };
        let words = [self.count, self.bytes, self.depth].map(|number| number.to_string());
        let arguments = ["virtio", what, &words[0], &words[1], &words[2]];
        for (options, exits, rate) in [
            (&["--disk", &disk][..], &mut self.exits, &mut self.rate),
            (
                &["--io-thread", "--disk", &disk],
                &mut self.apart_exits,
                &mut self.apart,
            ),
        ] {
            let ended = program.run(options, &arguments)?;
            exits.of(Way::Virtio).push(ended.exits / count);
            rate.of(Way::Virtio).push(count / guest::seconds(&ended.output)?);
        }
        let line = answer(&mut self.fio(fio, image))?;
        self.rate.of(Way::Native).push(fio_rate(&line, self.bytes)?);
        Ok(())
    }

    /// The same reads of the same file, which stays in the page cache, into buffers that begin at a
    /// page, as the guest's do. By default fio's begin 16 bytes behind one, and copying to there takes
    /// up to four times as long where `rep movs` is quick only to aligned places.
    fn fio(&self, fio: &Path, image: &Path) -> Command {
        let mut command = Command::new(fio);
        // Of huge pages, as a guest's memory is if a disk is direct; where the kernel gives any.
        command.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
        command
            .args(["--name=beside", "--ioengine=io_uring", "--readonly", "--invalidate=0"])
            .args(["--norandommap", "--gtod_reduce=1", "--minimal", "--terse-version=3"])
            .arg("--iomem_align=4096")
            .arg(format!("--filename={}", image.display()))
            .arg(format!("--direct={}", u8::from(self.direct)))
            .arg(format!("--rw={}", if self.random { "randread" } else { "read" }))
            .arg(format!("--bs={}", self.bytes))
            .arg(format!("--iodepth={}", self.depth))
            .arg(format!("--size={DISK}"))
            .arg(format!("--io_size={}", self.count * self.bytes));
        command
    }
}

fn make(image: &Path) -> std::io::Result<()> {
    let mut file = File::create(image)?;
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    for _ in 0..DISK >> 20 {
        file.write_all(&block)?;
    }
    // What goes past the page cache need not write anything back first.
    file.sync_all()
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
        .ok_or_else(|| TrialError::Found(format!("no rate of fio in: {line:?}")))
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

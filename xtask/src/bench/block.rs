//! Random 4 KiB reads of a disk by the guest `diskbench`, and by this process from the same file.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    time::Instant,
};

use super::{start::verdict, stats::Samples};
use crate::{
    build, command,
    error::{Error, Result},
    guests, paths,
    ui::Task,
};

const MICRO: f64 = 1e6;
/// At most this many exits for 1000 requests.
const GOAL: f64 = 100.0;
const REQUESTS: u64 = 20_000;
const DEPTH: u64 = 32;
const BYTES: u64 = 4096;
/// Size of the disk, in bytes: it stays in the page cache, so that the way there is measured.
const DISK: u64 = 64 << 20;

/// Measures and prints.
pub(super) fn run(runs: usize) -> Result<()> {
    let chiton = build::chiton()?;
    let guest = guests::resolve("diskbench")?;
    let image = paths::target().join("bench-block.img");
    make(&image).map_err(Error::file("write", &image))?;
    let mut inside = build::without_jail(&chiton);
    inside
        .args(["run", "--disk"])
        .arg(format!("{}:ro", image.display()))
        .arg(guest);
    inside.args([REQUESTS.to_string(), DEPTH.to_string()]);

    let task = Task::start("reading");
    let (mut native, mut guest, mut exits) = (Samples::default(), Samples::default(), Samples::default());
    for round in 1..=runs {
        task.detail(&format!("round {round} of {runs}"));
        native.push(read_natively(&image).map_err(Error::file("read", &image))?);
        let output = command::quietly(&task, &mut inside)?;
        let (seconds, count) = report(&output).ok_or_else(|| Error::Found(format!("no result in: {output}")))?;
        guest.push(seconds / REQUESTS as f64);
        exits.push(count);
    }
    task.done();
    let _ = fs::remove_file(&image);

    println!("one random read of {BYTES} bytes, µs, {runs} interleaved runs of {REQUESTS} reads");
    println!("{:<30} {:>9} {:>9} {:>9}", "", "median", "p10", "p90");
    println!("{:<30} {}", "pread, one after the other", native.columns(MICRO));
    println!("{:<30} {}", format!("guest, {DEPTH} in flight"), guest.columns(MICRO));
    println!(
        "{:.0} exits for 1000 reads; goal: at most {GOAL}, {}",
        exits.median(),
        verdict(exits.median() <= GOAL)
    );
    Ok(())
}

fn make(image: &std::path::Path) -> std::io::Result<()> {
    let mut file = File::create(image)?;
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    for _ in 0..DISK >> 20 {
        file.write_all(&block)?;
    }
    Ok(())
}

/// Reads at random places of the file; returns the seconds one read takes.
fn read_natively(image: &std::path::Path) -> std::io::Result<f64> {
    let file = File::open(image)?;
    let mut buffer = [0; BYTES as usize];
    let mut state = 1_u64;
    let start = Instant::now();
    for _ in 0..REQUESTS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.read_exact_at(&mut buffer, state % (DISK / BYTES) * BYTES)?;
    }
    Ok(start.elapsed().as_secs_f64() / REQUESTS as f64)
}

/// Seconds and exits per 1000 reads, from a line such as
/// `20000 reads of 4096 bytes, 32 in flight: 175495 us, …, 31 exits per 1000 reads`.
fn report(output: &str) -> Option<(f64, f64)> {
    let before = |words: &str| {
        let at = output.find(words)?;
        output[..at].rsplit(' ').next()?.parse::<f64>().ok()
    };
    Some((before(" us,")? / 1e6, before(" exits per 1000")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_line_is_read() {
        let line = "20000 reads of 4096 bytes, 32 in flight: 175495 us, 113963 a second, 0 kicks, 625 waits, \
                    31 exits per 1000 reads\n";
        assert_eq!(report(line), Some((0.175_495, 31.0)));
        assert_eq!(report("nothing"), None);
    }
}

//! The same work on a disk of either kind: `compare-disk KIND WHAT COUNT [BYTES] [DEPTH]`.
//!
//! KIND is `virtio`, `pio` or `dma`, the latter two for the emulated disk: word by word, or by bus
//! master. WHAT is `random` or `sequential`, for reads, or `write`, which writes a pattern from
//! the beginning on, or `digest`, for reads from the beginning on of which a digest is printed; there COUNT 0 is the
//! whole disk. Only
//! virtio has more than one request in flight.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use chiton_guest::block::{self, SECTOR};
use chiton_guest::emulated::{self, Method};
use chiton_guest::random::Random;
use chiton_guest::time::Instant;
use chiton_guest::{env, println};

chiton_guest::entry!(main, heap = 8 * MIB);

const USAGE: &str = "usage: compare-disk virtio|pio|dma random|sequential|write|digest COUNT [BYTES] [DEPTH]";

/// A disk of either kind.
enum Disk {
    Virtio(Box<block::Disk>),
    Emulated(emulated::Disk, Method),
}

impl Disk {
    fn open(kind: &str) -> Result<Self, String> {
        let emulated = |method| {
            let disk = emulated::Disk::open().map_err(|error| error.to_string())?;
            Ok(Self::Emulated(disk, method))
        };
        match kind {
            "virtio" => {
                let disk = block::Disk::open(0).map_err(|error| error.to_string())?;
                Ok(Self::Virtio(Box::new(disk)))
            }
            "pio" => emulated(Method::ProgrammedIo),
            "dma" => emulated(Method::BusMaster),
            _ => Err(USAGE.into()),
        }
    }

    fn sectors(&self) -> u64 {
        match self {
            Self::Virtio(disk) => disk.sectors(),
            Self::Emulated(disk, _) => disk.sectors(),
        }
    }

    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), String> {
        match self {
            Self::Virtio(disk) => disk.read(sector, to).map_err(|error| error.to_string()),
            Self::Emulated(disk, method) => disk.read(*method, sector, to).map_err(|error| error.to_string()),
        }
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), String> {
        match self {
            Self::Virtio(disk) => disk.write(sector, from).map_err(|error| error.to_string()),
            Self::Emulated(disk, method) => disk.write(*method, sector, from).map_err(|error| error.to_string()),
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        match self {
            Self::Virtio(disk) => disk.flush().map_err(|error| error.to_string()),
            Self::Emulated(disk, _) => disk.flush().map_err(|error| error.to_string()),
        }
    }
}

fn main() -> Result<(), String> {
    let words: Vec<_> = env::args().skip(1).collect();
    let [kind, what, count, rest @ ..] = &words[..] else {
        return Err(USAGE.into());
    };
    let number = |word: Option<&&str>, default: u64| {
        word.map_or(Ok(default), |word| word.parse().map_err(|_| String::from(USAGE)))
    };
    let count = number(Some(count), 0)?;
    let bytes = number(rest.first(), 4096)?;
    let depth = number(rest.get(1), 1)?;
    let mut disk = Disk::open(kind)?;
    let sectors = bytes / SECTOR;
    let places = disk.sectors().checked_div(sectors).filter(|places| *places > 0);
    let places = places.ok_or_else(|| format!("{bytes} bytes are no whole sectors, or more than the disk has"))?;

    let mut random = Random::seeded(1);
    let mut next = 0;
    let mut sector = || {
        next += 1;
        let place = if *what == "random" {
            random.below(places)
        } else {
            (next - 1) % places
        };
        place * sectors
    };
    // Before the clock starts: a page that is touched for the first time is no part of the disk's work.
    let depth = match &disk {
        Disk::Virtio(disk) => depth.clamp(1, disk.depth() as u64),
        Disk::Emulated(..) => 1,
    };
    let mut buffers = vec![vec![0; bytes as usize]; depth as usize];
    let buffer = &mut buffers[0];
    let start = Instant::now();
    match (*what, &mut disk) {
        ("random" | "sequential", Disk::Virtio(disk)) if depth > 1 => {
            deep(disk, count, buffers, sector).map_err(|error| error.to_string())?;
        }
        ("random" | "sequential", disk) => (0..count).try_for_each(|_| disk.read(sector(), buffer))?,
        ("write", disk) => {
            for i in 0..count {
                buffer.iter_mut().zip(i..).for_each(|(byte, i)| *byte = (i % 251) as u8);
                disk.write(sector(), buffer)?;
            }
            disk.flush()?;
        }
        ("digest", disk) => {
            let mut digest = 0xcbf2_9ce4_8422_2325;
            for _ in 0..if count > 0 { count } else { places } {
                disk.read(sector(), buffer)?;
                digest = buffer.iter().fold(digest, |hash: u64, byte| {
                    (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
                });
            }
            println!("digest {digest:016x}");
        }
        _ => return Err(USAGE.into()),
    }
    let ns = start.elapsed().as_nanos();
    println!("{count} operations of {bytes} bytes in {ns} ns");
    Ok(())
}

/// Reads with a request in flight for each buffer. One `wait` starts all that were submitted before it.
fn deep(
    disk: &mut block::Disk,
    count: u64,
    buffers: Vec<Vec<u8>>,
    mut sector: impl FnMut() -> u64,
) -> Result<(), block::DiskError> {
    let (mut submitted, mut done) = (0, 0);
    for buffer in buffers.into_iter().take(count as usize) {
        disk.submit_read(sector(), buffer)?;
        submitted += 1;
    }
    while done < count {
        let mut ready = Some(disk.wait()?);
        while let Some(completion) = ready {
            completion.result?;
            done += 1;
            if submitted < count {
                disk.submit_read(sector(), completion.buffer)?;
                submitted += 1;
            }
            ready = disk.poll()?;
        }
    }
    Ok(())
}

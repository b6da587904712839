//! Reads and writes with many in flight: `diskbench [REQUESTS] [DEPTH] [WORD…]`.
//!
//! By default 4 KiB are read at random places. The words:
//!
//! - `bytes=N`: so many bytes a request; `write`: it writes; `sequential`: one place after the
//!   other;
//! - `queues=N`: by so many queues of the disk, each on a processor of its own; each has DEPTH in
//!   flight and does its share of the requests;
//! - `kick`: rings the disk's doorbell first, so that the host's other thread can begin while the
//!   guest gets to the point of sleeping. Without it one exit starts everything that was submitted
//!   and sleeps;
//! - `gather=N`: sleeps until so many are done; without it, three quarters of DEPTH;
//! - `look=N`: looks for N ns for a completion before it sleeps; without it, as the host says.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use chiton_guest::block::{Disk, SECTOR};
use chiton_guest::random::Random;
use chiton_guest::time::Instant;
use chiton_guest::{env, println, processors};

chiton_guest::entry!(main, stack = 64 * KIB, heap = 8 * MIB, needs = &[BLOCK]);

/// What to do.
#[derive(Clone, Copy)]
struct Job {
    requests: u64,
    depth: u64,
    bytes: usize,
    write: bool,
    sequential: bool,
    kick: bool,
    look: Option<Duration>,
    gather: Option<u16>,
}

/// What one queue did.
struct Count {
    kicks: u64,
    waits: u64,
}

fn main() -> Result<(), String> {
    let (job, queues) = parse()?;
    let share = Job {
        requests: job.requests / queues as u64,
        ..job
    };
    let mut disks = Vec::new();
    for queue in 0..queues {
        disks.push(Disk::open_queue(0, queue).map_err(|error| format!("{error}"))?);
    }
    let mut first = disks.remove(0);
    let start = Instant::now();
    let mut tasks = Vec::new();
    for (number, mut disk) in (1..).zip(disks) {
        let work = move || run(&mut disk, share, number);
        tasks.push(processors::spawn_on(number, work).map_err(|error| format!("{error}"))?);
    }
    let mut counts = vec![run(&mut first, share, 0)?];
    for task in tasks {
        counts.push(task.join()?);
    }
    let ns = start.elapsed().as_nanos() as u64;
    let requests = share.requests * queues as u64;
    let kicks: u64 = counts.iter().map(|count| count.kicks).sum();
    let waits: u64 = counts.iter().map(|count| count.waits).sum();
    println!(
        "{requests} {} of {} bytes, {} in flight: {} us, {} a second, {} MiB/s, {kicks} kicks, {waits} waits, {} exits per 1000 {}",
        if job.write { "writes" } else { "reads" },
        job.bytes,
        job.depth,
        ns / 1000,
        requests * 1_000_000_000 / ns.max(1),
        (requests as u128 * job.bytes as u128 * 1_000_000_000 / u128::from(ns.max(1))) >> 20,
        (kicks + waits) * 1000 / requests.max(1),
        if job.write { "writes" } else { "reads" },
    );
    Ok(())
}

fn parse() -> Result<(Job, usize), String> {
    let usage = || {
        String::from(
            "usage: diskbench [REQUESTS] [DEPTH] [bytes=N] [write] [sequential] [queues=N] [kick] [gather=N] [look=N]",
        )
    };
    let mut job = Job {
        requests: 20_000,
        depth: 32,
        bytes: 4096,
        write: false,
        sequential: false,
        kick: false,
        look: None,
        gather: None,
    };
    let (mut queues, mut numbers) = (1, 0);
    for word in env::args().skip(1) {
        match word.split_once('=') {
            Some(("bytes", n)) => job.bytes = n.parse().map_err(|_| usage())?,
            Some(("queues", n)) => queues = n.parse().map_err(|_| usage())?,
            Some(("gather", n)) => job.gather = Some(n.parse().map_err(|_| usage())?),
            Some(("look", n)) => job.look = Some(Duration::from_nanos(n.parse().map_err(|_| usage())?)),
            None if word == "write" => job.write = true,
            None if word == "sequential" => job.sequential = true,
            None if word == "kick" => job.kick = true,
            None => {
                let number = word.parse().map_err(|_| usage())?;
                match numbers {
                    0 => job.requests = number,
                    1 => job.depth = number,
                    _ => return Err(usage()),
                }
                numbers += 1;
            }
            Some(_) => return Err(usage()),
        }
    }
    let sector = SECTOR as usize;
    if job.bytes == 0 || !job.bytes.is_multiple_of(sector) || queues == 0 {
        return Err(usage());
    }
    Ok((job, queues))
}

fn run(disk: &mut Disk, job: Job, number: u32) -> Result<Count, String> {
    let sectors = job.bytes as u64 / SECTOR;
    let places = disk.sectors() / sectors;
    if places == 0 {
        return Err(format!("the disk is smaller than {} bytes", job.bytes));
    }
    if let Some(time) = job.look {
        disk.look_before_sleeping(time);
    }
    let depth = job.depth.clamp(1, disk.depth() as u64);
    disk.gather(job.gather.unwrap_or((depth * 3 / 4) as u16).max(1));
    let mut random = Random::seeded(u64::from(number) + 1);
    let (mut submitted, mut done) = (0, 0);
    while done < job.requests {
        let mut ready = if disk.in_flight() == 0 {
            None
        } else {
            if job.kick {
                disk.kick();
            }
            Some(disk.wait().map_err(|error| format!("{error}"))?)
        };
        // Everything that is done gives its buffer to a new request.
        loop {
            let buffer = match ready.take() {
                Some(completion) => {
                    completion
                        .result
                        .map_err(|error| format!("sector {}: {error}", completion.sector))?;
                    done += 1;
                    Some(completion.buffer)
                }
                None => None,
            };
            if submitted < job.requests {
                let place = if job.sequential {
                    submitted % places
                } else {
                    random.below(places)
                };
                let buffer = buffer.unwrap_or_else(|| vec![0; job.bytes]);
                let begun = if job.write {
                    disk.submit_write(place * sectors, buffer)
                } else {
                    disk.submit_read(place * sectors, buffer)
                };
                begun.map_err(|error| format!("{error}"))?;
                submitted += 1;
            }
            ready = disk.poll().map_err(|error| format!("{error}"))?;
            let room = submitted < job.requests && (disk.in_flight() as u64) < depth;
            if ready.is_none() && !room {
                break;
            }
        }
    }
    let exits = disk.exits();
    Ok(Count {
        kicks: exits.kicks,
        waits: exits.waits,
    })
}

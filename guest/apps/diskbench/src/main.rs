//! Random 4 KiB reads with many in flight: `diskbench [REQUESTS] [DEPTH] [kick]`.
//!
//! By default the guest submits, then sleeps: one exit starts everything that was submitted. With
//! `kick` it rings the disk's doorbell first, so that the host's other thread can begin while the
//! guest gets to the point of sleeping.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;

use chiton_guest::block::{Disk, SECTOR};
use chiton_guest::random::Random;
use chiton_guest::time::Instant;
use chiton_guest::{env, println};

chiton_guest::entry!(main, heap = 2 * MIB, needs = &[BLOCK]);

const BYTES: usize = 4096;
const SECTORS: u64 = BYTES as u64 / SECTOR;

fn main() -> Result<(), String> {
    let mut args = env::args().skip(1);
    let mut number = |default: u64| args.next().map_or(Ok(default), str::parse);
    let usage = |_| String::from("usage: diskbench [REQUESTS] [DEPTH] [kick]");
    let (requests, depth) = (number(20_000).map_err(usage)?, number(32).map_err(usage)?);
    let kick = args.next() == Some("kick");

    let mut disk = Disk::open(0).map_err(|error| format!("{error}"))?;
    let places = disk.sectors() / SECTORS;
    if places == 0 {
        return Err(format!("the disk is smaller than {BYTES} bytes"));
    }
    let depth = depth.clamp(1, disk.depth() as u64);
    let mut random = Random::seeded(1);
    let start = Instant::now();
    let (mut submitted, mut done) = (0, 0);
    while done < requests {
        let mut ready = if disk.in_flight() == 0 {
            None
        } else {
            if kick {
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
                    completion.buffer
                }
                None => vec![0; BYTES],
            };
            if submitted < requests {
                let sector = random.below(places) * SECTORS;
                disk.submit_read(sector, buffer).map_err(|error| format!("{error}"))?;
                submitted += 1;
            }
            ready = disk.poll().map_err(|error| format!("{error}"))?;
            let room = submitted < requests && (disk.in_flight() as u64) < depth;
            if ready.is_none() && !room {
                break;
            }
        }
    }
    let ns = start.elapsed().as_nanos() as u64;
    let exits = disk.exits();
    println!(
        "{requests} reads of {BYTES} bytes, {depth} in flight: {} us, {} a second, {} kicks, {} waits, {} exits per 1000 reads",
        ns / 1000,
        requests * 1_000_000_000 / ns.max(1),
        exits.kicks,
        exits.waits,
        (exits.kicks + exits.waits) * 1000 / requests.max(1),
    );
    Ok(())
}

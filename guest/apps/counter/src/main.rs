//! Counts, and says what it is told when it goes on from a snapshot: `counter [MIB] [PROCESSORS]`,
//! or ends then: `counter wait`.
//!
//! Each line that begins with `count` has the next number. So whoever reads them sees whether a guest that goes on has
//! lost something, or said something twice. Besides, it fills so much memory with a pattern, and looks from time to time
//! whether that is still there; and has other processors count too, which would show if one of them did not go on.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use chiton_guest::random::Random;
use chiton_guest::shared::processor;
use chiton_guest::time::{self, Instant};
use chiton_guest::{entropy, env, processors};

chiton_guest::entry!(main);

use chiton_guest::println;

/// How often it counts.
const TICK: Duration = Duration::from_millis(5);

/// What is more than a busy machine takes.
const JUMP: Duration = Duration::from_secs(60);

/// What each of the other processors has counted.
static OTHERS: [AtomicU64; processor::MAX as usize] = [const { AtomicU64::new(0) }; processor::MAX as usize];

fn main() -> Result<(), String> {
    if env::args().nth(1) == Some("wait") {
        wait();
        return Ok(());
    }
    let mut numbers = env::args().skip(1).filter_map(|word| word.parse().ok());
    let (mib, helpers): (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let memory: Vec<u64> = (0..u64::from(mib) * (1 << 20) / 8).map(pattern).collect();
    for (number, counted) in (1..=helpers).zip(&OTHERS) {
        let work = processors::spawn_on(number, move || {
            while !env::stop_requested() {
                counted.fetch_add(1, Ordering::Relaxed);
                time::sleep(TICK);
            }
        });
        drop(work.map_err(|error| error.to_string())?);
    }
    let mut random = Random::new();
    let (mut generation, mut last, mut others) = (0, Instant::now(), vec![0; helpers as usize]);
    for count in 0_u64.. {
        if env::stop_requested() {
            break;
        }
        let now = Instant::now();
        if now < last || now > last + JUMP {
            println!("time jumped from {last:?} to {now:?}");
        }
        last = now;
        if generation != env::generation() {
            generation = env::generation();
            let mut key = vec![0; 8];
            entropy::fill(&mut key).map_err(|error| error.to_string())?;
            println!("generation {generation:032x}");
            println!("random {:016x}", random.next_u64());
            println!("key {key:02x?}");
            println!("wall {}", time::now().as_secs());
        }
        if let Some((at, word)) = memory.iter().enumerate().find(|(i, word)| **word != pattern(*i as u64)) {
            println!("memory: word {at} is {word:x}");
        }
        println!("count {count}");
        time::sleep(TICK);
        if helpers > 0 && count % 100 == 99 {
            let so_far: Vec<_> = OTHERS.iter().map(|counted| counted.load(Ordering::Relaxed)).collect();
            let all_count = others.iter().zip(&so_far).all(|(before, now)| before < now);
            println!(
                "{}",
                if all_count {
                    "others count"
                } else {
                    "one of the others stands still"
                }
            );
            others = so_far[..helpers as usize].to_vec();
        }
    }
    println!("asked to end");
    Ok(())
}

/// Ends as soon as it has gone on from a snapshot.
fn wait() {
    println!("ready");
    let own = env::generation();
    while env::generation() == own && !env::stop_requested() {
        time::wait(None);
    }
}

fn pattern(index: u64) -> u64 {
    index.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

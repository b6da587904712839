//! Two endless computations share one processor by a timer that interrupts them: `preempt [MS
//! [SLICE_US]]` lets them run for so many milliseconds, and until both had it more than once, and prints how far each
//! came and how often the timer took the processor from one for the other. Neither ever gives it up.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;
use alloc::vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use chiton_guest::preempt::{self, Task};
use chiton_guest::time::Instant;
use chiton_guest::{env, println};

chiton_guest::entry!(main, heap = MIB, needs = &[INTERRUPTS]);

/// How often the processor goes from one to the other at least. The host may let this guest stand still for all of its
/// time.
const LEAST: u32 = 4;

/// Whether it is over: looked at by both, each of which has a number.
struct Over {
    end: Instant,
    /// Who looked last, and how often that was another one than before.
    last: AtomicU32,
    turns: AtomicU32,
}

impl Over {
    const fn at(end: Instant) -> Self {
        Self {
            end,
            last: AtomicU32::new(0),
            turns: AtomicU32::new(0),
        }
    }

    fn is_seen_by(&self, number: u32) -> bool {
        if self.last.swap(number, Ordering::Relaxed) != number {
            self.turns.fetch_add(1, Ordering::Relaxed);
        }
        Instant::now() >= self.end && self.turns.load(Ordering::Relaxed) >= LEAST
    }
}

/// Numbers 3, 5, 7 … that are prime, counted without end: until it is over, which it looks at once in
/// a while and tells nobody.
fn primes(count: &AtomicU64, over: &Over) {
    let mut number = 3_u64;
    while !over.is_seen_by(0) {
        let mut divisors = (3..).step_by(2).take_while(|d: &u64| d * d <= number);
        if divisors.all(|d| !number.is_multiple_of(d)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        number += 2;
    }
}

/// Digits of the sum of reciprocals, in floating point: registers that a switch has to keep.
fn harmonic(count: &AtomicU64, over: &Over) -> bool {
    let (mut sum, mut again) = (0.0_f64, 0.0_f64);
    let mut n = 1.0_f64;
    while !over.is_seen_by(1) {
        sum += 1.0 / n;
        again += 1.0 / n;
        n += 1.0;
        count.fetch_add(1, Ordering::Relaxed);
    }
    sum.to_bits() == again.to_bits() && sum > 1.0
}

fn main() -> Result<(), preempt::PreemptError> {
    let number = |n: usize, default| env::args().nth(n).and_then(|n| n.parse().ok()).unwrap_or(default);
    let time = Duration::from_millis(number(1, 500));
    let slice = Duration::from_micros(number(2, 5000));
    let over = Arc::new(Over::at(Instant::now() + time));
    let primes_found = Arc::new(AtomicU64::new(0));
    let terms = Arc::new(AtomicU64::new(0));
    let (a, b) = (Arc::clone(&primes_found), Arc::clone(&terms));
    let (one, other) = (Arc::clone(&over), over);
    let tasks = vec![
        Task::new(move || primes(&a, &one)),
        Task::new(move || assert!(harmonic(&b, &other), "a switch lost a register")),
    ];
    let switches = preempt::run(slice, tasks)?;
    let (primes, terms) = (primes_found.load(Ordering::Relaxed), terms.load(Ordering::Relaxed));
    println!(
        "{switches} switches in {} ms: {primes} primes, {terms} terms",
        time.as_millis()
    );
    Ok(())
}

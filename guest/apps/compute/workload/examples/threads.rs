//! The workload on one thread and on several of the host: `cargo run --release --example threads
//! THREADS [PIECES]` prints what the guest `parallel` prints.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use compute_workload::Workload;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let (Some(Ok(threads)), Ok(pieces)) = (numbers.next(), numbers.next().unwrap_or(Ok(16))) else {
        eprintln!("usage: threads THREADS [PIECES]");
        std::process::exit(2);
    };
    for threads in [1, threads] {
        let next = AtomicUsize::new(0);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < pieces {
                        Workload::new().run().expect("a processor that computes");
                    }
                });
            }
        });
        println!("{threads} processors: {} us", start.elapsed().as_micros());
    }
}

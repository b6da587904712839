//! Times the workload on the host: `cargo run --release --example native [ITERATIONS]` prints what
//! the guest `compute` prints.

use std::time::Instant;

use compute_workload::Workload;

fn main() {
    let iterations = match std::env::args().nth(1).map(|arg| arg.parse()) {
        Some(Ok(iterations)) => iterations,
        None => 10,
        Some(Err(error)) => {
            eprintln!("usage: native [ITERATIONS]: {error}");
            std::process::exit(2);
        }
    };
    let mut workload = Workload::new();
    let mut best = u64::MAX;
    for iteration in 1..=iterations {
        let start = Instant::now();
        let result = workload.run();
        let ns = start.elapsed().as_nanos() as u64;
        best = best.min(ns);
        match result {
            Ok(checksum) => println!("iteration {iteration}: {ns} ns, checksum {checksum:016x}"),
            Err(wrong) => {
                eprintln!("{wrong}");
                std::process::exit(1);
            }
        }
    }
    println!("best of {iterations}: {best} ns");
}

//! `cargo xtask bench`: what Chiton costs, next to the least that it could cost.
//!
//! Everything that is compared runs interleaved, one after the other in each round, so that a
//! machine that gets slower for a while does so for all. Starts run with real-time priority where that is allowed, so
//! that what else the machine does takes no time from them.

mod block;
mod compute;
mod exits;
mod exits_bare;
mod floor;
mod jail;
mod lab;
mod line;
mod memory;
mod nested;
mod rings;
pub(crate) mod snapshot;
mod start;
mod stats;
mod virtio;

use crate::{
    error::{Error, Result},
    kvm,
};

/// What to measure.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// From exec to exit of the guest hello, memory of an idle guest, size of the program.
    Start {
        /// How often each program runs.
        #[arg(long, default_value_t = 200)]
        runs: usize,
    },
    /// From exec to the first instruction of a guest that goes on from a snapshot, and to exit, by the size of its memory.
    Snapshot {
        /// How often each program runs.
        #[arg(long, default_value_t = 100)]
        runs: usize,
    },
    /// One exit to userspace through Chiton's dispatch, and through a bare loop.
    ExitsOverhead {
        /// How often each program runs.
        #[arg(long, default_value_t = 15)]
        runs: usize,
        /// How many exits the guest makes in each run.
        #[arg(long, default_value_t = 20_000)]
        exits: u32,
    },
    /// The suite of exits on bare VMX and bare SVM, emulated; measurements go to `target/bench`.
    ExitsBare {
        /// How many samples each repeat has.
        #[arg(long, default_value_t = 100)]
        samples: u32,
        /// How often each case is repeated.
        #[arg(long, default_value_t = 6)]
        repeats: u32,
    },
    /// The line by which a guest on bare metal has sockets, in each emulator.
    Line,
    /// The device's side of a queue beside rust-vmm's virtio-queue, by the same memory; no guest runs.
    Rings {
        /// How often the benchmark runs; the least of each counts.
        #[arg(long, default_value_t = 3)]
        runs: usize,
    },
    /// The same work natively, in a guest, and in a guest of the nested machine: the table of `chiton bench nested`.
    Nested {
        /// How often each case is repeated.
        #[arg(long, default_value_t = 6)]
        repeats: u32,
        /// How many samples each repeat has here.
        #[arg(long, default_value_t = 1000)]
        samples: u32,
        /// How many samples each repeat has in the nested machine.
        #[arg(long, default_value_t = 100)]
        inner_samples: u32,
    },
    /// The same computation in a guest and on the host.
    Compute {
        /// How often each program runs.
        #[arg(long, default_value_t = 15)]
        runs: usize,
    },
    /// The same computation on several processors of a guest, and on as many threads of the host.
    Processors {
        /// How often each program runs.
        #[arg(long, default_value_t = 15)]
        runs: usize,
        /// How many processors; as many as the machine has, if not said.
        #[arg(long)]
        processors: Option<usize>,
    },
    /// Random reads of a disk by a guest, and by this process from the same file.
    Block {
        /// How often each program runs.
        #[arg(long, default_value_t = 15)]
        runs: usize,
    },
    /// TCP and HTTP with a guest, beside the same between two network namespaces.
    Net {
        /// How often each program runs.
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// A guest in its jail beside crun, runc, bubblewrap and unshare; what each wall costs; what is
    /// left behind.
    Jail {
        /// How often each program runs.
        #[arg(long, default_value_t = 100)]
        runs: usize,
        /// How many instances are made, run and removed to see what they leave.
        #[arg(long, default_value_t = 200)]
        instances: usize,
        /// How many are stopped when the next starts.
        #[arg(long, default_value_t = 1000)]
        stopped: usize,
    },
    /// The same work over emulated registers, over virtio, and by the host itself; then all that
    /// virtio is to reach.
    Virtio {
        /// How often each program runs.
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// Anything else that `chiton bench` knows: `cargo xtask bench report --help`.
    #[command(external_subcommand)]
    Lab(Vec<String>),
}

/// Measures, and prints tables on standard output; returns the status.
///
/// # Errors
///
/// If there is no KVM, or something does not build or run.
pub(crate) fn run(bench: Bench, theirs: &[String]) -> Result<i32> {
    // Emulators need none.
    if let Bench::ExitsBare { samples, repeats } = bench {
        return exits_bare::run(samples, repeats).map(|()| 0);
    }
    if let Bench::Rings { runs } = bench {
        return rings::run(runs).map(|()| 0);
    }
    if matches!(bench, Bench::Line) {
        return line::run().map(|()| 0);
    }
    // It looks for KVM itself, where it needs one.
    if let Bench::Lab(words) = bench {
        return lab::run(&words, theirs);
    }
    kvm::usable().map_err(|why| Error::Missing(format!("nothing to measure: {why}")))?;
    eprintln!("  on KVM ({})", kvm::kind());
    match bench {
        Bench::Start { runs } => {
            start::run(runs)?;
            println!("\nphase by phase:");
            let words = ["start", "--runs", &runs.to_string()].map(str::to_owned);
            return lab::run(&words, theirs);
        }
        Bench::Snapshot { runs } => snapshot::run(runs),
        Bench::ExitsOverhead { runs, exits } => exits::run(runs, exits),
        Bench::Nested {
            repeats,
            samples,
            inner_samples,
        } => return nested::run(repeats, samples, inner_samples),
        Bench::Compute { runs } => compute::run(runs),
        Bench::Processors { runs, processors } => return virtio::processors(runs, processors),
        Bench::Block { runs } => block::run(runs),
        Bench::Virtio { runs } => return virtio::all(runs),
        Bench::Net { runs } => return virtio::tcp(runs),
        Bench::Jail {
            runs,
            instances,
            stopped,
        } => return jail::run(runs, instances, stopped),
        Bench::Lab(_) | Bench::Line | Bench::Rings { .. } | Bench::ExitsBare { .. } => Ok(()),
    }?;
    Ok(0)
}

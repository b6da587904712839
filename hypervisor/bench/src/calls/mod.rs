//! `calls`: a guest function called in pristine state, and what that is made of.
//!
//! | group | what |
//! |---|---|
//! | call | a whole call: in pristine state, with the state kept, and the least that any hypervisor on KVM takes; Hyperlight's |
//! | parts | where the time of a pristine call goes |
//! | rate | calls in a second, on one thread and on all processors |
//! | dirty | ways to find the pages that a call has written, and to put them back |

mod bare;
mod dirty;
mod hyperlight;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chiton_kvm::pool::Phases;
use chiton_kvm::{Guest, Pool, PoolOptions};

use crate::environment::Meanwhile;
use crate::output::Live;
use crate::run::{Case, Samples, Unit};

/// What can go wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guest cannot be read, or run.
    #[error(transparent)]
    Kvm(#[from] chiton_kvm::Error),
    /// It cannot be called.
    #[error(transparent)]
    Pool(#[from] chiton_kvm::PoolError),
    /// A call failed.
    #[error("a call failed: {0}")]
    Call(#[from] chiton_kvm::CallError),
    /// KVM refuses what the bare machine takes.
    #[error("KVM, for the floor: {0}")]
    Bare(#[from] kvm_ioctls::Error),
    /// So does the system.
    #[error("the system, for the floor: {0}")]
    System(#[from] std::io::Error),
    /// A way to find written pages does not.
    #[error("on this KVM it does not find what the guest has written")]
    Unseen,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'p> {
    /// Repeats of each case.
    pub repeats: usize,
    /// Calls in each.
    pub calls: usize,
    /// Whether to measure the ways to find written pages too.
    pub dirty: bool,
    /// A folder where Hyperlight's program is looked for before PATH.
    pub peers: Option<&'p Path>,
}

impl Plan<'_> {
    /// How many cases there are.
    #[must_use]
    pub fn cases(&self) -> usize {
        14 + if self.dirty { dirty::count() } else { 0 }
    }
}

/// The seconds that a bare `KVM_RUN` takes until ring 3 writes to a port, of so many one after the other.
///
/// # Errors
///
/// If KVM, or the system, refuses what that takes.
pub fn exit_seconds(exits: usize) -> Result<f64, Error> {
    let times = bare::floor(bare::Floor::Exit, exits)?;
    Ok(times.iter().sum::<u64>() as f64 / 1e9 / times.len().max(1) as f64)
}

/// Measures all cases.
///
/// # Errors
///
/// [`crate::Error`].
pub fn measure(plan: Plan<'_>, guest: &Path, live: &mut Live) -> crate::Result<Vec<Case>> {
    let mut cases = Vec::new();
    let mut add = |case: Case| {
        live.done(&case);
        cases.push(case);
    };
    for (name, what, floor) in [
        (
            "floor: an exit",
            "KVM_RUN until ring 3 writes to a port, and nothing else",
            bare::Floor::Exit,
        ),
        (
            "floor: an exit and the ioctls of a reset",
            "the same with KVM_SET_XSAVE, KVM_GET_DIRTY_LOG, registers by the shared page, and eight pages copied",
            bare::Floor::Reset,
        ),
    ] {
        let repeats = repeats(plan, || bare::floor(floor, plan.calls))?;
        add(Case::measured(name, "call", what, Unit::Nanoseconds, repeats));
    }
    let pool = |keep, timed| {
        Pool::new(
            Guest::open(guest).map_err(Error::from)?,
            PoolOptions {
                keep,
                timed,
                ..PoolOptions::default()
            },
        )
        .map_err(Error::from)
    };
    let digest = [b"sha256 ".as_slice(), &[b'x'; 4096]].concat();
    for (name, what, keep, request) in [
        (
            "pristine: echo",
            "a call of 16 bytes that replies with them, and everything put back",
            false,
            b"echo 0123456789abcdef".as_slice(),
        ),
        (
            "warm: echo",
            "the same with the state kept",
            true,
            b"echo 0123456789abcdef",
        ),
        (
            "pristine: sha256 of 4 KiB",
            "a call that digests 4096 bytes, and everything put back",
            false,
            digest.as_slice(),
        ),
    ] {
        let pool = pool(keep, false)?;
        let repeats = repeats(plan, || whole_calls(&pool, request, plan.calls))?;
        add(Case::measured(name, "call", what, Unit::Nanoseconds, repeats));
    }
    add(hyperlight::measure(plan, &pool(false, false)?, plan.peers)?);
    for case in parts(&pool(false, true)?, plan)? {
        add(case);
    }
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for (name, keep, threads) in [
        ("pristine, one thread", false, 1),
        ("warm, one thread", true, 1),
        ("pristine, all processors", false, processors),
    ] {
        let options = PoolOptions {
            size: threads,
            keep,
            ..PoolOptions::default()
        };
        let pool = Pool::new(Guest::open(guest).map_err(Error::from)?, options).map_err(Error::from)?;
        pool.fill().map_err(Error::from)?;
        let what = format!("calls of 16 bytes in a second, from threads: {threads}");
        let repeats = repeats(plan, || Ok(vec![calls_a_second(&pool, threads)?]))?;
        add(Case::measured(name, "rate", &what, Unit::Count, repeats));
    }
    if plan.dirty {
        dirty::measure(plan, &mut add)?;
    }
    Ok(cases)
}

/// Takes samples of one case, repeat by repeat.
fn repeats(plan: Plan<'_>, mut take: impl FnMut() -> Result<Vec<u64>, Error>) -> crate::Result<Vec<Samples>> {
    // What the first calls find out is not known to those after them: caches, pages that are written.
    take()?;
    let mut all = Vec::with_capacity(plan.repeats);
    for _ in 0..plan.repeats {
        let meanwhile = Meanwhile::begin();
        let mut samples = Samples::of(take()?)?;
        meanwhile.end(&mut samples);
        all.push(samples);
    }
    Ok(all)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn whole_calls(pool: &Pool, request: &[u8], calls: usize) -> Result<Vec<u64>, Error> {
    let one = |_| {
        let began = Instant::now();
        pool.call(request)?;
        Ok(nanoseconds(began.elapsed()))
    };
    (0..calls).map(one).collect()
}

/// A pristine call, cut up. The guest's own part is in ticks, which it counts itself.
fn parts(pool: &Pool, plan: Plan<'_>) -> crate::Result<Vec<Case>> {
    type Part = (&'static str, &'static str, Unit, fn(&Phases, u64) -> u64);
    const PARTS: [Part; 5] = [
        (
            "request in",
            "the request is copied into the guest, with a new seed",
            Unit::Nanoseconds,
            |p, _| nanoseconds(p.request),
        ),
        ("run", "KVM_RUN: entry, guest, exit", Unit::Nanoseconds, |p, _| {
            nanoseconds(p.run)
        }),
        (
            "of it in the function",
            "from the function's first to its last line, by its own counter",
            Unit::Ticks,
            |_, ticks| ticks,
        ),
        (
            "reply out",
            "the reply is checked and copied",
            Unit::Nanoseconds,
            |p, _| nanoseconds(p.reply),
        ),
        (
            "reset",
            "memory, registers and devices are put back",
            Unit::Nanoseconds,
            |p, _| nanoseconds(p.reset),
        ),
    ];
    let mut kept: [Vec<Samples>; PARTS.len()] = Default::default();
    for repeat in 0..=plan.repeats {
        let meanwhile = Meanwhile::begin();
        let mut samples: [Vec<u64>; PARTS.len()] = Default::default();
        for _ in 0..plan.calls {
            let reply = pool.call(b"stamps").map_err(Error::from)?;
            let (words, _) = reply.bytes.as_chunks::<8>();
            let [began, ended] = [0, 1].map(|n| words.get(n).map_or(0, |word| u64::from_le_bytes(*word)));
            let phases = reply.phases.unwrap_or_default();
            for (samples, (.., value)) in samples.iter_mut().zip(PARTS) {
                samples.push(value(&phases, ended.saturating_sub(began)));
            }
        }
        if repeat == 0 {
            continue;
        }
        for (kept, samples) in kept.iter_mut().zip(samples) {
            let mut samples = Samples::of(samples)?;
            meanwhile.end(&mut samples);
            kept.push(samples);
        }
    }
    let cases = PARTS.iter().zip(kept);
    Ok(cases
        .map(|((name, what, unit, _), repeats)| Case::measured(name, "parts", what, *unit, repeats))
        .collect())
}

/// How many calls a pool does in a second, from so many threads.
fn calls_a_second(pool: &Pool, threads: usize) -> Result<u64, Error> {
    const TIME: Duration = Duration::from_millis(250);
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        let work = || {
            while !over.load(Ordering::Relaxed) {
                pool.call(b"echo 0123456789abcdef")?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        thread::sleep(TIME);
        over.store(true, Ordering::Relaxed);
        let joined = all
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<(), Error>>()
    })?;
    Ok((count.into_inner() as f64 / began.elapsed().as_secs_f64()) as u64)
}

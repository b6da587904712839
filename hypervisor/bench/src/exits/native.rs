//! The cases that mean something without a hypervisor, natively: the same code as in the guest where it is code of
//! any ring, and what an operating system has in its place where it is not.

use std::fs;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::rand::{GetRandomFlags, getrandom};
use vmexit_cases::clock::Fenced;
use vmexit_cases::memory::{PAGE, WARM_PAGES, chase, first_touch};
use vmexit_cases::{Clock as _, Meter, instructions};
use vmm_sys_util::eventfd::EventFd;

use super::catalogue::Entry;
use super::host_calls::{BUDGET_MS, record};
use super::machine::{pin, processors};
use super::suite::{Follow, Plan};
use super::{ExitsError, calibrate, convert};
use crate::Result;
use crate::run::{Calibration, Case};

/// Size of the region for page walks, as in the guest, in bytes.
const REGION: usize = 64 << 20;
/// A large page, in bytes.
const LARGE: usize = 2 << 20;
/// How many pages a repeat of the first touch takes.
const FRESH: usize = 512;

type Done = std::result::Result<(), &'static str>;

/// Measures the cases of a plan natively.
///
/// # Errors
///
/// If samples are none that can be kept.
pub fn measure(plan: &Plan, follow: &mut impl Follow) -> Result<(Calibration, Vec<Case>)> {
    let tsc_hz = calibrate::tsc_hz();
    let budget = tsc_hz / 1000 * BUDGET_MS;
    let cases = std::thread::scope(|scope| {
        // On a thread of its own, which stays on one processor.
        let thread = scope.spawn(|| {
            pin(0);
            let null = record(plan, budget, instructions::null::<Fenced>);
            let null = convert::null_of(&null).unwrap_or(0);
            let cases: Result<Vec<_>> = plan.cases.iter().map(|entry| one(plan, budget, null, entry)).collect();
            Ok((null, cases?))
        });
        let died = |_| ExitsError::Nothing("the thread that measures died".into());
        let measured: Result<(u64, Vec<Case>)> = thread.join().map_err(died)?;
        measured
    });
    let (null_ticks, cases) = cases?;
    cases.iter().for_each(|case| follow.done(case));
    Ok((Calibration { tsc_hz, null_ticks }, cases))
}

fn one(plan: &Plan, budget: u64, null: u64, entry: &Entry) -> Result<Case> {
    let Some((native, note)) = natively(entry.name) else {
        return Ok(convert::skipped(entry, "it has no meaning without a hypervisor"));
    };
    let mut recorded = record(plan, budget, native);
    recorded.name = entry.name.into();
    let notes: Vec<_> = note.map(str::to_owned).into_iter().collect();
    convert::case(entry, &recorded, null, &notes)
}

/// What a case is natively, and what is to be said of it.
#[expect(clippy::type_complexity, reason = "it is used here alone")]
fn natively(name: &str) -> Option<(fn(&mut Meter<'_>) -> Done, Option<&'static str>)> {
    Some(match name {
        "cpuid" => (instructions::cpuid::<Fenced>, None),
        "rdtsc" => (instructions::rdtsc::<Fenced>, None),
        "rdtscp" => (instructions::rdtscp::<Fenced>, None),
        "rdrand" => (instructions::rdrand::<Fenced>, None),
        "xgetbv" => (instructions::xgetbv::<Fenced>, None),
        "first_touch" => (touch, Some("natively: of anonymous memory of a process")),
        "walk_4k_warm" => (|meter| walk(meter, false, WARM_PAGES), None),
        "walk_4k_cold" => (|meter| walk(meter, false, REGION / PAGE), None),
        "walk_2m_warm" => (|meter| walk(meter, true, WARM_PAGES), None),
        "walk_2m_cold" => (|meter| walk(meter, true, REGION / PAGE), None),
        "virtio_kick" => (random, Some("natively: getrandom(2) of as many bytes")),
        "ipi_halt" => (
            wake,
            Some(
                "natively: from writing an eventfd to seeing that the thread on another processor that slept on it runs",
            ),
        ),
        "ple_round_robin" => (round_robin, Some("natively: between threads on two processors")),
        _ => return None,
    })
}

/// Memory of this process, until it is dropped.
struct Mapped {
    start: *mut std::ffi::c_void,
    length: usize,
}

impl Mapped {
    fn new(length: usize) -> std::result::Result<Self, &'static str> {
        // SAFETY: the kernel chooses a place where nothing is.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let start = start.map_err(|_| "this process cannot have so much memory")?;
        Ok(Self { start, length })
    }

    /// The first address that is so aligned.
    fn aligned(&self, align: usize) -> *mut u8 {
        let start = self.start.cast::<u8>();
        start.wrapping_add(start.align_offset(align))
    }

    fn advise(&self, advice: Advice) -> bool {
        // SAFETY: memory of this mapping alone, of which no byte changes.
        unsafe { madvise(self.start, self.length, advice) }.is_ok()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nobody has a pointer into it any more. If it fails, it stays, which harms nobody.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

fn touch(meter: &mut Meter<'_>) -> Done {
    let memory = Mapped::new(FRESH * PAGE)?;
    memory.advise(Advice::LinuxNoHugepage);
    // SAFETY: the mapping has so many pages, and nobody else uses it.
    unsafe { first_touch::<Fenced>(meter, memory.aligned(PAGE), FRESH) }
}

fn walk(meter: &mut Meter<'_>, large: bool, pages: usize) -> Done {
    const NO_LARGE: &str = "this kernel gives no large pages (transparent_hugepage)";
    let memory = Mapped::new(REGION + LARGE)?;
    let advice = if large {
        Advice::LinuxHugepage
    } else {
        Advice::LinuxNoHugepage
    };
    let before = large_pages();
    let advised = memory.advise(advice);
    let start = memory.aligned(LARGE);
    // SAFETY: the mapping is a large page longer than the region.
    unsafe { start.write_bytes(1, REGION) };
    if large && !(advised && large_pages() >= before + (REGION / LARGE / 2) as u64) {
        return Err(NO_LARGE);
    }
    // SAFETY: as above.
    unsafe { chase::<Fenced>(meter, start, pages) }
}

/// How many large pages this process has.
fn large_pages() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.unwrap_or(0) * 1024 / LARGE as u64
}

fn random(meter: &mut Meter<'_>) -> Done {
    let mut bytes = [MaybeUninit::uninit(); 16];
    let mut failed = false;
    meter.each::<Fenced>(|| failed |= getrandom(&mut bytes, GetRandomFlags::empty()).is_err())?;
    if failed { Err("getrandom(2) fails") } else { Ok(()) }
}

/// A thread on another processor sleeps on an eventfd; what is measured is how long it takes to see that it runs.
fn wake(meter: &mut Meter<'_>) -> Done {
    const NO_EVENT: &str = "this process can have no eventfd";
    let event = EventFd::new(libc::EFD_CLOEXEC).map_err(|_| NO_EVENT)?;
    let (seen, over) = (AtomicU64::new(0), AtomicBool::new(false));
    meter.at_most(2000, 50);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            while !over.load(Ordering::SeqCst) && event.read().is_ok() {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        });
        let done = meter.record::<Fenced>(|| {
            // The other one is given time to fall asleep.
            std::thread::sleep(std::time::Duration::from_micros(100));
            let before = seen.load(Ordering::SeqCst);
            let begin = Fenced::now();
            event.write(1).map_err(|_| NO_EVENT)?;
            while seen.load(Ordering::SeqCst) == before {
                std::hint::spin_loop();
            }
            Ok(Fenced::now().wrapping_sub(begin))
        });
        over.store(true, Ordering::SeqCst);
        let _ = event.write(1);
        done
    })
}

/// As in the guest: the turn goes to the other processor and comes back.
fn round_robin(meter: &mut Meter<'_>) -> Done {
    if processors() < 2 {
        return Err("it needs two processors, and this process may use one");
    }
    let (turn, over) = (AtomicU64::new(0), AtomicBool::new(false));
    meter.at_most(2000, 50);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            while !over.load(Ordering::SeqCst) {
                if turn.load(Ordering::SeqCst) & 1 == 1 {
                    turn.fetch_add(1, Ordering::SeqCst);
                }
                std::hint::spin_loop();
            }
        });
        let done = meter.each::<Fenced>(|| {
            let now = turn.load(Ordering::SeqCst);
            turn.store(now + 1, Ordering::SeqCst);
            while turn.load(Ordering::SeqCst) != now + 2 {
                std::hint::spin_loop();
            }
        });
        over.store(true, Ordering::SeqCst);
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_natively_is_a_case() {
        let native = super::super::catalogue::CASES
            .iter()
            .filter(|entry| natively(entry.name).is_some());
        assert_eq!(native.count(), 13);
    }

    #[test]
    fn a_chase_comes_by_every_page_once_before_it_begins_again() {
        let pages = 37;
        let memory = Mapped::new(pages * PAGE).unwrap();
        let start = memory.aligned(PAGE);
        // SAFETY: the mapping has so many pages, and nobody else uses it.
        let first = unsafe { vmexit_cases::memory::link(start, pages) };
        let mut seen = std::collections::BTreeSet::new();
        let mut at = first;
        for _ in 0..pages {
            assert!(seen.insert((at as usize - start as usize) / PAGE));
            // SAFETY: it is one of the places of the ring, each of which holds another one's address.
            at = unsafe { at.read() } as *const u64;
        }
        assert_eq!((at, seen.len()), (first, pages));
    }

    #[test]
    fn a_repeat_ends_when_its_time_is_up() {
        let mut room = [0; 1000];
        let mut meter = Meter::new(&mut room, 100).within(0);
        meter.each::<Fenced>(|| ()).unwrap();
        // One for warming up, then as many as there have to be.
        assert_eq!(meter.warm_up(), 1);
        assert_eq!(meter.finish().len(), 20);
    }

    #[test]
    fn a_walk_of_memory_is_measured() {
        let mut room = [0; 30];
        let mut meter = Meter::new(&mut room, 2);
        walk(&mut meter, false, WARM_PAGES).unwrap();
        assert_eq!(meter.finish().len(), 30);
    }
}

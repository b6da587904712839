//! The phases of a start, for who measures: `CHITON_TIMELINE=N` has each process of a start write one line of JSON
//! into the descriptor N, which it inherits, when it has no more to say.
//!
//! ```json
//! {"timeline":"chiton-timeline/1","process":"guest","begin_ns":7123,"phases":[["options",51200],["devices",8100]]}
//! ```
//!
//! `begin_ns` is what `CLOCK_MONOTONIC` was when the first phase began; each phase begins where the one before ended. A
//! jailed guest's process is a copy of its supervisor's, and tells of all that came before it too. Without the variable,
//! and without `-v`, nothing is kept and no clock is read.

use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, RawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chiton_kvm::Timeline;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// The variable.
const VARIABLE: &str = "CHITON_TIMELINE";

/// The version of a line.
const FORMAT: &str = "chiton-timeline/1";

static PHASES: Mutex<Option<Phases>> = Mutex::new(None);

/// What the variable says, and nobody can write into.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE} is `{0}`: it is to be the number, above 2, of a descriptor that chiton inherits")]
pub(crate) struct NoDescriptor(String);

/// What is kept.
struct Phases {
    descriptor: Option<RawFd>,
    begin_ns: u64,
    timeline: Timeline,
}

/// Begins to keep them, if somebody wants to know.
pub(crate) fn begin(start: Instant, verbose: u8) -> Result<(), NoDescriptor> {
    let descriptor = match std::env::var_os(VARIABLE) {
        Some(text) => Some(descriptor(&text.to_string_lossy())?),
        None if verbose == 0 => return Ok(()),
        None => None,
    };
    keep(Phases {
        descriptor,
        begin_ns: u64::try_from(monotonic_at(start).as_nanos()).unwrap_or(u64::MAX),
        timeline: Timeline::since(start),
    });
    Ok(())
}

/// What `CLOCK_MONOTONIC` was at that moment. It is read before and after how long ago that is: another program may run
/// in between, and of several answers the one is taken for which least time has passed.
fn monotonic_at(moment: Instant) -> Duration {
    let now = || {
        let now = clock_gettime(ClockId::Monotonic);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
    };
    let tries = (0..8).map(|_| {
        let (before, ago) = (now(), moment.elapsed());
        (now().saturating_sub(before), before.saturating_sub(ago))
    });
    tries.min().map_or(Duration::ZERO, |(_, at)| at)
}

fn descriptor(text: &str) -> Result<RawFd, NoDescriptor> {
    let number = text.parse().ok().filter(|number: &RawFd| *number > 2);
    let is_open = |number: &RawFd| {
        // SAFETY: the number is used for a question only, whose answer says whether it is open.
        rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(*number) }).is_ok()
    };
    number.filter(is_open).ok_or_else(|| NoDescriptor(text.to_owned()))
}

fn keep(phases: Phases) {
    if let Ok(mut kept) = PHASES.lock() {
        *kept = Some(phases);
    }
}

/// Asks what is kept, if anything.
fn kept<R>(ask: impl FnOnce(&mut Phases) -> R) -> Option<R> {
    PHASES.lock().ok()?.as_mut().map(ask)
}

/// The phase that has been going on since the last mark is over.
pub(crate) fn mark(phase: &'static str) {
    kept(|phases| phases.timeline.mark(phase));
}

/// The phases so far, for the library to go on with; or none since that moment.
pub(crate) fn so_far(start: Instant) -> Timeline {
    kept(|phases| phases.timeline.clone()).unwrap_or_else(|| Timeline::since(start))
}

/// The descriptor that a jail has to leave open.
pub(crate) fn inherited() -> Option<RawFd> {
    kept(|phases| phases.descriptor).flatten()
}

/// Writes the line of a guest's process, whose phases these are.
pub(crate) fn tell_of_guest(timeline: &Timeline) {
    kept(|phases| phases.tell("guest", timeline));
}

/// Writes the line of a supervisor.
pub(crate) fn tell_of_supervisor() {
    kept(|phases| phases.tell("supervisor", &phases.timeline));
}

impl Phases {
    fn tell(&self, process: &str, timeline: &Timeline) {
        let Some(descriptor) = self.descriptor else { return };
        // Whoever does not read it any more has given up.
        let _ = write(descriptor, &line(process, self.begin_ns, timeline));
    }
}

fn line(process: &str, begin_ns: u64, timeline: &Timeline) -> String {
    let phases: Vec<_> = timeline
        .phases()
        .iter()
        .map(|(phase, took)| json!([phase, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)]))
        .collect();
    let line = json!({ "timeline": FORMAT, "process": process, "begin_ns": begin_ns, "phases": phases });
    format!("{line}\n")
}

fn write(descriptor: RawFd, line: &str) -> io::Result<()> {
    // SAFETY: it was open at the start, nobody here closes it, and it is not closed here either.
    let mut file = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(descriptor) });
    file.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_where_the_clock_was() {
        let read = || clock_gettime(ClockId::Monotonic);
        let (before, moment, after) = (read(), Instant::now(), read());
        let [before, after] =
            [before, after].map(|time| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32));
        let at = monotonic_at(moment);
        // A try takes some of a microsecond, if nothing comes between.
        assert!(
            at + Duration::from_millis(1) > before && at < after,
            "{before:?} {at:?} {after:?}"
        );
    }

    #[test]
    fn a_line_has_the_version_and_phases_in_order() {
        let mut timeline = Timeline::start();
        timeline.mark("options");
        timeline.mark("devices");
        let line = line("guest", 7, &timeline);
        assert!(line.ends_with("\n") && line.lines().count() == 1, "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["timeline"], FORMAT);
        assert_eq!(
            (&read["begin_ns"], &read["phases"][1][0]),
            (&7.into(), &"devices".into())
        );
        assert_eq!(
            read["phases"][0][1],
            u64::try_from(timeline.phases()[0].1.as_nanos()).unwrap()
        );
    }

    #[test]
    fn a_descriptor_is_a_number_above_the_streams_that_is_open() {
        use std::os::fd::AsRawFd;
        let file = std::fs::File::open("/").unwrap();
        let number = file.as_raw_fd();
        assert_eq!(descriptor(&number.to_string()).unwrap(), number);
        for text in ["", "x", "-1", "2", "999999", "99999999999"] {
            let said = descriptor(text).unwrap_err().to_string();
            assert!(said.starts_with(&format!("CHITON_TIMELINE is `{text}`")), "{said}");
        }
    }
}

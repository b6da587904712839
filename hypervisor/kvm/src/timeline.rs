//! How long each phase of a start took.

use std::fmt;
use std::time::{Duration, Instant};

use chiton_core::exits::Micros;

/// Phases, one after the other.
#[derive(Clone, Debug)]
pub struct Timeline {
    last: Instant,
    phases: Vec<(&'static str, Duration)>,
}

impl Timeline {
    /// A timeline that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self::since(Instant::now())
    }

    /// A timeline that started then.
    #[must_use]
    pub fn since(start: Instant) -> Self {
        Self {
            last: start,
            phases: Vec::with_capacity(16),
        }
    }

    /// The phase that has been going on since the last mark is over.
    pub fn mark(&mut self, phase: &'static str) {
        let now = Instant::now();
        self.phases.push((phase, now - self.last));
        self.last = now;
    }

    /// The phases so far, with their lengths.
    #[must_use]
    pub fn phases(&self) -> &[(&'static str, Duration)] {
        &self.phases
    }
}

impl fmt::Display for Timeline {
    /// One line a phase: when it began, how long it took, a bar.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: Duration = self.phases.iter().map(|(_, d)| *d).sum();
        let width = |d: Duration| (d.as_nanos() * 40 / total.as_nanos().max(1)) as usize;
        writeln!(f, "{:<20} {:>11} {:>11}", "phase", "begins", "takes")?;
        let mut at = Duration::ZERO;
        for (phase, took) in &self.phases {
            let (begins, takes) = (Micros::from(at), Micros::from(*took));
            let bar = "▇".repeat(width(*took).max(1));
            writeln!(
                f,
                "{phase:<20} {begins:>11} {takes:>11} {:indent$}{bar}",
                "",
                indent = width(at)
            )?;
            at += *took;
        }
        write!(f, "{:<20} {:>11} {:>11}", "all", "", Micros::from(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let start = Instant::now();
        let mut timeline = Timeline::start();
        std::thread::sleep(Duration::from_millis(2));
        timeline.mark("first");
        timeline.mark("second");
        let [first, second] = timeline.phases() else { panic!() };
        // None of them has the time of the other.
        assert!(first.1 >= Duration::from_millis(2) && first.1 + second.1 <= start.elapsed());
        assert_eq!(timeline.to_string().lines().count(), 4);
    }
}

//! Lines that a guest causes, kept from filling the host's log.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How many lines may come at once.
const BURST: f64 = 200.0;
/// How many lines a second may come for long.
const PER_SECOND: f64 = 20.0;

/// Where log lines go, up to a rate. The sink must not wait; it says whether it took the line.
pub(crate) struct Log {
    sink: Box<dyn Fn(&str) -> bool + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    allowed: f64,
    asked: Instant,
    left_out: u64,
}

impl Log {
    pub(crate) fn new(sink: Box<dyn Fn(&str) -> bool + Send + Sync>) -> Self {
        Self {
            sink,
            state: Mutex::new(State {
                allowed: BURST,
                asked: Instant::now(),
                left_out: 0,
            }),
        }
    }

    /// Passes a line on, or counts it if there have been too many.
    pub(crate) fn line(&self, line: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earned = (now - state.asked).as_secs_f64() * PER_SECOND;
        state.asked = now;
        state.allowed = (state.allowed + earned).min(BURST);
        if state.allowed < 1.0 {
            state.left_out += 1;
            return;
        }
        state.allowed -= 1.0;
        self.tell_left_out(&mut state);
        if !(self.sink)(line) {
            state.left_out += 1;
        }
    }

    /// Says how many lines were left out since it was last said, if any.
    pub(crate) fn flush(&self) {
        self.tell_left_out(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn tell_left_out(&self, state: &mut State) {
        let left_out = std::mem::take(&mut state.left_out);
        let told = || (self.sink)(&format!("({left_out} lines left out: too many, or nobody read them)"));
        if left_out > 0 && !told() {
            state.left_out = left_out;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_flood_of_lines_is_cut_and_counted() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Log::new({
            let lines = Arc::clone(&lines);
            Box::new(move |line| {
                lines.lock().unwrap().push(line.to_owned());
                true
            })
        });
        let begun = Instant::now();
        for i in 0..10_000 {
            log.line(&i.to_string());
        }
        // Each that was earned meanwhile may come with the count of those before it.
        let most = BURST + 2.0 * (begun.elapsed().as_secs_f64() * PER_SECOND + 1.0);
        log.flush();
        log.flush();
        let lines = lines.lock().unwrap();
        assert!((BURST..=most).contains(&(lines.len() as f64)), "{} lines", lines.len());
        assert_eq!(lines[0], "0");
        let left_out: usize = lines
            .iter()
            .filter_map(|l| l.strip_prefix('(')?.split(' ').next()?.parse::<usize>().ok())
            .sum();
        let passed = lines.iter().filter(|l| !l.starts_with('(')).count();
        assert_eq!(passed + left_out, 10_000);
    }
}

//! How long work shows itself: a spinner on a terminal, one line at each end anywhere else.
//!
//! Everything goes to standard error; standard output belongs to the program that is run.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Work shorter than this leaves no line behind.
const WORTH_A_LINE: Duration = Duration::from_millis(800);

/// A piece of work that is going on.
#[derive(Debug)]
pub(crate) struct Task {
    bar: Option<ProgressBar>,
    what: String,
    start: Instant,
}

impl Task {
    /// Starts to show that `what` is going on, as in "building chiton".
    #[must_use]
    pub(crate) fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_prefix(what.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            bar,
            what,
            start: Instant::now(),
        }
    }

    /// Work that shows nothing, because something beside it does.
    #[must_use]
    pub(crate) fn silent() -> Self {
        Self {
            bar: None,
            what: String::new(),
            start: Instant::now(),
        }
    }

    /// Shows what is being done right now.
    pub(crate) fn detail(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(detail.to_owned());
        }
    }

    /// Ends it with a line that says how long it took, unless it was quick.
    pub(crate) fn done(self) {
        let took = self.start.elapsed();
        self.clear();
        if took >= WORTH_A_LINE {
            eprintln!("  {} {}", self.what, seconds(took));
        }
    }

    /// Ends it without a word.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A duration as people read it: `0.41 s`, `12.3 s`, `3 min 05 s`.
#[must_use]
pub(crate) fn seconds(time: Duration) -> String {
    let s = time.as_secs_f64();
    if s < 10.0 {
        format!("{s:.2} s")
    } else if s < 60.0 {
        format!("{s:.1} s")
    } else {
        format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_get_coarser_as_they_grow() {
        assert_eq!(seconds(Duration::from_millis(412)), "0.41 s");
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }
}

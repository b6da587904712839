//! Progress bars, where somebody sees them.

use std::io::IsTerminal;

use chiton_container::image::progress::{Progress, Quiet, Step};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Bars on standard error.
struct Bars(MultiProgress);

/// One of them, which goes when it is full.
struct Bar {
    all: MultiProgress,
    bar: ProgressBar,
}

/// Bars if standard error is a terminal, else nothing.
pub(super) fn bars() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() {
        Box::new(Bars(MultiProgress::new()))
    } else {
        Box::new(Quiet)
    }
}

impl Progress for Bars {
    fn begin(&self, what: &str, total: Option<u64>) -> Box<dyn Step> {
        let template = "{msg:24} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.0.add(ProgressBar::new(total.unwrap_or(0)).with_style(style));
        bar.set_message(what.to_owned());
        Box::new(Bar {
            all: self.0.clone(),
            bar,
        })
    }
}

impl Step for Bar {
    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.all.remove(&self.bar);
    }
}

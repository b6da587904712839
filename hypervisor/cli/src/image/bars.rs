//! Progress bars, where somebody sees them.

use std::cell::OnceCell;
use std::io::IsTerminal;

use chiton_container::image::progress::{Progress, Quiet, Step};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Bars on standard error if that is a terminal, else nothing. Nothing is looked at before there is something to show.
#[derive(Default)]
pub(crate) struct Bars(OnceCell<Option<MultiProgress>>);

/// One of them, which goes when it is full.
struct Bar {
    all: MultiProgress,
    bar: ProgressBar,
}

impl Progress for Bars {
    fn begin(&self, what: &str, total: Option<u64>) -> Box<dyn Step> {
        let all = self
            .0
            .get_or_init(|| std::io::stderr().is_terminal().then(MultiProgress::new));
        let Some(all) = all else {
            return Quiet.begin(what, total);
        };
        let template = "{msg:24} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = all.add(ProgressBar::new(total.unwrap_or(0)).with_style(style));
        bar.set_message(what.to_owned());
        Box::new(Bar { all: all.clone(), bar })
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

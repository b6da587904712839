//! What all parts measure with.

use std::path::{Path, PathBuf};

use chiton_bench::output::{Live, Output};
use chiton_bench::trial::{Chiton, Interrupt, Place, Result, TrialError, find, guest};

use super::figures::Figures;
use super::guest::Program;

/// Programs, a place, and where it is said what comes out.
#[derive(Debug)]
pub(super) struct Bench {
    /// How often each program runs.
    pub(super) runs: usize,
    chiton: PathBuf,
    place: Place,
    interrupt: Interrupt,
    live: Live,
}

impl Bench {
    /// Finds `chiton`, and makes a folder below this one, which is gone afterwards.
    pub(super) fn new(runs: usize, chiton: Option<&Path>, below: &Path) -> chiton_bench::Result<Self> {
        let place = Place::below(below)?;
        Ok(Self {
            runs,
            chiton: Chiton::find(chiton, place.path().join("home"))?.program().to_owned(),
            place,
            interrupt: Interrupt::listen()?,
            live: Output::default().live(0)?,
        })
    }

    /// Says a line, which goes on if nobody reads it.
    pub(super) fn say(&self, line: &str) {
        self.live.print(&format!("{line}\n"));
    }

    /// Says a table: what it is of, and a row each, in units of which 1 has `factor`.
    pub(super) fn table(&self, title: &str, rows: &[(&str, &Figures)], factor: f64) {
        self.say(&format!("\n{title}, {} interleaved runs", self.runs));
        self.say(&format!("{:<34} {:>9} {:>9} {:>9}", "", "median", "p10", "p90"));
        for (name, figures) in rows {
            self.say(&format!("{name:<34} {}", figures.columns(factor)));
        }
    }

    /// Says what is missing, to whom it may concern.
    pub(super) fn note(&self, line: &str) {
        self.live.aside(|| eprintln!("{line}"));
    }

    /// Begins a round of `what`, unless somebody has asked for the end.
    pub(super) fn round(&self, round: usize, what: &str) -> Result<()> {
        self.live.part(round, self.runs, what);
        self.interrupt.check()
    }

    /// A file in the place.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// This guest, of those that `cargo xtask guests` built.
    pub(super) fn guest(&self, name: &str) -> Result<Program> {
        Ok(Program::new(&self.chiton, &guest(None, name)?))
    }
}

/// A program of the host.
pub(super) fn tool(program: &str, package: &str) -> Result<PathBuf> {
    find(program).ok_or_else(|| {
        TrialError::Missing(format!(
            "{program} is not in PATH; type: sudo apt-get install -y {package}"
        ))
    })
}

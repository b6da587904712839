//! Where results go: a terminal while they come, and files in the end.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    Result, csv, html,
    run::{Case, Run, check_place, write},
    table,
};

/// The options of every command that measures.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Output {
    /// Write the measurement to a file, `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a line a case, as comma-separated values.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write a page to look at in a browser.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Output {
    /// Begins to show a run of so many cases.
    ///
    /// # Errors
    ///
    /// If there is no place for one of the files that are to be written at its end.
    pub fn live(&self, cases: usize) -> Result<Live> {
        [&self.json, &self.csv, &self.html]
            .into_iter()
            .flatten()
            .try_for_each(|path| check_place(path))?;
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(cases as u64)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Ok(Live {
            bar,
            quiet: self.is_quiet(),
            headed: false,
            group: None,
        })
    }

    /// Writes the files that were asked for.
    ///
    /// # Errors
    ///
    /// If one cannot be written.
    pub fn write(&self, run: &Run) -> Result<()> {
        if let Some(path) = &self.json {
            run.write(path)?;
        }
        if let Some(path) = &self.csv {
            write(path, &csv::csv([run]))?;
        }
        if let Some(path) = &self.html {
            write(path, &html::page(&[html::Column::new(run.kind.word(), run)]))?;
        }
        Ok(())
    }

    /// Whether standard output is where a file goes, so that nothing else may go there.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.files().any(|path| path.as_os_str() == "-")
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.json, &self.csv, &self.html].into_iter().flatten()
    }
}

/// A run as it is being measured: a line of the table for each case that is done, and, on a terminal, a
/// bar below.
#[derive(Debug)]
pub struct Live {
    bar: ProgressBar,
    quiet: bool,
    headed: bool,
    group: Option<String>,
}

impl Live {
    /// Says what is being measured.
    pub fn begin(&self, name: &str) {
        self.bar.set_message(name.to_owned());
        self.bar.tick();
    }

    /// Says how far something is that is not told case by case.
    pub fn part(&self, done: usize, all: usize, what: &str) {
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        self.begin(what);
    }

    /// Shows a case that is done.
    pub fn done(&mut self, case: &Case) {
        if !self.quiet {
            let mut lines = String::new();
            if !std::mem::replace(&mut self.headed, true) {
                lines += &(table::heading() + "\n");
            }
            if self.group.as_ref() != Some(&case.group) {
                lines += &(table::group(&case.group) + "\n");
                self.group = Some(case.group.clone());
            }
            lines += &(table::line(case) + "\n");
            self.print(&lines);
        }
        self.bar.inc(1);
    }

    /// Writes lines to standard output. The measurement goes on if nobody reads them any more.
    pub fn print(&self, lines: &str) {
        self.aside(|| {
            let _ = std::io::stdout().lock().write_all(lines.as_bytes());
        });
    }

    /// Has something be written to the terminal where the bar is not in the way.
    pub fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        self.bar.suspend(write)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

//! The form that browsers show: one page that needs nothing else, of any number of runs.
//!
//! It has no script, asks for nothing (a policy in its head forbids both), follows the reader's light
//! or dark setting until told otherwise, and prints. Whatever comes from a file passes through the
//! templates of [`maud`], which escape it.
//!
//! | file | which part |
//! |---|---|
//! | `rows` | the runs side by side, case by case |
//! | `head` | what was measured, and the figures that describe it |
//! | `changes` | what differs between the first run and the others |
//! | `overview` | all medians on one axis |
//! | `phases` | medians that follow one another, as a waterfall |
//! | `growth` | what many instances cost, by their number |
//! | `groups` | each case with its distribution |
//! | `causes` | what each cause of exits costs |
//! | `skipped`, `environment`, `method` | what was not measured, where, how |
//! | `scale`, `distribution` | the logarithmic axis, and samples drawn on it |

mod causes;
mod changes;
mod distribution;
mod environment;
mod groups;
mod growth;
mod head;
mod method;
mod overview;
mod phases;
mod rows;
mod scale;
mod skipped;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::run::Run;

/// A run and what it is called on the page.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    /// Its name, such as that of its file.
    pub label: &'a str,
    /// The run.
    pub run: &'a Run,
}

impl<'a> Column<'a> {
    /// A run, and what it is called.
    #[must_use]
    pub fn new(label: &'a str, run: &'a Run) -> Self {
        Self { label, run }
    }
}

/// The whole page.
#[must_use]
pub fn page(columns: &[Column<'_>]) -> String {
    let groups = rows::groups(columns);
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "chiton-bench " (env!("CARGO_PKG_VERSION")) };
                // Without one a browser asks the server for /favicon.ico.
                link rel="icon" href="data:,";
                title { (head::title(columns)) " · Chiton" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                (head::head(columns))
                main {
                    (changes::section(columns))
                    (phases::section(columns, &groups))
                    (growth::section(columns, &groups))
                    (overview::section(columns, &groups))
                    (groups::sections(columns, &groups))
                    (causes::section(columns, &groups))
                    (skipped::section(columns))
                    (environment::section(columns))
                    (method::section(columns))
                }
            }
        }
    };
    document.into_string()
}

/// The mark of a run: a letter in its colour; nothing if there is only one run.
fn mark(columns: &[Column<'_>], at: usize) -> Markup {
    html! {
        @if columns.len() > 1 {
            span class={ "mark run-" (at % COLOURS) } title=(columns.get(at).map_or("", |column| column.label)) { (letter(at)) }
            " "
        }
    }
}

/// How many colours `style.css` has for runs.
const COLOURS: usize = 6;

/// A, B … Z, then numbers.
fn letter(at: usize) -> String {
    match u8::try_from(at) {
        Ok(at) if at < 26 => char::from(b'A' + at).to_string(),
        _ => (at + 1).to_string(),
    }
}

/// A name for the fragment of an address: of a text's letters and digits alone.
fn anchor(text: &str) -> String {
    let kept = text.chars().map(|letter| {
        if letter.is_ascii_alphanumeric() {
            letter.to_ascii_lowercase()
        } else {
            '-'
        }
    });
    kept.take(64).collect()
}

#[cfg(test)]
mod tests;

//! The measuring lab: what exits, starts and many instances cost, with their distributions.
//!
//! ```text
//!  a command ──▶ Run ──JSON──▶ stats ──▶ table · CSV · HTML
//!  measures      cases of samples  percentiles, comparison
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`calls`] | what it costs to call a guest function |
//! | [`run`] | the versioned schema: what was measured, where, and what could not be |
//! | [`stats`] | percentiles and what else follows from samples |
//! | [`exits`] | the suite of exits |
//! | [`environment`] | the machine that it was measured on |
//! | [`output`] | where results go: a terminal, files |
//! | [`host`] | what many instances cost the host |
//! | [`peers`] | others that do the like |
//! | [`trial`] | programs that are run and timed |
//! | [`timeline`] | the phases of a start |
//! | [`table`], [`csv`](mod@csv), [`html`] | the forms that terminals, spreadsheets and browsers show |
//! | [`words`] | figures and texts as people read them |
//!
//! A file holds samples and no statistics: who reads it computes these again, so that no figure
//! can disagree with what it came from.
//!
//! ```
//! use chiton_bench::run::{Case, Samples, Unit};
//! use chiton_bench::stats::Summary;
//!
//! let samples = Samples::of([31, 30, 30, 32, 900])?;
//! let case = Case::measured("cpuid", "instructions", "CPUID leaf 0, which always exits", Unit::Nanoseconds, vec![samples]);
//! let summary = Summary::of(case.repeats()).expect("there are samples");
//! assert_eq!((summary.min, summary.p50, summary.max), (30, 31, 900));
//! # Ok::<(), chiton_bench::Error>(())
//! ```

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod calls;
pub mod csv;
pub mod environment;
mod error;
pub mod exits;
pub mod host;
pub mod html;
pub mod output;
pub mod peers;
pub mod run;
pub mod stats;
pub mod table;
pub mod timeline;
pub mod trial;
pub mod words;

pub use error::{Error, Result};

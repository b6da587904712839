//! Any file to the reader of measurements, and what is read to everything that shows it.
#![no_main]

use chiton_bench::html::{Column, page};
use chiton_bench::run::{Run, SCHEMA};
use chiton_bench::stats::{Rule, compare};
use chiton_bench::{csv, table};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let path = Path::new("fuzz.json");
    let Ok(run) = Run::parse(data, path) else { return };
    assert_eq!(run.schema, SCHEMA);
    let written = run.to_json();
    let again = Run::parse(written.as_bytes(), path).expect("what is written can be read");
    assert_eq!(again.cases.len(), run.cases.len());
    assert!(!compare(&run, &run, Rule::default()).is_change());
    assert!(csv::csv([&run]).matches("\r\n").count() > run.cases.len());
    let _ = table::table(&run);
    let page = page(&[Column::new("one", &run), Column::new("other", &again)]);
    assert!(!page.contains("<script") && !page.contains("<img"));
});

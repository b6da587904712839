//! What `chiton-bench virtio` measures, with the programs of others that it compares with.

use super::lab;
use crate::{error::Result, paths, tools};

/// All of it.
pub(super) fn all(runs: usize) -> Result<i32> {
    let others = [
        ("fio", "fio"),
        ("wrk", "wrk"),
        ("nginx", "nginx-light"),
        ("ip", "iproute2"),
    ];
    run(runs, &others, &[])
}

/// TCP and HTTP alone.
pub(super) fn tcp(runs: usize) -> Result<i32> {
    let others = [("wrk", "wrk"), ("nginx", "nginx-light"), ("ip", "iproute2")];
    run(runs, &others, &["--only", "tcp"])
}

/// Several processors alone.
pub(super) fn processors(runs: usize, processors: Option<usize>) -> Result<i32> {
    let mut words = vec!["--only".to_owned(), "processors".to_owned()];
    if let Some(processors) = processors {
        words.extend(["--cpus".to_owned(), processors.to_string()]);
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    run(runs, &[], &words)
}

fn run(runs: usize, others: &[(&str, &str)], more: &[&str]) -> Result<i32> {
    for (program, package) in others {
        // Whoever is missing is told of where it is wanted.
        if let Err(why) = tools::debian(program, package) {
            eprintln!("  {program}: {why}");
        }
    }
    let place = paths::target().display().to_string();
    let runs = runs.to_string();
    let words = [&["virtio", "--runs", &runs, "--place", &place], more].concat();
    lab::run(&words.into_iter().map(str::to_owned).collect::<Vec<_>>(), &[])
}

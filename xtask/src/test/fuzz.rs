//! The fuzz targets, each for a short while from the corpus in the repository.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::{
    command,
    error::{Error, Result},
    paths, tools,
    ui::Task,
};

/// Runs each target for so many seconds. What it finds goes below `target`, so that the corpus in
/// the repository changes only by hand.
pub(super) fn run(seconds: u32) -> Result<String> {
    let dir = paths::root().join("fuzz");
    if !dir.join("Cargo.toml").exists() {
        return Err(Error::Missing("there are no fuzz targets".into()));
    }
    let nightly = tools::nightly()?;
    let program = tools::CARGO_FUZZ.path()?;
    let fuzz = |words: &[&str]| {
        let mut fuzz = Command::new("rustup");
        fuzz.args(["run", nightly])
            .arg(&program)
            .arg("fuzz")
            .args(words)
            .current_dir(&dir);
        fuzz.env("RUSTUP_TOOLCHAIN", nightly)
            .env_remove("CARGO")
            .env_remove("RUSTC")
            .env_remove("RUSTDOC");
        fuzz.env("CARGO_TARGET_DIR", paths::target().join("fuzz-build"));
        fuzz
    };
    let list = command::answer(&mut fuzz(&["list"])).unwrap_or_default();
    let targets: Vec<_> = list.split_whitespace().collect();
    if targets.is_empty() {
        return Err(Error::Found("`cargo fuzz list` names no target".into()));
    }
    // Said explicitly since the program would else take the target it was itself built for.
    let build = ["build", "--target", "x86_64-unknown-linux-gnu"];
    let task = Task::start(format!("building {} fuzz targets with {nightly}", targets.len()));
    command::quietly(&task, &mut fuzz(&build))?;
    task.done();
    let next = AtomicUsize::new(0);
    // A fuzzer has one thread.
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let work = || {
            while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                one(target, seconds)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let ends = workers
            .into_iter()
            .map(|worker| worker.join().expect("it does not panic"));
        ends.collect()
    });
    results.into_iter().collect::<Result<Vec<()>>>()?;
    Ok(format!("{} targets, {seconds} s each", targets.len()))
}

/// Fuzzes one target.
fn one(target: &str, seconds: u32) -> Result<()> {
    let dir = paths::root().join("fuzz");
    let built = paths::target().join("fuzz-build/x86_64-unknown-linux-gnu/release");
    let found = paths::target().join("fuzz-corpus").join(target);
    let broken = dir.join("artifacts").join(target);
    for dir in [&found, &broken] {
        fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    }
    let corpus = dir.join("corpus").join(target);
    // libFuzzer adds what it finds to the first of the folders it is given.
    let mut run = Command::new(built.join(target));
    run.arg(&found)
        .args(corpus.exists().then_some(&corpus))
        .current_dir(&dir);
    run.arg(format!("-artifact_prefix={}/", broken.display()));
    run.args([
        &format!("-max_total_time={seconds}"),
        "-timeout=60",
        "-print_final_stats=1",
    ]);
    let output = command::quietly(&Task::silent(), &mut run)?;
    let executed = output
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    eprintln!("  {target}: {} runs, no failure", executed.map_or("?", str::trim));
    Ok(())
}

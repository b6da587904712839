//! The queues of `chiton-ring` beside rust-vmm's `virtio-queue`, by the benchmark `shared/ring/benches/ring.rs`.

use std::collections::BTreeMap;

use crate::{
    build::cargo,
    command,
    error::{Error, Result},
    ui::Task,
};

/// The other implementation, as the benchmark calls it, and what it takes all that is there by; the quicker counts.
const THEIRS: &str = "virtio-queue";
const AT_ONCE: &str = "virtio-queue, at once";
/// Ours.
const OURS: [&str; 2] = ["split", "packed"];
/// What the benchmark calls the groups where both are.
const DEVICE: &str = "device, ";
/// How long each one is tried: the machine is the same for all only for a short while.
const QUICK: [&str; 5] = ["--warm-up-time", "0.2", "--measurement-time", "0.5", "--output-format"];

/// Nanoseconds, by the name of group and function.
type Times = BTreeMap<String, f64>;

/// Runs the benchmark so many times, and prints for each shape of chains the least time of each, and the verdict.
///
/// # Errors
///
/// If it does not build or run, or prints something else.
pub(super) fn run(rounds: usize) -> Result<()> {
    let mut least = Times::new();
    for round in 0..rounds {
        let task = Task::start(format!("queues, round {} of {rounds}", round + 1));
        let mut bench = cargo();
        bench.args(["bench", "--package", "chiton-ring", "--bench", "ring", "--", DEVICE]);
        bench.args(QUICK).arg("bencher");
        let output = command::quietly(&task, &mut bench)?;
        for (name, time) in times(&output) {
            let known = least.entry(name).or_insert(time);
            *known = known.min(time);
        }
        task.done();
    }
    print!(
        "{}",
        table(&least).ok_or_else(|| Error::Found("the benchmark names no queue".into()))?
    );
    Ok(())
}

/// Reads lines such as `test device, small/split ... bench:         123 ns/iter (+/- 4)`.
fn times(output: &str) -> impl Iterator<Item = (String, f64)> {
    output.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("test ")?.split_once(" ... bench:")?;
        let time = rest.trim_start().split(" ns/iter").next()?.replace(',', "");
        Some((name.to_owned(), time.parse().ok()?))
    })
}

/// The table and the verdict; `None` if there is nothing to compare.
fn table(times: &Times) -> Option<String> {
    let mut text = format!("{:<36}{THEIRS:>14}", "the device's side, ns a batch");
    text.extend(OURS.map(|ours| format!("{ours:>12}{:>8}", "times")));
    let mut slower = Vec::new();
    let mut compared = false;
    for (name, theirs) in times {
        let Some(shape) = name
            .strip_prefix(DEVICE)
            .and_then(|name| name.strip_suffix(&format!("/{THEIRS}")))
        else {
            continue;
        };
        let at_once = times.get(&format!("{DEVICE}{shape}/{AT_ONCE}"));
        let theirs = at_once.map_or(*theirs, |at_once| theirs.min(*at_once));
        text += &format!("\n{shape:<36}{theirs:>14.0}");
        for ours in OURS {
            let time = times.get(&format!("{DEVICE}{shape}/{ours}"))?;
            compared = true;
            text += &format!("{time:>12.0}{:>8.2}", theirs / time);
            if *time > theirs {
                slower.push(format!("{ours}, {shape}"));
            }
        }
    }
    let verdict = if slower.is_empty() {
        format!("at least as fast as {THEIRS}: yes")
    } else {
        format!("at least as fast as {THEIRS}: no, slower with {}", slower.join("; "))
    };
    compared.then(|| format!("{text}\n{verdict}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
test device, small/virtio-queue ... bench:       1,200 ns/iter (+/- 30)
test device, small/virtio-queue, at once ... bench:       900 ns/iter (+/- 30)
test device, small/split ... bench:         600 ns/iter (+/- 3)
test device, small/packed ... bench:        1500 ns/iter (+/- 3)
a line of something else
";

    #[test]
    fn times_are_read_and_compared() {
        let times: Times = times(OUTPUT).collect();
        assert_eq!(times.len(), 4);
        let table = table(&times).unwrap();
        assert!(
            table.contains("600    1.50") && table.contains("1500    0.60"),
            "{table}"
        );
        assert!(
            table.ends_with("virtio-queue: no, slower with packed, small\n"),
            "{table}"
        );
    }

    #[test]
    fn nothing_to_compare_is_no_table() {
        assert_eq!(table(&Times::new()), None);
        let theirs = times(OUTPUT).take(1).collect();
        assert_eq!(table(&theirs), None);
    }
}

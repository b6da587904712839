//! The balloon: memory that a guest gives back is the host's again.

use std::fs;
use std::io::{BufRead, BufReader, Write};

use chiton_tests::{Chiton, finish, kvm_works};

/// Memory of a process, in kB, as far as it is its own.
fn pss(process: u32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{process}/smaps")).expect("an own process");
    let sizes = maps
        .lines()
        .filter_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
    sizes.map(|size| size.trim().parse::<u64>().expect("a number")).sum()
}

#[test]
fn memory_in_the_balloon_and_reported_as_free_is_the_hosts_again() {
    if !kvm_works() {
        return;
    }
    let mut child = Chiton::new()
        .args(["run", "--memory", "48M", "--balloon=32M"])
        .guest("balloon")
        .args(["32"])
        .spawn();
    let process = child.id();
    let mut input = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    assert_eq!(line(), "the host would like to have 32 MiB");
    let mut sizes = Vec::new();
    for step in ["used", "inflated", "used again", "reported", "dropped", "free"] {
        assert_eq!(line(), step);
        sizes.push(pss(process));
        input.write_all(b"\n").expect("it reads");
    }
    let rescued = line();
    assert!(rescued.ends_with("taken back when memory ran out"), "{rescued}");
    assert_eq!(line(), "rescued");
    let rescued = pss(process);
    assert!(rescued > 16 << 10, "{rescued} kB after half of it was used again");
    drop(input);
    finish(child).assert_status(0);
    println!("PSS in kB: {sizes:?}");
    let [used, inflated, again, reported, dropped, free] = sizes[..] else {
        panic!()
    };
    for (more, less) in [(used, inflated), (again, reported), (dropped, free)] {
        assert!(more - less > 30 << 10, "{sizes:?} kB");
    }
    assert!(again - inflated > 30 << 10, "{sizes:?} kB");
}

#[test]
fn a_guest_without_a_balloon_is_told_how_to_get_one() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new().args(["run"]).guest("balloon").run();
    run.assert_status(1).assert_says("start the guest with --balloon");
}

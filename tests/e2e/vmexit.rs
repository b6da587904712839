//! The guest that measures exits: what it prints can be read, and adds up.

use chiton_tests::{Chiton, hardware_kvm, kvm_works};

/// The lines of a case, from its beginning to its end.
fn lines<'t>(text: &'t str, case: &str) -> Vec<&'t str> {
    let begin = format!("@begin {case} repeat=0");
    let end = format!("@end {case} ");
    let from = text.lines().skip_while(|line| *line != begin);
    let mut lines = Vec::new();
    for line in from {
        lines.push(line);
        if line.starts_with(&end) {
            return lines;
        }
    }
    panic!("{case} has no beginning or no end: {text}");
}

/// The number behind a word of a line.
fn number(line: &str, key: &str) -> u64 {
    let value = line.split(' ').find_map(|word| word.strip_prefix(key));
    value.and_then(|value| value.parse().ok()).expect(line)
}

/// Counts and sums of the lines of samples, against what the end says.
fn assert_adds_up(text: &str, case: &str, samples: u64) {
    let lines = lines(text, case);
    let (mut count, mut sum) = (0, 0);
    let words = lines
        .iter()
        .filter_map(|line| line.strip_prefix("@samples "))
        .flat_map(|line| line.split(' '));
    for word in words {
        let (value, times) = word.split_once('x').unwrap_or((word, "1"));
        let [value, times]: [u64; 2] = [value, times].map(|number| number.parse().expect(word));
        count += times;
        sum += value * times;
    }
    let end = lines.last().expect("there is an end");
    assert_eq!(
        (number(end, "count="), number(end, "sum=")),
        (count, sum),
        "{case}: {text}"
    );
    assert_eq!(count, samples, "{case}");
    assert!(sum > 0, "{case}: {text}");
}

#[test]
fn a_guest_in_ring_3_measures_what_ring_3_may_do_and_says_why_not_the_rest() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new()
        .args(["run", "--ring", "3", "--exits"])
        .guest("vmexit")
        .args([
            "samples=30",
            "warmup=5",
            "null",
            "cpuid",
            "outl",
            "mmio_read_4",
            "vmcall",
            "ipi",
        ])
        .run();
    run.assert_status(0);
    let text = run.stdout_text();
    assert!(text.starts_with("@measure 1 tsc_khz="), "{text}");
    assert!(text.ends_with("@done\n"), "{text}");
    for case in ["null", "cpuid", "outl", "mmio_read_4"] {
        assert_adds_up(&text, case, 30);
    }
    assert!(
        text.contains("@skip vmcall it needs ring 0, and the guest runs in ring 3"),
        "{text}"
    );
    assert!(text.contains("@skip ipi it needs ring 0"), "{text}");
    // Each sample and each warm-up was an exit, and no other case made one.
    assert_eq!((run.exits("doorbell nop"), run.exits("MMIO read")), (35, 35), "{run}");
}

#[test]
fn a_guest_in_ring_0_measures_what_only_ring_0_may_do() {
    if !kvm_works() {
        return;
    }
    // Where ring 0 is interpreted, readings are not fenced, and little is done.
    let clock = if hardware_kvm() { "clock=fenced" } else { "clock=plain" };
    let run = Chiton::new()
        .args(["run", "--ring", "0"])
        .guest("vmexit")
        .args([
            clock,
            "samples=30",
            "warmup=5",
            "null",
            "mov_from_cr8",
            "cr3_write",
            "exception_de",
            "rdpmc",
        ])
        .run();
    run.assert_status(0);
    let text = run.stdout_text();
    for case in ["null", "mov_from_cr8", "cr3_write", "exception_de"] {
        assert_adds_up(&text, case, 30);
    }
    // An instruction that is answered by an exception ends no guest.
    assert!(
        text.contains("@skip rdpmc RDPMC is answered by #GP here\n@done\n"),
        "{text}"
    );
}

#[test]
fn a_key_that_the_guest_does_not_know_is_refused() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new()
        .args(["run", "--ring", "3"])
        .guest("vmexit")
        .args(["sample=30"])
        .run();
    run.assert_status(1);
    assert!(run.stderr_text().contains("there is no such key"), "{run}");
}

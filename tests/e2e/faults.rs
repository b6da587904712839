//! Faults are explained: what, where, and why.

use chiton_tests::{Chiton, Run, kvm_works};

fn fault(cause: &str) -> Run {
    Chiton::new()
        .args(["run", "--timeout", "60s"])
        .guest("fault")
        .args([cause])
        .run()
}

/// Each cause, and what its report must say.
const CAUSES: &[(&str, &[&str])] = &[
    ("null-read", &["page fault", "null pointer read", "fault::null_read"]),
    (
        "wild-write",
        &["page fault", "an address without memory", "write from ring 3"],
    ),
    (
        "stack-overflow",
        &["page fault", "the stack overflowed", "guard page below the stack"],
    ),
    ("write-text", &["page fault", "write to read-only code"]),
    ("jump-data", &["page fault", "instruction fetch", "which is not code"]),
    ("divide", &["divide"]),
    ("undefined", &["undefined instruction"]),
];

#[test]
fn every_exception_is_named_and_placed() {
    if !kvm_works() {
        return;
    }
    for (cause, words) in CAUSES {
        let run = fault(cause);
        run.assert_status(102);
        let said = run.stderr_text().to_lowercase();
        for word in *words {
            assert!(said.contains(word), "{cause}: not said: {word}\n{run}");
        }
        for everywhere in ["rip", "rsp", "backtrace", "_start+"] {
            assert!(said.contains(everywhere), "{cause}: not said: {everywhere}\n{run}");
        }
    }
}

#[test]
fn a_panic_has_its_message_its_place_and_a_backtrace() {
    if !kvm_works() {
        return;
    }
    let run = fault("panic");
    run.assert_status(101).assert_says("panicked").assert_says("main.rs:");
}

#[test]
fn an_exhausted_heap_is_a_panic_that_says_so() {
    if !kvm_works() {
        return;
    }
    fault("heap").assert_status(101).assert_says("memory");
}

#[test]
fn without_a_cause_the_guest_lists_them() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new().args(["run"]).guest("fault").run();
    for (cause, _) in CAUSES {
        assert!(run.stdout_text().contains(cause), "{cause}: {run}");
    }
}

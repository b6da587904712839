//! The command line explains itself.

use chiton_tests::{Chiton, Folder, kvm_works};

#[test]
fn help_teaches_with_examples() {
    let run = Chiton::new().args(["--help"]).run();
    run.assert_status(0);
    for words in ["Examples:", "chiton run hello world", "Exit status:"] {
        assert!(run.stdout_text().contains(words), "{run}");
    }
    let run = Chiton::new().args(["run", "--help"]).run();
    run.assert_status(0);
    for option in [
        "--memory",
        "--disk",
        "--vsock",
        "--env",
        "--timeout",
        "--ring",
        "--exits",
    ] {
        assert!(run.stdout_text().contains(option), "{option}: {run}");
    }
}

#[test]
fn wrong_options_are_refused_by_name() {
    Chiton::new()
        .args(["run", "--colour"])
        .run()
        .assert_status(125)
        .assert_says("--colour");
    Chiton::new()
        .args(["run"])
        .run()
        .assert_status(125)
        .assert_says("GUEST");
    Chiton::new().args(["fly"]).run().assert_status(125).assert_says("fly");
    Chiton::new()
        .args(["run", "--ring", "1", "x"])
        .run()
        .assert_status(125)
        .assert_says("possible values");
}

#[test]
fn inspect_shows_manifest_segments_and_the_map() {
    let run = Chiton::new().args(["inspect"]).guest("hello").run();
    run.assert_status(0);
    let text = run.stdout_text();
    for words in ["manifest", "ring", "segment", "stack", "heap", "boot page", "mailbox"] {
        assert!(text.to_lowercase().contains(words), "{words}: {run}");
    }
}

#[test]
fn inspect_refuses_what_run_refuses() {
    let folder = Folder::new();
    let file = folder.file("script", b"#!/bin/sh\n");
    Chiton::new()
        .args(["inspect"])
        .args([file])
        .run()
        .assert_refused("not an ELF file");
}

#[test]
fn doctor_tells_of_every_facility() {
    let run = Chiton::new().args(["doctor"]).run();
    for words in [
        "/dev/kvm",
        "VMX or SVM",
        "nested",
        "cgroup",
        "user namespaces",
        "overlay",
        "TAP",
        "ring 0",
        "seccomp",
        "Landlock",
        "id-mapped mounts",
        "nf_tables",
        "newuidmap",
        "pasta",
    ] {
        assert!(run.stdout_text().contains(words), "{words}: {run}");
    }
    if kvm_works() {
        run.assert_status(0);
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = Chiton::new().args(["inspect"]).guest("hello").spawn();
    drop(child.stdout.take());
    let run = chiton_tests::finish(child);
    run.assert_status(0);
    assert!(run.stderr.is_empty(), "{run}");
}

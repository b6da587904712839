//! A guest boots, is given things, talks, and ends.

use chiton_tests::{Chiton, Folder, few, hardware_kvm, kvm_works};

#[test]
fn hello_greets_and_ends_well() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new().args(["run"]).guest("hello").args(["world"]).run();
    run.assert_status(0);
    assert!(run.stdout_text().contains("world"), "{run}");
    assert!(run.stderr.is_empty(), "{run}");
}

#[test]
fn arguments_and_environment_reach_the_guest() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new()
        .args(["run", "--env", "COLOUR=red", "--env", "EMPTY="])
        .guest("hello")
        .args(["a b", "ü", "--exits"])
        .run();
    run.assert_status(0);
    for expected in ["a b", "ü", "--exits", "COLOUR=red", "EMPTY="] {
        assert!(run.stdout_text().contains(expected), "{expected}: {run}");
    }
}

#[test]
fn the_table_of_exits_counts_the_end_once() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new().args(["run", "--exits"]).guest("hello").run();
    run.assert_status(0);
    assert_eq!(run.exits("doorbell exit"), 1, "{run}");
}

#[test]
fn output_of_any_length_takes_one_exit() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    // The guest's buffer holds 64 KiB; what is longer goes out from where it is.
    for bytes in [100, 64 << 10, 1 << 20] {
        let output = folder.path("output");
        let run = Chiton::new()
            .args(["run", "--exits"])
            .guest("fill")
            .args(["abc", &bytes.to_string()])
            .stdout(std::fs::File::create(&output).expect("a new file"))
            .run();
        run.assert_status(0);
        let written = std::fs::read(&output).expect("the file is there");
        let expected: Vec<u8> = b"abc".iter().copied().cycle().take(bytes).collect();
        assert!(written == expected, "{} bytes of {bytes}", written.len());
        // Whoever sleeps until the host is done need not kick.
        let exits = run.exits("doorbell kick") + run.exits("doorbell wait");
        assert!(exits <= 1, "{bytes} bytes: {run}");
    }
}

#[test]
fn output_that_has_no_room_is_an_error_that_says_so() {
    if !kvm_works() {
        return;
    }
    let full = std::fs::File::options().write(true).open("/dev/full");
    let run = Chiton::new()
        .args(["run"])
        .guest("hello")
        .stdout(full.expect("/dev/full is there"))
        .run();
    run.assert_status(125).assert_says("No space left");
}

#[test]
fn the_timeline_names_phases_in_microseconds() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new().args(["-v", "run"]).guest("hello").run();
    run.assert_status(0);
    for phase in ["create VM", "create vCPU", "guest", "µs"] {
        run.assert_says(phase);
    }
}

#[test]
fn memory_can_be_small_and_large() {
    if !kvm_works() {
        return;
    }
    for memory in few(&["4M", "64M", "1G", "3G", "5G"], 2) {
        Chiton::new()
            .args(["run", "--memory", memory])
            .guest("hello")
            .run()
            .assert_status(0);
    }
}

#[test]
fn cat_copies_any_bytes_to_end_of_file() {
    if !kvm_works() {
        return;
    }
    for len in few(&[0, 100_000, 1, 4095, 4096, 4097], 2).iter().copied() {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 % 256) as u8).collect();
        let run = Chiton::new().args(["run"]).guest("cat").stdin(bytes.clone()).run();
        run.assert_status(0);
        assert!(run.stdout == bytes, "{len} bytes came back as {}", run.stdout.len());
    }
}

#[test]
fn cat_reads_a_regular_file_as_standard_input() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let file = folder.file("in", b"from a file\n");
    let output = std::process::Command::new(chiton_tests::chiton_path())
        .args(["run", "--no-jail"])
        .arg(chiton_tests::guest_path("cat"))
        .stdin(std::fs::File::open(file).expect("the file is there"))
        .output()
        .expect("chiton starts");
    assert_eq!(output.stdout, b"from a file\n");
}

#[test]
fn compute_gives_the_checksum_it_gives_natively_in_ring_3() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new().args(["run"]).guest("compute").args(["1"]).run();
    run.assert_status(0);
    assert_eq!(checksum(&run.stdout_text()), Some(native_checksum()), "{run}");
}

/// What the workload of `compute` gives right here.
fn native_checksum() -> u64 {
    let result = compute_workload::Workload::new().run();
    result.unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn checksum(output: &str) -> Option<u64> {
    let (_, rest) = output.split_once("checksum ")?;
    u64::from_str_radix(rest.split_whitespace().next()?, 16).ok()
}

#[test]
fn ring_0_runs_where_the_machine_can_and_is_refused_with_sse_where_it_cannot() {
    if !kvm_works() {
        return;
    }
    Chiton::new()
        .args(["run", "--ring", "0"])
        .guest("hello")
        .run()
        .assert_status(0);
    let run = Chiton::new()
        .args(["run", "--ring", "0"])
        .guest("compute")
        .args(["1"])
        .run();
    if hardware_kvm() {
        run.assert_status(0);
        assert_eq!(checksum(&run.stdout_text()), Some(native_checksum()), "{run}");
    } else {
        run.assert_refused("use --ring 3");
    }
}

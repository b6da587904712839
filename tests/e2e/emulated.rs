//! Devices behind registers: the same bytes and frames as over virtio, and what that costs.

use std::fs::File;
use std::io::{Read, Write};

use chiton_tests::{Chiton, Folder, Run, Running, Tap, disk_is_free, few, finish, kvm_works, signal, slow};

/// What the guest computes of a disk: FNV-1a, of 64 bits.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn compare_disk(option: &str, disk: &str, words: &[&str]) -> Run {
    Chiton::new()
        .args(["run", "--exits", option, disk])
        .guest("compare-disk")
        .args(words)
        .run()
}

#[test]
fn an_emulated_disk_has_the_bytes_of_its_file() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let cases = [
        ("pio", 16 << 10, "4096"),
        ("dma", 1 << 20, "131072"),
        ("dma", 512, "512"),
        ("pio", 3 << 9, "512"),
        ("dma", (1 << 20) + 1024, "1024"),
    ];
    for (kind, len, at_once) in few(&cases, 2) {
        let content = bytes(*len);
        let disk = folder.file("disk", &content);
        let run = compare_disk(
            "--emulated-disk",
            &format!("{}:ro", disk.display()),
            &[kind, "digest", "0", at_once],
        );
        run.assert_status(0);
        let whole = content.len() - content.len() % at_once.parse::<usize>().expect("a number");
        let expected = format!("digest {:016x}\n", digest(&content[..whole]));
        assert!(run.stdout_text().starts_with(&expected), "{kind}, {len} bytes: {run}");
    }
}

#[test]
fn what_is_written_through_registers_is_in_the_file() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    for kind in ["pio", "dma"] {
        let disk = folder.file("disk", vec![0; 16 << 10]);
        let path = disk.to_str().expect("utf-8");
        compare_disk("--emulated-disk", path, &[kind, "write", "3", "2048"]).assert_status(0);
        let written = std::fs::read(&disk).expect("the file is there");
        let expected = |at: usize| {
            if at < 3 * 2048 {
                ((at / 2048 + at % 2048) % 251) as u8
            } else {
                0
            }
        };
        let wrong = (0..written.len()).find(|at| written[*at] != expected(*at));
        assert_eq!((wrong, written.len()), (None, 16 << 10), "{kind}");
        assert!(disk_is_free(&disk));

        let run = compare_disk("--emulated-disk", &format!("{path}:ro"), &[kind, "write", "1", "512"]);
        run.assert_status(1)
            .assert_says("failed with status 0x51 and error 0x04");
        assert!(std::fs::read(&disk).expect("the file is there") == written);
    }
}

#[test]
fn every_access_to_a_register_is_an_exit_and_virtio_has_none() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = folder.file("disk", vec![0; 64 << 10]);
    let path = disk.to_str().expect("utf-8");
    let exits = |option, kind, count: u64| {
        let run = compare_disk(option, path, &[kind, "random", &count.to_string()]);
        run.assert_status(0);
        ["MMIO read", "MMIO write", "doorbell wait", "doorbell kick"].map(|cause| run.exits(cause))
    };
    // 256 words of each of 8 sectors, a look at both status registers before each; the task file.
    let sum = |counts: [u64; 4]| counts.iter().sum::<u64>();
    let one = sum(exits("--emulated-disk", "pio", 1));
    let three = sum(exits("--emulated-disk", "pio", 3));
    assert_eq!((three - one) / 2, 8 * (256 + 2) + 7);
    let one = sum(exits("--emulated-disk", "dma", 1));
    let three = sum(exits("--emulated-disk", "dma", 3));
    assert_eq!((three - one) / 2, 15);
    let [reads, writes, waits, _] = exits("--disk", "virtio", 10);
    assert_eq!((reads, writes), (0, 0));
    assert!((10..15).contains(&waits), "{waits}");
}

/// A guest on a TAP device that says that it is ready.
fn start(option: &str, tap: &Tap, words: &[&str]) -> Running {
    let mut running = Chiton::new()
        .args(["run", "--exits", option, &format!("tap={}", tap.name())])
        .guest("compare-net")
        .args(words)
        .spawn();
    let mut line = [0; 6];
    let read = running.stdout.as_mut().expect("a pipe").read_exact(&mut line);
    assert!(read.is_ok() && line == *b"ready\n", "{}", finish(running));
    running
}

fn frame(len: usize) -> Vec<u8> {
    let mut frame = [[0xFF; 6], [2, 0, 0, 0, 0, 1]].concat();
    frame.extend([0x88, 0xB5]);
    frame.extend(bytes(len - frame.len()));
    frame
}

fn tap() -> Option<(Tap, File)> {
    if !kvm_works() {
        return None;
    }
    let tap = Tap::new()?;
    let frames = tap.frames(0x88B5).expect("a packet socket");
    Some((tap, frames))
}

#[test]
fn frames_come_back_from_a_guest_over_either_kind_of_interface() {
    let Some((tap, mut frames)) = tap() else { return };
    let lengths = [60, 61, 1514, 100, 1513];
    let rounds = if slow() { 2 } else { 60 };
    for (option, kind) in [("--emulated-net", "emulated"), ("--net", "virtio")] {
        // More rounds than either ring has descriptors.
        let count = rounds * lengths.len();
        let running = start(option, &tap, &[kind, "echo", &count.to_string()]);
        for i in 0..count {
            let sent = frame(lengths[i % lengths.len()]);
            frames.write_all(&sent).expect("the interface is up");
            let mut back = [0; 2048];
            let len = frames.read(&mut back).expect("an answer");
            assert_eq!((&back[..6], &back[6..12]), (&sent[6..12], &sent[..6]), "{kind}");
            assert_eq!(back[12..len], sent[12..], "{kind}");
        }
        finish(running).assert_status(0);
    }
}

#[test]
fn a_flood_arrives_whole() {
    let Some((tap, mut frames)) = tap() else { return };
    let count = 300;
    let running = start("--emulated-net", &tap, &["emulated", "take", &count.to_string()]);
    for _ in 0..count {
        frames.write_all(&frame(1514)).expect("the interface is up");
    }
    let mut back = [0; 2048];
    let len = frames.read(&mut back).expect("an answer, when all have come");
    assert_eq!(len, 1514);
    finish(running).assert_status(0);

    let running = start(
        "--emulated-net",
        &tap,
        &["emulated", "send", &count.to_string(), "1000"],
    );
    frames.write_all(&frame(60)).expect("the interface is up");
    for _ in 0..count {
        assert_eq!(frames.read(&mut back).expect("a frame"), 1000);
    }
    let run = finish(running);
    run.assert_status(0);
    assert!(run.exits("MMIO write") >= count, "one for each frame: {run}");
}

/// Exits of every kind, also those that the kernel handles by itself.
fn all_exits(run: &Run) -> u64 {
    run.assert_status(0);
    run.exits("all ") + run.exits("ioeventfd ")
}

#[test]
fn a_lone_frame_there_and_back_takes_two_exits_at_most() {
    let Some((tap, mut frames)) = tap() else { return };
    let mut exits = |rounds: u64| {
        let running = start("--net", &tap, &["virtio", "echo", &rounds.to_string()]);
        for _ in 0..rounds {
            frames.write_all(&frame(60)).expect("the interface is up");
            assert_eq!(frames.read(&mut [0; 2048]).expect("an answer"), 60);
        }
        all_exits(&finish(running))
    };
    let (some, more) = (exits(10), exits(60));
    assert!(more <= some + 2 * 50, "{some} exits for 10 frames, {more} for 60");
}

#[test]
fn a_frame_of_a_flood_takes_a_twentieth_of_an_exit_at_most() {
    let Some((tap, mut frames)) = tap() else { return };
    let mut exits = |what: &str, count: u64| {
        let running = start("--net", &tap, &["virtio", what, &count.to_string()]);
        if what == "take" {
            // All frames are there when the guest goes on, however quick either side is.
            signal(&running, libc::SIGSTOP);
            for _ in 0..count {
                frames.write_all(&frame(60)).expect("the interface is up");
            }
            signal(&running, libc::SIGCONT);
            assert_eq!(frames.read(&mut [0; 2048]).expect("an answer"), 60);
        } else {
            frames.write_all(&frame(60)).expect("the interface is up");
            for _ in 0..count {
                assert_eq!(frames.read(&mut [0; 2048]).expect("a frame"), 60);
            }
        }
        all_exits(&finish(running))
    };
    // As many as wait in a TAP device.
    let count = 400;
    for what in ["take", "send"] {
        let one = exits(what, 1);
        // Who is told how often depends on who runs when, and the machine has others to run.
        let flood = (0..5)
            .map(|_| exits(what, 1 + count))
            .find(|all| *all <= one + count / 20);
        assert!(flood.is_some(), "{what}: more than {} exits", one + count / 20);
    }
}

#[test]
fn a_tap_that_is_taken_away_leaves_the_guest_of_an_emulated_interface_running() {
    let Some((tap, mut frames)) = tap() else { return };
    let mut running = start("--emulated-net", &tap, &["emulated", "echo", "1000"]);
    frames.write_all(&frame(60)).expect("the interface is up");
    assert_eq!(frames.read(&mut [0; 2048]).expect("an answer"), 60);
    tap.remove().expect("it is there");
    // The log says it as soon as the device knows.
    let mut said = Vec::new();
    let stderr = running.stderr.as_mut().expect("a pipe");
    while !String::from_utf8_lossy(&said).contains("the network interface is gone") {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).expect("it speaks"), 1, "it ended");
        said.extend(byte);
    }
    assert!(running.try_wait().expect("a child").is_none(), "the guest goes on");
    signal(&running, libc::SIGTERM);
    finish(running).assert_status(128 + libc::SIGTERM);
}

#[test]
fn emulated_devices_that_cannot_be_are_refused() {
    let folder = Folder::new();
    let disk = folder.file("disk", [0; 4096]);
    let path = disk.to_str().expect("utf-8");
    let refuse = |option: &str, value: &str, words: &str| {
        let run = Chiton::new().args(["run", option, value]).guest("hello").run();
        run.assert_refused(words);
        assert!(disk_is_free(&disk));
    };
    refuse(
        "--emulated-disk",
        &format!("{path},ops=10"),
        "an emulated device has no rate limits",
    );
    refuse("--emulated-disk", "/none/at/all", "does not exist");
    refuse(
        "--emulated-disk",
        &folder.file("odd", [0; 513]).display().to_string(),
        "513",
    );
    refuse("--emulated-net", "tap=chiton-none", "does not exist: make it with");
    let unusable = Chiton::new()
        .args(["run", "--emulated-net", "tap=a,speed=9"])
        .guest("hello")
        .run();
    unusable.assert_status(125).assert_says("`speed` is nothing");
    let twice = Chiton::new()
        .args(["run", "--disk", path, "--emulated-disk", path])
        .guest("hello")
        .run();
    twice.assert_refused("is in use by another instance");
    if let Some(tap) = Tap::new() {
        refuse(
            "--emulated-net",
            &tap.option(),
            "an emulated network interface has no IP address",
        );
    }
}

#[test]
fn a_guest_without_its_emulated_device_says_so() {
    if !kvm_works() {
        return;
    }
    for (guest, words, said) in [
        (
            "compare-disk",
            ["dma", "random", "1"],
            "start the guest with --emulated-disk",
        ),
        (
            "compare-net",
            ["emulated", "echo", "1"],
            "start the guest with --emulated-net",
        ),
    ] {
        let run = Chiton::new().args(["run"]).guest(guest).args(words).run();
        run.assert_status(1).assert_says(said);
    }
}

//! Block devices: what the guest reads is what the host has, and the other way round.

use std::fmt::Write;

use chiton_tests::{Chiton, Folder, Running, disk_is_free, few, guest_path, kvm_works, skip};
use sha2::{Digest, Sha256};

fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[test]
fn sha256_of_a_disk_is_the_hosts_own() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    for len in few(&[512, (1 << 20) + 512, 4096, 5 << 20], 2).iter().copied() {
        let bytes = pattern(len);
        let disk = folder.file("disk", &bytes);
        let run = Chiton::new()
            .args(["run", "--disk", &format!("{}:ro", disk.display())])
            .guest("sha256")
            .run();
        run.assert_status(0);
        assert!(
            run.stdout_text().starts_with(&hex(&Sha256::digest(&bytes))),
            "{len} bytes: {run}"
        );
    }
}

#[test]
fn a_reset_of_the_queue_takes_requests_back_and_the_disk_goes_on() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let bytes = pattern(128 * 512);
    let sum: u64 = bytes.iter().step_by(512).map(|byte| u64::from(*byte)).sum();
    let disk = folder.file("disk", bytes);
    for option in [None, Some("--packed"), Some("--io-thread")] {
        // What is over the limit is with the device when the reset comes.
        let disk = format!("{}:ro,ops=2000/16", disk.display());
        let chiton = Chiton::new().args(["run"]).args(option).args(["--disk", &disk]);
        let run = chiton.guest("disk").args(["reset", "0", "128"]).run();
        run.assert_status(0);
        let text = run.stdout_text();
        let taken_back = text.split(' ').nth(2).and_then(|count| count.parse().ok());
        assert!(taken_back.is_some_and(|count: u64| count > 0), "{run}");
        assert!(
            text.ends_with(&format!(" taken back, 0 bytes touched, sum {sum}\n")),
            "{run}"
        );
    }
}

#[test]
fn a_kick_tells_where_its_driver_has_come_to() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let bytes = pattern(128 * 512);
    let sum: u64 = bytes.iter().step_by(512).map(|byte| u64::from(*byte)).sum();
    let disk = format!("{}:ro", folder.file("disk", bytes).display());
    for option in [None, Some("--packed")] {
        let chiton = Chiton::new().args(["run", "--exits"]).args(option);
        // More than the queue has descriptors: round the ring, and the wrap counter the other way.
        let guest = chiton
            .args(["--disk", &disk])
            .guest("disk")
            .args(["notify", "0", "128"]);
        let run = guest.run();
        run.assert_status(0);
        assert_eq!(run.stdout_text(), format!("128 kicks, sum {sum}\n"), "{run}");
        // None by doorbell but the console's: the register takes the data. The device finds nothing wrong in them.
        assert!(
            run.exits("MMIO write") >= 128 && run.exits("doorbell kick") < 8,
            "{run}"
        );
        assert!(!run.stderr_text().contains("where its driver has not come to"), "{run}");
    }
}

#[test]
fn what_the_guest_writes_is_in_the_file() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    // Several requests, the last of them short.
    let disk = folder.file("disk", vec![0; (1 << 20) + 512]);
    let path = disk.to_str().expect("utf-8");
    let run = Chiton::new()
        .args(["run", "--disk", path])
        .guest("fill")
        .args(["chiton!"])
        .run();
    run.assert_status(0);
    assert!(run.stdout_text().starts_with("1049088 bytes written"), "{run}");
    let written = std::fs::read(&disk).expect("the file is there");
    assert_eq!(written.len(), 1_049_088);
    let wrong = written
        .iter()
        .zip(b"chiton!".iter().cycle())
        .position(|(found, expected)| found != expected);
    assert_eq!(wrong, None, "the first byte that is not the pattern's");
    assert!(disk_is_free(&disk));

    let read_only = format!("{path}:ro");
    let run = Chiton::new()
        .args(["run", "--disk", &read_only])
        .guest("fill")
        .args(["other"])
        .run();
    run.assert_status(1).assert_says("read-only");
    assert!(std::fs::read(&disk).expect("the file is there") == written);
}

#[test]
fn a_flush_reaches_the_medium() {
    if !kvm_works() {
        return;
    }
    let trace = std::process::Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .output();
    if !trace.is_ok_and(|trace| trace.status.success()) {
        skip("strace", "it is not installed, or may not trace");
        return;
    }
    let folder = Folder::new();
    let (disk, calls) = (folder.file("disk", [0; 4096]), folder.path("calls"));
    let mut command = std::process::Command::new("strace");
    command
        .args(["-f", "-y", "-e", "trace=fdatasync,fsync", "-o"])
        .arg(&calls);
    command
        .arg(chiton_tests::chiton_path())
        .args(["run", "--disk"])
        .arg(&disk);
    let output = command
        .arg(guest_path("fill"))
        .arg("x")
        .output()
        .expect("strace starts");
    assert!(output.status.success(), "{output:?}");
    let calls = std::fs::read_to_string(calls).expect("strace wrote it");
    let disk = disk.to_str().expect("utf-8");
    let synced = calls
        .lines()
        .any(|call| call.contains("sync(") && call.contains(disk) && call.trim_end().ends_with("= 0"));
    assert!(synced, "{calls}");
}

#[test]
fn two_instances_share_a_disk_only_to_read_it() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = folder.file("disk", [0; 4096]);
    let path = disk.to_str().expect("an ordinary path");
    let read_only = format!("{path}:ro");
    let hold = |disk: &str| {
        let mut child = Chiton::new().args(["run", "--disk", disk]).guest("cat").spawn();
        // Its echo shows that it runs, and so that it has locked the disk.
        std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), b"x\n").expect("cat reads");
        let mut byte = [0];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut byte).expect("cat answers");
        child
    };
    let release = |mut child: Running| {
        drop(child.stdin.take());
        chiton_tests::finish(child).assert_status(0);
    };

    let holder = hold(&read_only);
    Chiton::new()
        .args(["run", "--disk", &read_only])
        .guest("hello")
        .run()
        .assert_status(0);
    Chiton::new()
        .args(["run", "--disk", path])
        .guest("hello")
        .run()
        .assert_refused("in use by another instance");
    release(holder);

    let holder = hold(path);
    Chiton::new()
        .args(["run", "--disk", &read_only])
        .guest("hello")
        .run()
        .assert_refused("in use by another instance");
    release(holder);
    Chiton::new()
        .args(["run", "--disk", path])
        .guest("hello")
        .run()
        .assert_status(0);
}

#[test]
fn disks_that_cannot_be_used_are_refused_with_what_to_do() {
    let folder = Folder::new();
    let refuse = |disk: &str, words: &str| {
        Chiton::new()
            .args(["run", "--disk", disk])
            .guest("hello")
            .run()
            .assert_refused(words);
    };
    refuse(
        folder.path("none").to_str().expect("utf-8"),
        "does not exist: make it with `truncate",
    );
    refuse(
        folder.file("odd", [0; 1000]).to_str().expect("utf-8"),
        "not a multiple of 512",
    );
    refuse(folder.file("empty", []).to_str().expect("utf-8"), "is empty");
    refuse("/dev/null", "is not a regular file or block device");
    refuse(
        folder.path("").to_str().expect("utf-8"),
        "is not a regular file or block device",
    );
}

#[test]
fn a_disk_without_permission_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let disk = folder.file("disk", [0; 512]);
    std::fs::set_permissions(&disk, std::fs::Permissions::from_mode(0o000)).expect("own file");
    // Root may read anything, so the test becomes somebody else where it can.
    let run = if chiton_tests::is_root() {
        let bin = folder.program(&chiton_tests::chiton_path(), "chiton");
        let guest = folder.path("guest");
        std::fs::copy(guest_path("hello"), &guest).expect("a copy anybody may read");
        std::fs::set_permissions(&guest, std::fs::Permissions::from_mode(0o644)).expect("own file");
        use std::os::unix::process::CommandExt;
        std::process::Command::new(bin)
            .args(["run", "--no-jail", "--disk", disk.to_str().expect("utf-8")])
            .arg(guest)
            .uid(65534)
            .gid(65534)
            .output()
            .expect("chiton starts")
    } else {
        std::process::Command::new(chiton_tests::chiton_path())
            .args(["run", "--no-jail", "--disk", disk.to_str().expect("utf-8")])
            .arg(guest_path("hello"))
            .output()
            .expect("chiton starts")
    };
    assert_eq!(run.status.code(), Some(125));
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(
        said.contains("cannot open the disk") && said.contains("Permission denied"),
        "{said}"
    );
}

#[test]
fn a_guest_that_needs_a_disk_is_refused_without_one() {
    Chiton::new()
        .args(["run"])
        .guest("sha256")
        .run()
        .assert_refused("add --disk PATH");
}

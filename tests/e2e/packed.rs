//! Guests whose queues are packed (virtio 1.3 section 2.8), on both sides and to the end.

use std::path::Path;

use chiton_tests::{Chiton, Folder, Run, finish, kvm_works};

use crate::vsock::{call, connected};

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// What a guest with these options and packed queues makes of these arguments and this input.
fn run(options: &[&str], guest: &str, args: &[&str], input: &[u8]) -> Run {
    let chiton = Chiton::new().args(["run", "--packed"]).args(options);
    let run = chiton.guest(guest).args(args).stdin(input).run();
    run.assert_status(0);
    run
}

#[test]
fn a_guest_has_packed_queues_only_if_it_is_told_to() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = folder.file("disk", [7; 4096]);
    for (option, said) in [(None, "split\n"), (Some("--packed"), "packed\n")] {
        let run = Chiton::new()
            .args(["run", "--disk", text(&disk)])
            .args(option)
            .guest("disk")
            .args(["queues"])
            .run();
        run.assert_status(0);
        assert_eq!(run.stdout_text(), said, "{run}");
    }
}

#[test]
fn the_console_the_disk_and_a_folder_work_by_packed_queues() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    // Many times what a queue holds, so that the rings go round.
    let input: Vec<_> = (0..300_000_u32).map(|i| b'a' + (i / 7 % 23) as u8).collect();
    assert!(
        run(&[], "cat", &[], &input).stdout == input,
        "the console gives back another text"
    );

    let disk = folder.file("disk", vec![0x5A; 4 << 20]);
    let with_disk = ["--disk", &format!("{}:ro", text(&disk))];
    let deep = run(&with_disk, "diskbench", &["4000", "32"], &[]).stdout_text();
    let exits = deep.split(", ").last().and_then(|last| last.split(' ').next());
    let exits: u64 = exits.and_then(|count| count.parse().ok()).expect("a count of exits");
    assert!(exits < 50, "{deep}");
    let digest = |options: &[&str]| {
        let chiton = Chiton::new().args(["run"]).args(options).args(with_disk);
        let run = chiton.guest("compare-disk").args(["virtio", "digest", "0"]).run();
        run.assert_status(0);
        run.stdout_text().lines().next().map(str::to_owned)
    };
    assert_eq!(digest(&["--packed"]), digest(&[]));

    let shared = folder.path("shared");
    std::fs::create_dir(&shared).expect("a folder");
    std::fs::write(shared.join("one"), "nothing\na needle here\n").expect("a file");
    let found = run(&["--folder", text(&shared)], "grep", &["needle"], &[]).stdout_text();
    assert!(found.ends_with("one:2:a needle here\n"), "{found}");
}

#[test]
fn functions_are_called_over_packed_queues_with_one_exit_each() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let socket = folder.path("socket");
    let options = ["run", "--packed", "--exits", "--vsock", text(&socket)];
    let guest = Chiton::new().args(options).guest("rpc").args(["5000", "1"]).spawn();
    let mut stream = connected(&socket, 5000);
    for i in 0..400_u64 {
        let argument = [i.to_le_bytes(), 7_u64.to_le_bytes()].concat();
        assert_eq!(call(&mut stream, 1, &argument), (i + 7).to_le_bytes());
    }
    drop(stream);
    let run = finish(guest);
    run.assert_status(0);
    let exits = run.exits("all");
    assert!(exits < 400 * 3 / 2 + 40, "{exits} exits for 400 calls\n{run}");
}

//! Guests whose queues are packed (virtio 1.3 section 2.8), on both sides and to the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use chiton_tests::{Chiton, Folder, PATIENCE, Run, Tap, finish, kvm_works, signal, slow};

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

/// The next line of a guest's output.
fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).expect("text");
    line
}

#[test]
fn a_network_works_by_packed_queues_of_one_pair_and_of_several() {
    let Some(tap) = kvm_works().then(Tap::of_several_queues).flatten() else {
        return;
    };
    let len = if slow() { 1 << 20 } else { 8 << 20 };
    for queues in [1, 2] {
        let net = format!("{},queues={queues}", tap.option());
        let guest = Chiton::new().args(["run", "--packed", "--net", &net]).guest("httpd");
        let mut running = guest.spawn();
        let mut output = BufReader::new(running.stdout.take().expect("a pipe"));
        assert!(line(&mut output).starts_with("http://"));
        // More frames than a queue has descriptors, either way.
        for bytes in [1, len] {
            let mut client = TcpStream::connect((tap.guest(), 80)).expect("a connection");
            client.set_read_timeout(Some(PATIENCE)).expect("a time");
            write!(client, "GET /bytes/{bytes} HTTP/1.0\r\n\r\n").expect("it reads");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).expect("an answer");
            assert!(answer.ends_with(b"\r\n\r\nx") == (bytes == 1) && answer.len() > bytes);
        }
        signal(&running, libc::SIGTERM);
        finish(running).assert_status(128 + libc::SIGTERM);
    }
}

#[test]
fn the_balloon_and_a_port_work_by_packed_queues() {
    if !kvm_works() {
        return;
    }
    let steps = [b'\n'; 8];
    let said = run(&["--memory", "48M", "--balloon=32M"], "balloon", &["16"], &steps).stdout_text();
    assert!(said.ends_with("rescued\n"), "{said}");

    let folder = Folder::new();
    let socket = folder.path("socket");
    let port = format!("echo={}", text(&socket));
    let guest = Chiton::new().args(["run", "--packed", "--port", &port]).guest("ports");
    let mut running = guest.args(["echo", "echo"]).spawn();
    let mut output = BufReader::new(running.stdout.take().expect("a pipe"));
    assert_eq!(line(&mut output), "open\n");
    let mut client = UnixStream::connect(&socket).expect("a port");
    client.set_read_timeout(Some(PATIENCE)).expect("a time");
    // More than the queue has buffers for, one answer after the other.
    for i in 0..200_u8 {
        client.write_all(&[i; 100]).expect("it reads");
        let mut back = [0; 100];
        client.read_exact(&mut back).expect("an answer");
        assert_eq!(back, [i; 100]);
    }
    drop(client);
    finish(running).assert_status(0);
}

//! A guest for each device, in a jail: its filter of system calls allows all that it takes, and no more.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use chiton_tests::{Chiton, Folder, PATIENCE, Record, Run, finish, finish_unread, guest_path, kvm_works, signal_late};

use crate::vsock::{call, connected};

/// Where instances are recorded, and files that guests are given.
struct Place(Folder);

impl Place {
    fn new() -> Self {
        Self(Folder::new())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs a guest in a jail, which must not die of its filter.
    fn run(&self, options: &[&str], guest: &str, args: &[&str]) -> Run {
        let chiton = Chiton::new().jailed(&self.path("home"));
        let run = chiton
            .args(["run", "--rm", "--timeout", "100s"])
            .args(options)
            .guest(guest)
            .args(args)
            .run();
        assert!(!run.stderr_text().contains("SIGSYS"), "{run}");
        run
    }
}

/// Whether jails can be made here as root makes them; if not, says so.
fn jails_work() -> bool {
    // SAFETY: geteuid always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIPPED: not root");
        return false;
    }
    kvm_works()
}

#[test]
fn disks_are_read_written_and_erased_in_a_jail() {
    if !jails_work() {
        return;
    }
    let place = Place::new();
    let disk = place.0.file("disk", vec![7; 1 << 20]).display().to_string();
    for options in [&["--disk", &disk][..], &["--io-thread", "--disk", &disk]] {
        for what in ["read", "write", "discard", "zero", "unmap"] {
            place.run(options, "disk", &[what, "8", "64"]).assert_status(0);
        }
    }
    let bytes = fs::read(place.path("disk")).expect("the disk is there");
    assert_eq!(bytes.len(), 1 << 20);
    assert!(
        bytes[8 << 9..72 << 9].iter().all(|byte| *byte == 0),
        "it was not erased"
    );
    assert!(bytes[72 << 9..].iter().all(|byte| *byte == 7), "more was erased");
}

#[test]
fn folders_are_listed_written_and_changed_in_a_jail() {
    if !jails_work() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("shared")).expect("a new folder");
    let folder = format!("{}:rw", place.text("shared"));
    let options = ["--folder", folder.as_str()];
    for args in [
        &["write", "/shared/one", "text"][..],
        &["mkdir", "/shared/sub"],
        &["rename", "/shared/one", "/shared/two"],
        &["write", "/shared/gone", "text"],
        &["remove", "/shared/gone"],
        &["list", "/shared"],
    ] {
        place.run(&options, "files", args).assert_status(0);
    }
    // A folder is known by its name, however its path is written.
    let roundabout = format!("{}/sub/..", place.text("shared"));
    let found = place.run(&["--folder", &roundabout], "files", &["list", "/shared"]);
    found.assert_status(0);
    assert!(found.stdout_text().contains("two"), "{found}");
    let text = fs::read_to_string(place.path("shared/two")).expect("what was written");
    assert!(text.starts_with("text"), "{text}");
    assert!(place.path("shared/sub").is_dir() && !place.path("shared/gone").exists());
}

#[test]
fn processors_interrupts_and_balloons_work_in_a_jail() {
    if !jails_work() {
        return;
    }
    let place = Place::new();
    place.run(&["--cpus", "2", "--exits"], "parallel", &["2"]);
    place.run(&["--exits"], "interrupts", &["timer"]);
    place.run(&["--balloon=1M"], "hello", &[]).assert_status(0);
}

/// The kick that ends it goes to a thread whose number is another one in the jail.
#[test]
fn a_guest_that_spins_is_stopped_in_a_jail() {
    if !jails_work() {
        return;
    }
    let place = Place::new();
    let chiton = Chiton::new().jailed(&place.path("home"));
    let run = chiton
        .args(["run", "--rm", "--timeout", "300ms"])
        .guest("fault")
        .args(["loop"])
        .run();
    run.assert_says("did not end within");
    assert!(!run.status.success(), "{run}");
}

/// The host's sockets are out of reach, and the filter makes none: the supervisor connects for the guest.
#[test]
fn a_guest_in_a_jail_calls_the_host_and_is_refused_where_nobody_listens() {
    if !jails_work() {
        return;
    }
    let place = Place::new();
    let socket = place.text("vsock");
    let listener = UnixListener::bind(place.path("vsock_9")).expect("a new socket");
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the guest comes");
        let mut question = String::new();
        stream.read_to_string(&mut question).expect("its question, to the end");
        // The other direction is still open.
        stream.write_all(b"the host").expect("an answer");
        question
    });
    let run = place.run(&["--vsock", &socket], "sockets", &["call", "9", "who is there?"]);
    run.assert_status(0);
    assert_eq!(run.stdout_text(), "the host\n");
    assert_eq!(host.join().expect("it was called"), "who is there?");
    place
        .run(&["--vsock", &socket], "sockets", &["call", "99", "hello"])
        .assert_status(1)
        .assert_says("nobody on the host listens at port 99");
    assert!(!place.path("vsock").exists());
}

#[test]
fn the_host_calls_functions_of_a_guest_in_a_jail() {
    if !jails_work() {
        return;
    }
    let place = Place::new();
    let socket = place.path("vsock");
    let guest = Chiton::new()
        .jailed(&place.path("home"))
        .args(["run", "--rm", "--vsock", &place.text("vsock")])
        .guest("rpc")
        .args(["5000", "1"])
        .spawn();
    let mut stream = connected(&socket, 5000);
    assert_eq!(call(&mut stream, 2, b"the same"), b"the same");
    drop(stream);
    finish(guest).assert_status(0);
    assert!(!socket.exists());
}

/// What one that was killed cannot remove, the next command does; and nothing that is not its own.
#[test]
fn sockets_of_a_supervisor_that_was_killed_are_removed_by_the_next_command() {
    if !jails_work() {
        return;
    }
    let place = Place::new();
    let record = Record::new([]);
    let ours = ["vsock", "control", "port", "taken"].map(|name| place.path(name));
    // One that ends as it should.
    let rpc = guest_path("rpc").display().to_string();
    start(&record, "first", &ours, &[&rpc, "5000", "1"]);
    record.ok(&["wait", "first"]);
    assert!(ours.iter().all(|path| !path.exists()), "{:?}", place.0.names());
    let supervisor = start(&record, "second", &ours, &[&rpc, "5000", "2"]);
    // SAFETY: no memory is involved; the process is the supervisor that was just started.
    assert_eq!(unsafe { libc::kill(supervisor, libc::SIGKILL) }, 0);
    // Nobody listens any more when the guest is gone, too.
    let begun = Instant::now();
    while UnixStream::connect(&ours[0]).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it lives");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(ours.iter().all(|path| path.exists()));
    // By now another has one of the places.
    fs::remove_file(&ours[3]).expect("it is there");
    let other = UnixListener::bind(&ours[3]).expect("a new socket");
    record.ok(&["ps", "--all"]);
    record.ok(&["prune"]);
    assert_eq!(place.0.names(), ["taken"]);
    drop(other);
}

/// Starts a guest with these sockets, and has it serve one stream; its supervisor.
fn start(record: &Record, name: &str, sockets: &[PathBuf; 4], guest: &[&str]) -> i32 {
    let [vsock, control, port, taken] = sockets.each_ref().map(|path| path.display().to_string());
    let (port, taken) = (format!("log={port}"), format!("taken={taken}"));
    let run = ["run", "-d", "--name", name, "--vsock", &vsock, "--control", &control];
    record.ok(&[&run[..], &["--port", &port, "--port", &taken], guest].concat());
    let supervisor = record.ok(&["inspect", "--format", "{{.State.supervisor}}", name]);
    drop(connected(&sockets[0], 5000));
    supervisor.parse().expect("a process")
}

/// Faults are explained from inside too: the report is written after the guest is dead.
#[test]
fn faults_are_explained_from_a_jail() {
    if !jails_work() {
        return;
    }
    let place = Place::new();
    for cause in ["null-read", "panic", "exit"] {
        let run = place.run(&[], "fault", &[cause]);
        assert!(!run.status.success(), "{run}");
    }
}

/// Between the guest and the reader stands a supervisor, which is not to make a difference.
#[test]
fn what_becomes_of_its_output_is_a_jailed_guests_own_affair() {
    if !jails_work() {
        return;
    }
    let place = Place::new();
    let run = |options: &[&str], guest: &str, args: &[&str]| {
        let chiton = Chiton::new().jailed(&place.path("home"));
        chiton.args(["run", "--rm"]).args(options).guest(guest).args(args)
    };
    // A reader that has seen enough.
    let mut child = run(&[], "hostile", &["flood", "1", "1000000000"]).spawn();
    let mut output = child.stdout.take().expect("a pipe");
    output.read_exact(&mut [0; 100]).expect("it talks");
    drop(output);
    finish(child).assert_status(141);
    // A disk that is full.
    let full = fs::File::options().write(true).open("/dev/full").expect("a device");
    let full = run(&[], "hello", &[]).stdout(full).run();
    full.assert_status(125).assert_says("No space left");
    // A reader that does not read: in the end, and all the time. A signal does not wait for it either.
    for args in [["flood", "1", "300000"], ["flood", "1", "1000000000"]] {
        let child = run(&["--timeout", "500ms"], "hostile", &args).spawn();
        finish_unread(child).assert_status(124);
    }
    let child = run(&[], "hostile", &["flood", "1", "1000000000"]).spawn();
    signal_late(&child, libc::SIGTERM, std::time::Duration::from_millis(200));
    finish_unread(child).assert_status(143);
    // One that reads late.
    let child = run(&[], "fill", &[".", "300000"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let late = finish(child);
    late.assert_status(0);
    assert!(late.stdout == [b'.'; 300_000], "{} bytes", late.stdout.len());
}

//! A guest for each device, in a jail: its filter of system calls allows all that it takes, and no more.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use chiton_tests::{Chiton, Folder, Run, finish, finish_unread, kvm_works, signal_late};

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
    place.run(&["--cpus", "2", "--exits"], "parallel", &[]);
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

/// The host's socket is out of reach, and so the filter has no sockets: the guest hears no.
#[test]
fn a_guest_that_calls_the_host_from_a_jail_is_refused_and_lives() {
    if !jails_work() {
        return;
    }
    let place = Place::new();
    let socket = place.text("vsock");
    let listener = std::os::unix::net::UnixListener::bind(place.path("vsock_9")).expect("a new socket");
    let run = place.run(&["--vsock", &socket], "sockets", &["call", "9", "hello"]);
    run.assert_status(1);
    listener.set_nonblocking(true).expect("a socket");
    assert!(listener.accept().is_err(), "it reached the host");
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

//! What chiton says on standard error, and that nobody need listen.

use chiton_tests::{Chiton, Folder, finish, finish_unread, kvm_works};

#[test]
fn a_log_line_has_its_guests_name_and_no_control_characters_but_tabs() {
    if !kvm_works() {
        return;
    }
    // Lines of random bytes, of every level.
    let run = Chiton::new()
        .args(["-vvv", "run"])
        .guest("hostile")
        .args(["mailbox", "1", "50"])
        .run();
    run.assert_status(0);
    let said = std::str::from_utf8(&run.stderr).expect("text");
    let (log, _timeline) = said.split_once("\n\nphase ").expect("a timeline behind the log");
    let log: Vec<_> = log.lines().collect();
    assert!(log.len() > 10, "{} lines: {run}", log.len());
    for line in log {
        assert!(line.starts_with("hostile: "), "{line:?}");
        let control = line.chars().find(|char| char.is_control() && *char != '\t');
        assert_eq!(control, None, "{line:?}");
    }
}

#[test]
fn only_warnings_and_errors_of_a_guest_are_heard_unless_asked_for() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    // A file takes every line at once; of a pipe that is full lines are left out.
    let heard = |options: &[&str]| {
        let file = folder.path("stderr");
        let run = Chiton::new()
            .args(options)
            .guest("hostile")
            .args(["mailbox", "1", "50"])
            .stderr(std::fs::File::create(&file).expect("a new file"))
            .run();
        run.assert_status(0);
        let text = std::fs::read(&file).expect("the file is there");
        let text = String::from_utf8_lossy(&text).into_owned();
        ["error", "warning", "info", "debug", "trace"].map(|level| text.contains(&format!("hostile: {level}: ")))
    };
    assert_eq!(heard(&["run"]), [true, true, false, false, false]);
    assert_eq!(heard(&["-v", "run"]), [true, true, true, false, false]);
    assert_eq!(heard(&["-vvv", "run"]), [true; 5]);
}

#[test]
fn nobody_need_listen() {
    let status = |options: &[&str], guest: &str, args: &[&str], status: i32| {
        let mut child = Chiton::new().args(options).guest(guest).args(args).spawn();
        drop(child.stderr.take());
        drop(child.stdin.take());
        finish(child).assert_status(status);
    };
    status(&["run", "--memory", "1M"], "hello", &[], 125);
    status(&["run", "--colour"], "hello", &[], 125);
    if !kvm_works() {
        return;
    }
    status(&["-v", "run", "--exits"], "hello", &[], 0);
    status(&["run"], "fault", &["panic"], 101);
    status(&["run"], "fault", &["divide"], 102);
    status(&["run", "--timeout", "300ms"], "fault", &["loop"], 124);
    status(&["run"], "hostile", &["mailbox", "1", "50"], 0);
}

#[test]
fn a_listener_that_falls_asleep_holds_nothing_up() {
    if !kvm_works() {
        return;
    }
    // More log than goes into a pipe.
    let child = Chiton::new()
        .args(["run", "--timeout", "1s"])
        .guest("hostile")
        .args(["mailbox", "1", "100000000"])
        .spawn();
    finish_unread(child).assert_status(124);
}

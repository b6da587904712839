//! However a guest ends, the shell learns of it.

use std::io::{BufRead, BufReader, Read, Write};

use chiton_tests::{Chiton, Folder, Running, disk_is_free, finish, finish_unread, kvm_works, signal, signal_late};

/// A `cat` that has shown that it runs.
fn running_cat(chiton: Chiton) -> Running {
    let mut child = chiton.guest("cat").spawn();
    assert_alive(&mut child);
    child
}

/// Checks that a `cat` echoes.
fn assert_alive(child: &mut Running) {
    child
        .stdin
        .as_mut()
        .expect("a pipe")
        .write_all(b"alive\n")
        .expect("cat reads");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe").by_ref().take(6))
        .read_line(&mut line)
        .expect("cat answers");
    assert_eq!(line, "alive\n");
}

#[test]
fn a_signal_ends_the_guest_cleanly() {
    if !kvm_works() {
        return;
    }
    for (number, name) in [
        (libc::SIGINT, "SIGINT"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGHUP, "SIGHUP"),
    ] {
        let folder = Folder::new();
        let disk = folder.file("disk", [0; 512]);
        let child = running_cat(Chiton::new().args(["run".as_ref(), "--disk".as_ref(), disk.as_os_str()]));
        assert!(!disk_is_free(&disk), "the guest has it");
        signal(&child, number);
        let run = finish(child);
        run.assert_status(128 + number).assert_says(name);
        assert!(disk_is_free(&disk));
    }
}

#[test]
fn a_signal_that_the_parent_ignores_is_ignored() {
    if !kvm_works() {
        return;
    }
    for number in [libc::SIGHUP, libc::SIGINT] {
        let mut child = running_cat(Chiton::new().args(["run"]).ignoring(number));
        signal(&child, number);
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_alive(&mut child);
        drop(child.stdin.take());
        finish(child).assert_status(0);
    }
}

#[test]
fn a_signal_ends_a_guest_that_never_comes_out() {
    if !kvm_works() {
        return;
    }
    let child = Chiton::new().args(["run"]).guest("fault").args(["loop"]).spawn();
    signal_late(&child, libc::SIGINT, std::time::Duration::from_millis(300));
    finish(child).assert_status(130);
}

#[test]
fn a_signal_ends_a_guest_whose_output_nobody_reads() {
    if !kvm_works() {
        return;
    }
    let child = Chiton::new()
        .args(["run"])
        .guest("hostile")
        .args(["flood", "1", "1000000000"])
        .spawn();
    signal_late(&child, libc::SIGTERM, std::time::Duration::from_millis(300));
    // Only now is its output read, so it had filled the pipe.
    finish(child).assert_status(143);
}

#[test]
fn a_guest_whose_reader_is_gone_ends_as_by_sigpipe() {
    if !kvm_works() {
        return;
    }
    let mut child = Chiton::new()
        .args(["run"])
        .guest("hostile")
        .args(["flood", "1", "1000000000"])
        .spawn();
    let mut some = [0; 100];
    child
        .stdout
        .as_mut()
        .expect("a pipe")
        .read_exact(&mut some)
        .expect("it talks");
    drop(child.stdout.take());
    finish(child).assert_status(141);
}

#[test]
fn a_hang_ends_at_its_timeout_with_the_place() {
    if !kvm_works() {
        return;
    }
    // A busy machine may take longer to get to that place.
    for limit in ["300ms", "5s", "60s"] {
        let run = Chiton::new()
            .args(["run", "--timeout", limit])
            .guest("fault")
            .args(["loop"])
            .run();
        run.assert_status(124)
            .assert_says(&format!("did not end within {limit}"));
        if run.stderr_text().contains("spin") {
            return;
        }
        println!("not there yet: {run}");
    }
    panic!("the place is not told");
}

#[test]
fn a_guest_that_sleeps_ends_at_its_timeout_too() {
    if !kvm_works() {
        return;
    }
    let mut child = Chiton::new().args(["run", "--timeout", "300ms"]).guest("cat").spawn();
    let held = child.stdin.take();
    finish(child).assert_status(124);
    drop(held);
}

#[test]
fn a_guest_that_ends_in_time_does_not_notice_its_timeout() {
    if !kvm_works() {
        return;
    }
    Chiton::new()
        .args(["run", "--timeout", "60s"])
        .guest("hello")
        .run()
        .assert_status(0);
}

#[test]
fn a_timeout_ends_a_hang_though_the_parent_blocks_signals() {
    if !kvm_works() {
        return;
    }
    Chiton::new()
        .all_signals_blocked()
        .args(["run", "--timeout", "300ms"])
        .guest("fault")
        .args(["loop"])
        .run()
        .assert_status(124);
}

/// A guest that ends at once, with more output than goes into the pipe that nobody reads.
fn ended_with_output_to_spare(options: &[&str]) -> Running {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
    // SAFETY: the descriptor is open; no memory is involved.
    let size = unsafe { libc::fcntl(fd, libc::F_SETPIPE_SZ, 4096) };
    assert!((4096..60_000).contains(&size), "a small pipe: {size}");
    let mut child = Chiton::new()
        .args(["run"])
        .args(options)
        .guest("fill")
        .args([".", "60000"])
        .stdout(writer)
        .spawn();
    child.stdout = Some(std::os::fd::OwnedFd::from(reader).into());
    child
}

#[test]
fn a_timeout_ends_a_run_whose_last_output_nobody_reads() {
    if !kvm_works() {
        return;
    }
    finish_unread(ended_with_output_to_spare(&["--timeout", "500ms"])).assert_status(124);
}

#[test]
fn the_last_output_is_all_there_for_a_reader_that_comes_late() {
    if !kvm_works() {
        return;
    }
    let child = ended_with_output_to_spare(&[]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let run = finish(child);
    run.assert_status(0);
    assert!(run.stdout == [b'.'; 60_000], "{} bytes", run.stdout.len());
}

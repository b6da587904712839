//! Processes come in, stand still, and die; and nothing is left.

use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use chiton_container::cgroup::{Cgroup, Error, Host, Limits, Parent, Place};

use crate::bed::{BUSY, on_each, shell, until};

/// Whether `/proc/PID/cgroup` names the cgroup's path in every hierarchy that it is in.
fn is_inside(pid: u32, group: &Cgroup, parent: &str) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = format!("/{parent}/{}", group.name());
    text.lines().filter(|line| line.ends_with(&path)).count() == group.paths().count()
}

#[test]
fn a_command_starts_inside_and_a_running_process_can_be_moved() {
    on_each(|bed| {
        let group = bed.group("in", &Limits::default());
        let mut enclosed = shell(&group, "exec sleep 1000");
        assert!(is_inside(enclosed.id(), &group, bed.parent.name()));
        let mut moved = Command::new("sleep").arg("1000").spawn().unwrap();
        group.place(moved.id().try_into().unwrap()).unwrap();
        assert!(is_inside(moved.id(), &group, bed.parent.name()));
        assert_eq!(group.processes().unwrap().len(), 2);
        group.remove().unwrap();
        assert_eq!(enclosed.wait().unwrap().signal(), Some(9));
        assert_eq!(moved.wait().unwrap().signal(), Some(9));
    });
}

#[test]
fn clone3_goes_straight_into_the_v2_directory() {
    on_each(|bed| {
        let group = bed.group("cloned", &Limits::default());
        let Some(fd) = group.fd() else {
            group.remove().unwrap();
            return;
        };
        let door = group.door_after_clone().unwrap();
        // SAFETY: all zeroes is a valid clone_args: no flags, no pointers.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        // `libc::CLONE_INTO_CGROUP` is too narrow for its value (linux/sched.h). No descriptors of its own: other
        // tests wait for those to be closed.
        args.flags = 0x2_0000_0000 | libc::CLONE_FILES as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        args.cgroup = fd.as_raw_fd() as u64;
        // SAFETY: the arguments are valid for the call. The child has a copy of all memory, and only
        // makes system calls until it is killed.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
        if pid == 0 {
            let status = i32::from(door.enter().is_err());
            loop {
                // SAFETY: no call touches memory; the child never returns from here, and ends with the
                // test at the latest.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    if status != 0 {
                        libc::_exit(status);
                    }
                    libc::pause();
                }
            }
        }
        assert!(pid > 0, "{}", std::io::Error::last_os_error());
        let pid = pid as u32;
        until("the door", || is_inside(pid, &group, bed.parent.name()));
        group.remove().unwrap();
        let mut status = 0;
        // SAFETY: `status` is valid for writing; the child is ours and nobody else waits for it.
        let waited = unsafe { libc::waitpid(pid as i32, &raw mut status, 0) };
        assert_eq!((waited, libc::WTERMSIG(status)), (pid as i32, 9));
    });
}

#[test]
fn what_is_frozen_makes_no_progress_until_it_thaws() {
    on_each(|bed| {
        let group = bed.group("ice", &Limits::default());
        let mut child = shell(&group, BUSY);
        let usage = || group.stats().unwrap().cpu.unwrap().usage_usec;
        until("a start", || usage() > 10_000);
        group.freeze().unwrap();
        // A process counts as frozen just before it gives the processor away for good.
        let frozen = std::cell::Cell::new(usage());
        until("a stand", || {
            // Time that it would have used.
            std::thread::sleep(std::time::Duration::from_millis(200));
            let before = frozen.replace(usage());
            before == frozen.get()
        });
        group.thaw().unwrap();
        until("progress", || usage() > frozen.get() + 1_000);
        group.remove().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn kill_takes_all_even_frozen_and_forked_ones() {
    on_each(|bed| {
        let group = bed.group("many", &Limits::default());
        let mut child = shell(&group, "for i in 1 2 3 4 5; do (while :; do :; done) & done; wait");
        until("five", || group.processes().unwrap().len() == 6);
        group.freeze().unwrap();
        group.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        until("all to be gone", || group.processes().unwrap().is_empty());
        group.remove().unwrap();
    });
}

#[test]
fn cgroups_that_the_jailed_made_are_removed_too() {
    on_each(|bed| {
        let group = bed.group("deep", &Limits::default());
        for path in group.paths() {
            std::fs::create_dir_all(path.join("a/b")).unwrap();
        }
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let first = group.paths().next().unwrap();
        std::fs::write(first.join("a/b/cgroup.procs"), child.id().to_string()).unwrap();
        assert_eq!(group.processes().unwrap(), [child.id() as i32]);
        group.remove().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    });
}

#[test]
fn a_name_in_use_is_refused_and_a_missing_one_is_named() {
    on_each(|bed| {
        let group = bed.group("one", &Limits::default());
        let error = Cgroup::create(&bed.parent, "one", &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::InUse(_)), "{error}");
        assert!(group.paths().all(std::path::Path::exists));
        group.remove().unwrap();
        let error = Cgroup::open(&bed.parent, "one").unwrap_err();
        assert!(matches!(error, Error::Missing(_)), "{error}");
        let error = Cgroup::create(&bed.parent, "../one", &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::Name(_)), "{error}");
    });
}

/// Not a test by itself: makes a cgroup with a process in it, says so, and waits to be killed.
#[test]
#[ignore = "started by the test of the sweep"]
fn maker() {
    let Some(parent) = std::env::var_os("CHITON_TEST_PARENT") else {
        return;
    };
    let host = match std::env::var_os("CHITON_TEST_V1") {
        Some(_) => {
            let mut host = Host::read().unwrap();
            host.hierarchies
                .retain(|hierarchy| hierarchy.version == chiton_container::cgroup::Version::V1);
            host
        }
        None => Host::read().unwrap(),
    };
    let parent = Parent::open(&host, &Place::Auto, parent.to_str().unwrap()).unwrap();
    let group = Cgroup::create(&parent, "orphan", &Limits::default()).unwrap();
    let mut child = shell(&group, "exec sleep 1000");
    println!("\nmade {}", child.id());
    child.wait().unwrap();
}

#[test]
fn a_killed_makers_cgroup_is_swept_and_a_living_ones_is_not() {
    on_each(|bed| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "processes::maker", "--nocapture"])
            .env("CHITON_TEST_PARENT", bed.parent.name())
            .stdout(Stdio::piped());
        if Host::read().unwrap() != bed.host {
            command.env("CHITON_TEST_V1", "1");
        }
        let mut maker = command.spawn().unwrap();
        let made = BufReader::new(maker.stdout.take().unwrap())
            .lines()
            .find_map(|line| line.unwrap().strip_prefix("made ").map(str::to_owned));
        assert!(made.is_some(), "the maker made one");

        assert_eq!(bed.parent.sweep().unwrap(), [], "its maker lives");
        maker.kill().unwrap();
        maker.wait().unwrap();
        let [swept] = bed.parent.sweep().unwrap().try_into().unwrap();
        assert_eq!((swept.name.as_str(), swept.killed), ("orphan", 1));
        assert_eq!(bed.parent.sweep().unwrap(), []);
    });
}

#[test]
fn a_dead_ones_name_can_be_taken() {
    on_each(|bed| {
        for directory in bed.parent.directories() {
            std::fs::create_dir(directory.join("left")).unwrap();
        }
        let group = bed.group("left", &Limits::default());
        group.remove().unwrap();
        // Where this one was not needed it is still the dead one's.
        bed.parent.sweep().unwrap();
    });
}

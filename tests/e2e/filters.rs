//! The filters of system calls that the threads of a jailed machine have: what somebody cannot call who has taken one
//! over, and what its user is told then.

use std::fs;
use std::time::Instant;

use chiton_tests::{Chiton, Folder, PATIENCE, finish, is_root, kvm_works, nap};

/// Has a thread of another process make a system call, as somebody would who has taken it over.
///
/// # Panics
///
/// If the thread is not there, or must not be traced.
fn make_call(thread: i32, call: i64, arguments: [u64; 3]) {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: an all-zero `user_regs_struct` is a valid value.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: ptrace(2) reads and writes another process's memory, and `registers`, which lives until the end; the
    // other process is a chiton that this test has started to have it killed.
    unsafe {
        assert_eq!(libc::ptrace(libc::PTRACE_ATTACH, thread, none, none), 0, "root may");
        let mut status = 0;
        assert_eq!(libc::waitpid(thread, &raw mut status, libc::__WALL), thread);
        assert_eq!(libc::ptrace(libc::PTRACE_GETREGS, thread, none, &raw mut registers), 0);
        // `syscall`, where it goes on; and no call that was interrupted is made again.
        let at = registers.rip as *mut libc::c_void;
        let word = libc::ptrace(libc::PTRACE_PEEKTEXT, thread, at, none);
        let word = word & !0xFFFF | 0x050F;
        assert_eq!(libc::ptrace(libc::PTRACE_POKETEXT, thread, at, word), 0);
        (registers.rax, registers.orig_rax) = (call as u64, u64::MAX);
        [registers.rdi, registers.rsi, registers.rdx] = arguments;
        assert_eq!(libc::ptrace(libc::PTRACE_SETREGS, thread, none, &raw mut registers), 0);
        assert_eq!(libc::ptrace(libc::PTRACE_DETACH, thread, none, none), 0);
    }
}

/// The thread of a process with this name; its first one, if there is no name.
fn thread(process: i32, name: Option<&str>) -> Option<i32> {
    let Some(name) = name else { return Some(process) };
    let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten();
    let mut named =
        tasks.filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name));
    named.next()?.file_name().to_str()?.parse().ok()
}

#[test]
fn no_thread_of_a_machine_makes_a_call_that_is_not_its_own_and_its_user_is_told_which() {
    if !kvm_works() {
        return;
    }
    if !is_root() {
        println!("SKIPPED: not root");
        return;
    }
    let home = Folder::new();
    let ioctl = |request: u64| (libc::SYS_ioctl, [0, request, 0]);
    let cases = [
        // What no thread needs.
        (None, (libc::SYS_socketpair, [1, 1, 0]), "socketpair (53)"),
        (Some("devices"), (libc::SYS_execve, [0, 0, 0]), "execve (59)"),
        // What others need.
        (None, ioctl(0xAE01), "ioctl (16)"),
        (Some("devices"), ioctl(0xAE80), "ioctl (16)"),
        (Some("devices"), (libc::SYS_clone, [0, 0, 0]), "clone (56)"),
        (Some("io"), ioctl(0xAE80), "ioctl (16)"),
        (Some("io"), (libc::SYS_accept4, [0, 0, 0]), "accept4 (288)"),
        (Some("io"), (libc::SYS_sendto, [0, 0, 0]), "sendto (44)"),
    ];
    for (name, (call, arguments), words) in cases {
        let run = |args: &[&str]| Chiton::new().jailed(&home.path("home")).args(args);
        let mut child = run(&["run", "--name", "m", "--io-thread"]).guest("live").spawn();
        let start = Instant::now();
        let thread = loop {
            let pid = run(&["inspect", "--format", "{{.State.pid}}", "m"]).run();
            let found = pid.stdout_text().trim().parse().ok().and_then(|pid| thread(pid, name));
            // It has begun when it says so.
            let said = run(&["logs", "m"]).run().stdout_text();
            if let (Some(found), true) = (found, said.contains("ready")) {
                break found;
            }
            assert_eq!(child.try_wait().expect("it is a child"), None, "it has ended");
            assert!(start.elapsed() < PATIENCE, "{name:?} does not begin");
            nap();
        };
        make_call(thread, call, arguments);
        let ended = finish(child);
        ended.assert_status(128 + libc::SIGSYS);
        ended.assert_says("live was killed (SIGSYS)");
        let what = format!("{:?} made the system call {words}", name.unwrap_or("chiton"));
        ended.assert_says(&what);
        let killer = run(&["inspect", "--format", "{{.State.exit.killer}}", "m"]).run();
        assert!(killer.stdout_text().contains(words), "{killer}");
        run(&["rm", "m"]).run().assert_status(0);
    }
}

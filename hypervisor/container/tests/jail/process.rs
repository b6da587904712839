//! What a process is left with, and what process 1 does.

use std::io::Read;
use std::os::fd::AsRawFd;

use chiton_container::jail::{Jail, Kind, Program, Resource, Signal, Source, Status};

use crate::help::{Place, Test, alone, answer, ask, names, read};

pub(crate) const TESTS: &[Test] = &[
    ("no_capability_is_left_in_any_set", capabilities),
    ("a_program_gets_none_back", program_capabilities),
    ("inherited_descriptors_are_closed_but_those_to_keep", descriptors),
    ("the_environment_is_the_jails_own", environment),
    ("it_is_its_own_session_without_a_terminal", session),
    ("limits_hold_and_core_files_are_off", limits),
    ("limits_beyond_the_callers_are_for_who_may", higher_limits),
    ("it_is_a_user_who_is_nobody_outside", user),
    ("a_program_ignores_no_signal", signals),
    ("the_minder_reports_how_the_payload_ended", minder_reports),
    ("the_minder_passes_signals_on", minder_forwards),
    ("the_minder_reaps_orphans", minder_reaps),
    ("a_payload_that_is_process_1_leaves_no_zombies", payload_reaps),
    (
        "a_payload_that_is_process_1_misses_no_signal_before_it_is_ready",
        payload_misses_none,
    ),
    ("the_death_of_process_1_is_the_death_of_all", death_of_all),
    ("the_death_of_the_caller_is_the_death_of_the_jail", death_of_caller),
    ("a_jail_is_born_in_its_group", group),
    ("an_ordinary_user_has_jails_too", ordinary_user),
    ("a_program_may_have_any_port_of_its_own_network", low_ports),
];

fn status(name: &str) -> String {
    let text = read("/proc/self/status");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or("?").trim().to_owned()
}

const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

fn capabilities() {
    let place = Place::new();
    let found = answer(&mut place.jail(), || {
        // SAFETY: these ask and take no pointers.
        let [bits, dumpable] =
            [libc::PR_GET_SECUREBITS, libc::PR_GET_DUMPABLE].map(|what| unsafe { libc::prctl(what) });
        let sets = SETS.map(status).join(" ");
        let rest = ["NoNewPrivs", "Seccomp", "Groups"].map(status).join(" ");
        format!("{sets}; {rest}; {bits:#x} {dumpable}")
    });
    let none = "0000000000000000";
    assert_eq!(found, format!("{none} {none} {none} {none} {none}; 1 2 ; 0xef 0"));
}

/// What a script says on its standard output, which is a pipe.
fn script(jail: &Jail, script: &str) -> (String, Status) {
    run(jail, &["sh", "-c", script])
}

/// What a program of busybox says.
fn run(jail: &Jail, words: &[&str]) -> (String, Status) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let program = Program::new(["/bin/busybox"].iter().chain(words)).unwrap();
    let mut jailed = with_output(&writer, || jail.spawn_program(&program)).unwrap();
    drop(writer);
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    (output, jailed.wait().unwrap())
}

/// Does something while standard output is a pipe.
fn with_output<T>(writer: &std::io::PipeWriter, work: impl FnOnce() -> T) -> T {
    // SAFETY: all three are open, and standard output comes back.
    unsafe {
        let own = libc::dup(1);
        libc::dup2(writer.as_raw_fd(), 1);
        let done = work();
        libc::dup2(own, 1);
        libc::close(own);
        done
    }
}

fn program_capabilities() {
    let place = Place::new();
    place.busybox();
    let (found, status) = script(
        &place.jail(),
        "busybox id -u; busybox grep -c 'Cap.*0000000000000000' /proc/self/status",
    );
    assert_eq!((found.as_str(), status), ("0\n5\n", Status::Exited(0)));
}

fn descriptors() {
    let place = Place::new();
    let host = std::fs::File::open("/").unwrap();
    let leaked = host.as_raw_fd();
    // Even one that a program would inherit.
    // SAFETY: the descriptor is this test's own.
    unsafe { libc::fcntl(leaked, libc::F_SETFD, 0) };
    let mut jail = place.jail();
    // SAFETY: asking of a number that may be no descriptor is what this is for.
    let is_open = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 };
    let found = answer(&mut jail, || {
        let open = (3..1000).filter(|fd| is_open(*fd)).count();
        format!("{} {open}", is_open(leaked))
    });
    // The only one beyond the standard streams is the pipe of the answer.
    assert_eq!(found, "false 1");
    jail.keep.push(leaked);
    assert_eq!(answer(&mut jail, || is_open(leaked).to_string()), "true");
}

fn environment() {
    let place = Place::new();
    let mut jail = place.jail();
    jail.environment.push(c"CELL=7".into());
    let found = answer(&mut jail, || {
        let all = std::env::vars().map(|(name, value)| format!("{name}={value}"));
        all.collect::<Vec<_>>().join(" ")
    });
    assert_eq!(found, "CELL=7");
}

fn session() {
    let place = Place::new();
    let found = answer(&mut alone(place.jail()), || {
        // SAFETY: these take no pointers.
        let sid = unsafe { libc::getsid(0) };
        format!("{sid} {}", std::fs::File::open("/dev/tty").is_err())
    });
    assert_eq!(found, "1 true");
}

fn limits() {
    let place = Place::new();
    let mut jail = place.jail();
    jail.limits.push("nofile=10:64".parse().unwrap());
    let found = answer(&mut jail, || {
        let limits = read("/proc/self/limits");
        let line = |name: &str| {
            limits
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or("?")
                .to_owned()
        };
        let words = [line("Max core file size"), line("Max open files")];
        words
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .join("; ")
    });
    assert_eq!(found, "Max core file size 0 0 bytes; Max open files 10 64 files");
}

/// More than the caller has is for callers that may give it.
fn higher_limits() {
    let place = Place::new();
    let Some(most) = rustix::process::getrlimit(Resource::Memlock).maximum else {
        return;
    };
    let mut jail = place.jail();
    jail.limits.push(format!("memlock={}", most + 4096).parse().unwrap());
    let capabilities = read("/proc/self/status");
    let own = capabilities
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .unwrap();
    /// `CAP_SYS_RESOURCE`.
    const BIT: u64 = 1 << 24;
    if u64::from_str_radix(own, 16).unwrap() & BIT == 0 {
        let error = jail.spawn(|| 0).unwrap_err().to_string();
        assert!(
            error.contains(&format!("limit resources: memlock={}", most + 4096)),
            "{error}"
        );
        assert!(error.contains("fs/nr_open"), "{error}");
        return;
    }
    let found = answer(&mut jail, || {
        format!("{:?}", rustix::process::getrlimit(Resource::Memlock).maximum)
    });
    assert_eq!(found, format!("Some({})", most + 4096));
}

fn user() {
    let place = Place::new();
    let Some(lease) = &place.lease else { return };
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut jail = place.jail();
    jail.user = 7;
    jail.group = 8;
    jail.keep.push(reader.as_raw_fd());
    let mut jailed = jail.spawn(|| reader.read(&mut [0]).map_or(1, |_| 0)).unwrap();
    let text = read(&format!("/proc/{}/status", jailed.pid()));
    drop(writer);
    jailed.wait().unwrap();
    let ids = |id: u32| format!("\t{id}\t{id}\t{id}\t{id}\n");
    assert!(text.contains(&format!("Uid:{}", ids(lease.first + 7))), "{text}");
    assert!(text.contains(&format!("Gid:{}", ids(lease.first + 8))), "{text}");
    assert!(text.contains("Groups:\t \n"), "{text}");
}

fn signals() {
    let place = Place::new();
    place.busybox();
    let (found, _) = run(&place.jail(), &["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]);
    assert_eq!(found, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

fn minder_reports() {
    let place = Place::new();
    place.busybox();
    for (text, code) in [("exit 0", 0), ("exit 41", 41), ("kill -KILL $$", 137)] {
        let (_, status) = script(&place.jail(), text);
        assert_eq!(status, Status::Exited(code), "{text}");
    }
}

fn minder_forwards() {
    let place = Place::new();
    place.busybox();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let text = "trap 'exit 9' USR1; echo ready; while :; do :; done";
    let program = Program::new(["/bin/sh", "-c", text]).unwrap();
    let mut jailed = with_output(&writer, || place.jail().spawn_program(&program)).unwrap();
    drop(writer);
    let mut word = [0; 6];
    reader.read_exact(&mut word).unwrap();
    jailed.signal(Signal::USR1).unwrap();
    assert_eq!(jailed.wait().unwrap(), Status::Exited(9));
}

/// Starts a child that starts a child and ends; the grandchild, an orphan, ends when this says so.
fn orphan() -> libc::pid_t {
    let (mut number, mut tell) = std::io::pipe().unwrap();
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        let grandchild = unsafe { libc::fork() };
        if grandchild == 0 {
            // SAFETY: `_exit` does not return.
            unsafe { libc::_exit(0) };
        }
        std::io::Write::write_all(&mut tell, &grandchild.to_ne_bytes()).unwrap();
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    drop(tell);
    let mut bytes = [0; 4];
    number.read_exact(&mut bytes).unwrap();
    // SAFETY: no status is asked for. Where the kernel takes children away, it says there is none.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    libc::pid_t::from_ne_bytes(bytes)
}

/// Waits until a process is gone, not a zombie either; asks often, and gives others the processor.
fn gone(pid: libc::pid_t) -> String {
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_secs(60) {
        // SAFETY: signal 0 only asks.
        if unsafe { libc::kill(pid, 0) } == -1 {
            return "gone".into();
        }
        std::thread::yield_now();
    }
    "there".into()
}

fn minder_reaps() {
    let place = Place::new();
    assert_eq!(answer(&mut place.jail(), || gone(orphan())), "gone");
}

fn payload_reaps() {
    let place = Place::new();
    assert_eq!(answer(&mut alone(place.jail()), || gone(orphan())), "gone");
}

fn payload_misses_none() {
    let place = Place::new();
    let (mut wait, mut go) = std::io::pipe().unwrap();
    let mut jail = alone(place.jail());
    jail.keep.push(wait.as_raw_fd());
    // SAFETY: an empty set is all zeroes on Linux, and both calls are given whole sets.
    let term = unsafe {
        let mut term: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut term, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const term, std::ptr::null_mut());
        term
    };
    let mut jailed = jail
        .spawn(|| {
            wait.read_exact(&mut [0]).unwrap();
            let now: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: set and time are whole, and no details are asked for.
            unsafe { libc::sigtimedwait(&raw const term, std::ptr::null_mut(), &raw const now) }
        })
        .unwrap();
    // SAFETY: as above.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const term, std::ptr::null_mut()) };
    jailed.signal(Signal::TERM).unwrap();
    std::io::Write::write_all(&mut go, b"!").unwrap();
    assert_eq!(jailed.wait().unwrap(), Status::Exited(libc::SIGTERM));
}

fn death_of_all() {
    let place = Place::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut jail = place.jail();
    jail.keep.push(writer.as_raw_fd());
    let mut jailed = jail
        .spawn(|| {
            loop {
                // SAFETY: these take no pointers; the child and its child wait for a signal.
                unsafe {
                    libc::fork();
                    libc::pause();
                }
            }
        })
        .unwrap();
    drop(writer);
    jailed.kill().unwrap();
    assert_eq!(jailed.wait().unwrap(), Status::Signalled(libc::SIGKILL));
    // Every process of the jail has the writing end; this returns when none is left.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

fn death_of_caller() {
    let place = Place::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let ranges = place.ranges();
    let before = ranges.in_use().unwrap();
    // SAFETY: this process has one thread.
    let caller = unsafe { libc::fork() };
    if caller == 0 {
        let lease = ranges.lease();
        let mut jail = place.jail();
        jail.keep.push(writer.as_raw_fd());
        let jailed = jail.spawn(|| {
            loop {
                // SAFETY: it only waits.
                unsafe { libc::pause() };
            }
        });
        let ready = jailed.is_ok() && lease.is_ok();
        std::io::Write::write_all(&mut &writer, &[u8::from(ready)]).unwrap();
        loop {
            // SAFETY: it only waits.
            unsafe { libc::pause() };
        }
    }
    drop(writer);
    let mut ready = [0];
    reader.read_exact(&mut ready).unwrap();
    assert_eq!(ready, [1]);
    assert_eq!(ranges.in_use().unwrap(), before + 1);
    // SAFETY: it is this test's own child.
    unsafe {
        libc::kill(caller, libc::SIGKILL);
        libc::waitpid(caller, std::ptr::null_mut(), 0);
    }
    // It and the jail have the writing end; this returns when both are gone.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert_eq!(ranges.in_use().unwrap(), before);
}

/// The groups of all controllers in which the caller is, as directories of cgroup v2 or v1.
fn group() {
    use chiton_container::jail::CgroupPlacement;
    let place = Place::new();
    let name = format!("chiton-jail-test-{}", std::process::id());
    let mut tried = 0;
    for unified in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let group = std::path::Path::new(unified).join(&name);
        if !std::path::Path::new(unified).join("cgroup.procs").exists() || std::fs::create_dir(&group).is_err() {
            continue;
        }
        tried += 1;
        let mut jail = place.jail();
        jail.cgroup = CgroupPlacement::Unified(std::fs::File::open(&group).unwrap().into());
        let found = outside_view(&jail);
        remove_group(&group);
        assert!(found.contains(&format!("0::/{name}\n")), "{found}");
    }
    let group = std::path::Path::new("/sys/fs/cgroup/pids").join(&name);
    if std::fs::create_dir(&group).is_ok() {
        tried += 1;
        let mut jail = place.jail();
        jail.cgroup = CgroupPlacement::PerController {
            unified: None,
            tasks: vec![std::fs::File::options().write(true).open(group.join("tasks")).unwrap()],
        };
        let found = outside_view(&jail);
        remove_group(&group);
        assert!(found.contains(&format!("pids:/{name}\n")), "{found}");
    }
    assert!(tried > 0, "no control groups here");
}

/// Removes a group as soon as the kernel has forgotten those that were in it, which it may do after they were waited for.
fn remove_group(group: &std::path::Path) {
    let begun = std::time::Instant::now();
    while let Err(error) = std::fs::remove_dir(group) {
        assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{error}");
        std::thread::yield_now();
    }
}

/// `/proc/PID/cgroup` of a jail, as seen from outside.
fn outside_view(jail: &Jail) -> String {
    let mut jailed = jail
        .spawn(|| {
            loop {
                // SAFETY: it only waits.
                unsafe { libc::pause() };
            }
        })
        .unwrap();
    let found = read(&format!("/proc/{}/cgroup", jailed.pid()));
    jailed.kill().unwrap();
    jailed.wait().unwrap();
    found
}

fn ordinary_user() {
    use chiton_container::jail::IdMap;
    let place = Place::new();
    for name in [
        "root",
        "root/etc",
        "root/bin",
        "scratch",
        "scratch/upper",
        "scratch/work",
    ] {
        std::os::unix::fs::chown(place.path(name), Some(65_534), Some(65_534)).unwrap();
    }
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // SAFETY: this process has one thread.
    let user = unsafe { libc::fork() };
    if user == 0 {
        // SAFETY: these take no pointers but to an empty list. A program would be dumpable as this is.
        unsafe {
            libc::setgroups(0, std::ptr::null());
            libc::setresgid(65_534, 65_534, 65_534);
            libc::setresuid(65_534, 65_534, 65_534);
            libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        }
        let result = std::panic::catch_unwind(|| {
            let mut jail = place.jail();
            jail.ids = IdMap::caller();
            ask(&mut jail, || {
                let written = std::fs::write("/etc/new", "new").is_ok();
                let map = read("/proc/self/uid_map");
                format!(
                    "{written} {} {}",
                    map.split_whitespace().collect::<Vec<_>>().join(" "),
                    names("/etc")
                )
            })
            .0
        });
        let words = result.unwrap_or_else(|_| "panicked".into());
        std::io::Write::write_all(&mut writer, words.as_bytes()).unwrap();
        // SAFETY: `_exit` does not return.
        unsafe { libc::_exit(0) };
    }
    drop(writer);
    let mut found = String::new();
    reader.read_to_string(&mut found).unwrap();
    // SAFETY: it is this test's own child.
    unsafe { libc::waitpid(user, std::ptr::null_mut(), 0) };
    assert_eq!(found, "true 0 65534 1 name new");
}

/// No capability is left, and none is needed: the address is the jail's own.
fn low_ports() {
    let place = Place::new();
    place.busybox();
    let serve = "httpd -f -p 127.0.0.1:80 -h /etc & until wget -q -O - http://127.0.0.1/name; do kill -0 $! || exit 1; done; kill $!";
    let (said, status) = script(&place.jail(), serve);
    assert_eq!((said.as_str(), status), ("image", Status::Exited(0)));
    let mut jail = place.jail();
    jail.namespaces.set(Kind::Network, Source::Caller);
    let (first, _) = script(&jail, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    let of_host = read("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    assert_eq!(first, of_host, "the host's own are its own affair");
}

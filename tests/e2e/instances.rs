//! Instances, from their start to their end, by the command line.
//!
//! Each test has a list of instances of its own, and checks at its end that nothing of them is left: no
//! process, cgroup, namespace or file.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chiton_tests::{
    Chiton, PATIENCE, Record, Run, Tap, busybox, few, finish, guest_path, is_root, kvm_works, nap, signal, slow,
};

/// A list of instances of its own.
struct Home {
    record: Record,
}

impl Home {
    /// `None`, with the reason said, where jails with cgroups cannot be made.
    fn new() -> Option<Self> {
        if !kvm_works() {
            return None;
        }
        if !is_root() {
            assert!(std::env::var_os("CHITON_STRICT").is_none(), "root is required here");
            println!("SKIPPED: cgroups need root");
            return None;
        }
        Some(Self {
            record: Record::new([]),
        })
    }

    fn path(&self) -> PathBuf {
        self.record.home()
    }

    fn chiton(&self, args: &[&str]) -> Chiton {
        Chiton::new().jailed(&self.path()).args(args)
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Run {
        self.chiton(args).run()
    }

    /// Does what has to succeed; what it printed.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let run = self.run(args);
        run.assert_status(0);
        run.stdout_text().trim_end().to_owned()
    }

    /// Starts a guest in the background, as an instance of this name; its ID. That outlives the command, so
    /// that what [`Run`] checks of other commands does not hold.
    #[track_caller]
    fn start(&self, name: &str, options: &[&str], guest: &[&str]) -> String {
        let program = guest_path(guest[0]).display().to_string();
        let words = [&["run", "-d", "--name", name], options, &[&program], &guest[1..]].concat();
        self.record.ok(&words)
    }

    /// Something of what `inspect` says.
    #[track_caller]
    fn says(&self, name: &str, what: &str) -> String {
        self.ok(&["inspect", "--format", &format!("{{{{.{what}}}}}"), name])
    }

    fn pid(&self, name: &str) -> u32 {
        self.says(name, "State.pid").parse().expect("a number")
    }

    /// Waits until this holds.
    #[track_caller]
    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < PATIENCE, "{what} does not come");
            nap();
        }
    }

    /// Waits until the log of an instance has these words.
    #[track_caller]
    fn until_logged(&self, name: &str, words: &str) {
        self.until(words, || self.ok(&["logs", name]).contains(words));
    }

    /// A directory of the instance's cgroup that has this file.
    fn cgroup_file(&self, name: &str, files: &[&str]) -> PathBuf {
        let paths = self.says(name, "Jail.cgroup");
        let paths = paths
            .trim_matches(['[', ']'])
            .split(',')
            .map(|path| path.trim_matches('"'));
        let mut all = paths.flat_map(|path| files.iter().map(move |file| Path::new(path).join(file)));
        all.find(|path| path.exists())
            .unwrap_or_else(|| panic!("none of {files:?}"))
    }

    /// Removes what ended, and checks that nothing is left of anything.
    #[track_caller]
    fn assert_empty(self) {
        self.ok(&["prune"]);
        assert_eq!(self.ok(&["ps", "--all", "--quiet"]), "");
        for folder in ["instances", "names", "live"] {
            let left: Vec<_> = fs::read_dir(self.path().join(folder))
                .expect("a folder")
                .flatten()
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
        // The supervisor of one that has ended lives a moment longer than its record.
        let home = self.path().display().to_string();
        self.until("the end of its processes", || {
            !processes().iter().any(|process| is_of(process, &home))
        });
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(&home), "{mounts}");
    }
}

/// The folders of all processes.
pub(crate) fn processes() -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").expect("there is a /proc").flatten();
    let is_process = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok())
    };
    all.map(|entry| entry.path()).filter(is_process).collect()
}

/// Whether a process has a home in its environment. While it runs another program it has none, and is not seen.
fn is_of(process: &Path, home: &str) -> bool {
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    String::from_utf8_lossy(&environment).contains(home)
}

/// The directories of cgroups that have this in their name.
pub(crate) fn cgroups(id: &str) -> Vec<PathBuf> {
    fn below(folder: &Path, depth: u32, id: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(id) {
                    found.push(entry.path());
                } else if depth > 0 {
                    below(&entry.path(), depth - 1, id, found);
                }
            }
        }
    }
    let mut found = Vec::new();
    below(Path::new("/sys/fs/cgroup"), 3, id, &mut found);
    found
}

/// Ticks of processor time that a process has used.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let rest = stat.rsplit_once(") ").expect("a name").1;
    let fields: Vec<_> = rest.split(' ').collect();
    let tick = |index: usize| fields[index].parse::<u64>().expect("a number");
    tick(11) + tick(12)
}

#[test]
fn a_guest_runs_in_the_foreground_and_leaves_its_record() {
    let Some(home) = Home::new() else { return };
    // A name that no ID can begin with.
    let run = home
        .chiton(&["run", "--name", "x"])
        .guest("hello")
        .args(["world"])
        .run();
    run.assert_status(0);
    assert!(run.stdout_text().contains("Hello, world."), "{run}");
    assert!(home.ok(&["ps", "--all"]).contains("Exited (0)"));
    assert!(home.ok(&["logs", "x"]).contains("Hello, world."));
    assert_eq!(home.ok(&["wait", "x"]), "0");
    let id = home.says("x", "Id");
    assert_eq!(home.says(&id[..8], "Name"), "x", "by the beginning of its ID");
    home.run(&["rename", "x", "y"]).assert_status(0);
    home.run(&["inspect", "x"]).assert_refused("there is no instance x");
    assert_eq!(home.ok(&["rm", "y"]), "y");
    home.assert_empty();
}

#[test]
fn rm_leaves_nothing() {
    let Some(home) = Home::new() else { return };
    home.chiton(&["run", "--rm"]).guest("hello").run().assert_status(0);
    assert_eq!(home.ok(&["ps", "--all", "--quiet"]), "");
    let id = home.start("r", &["--rm"], &["live"]);
    assert!(!cgroups(&id[..12]).is_empty());
    home.ok(&["stop", "r"]);
    assert_eq!(home.ok(&["ps", "--all", "--quiet"]), "");
    assert!(cgroups(&id[..12]).is_empty());
    home.assert_empty();
}

#[test]
fn stop_asks_first_and_then_kills() {
    let Some(home) = Home::new() else { return };
    home.start("asked", &[], &["live"]);
    home.until_logged("asked", "ready");
    assert_eq!(home.ok(&["stop", "asked"]), "asked");
    assert_eq!(home.says("asked", "State.exit.code"), "0");
    home.until_logged("asked", "asked to end");

    // One that hears nothing, and one that never leaves the processor.
    home.start("deaf", &["-i"], &["cat"]);
    home.ok(&["stop", "--timeout", "100ms", "deaf"]);
    assert_eq!(home.says("deaf", "State.exit.code"), "137");
    home.start("deaf2", &["-i"], &["cat"]);
    home.start("deaf3", &["-i"], &["cat"]);
    assert_eq!(home.ok(&["stop", "-t", "0", "deaf2", "deaf3"]), "deaf2\ndeaf3");
    // What has ended stays so.
    assert_eq!(home.ok(&["stop", "deaf"]), "deaf");
    home.run(&["stop", "nobody"])
        .assert_status(1)
        .assert_says("there is no instance nobody");
    home.assert_empty();
}

#[test]
fn a_paused_instance_uses_no_time_and_can_be_ended() {
    let Some(home) = Home::new() else { return };
    home.start("p", &[], &["live", "busy"]);
    home.until_logged("p", "ready");
    home.ok(&["pause", "p"]);
    assert!(home.ok(&["ps"]).contains("(paused)"));
    let pid = home.pid("p");
    let before = ticks(pid);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ticks(pid), before, "it is held");
    home.run(&["pause", "p"]).assert_status(1).assert_says("p is paused");
    home.ok(&["resume", "p"]);
    home.until("more time", || ticks(pid) > before);
    home.run(&["unpause", "p"]).assert_status(1).assert_says("p is running");
    home.ok(&["pause", "p"]);
    home.ok(&["stop", "p"]);
    assert_eq!(home.says("p", "State.exit.code"), "0", "it was let go, and asked");

    home.ok(&["start", "p"]);
    home.ok(&["pause", "p"]);
    home.ok(&["kill", "p"]);
    assert_eq!(home.ok(&["wait", "p"]), "137");
    home.ok(&["start", "p"]);
    home.ok(&["pause", "p"]);
    home.ok(&["rm", "--force", "p"]);
    home.assert_empty();
}

#[test]
fn limits_change_while_it_runs_and_stay_for_the_next_start() {
    let Some(home) = Home::new() else { return };
    let options = ["--memory-max", "256M", "--clock", "boottime=86400"];
    home.start("u", &options, &["live"]);
    let memory = || {
        let file = home.cgroup_file("u", &["memory.max", "memory.limit_in_bytes"]);
        fs::read_to_string(file).expect("a limit").trim().to_owned()
    };
    assert_eq!(memory(), (256_u64 << 20).to_string());
    home.ok(&[
        "update",
        "u",
        "--memory-max",
        "128M",
        "--pids-max",
        "100",
        "--restart",
        "on-failure:2",
    ]);
    assert_eq!(memory(), (128_u64 << 20).to_string());
    home.ok(&["update", "u", "--memory-max=64M", "--memory-reservation", "32M"]);
    let reserved = if home.says("u", "Limits").contains("memory_low") {
        "memory_low"
    } else {
        "memory_reservation"
    };
    assert_eq!(memory(), (64_u64 << 20).to_string());
    assert_eq!(home.says("u", "Spec.restart"), "on-failure:2");
    home.ok(&["restart", "u"]);
    assert_eq!(memory(), (64_u64 << 20).to_string());
    let pids = home.cgroup_file("u", &["pids.max"]);
    assert_eq!(fs::read_to_string(pids).expect("a limit").trim(), "100");

    let refused = home.run(&["update", "u", "--memory-max", "1M", "--memory-high", "2M"]);
    refused.assert_refused("--memory-high 2M is more than --memory-max 1M");
    assert_eq!(memory(), (64_u64 << 20).to_string());
    home.run(&["update", "u", "--disk", "0:none"]).assert_refused("disk");
    home.run(&["update", "u"]).assert_refused("nothing to update");
    // All of it is shown as the kernel has it, while there is something to show.
    for (what, is) in [
        ("Limits.memory_max.value", "67108864"),
        (&format!("Limits.{reserved}.value"), "33554432"),
        ("Limits.pids_max.value", "100"),
        ("Privileges.capabilities.bounding", "0000000000000000"),
        ("Privileges.no_new_privs", "true"),
        ("Privileges.seccomp", "filter"),
        ("Privileges.limits.core.hard", "0"),
        ("Privileges.clocks.boottime", "86400"),
        ("Privileges.clocks.monotonic", "0"),
    ] {
        assert_eq!(home.says("u", what), is, "{what}");
    }
    let threads = home.says("u", "Privileges.threads");
    assert!(
        threads.contains(r#""name":"devices""#) && threads.contains(r#""seccomp_filters":2"#),
        "{threads}"
    );
    home.ok(&["stop", "u"]);
    assert_eq!(
        (home.says("u", "Limits"), home.says("u", "Privileges")),
        ("null".into(), "null".into())
    );
    home.ok(&["rm", "-f", "u"]);
    home.assert_empty();
}

#[test]
fn limits_of_a_disk_decide_how_fast_it_is_and_stay_for_the_next_start() {
    let Some(home) = Home::new() else { return };
    fs::write(home.record.folder().path("d.img"), vec![0; 1 << 20]).expect("a disk");
    // At one request a second this would take half a day, or half an hour.
    let reads = if slow() { "2000" } else { "40000" };
    home.start("d", &["--disk", "d.img,ops=1/1"], &["diskbench", reads, "4"]);
    let limits = |words: &str| {
        let all = format!(r#""kind":"disk","limits":{words}"#);
        home.until(words, || home.ok(&["stats", "--json", "d"]).contains(&all));
    };
    limits(r#"{"ops":{"burst":1,"per_second":1}}"#);
    home.run(&["update", "d", "--disk", "1:ops=2"])
        .assert_refused("there is no disk 1: the guest has one, number 0");
    home.run(&["update", "d", "--net", "0:ops=2"])
        .assert_refused("there is no network interface 0: the guest has none");
    home.run(&["update", "d", "--balloon", "1M"])
        .assert_refused("start it with --balloon");
    limits(r#"{"ops":{"burst":1,"per_second":1}}"#);
    home.ok(&["update", "d", "--disk", "0:ops=2/3,bytes=1M/64K"]);
    let both = r#"{"bytes":{"burst":65536,"per_second":1048576},"ops":{"burst":3,"per_second":2}}"#;
    limits(both);
    home.ok(&["restart", "-t", "0", "d"]);
    limits(both);
    home.ok(&["update", "d", "--disk", "0:none"]);
    assert_eq!(home.ok(&["wait", "d"]), "0");
    assert!(home.ok(&["logs", "d"]).contains(&format!("{reads} reads")));
    home.ok(&["rm", "d"]);
    home.assert_empty();
}

#[test]
fn limits_of_a_network_change_while_it_runs() {
    let Some(home) = Home::new() else { return };
    let Some(tap) = Tap::new() else { return };
    home.start("n", &["--net", &format!("tap={}", tap.name())], &["live"]);
    home.until_logged("n", "ready");
    home.ok(&["update", "n", "--net", "0:ops=10/1"]);
    let json = home.ok(&["stats", "--json", "n"]);
    let limits = r#""kind":"network interface","limits":{"ops":{"burst":1,"per_second":10}}"#;
    assert!(json.contains(limits), "{json}");
    home.ok(&["rm", "-f", "n"]);
    tap.remove().expect("it is there until it is removed");
    home.assert_empty();
}

#[test]
fn the_balloon_of_an_instance_follows_its_update() {
    let Some(home) = Home::new() else { return };
    home.start("b", &["--balloon"], &["live"]);
    home.until_logged("b", "ready");
    home.ok(&["update", "b", "--balloon", "4M"]);
    home.until_logged("b", "balloon 4096 KiB");
    let json = home.ok(&["stats", "--json", "b"]);
    assert!(json.contains(r#""actual":4194304"#), "{json}");
    home.run(&["update", "b", "--balloon", "17M"])
        .assert_refused("the balloon cannot hold 17825792 bytes");
    home.ok(&["restart", "b"]);
    home.until("the same balloon", || {
        home.ok(&["stats", "--json", "b"]).contains(r#""actual":4194304"#)
    });
    home.ok(&["rm", "-f", "b"]);
    home.assert_empty();
}

#[test]
fn on_a_terminal_stats_go_on() {
    let Some(home) = Home::new() else { return };
    home.start("s", &["--rm"], &["live"]);
    let (terminal, name) = super::ports::terminal();
    let stats = Command::new(chiton_tests::chiton_path())
        .arg("stats")
        .env("CHITON_HOME", home.path())
        .env_remove("CHITON_JAIL")
        .stdout(fs::OpenOptions::new().write(true).open(name).expect("a terminal"))
        .spawn();
    let mut stats = stats.expect("chiton starts");
    let mut shown = BufReader::new(fs::File::from(terminal));
    // The table is told again and again, whoever comes and goes meanwhile.
    let mut next = |row: &str| loop {
        let mut line = String::new();
        shown.read_line(&mut line).expect("a line");
        if line.starts_with(row) {
            return line;
        }
    };
    for _ in 0..2 {
        assert!(next("\u{1b}[H\u{1b}[JNAME").contains("EXITS/S"));
        assert!(next("s ").contains("running"));
    }
    home.ok(&["stop", "s"]);
    home.start("t", &[], &["live"]);
    assert!(next("t ").contains("running"));
    assert_eq!(stats.try_wait().expect("a status"), None, "it goes on");
    drop(shown);
    signal(&stats, libc::SIGTERM);
    assert!(!stats.wait().expect("a status").success());
    home.ok(&["rm", "-f", "t"]);
    home.assert_empty();
}

#[test]
fn stats_tell_what_an_instance_uses() {
    let Some(home) = Home::new() else { return };
    home.start("s", &["--memory-max", "64M"], &["live"]);
    home.until_logged("s", "ready");
    // It waits for its next task soon after it has said that it is ready.
    let mut json = String::new();
    home.until("its first wait", || {
        json = home.ok(&["stats", "--json", "s"]);
        json.contains(r#""doorbell wait":"#)
    });
    for words in [
        r#""name":"s""#,
        r#""status":"running""#,
        r#""usage_usec":"#,
        r#""nr_throttled":"#,
        r#""oom_kill":0"#,
        r#""max":67108864"#,
        r#""io":["#,
        r#""pids":{"current":"#,
        r#""pressure":{"#,
        r#""exits_per_second":"#,
        r#""doorbell wait":"#,
    ] {
        assert!(json.contains(words), "{words} in {json}");
    }
    assert_eq!(json.lines().count(), 1);
    let table = home.ok(&["stats", "--no-stream"]);
    assert!(table.starts_with("NAME") && table.contains("64.00 MiB"), "{table}");
    home.ok(&["stop", "s"]);
    assert_eq!(home.ok(&["stats"]).lines().count(), 1, "nobody runs");
    home.assert_empty();
}

#[test]
fn a_policy_starts_it_again_until_it_is_stopped_by_hand() {
    let Some(home) = Home::new() else { return };
    home.start("again", &["--restart", "always"], &["hello"]);
    home.until("a restart", || home.says("again", "State.restarts") != "0");
    home.ok(&["stop", "again"]);
    assert_eq!(home.says("again", "State.status"), "exited");
    home.start("twice", &["--restart", "on-failure:2"], &["fault", "null"]);
    home.ok(&["wait", "twice"]);
    assert_eq!(home.says("twice", "State.restarts"), "2");
    // What was stopped while it ran is not started again either.
    home.start("live", &["--restart", "always"], &["live"]);
    home.ok(&["stop", "live"]);
    assert_eq!(home.says("live", "State.restarts"), "0");
    home.run(&["kill", "live"]).assert_status(1);
    // Nor is what was killed; what dies otherwise is.
    for signal in ["KILL", "TERM"] {
        home.record.ok(&["start", "live"]);
        home.until_logged("live", "ready");
        home.ok(&["kill", "--signal", signal, "live"]);
        home.ok(&["wait", "live"]);
        assert_eq!(home.says("live", "State.restarts"), "0", "{signal}");
    }
    home.record.ok(&["start", "live"]);
    home.ok(&["kill", "--signal", "USR1", "live"]);
    let pid = home.pid("live").cast_signed();
    // SAFETY: no memory is involved; the process is the guest that was just started.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    home.until("a restart", || home.says("live", "State.restarts") != "0");
    home.ok(&["rm", "-f", "live"]);
    home.assert_empty();
}

#[test]
fn logs_can_be_followed_and_consoles_attached() {
    let Some(home) = Home::new() else { return };
    home.start("c", &["-i"], &["cat"]);
    let follow = home.chiton(&["logs", "--follow", "c"]).spawn();
    let mut attached = home.chiton(&["attach", "c"]).spawn();
    let mut input = attached.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(attached.stdout.take().expect("a pipe"));
    input.write_all(b"over here\n").expect("it hears");
    let mut line = String::new();
    lines.read_line(&mut line).expect("text");
    assert_eq!(line, "over here\n");
    home.until_logged("c", "over here");
    home.ok(&["kill", "--signal", "KILL", "c"]);
    assert_eq!(home.ok(&["wait", "c"]), "137");
    finish(attached).assert_status(137);
    drop(input);
    let followed = finish(follow);
    assert_eq!(followed.stdout_text(), "over here\n");
    home.assert_empty();
}

#[test]
fn several_are_started_at_once() {
    let Some(home) = Home::new() else { return };
    let guest = guest_path("live").display().to_string();
    for name in ["a", "b"] {
        home.record.ok(&["create", "--name", name, &guest]);
    }
    assert_eq!(home.ok(&["ps", "--quiet"]), "");
    assert_eq!(home.record.ok(&["start", "a", "b"]), "a\nb");
    assert_eq!(home.ok(&["ps", "--quiet"]).lines().count(), 2);
    home.run(&["start", "a"]).assert_status(1).assert_says("a is running");
    home.ok(&["create", "--name", "lost", &guest]);
    let refused = home.run(&["start", "lost"]);
    refused
        .assert_status(1)
        .assert_says("where lost was made, cannot be entered");
    home.run(&["start", "-a", "a", "b"])
        .assert_refused("only one instance can have the terminal");
    assert_eq!(home.ok(&["stop", "a", "b"]), "a\nb");
    home.assert_empty();
}

#[test]
fn what_an_instance_wrote_becomes_an_image() {
    let Some(home) = Home::new() else { return };
    let guest = guest_path("files").display().to_string();
    home.ok(&["image", "build", "-t", "base", "--guest", &guest]);
    home.record
        .ok(&["run", "--name", "w", "base", "write", "/root/note", "remember"]);
    assert!(
        home.ok(&["commit", "-m", "a note", "w", "noted:v1"])
            .starts_with("sha256:")
    );
    assert_eq!(home.ok(&["run", "--rm", "noted:v1", "read", "/root/note"]), "remember");
    assert!(
        home.ok(&["image", "history", "noted:v1"])
            .contains("write /root/note remember")
    );
    // What an instance was made from stays for as long as it is there.
    home.ok(&["image", "rm", "base"]);
    home.ok(&["image", "prune"]);
    home.ok(&["start", "--attach", "w"]);
    home.ok(&["rm", "w"]);
    home.ok(&["image", "rm", "noted:v1"]);
    home.ok(&["image", "prune"]);
    assert_eq!(home.ok(&["image", "ls", "--quiet"]), "");
    home.ok(&["doctor", "--store"]);
    home.chiton(&["run", "--name", "f"])
        .guest("hello")
        .run()
        .assert_status(0);
    home.run(&["commit", "f", "x"])
        .assert_refused("was not made from an image");
    home.assert_empty();
}

#[test]
fn who_is_killed_for_want_of_memory_is_told_so() {
    let Some(home) = Home::new() else { return };
    let run = home
        .chiton(&[
            "run",
            "--name",
            "hog",
            "--memory",
            "128M",
            "--memory-max",
            "8M",
            "--balloon=64M",
        ])
        .guest("balloon")
        .run();
    run.assert_status(137)
        .assert_says("the OOM killer killed")
        .assert_says("8M");
    assert!(home.says("hog", "State.exit.killer").contains("at its own limit, 8M"));
    let events = home.ok(&["events", "--since", "10m", "--until", "0s"]);
    assert!(
        events.lines().any(|line| line.contains("oom") && line.contains("8M")),
        "{events}"
    );
    assert!(home.ok(&["ps", "--all"]).contains("Exited (137), out of memory"));
    home.assert_empty();
}

/// On cgroup v1 the one that minds it is left over, and ends as it did.
#[test]
fn a_process_that_is_killed_for_want_of_memory_is_told_so() {
    let Some(home) = Home::new() else { return };
    if !busybox() {
        return;
    }
    home.ok(&["image", "build", "-t", "box", "--guest", "/bin/busybox"]);
    let process = |name: &str, command: &[&str]| {
        let options = ["run", "--process", "--memory-max", "16M", "--name", name, "box"];
        home.run(&[&options, command].concat())
    };
    let run = process("hog", &["dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1"]);
    run.assert_status(137)
        .assert_says("the OOM killer killed")
        .assert_says("at its own limit, 16M");
    assert!(home.says("hog", "State.exit.killer").contains("at its own limit, 16M"));
    assert!(home.ok(&["ps", "--all"]).contains("Exited (137), out of memory"));
    // Others end with this status, too.
    process("other", &["sh", "-c", "exit 137"]).assert_status(137);
    assert_eq!(home.says("other", "State.exit.killer"), "null");
    home.ok(&["prune"]);
    home.ok(&["image", "rm", "box"]);
    home.assert_empty();
}

#[test]
fn a_process_is_who_its_image_says_or_who_is_asked_for() {
    let Some(home) = Home::new() else { return };
    if !busybox() {
        return;
    }
    let folder = home.record.folder();
    let file = |name: &str, text: &str| format!("{}:/etc/{name}", folder.file(name, text).display());
    let passwd = file("passwd", "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n");
    let group = file("group", "root:x:0:\nweb:x:34:\nlogs:x:50:web\n");
    let build = [
        "image",
        "build",
        "-t",
        "box",
        "--guest",
        "/bin/busybox",
        "--user",
        "web",
    ];
    home.ok(&[&build[..], &["-f", &passwd, "-f", &group]].concat());
    let run = |options: &[&str], command: &[&str]| {
        home.run(&[&["run", "--rm", "--process"], options, &["box"], command].concat())
    };
    for (options, expected) in [
        (&[][..], "uid=33(web) gid=34(web) groups=34(web),50(logs)"),
        (&["--user", "0"], "uid=0(root) gid=0(root)"),
        (&["-u", "1000:logs"], "uid=1000 gid=50(logs)"),
        (&["--user=33:7"], "uid=33(web) gid=7"),
    ] {
        let run = run(options, &["id"]);
        run.assert_status(0);
        assert!(run.stdout_text().starts_with(expected), "{options:?}: {run}");
    }
    // What it writes is its own.
    let out = folder.path("out");
    fs::create_dir(&out).expect("a new folder");
    std::os::unix::fs::chown(&out, Some(33), Some(34)).expect("root may");
    let volume = format!("{}:/out", out.display());
    run(&["--volume", &volume], &["touch", "/out/a"]).assert_status(0);
    let made = fs::metadata(out.join("a")).expect("a file");
    assert_eq!((made.uid(), made.gid()), (33, 34));
    assert!(!run(&[], &["touch", "/etc/passwd"]).status.success(), "that is root's");
    for (user, why) in [
        ("nobody", "the image has no user `nobody` in its /etc/passwd"),
        ("web:none", "the image has no group `none` in its /etc/group"),
        ("70000", "the jail has no such id"),
    ] {
        run(&["--user", user], &["id"]).assert_refused(why);
    }
    let hello = guest_path("hello").display().to_string();
    home.run(&["run", "--user", "web", &hello])
        .assert_refused("--user needs a process");
    home.ok(&["image", "rm", "box"]);
    home.assert_empty();
}

/// Of the host's are those that are asked for, and no others.
#[test]
fn each_namespace_can_be_the_hosts() {
    let Some(home) = Home::new() else { return };
    let kinds = ["mount", "uts", "ipc", "pid", "user", "cgroup", "time"];
    let file = |kind: &str| {
        if kind == "mount" {
            "mnt".to_owned()
        } else {
            kind.to_owned()
        }
    };
    let of_host = |kind: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{}", file(kind))).expect("a namespace");
        let link = link.display().to_string();
        link.split(['[', ']']).nth(1).expect("its number").to_owned()
    };
    for shared in kinds {
        home.start(shared, &["--namespace", &format!("{shared}=host")], &["live"]);
        home.until_logged(shared, "ready");
        for kind in kinds {
            let number = home.says(shared, &format!("Jail.namespaces.{}", file(kind)));
            assert_eq!(number == of_host(kind), kind == shared, "{kind} of {shared}");
        }
        home.ok(&["stop", shared]);
        assert_eq!(home.says(shared, "State.exit.code"), "0", "{shared}");
    }
    home.assert_empty();
}

#[test]
fn what_belongs_to_a_namespace_of_its_own_is_refused_in_anothers() {
    let Some(home) = Home::new() else { return };
    let hello = guest_path("hello").display().to_string();
    home.ok(&["image", "build", "-t", "hello", "--guest", &hello]);
    home.start("other", &[], &["live"]);
    let mount = "needs a mount namespace of its own";
    let cases: [(&[&str], &str, &str, &str); 9] = [
        (&["--volume", "/tmp:/tmp"], "mount", &hello, mount),
        (&["--read-only"], "mount", &hello, mount),
        (&["--folder", "/tmp"], "mount", &hello, mount),
        (&["--network", "host"], "mount", &hello, mount),
        (&[], "mount", "hello", mount),
        (&["--process"], "mount", "hello", mount),
        (
            &["--hostname", "x"],
            "uts",
            &hello,
            "--hostname needs a UTS namespace of its own",
        ),
        (
            &["--clock", "boottime=9"],
            "time",
            &hello,
            "--clock needs a time namespace of its own",
        ),
        (
            &["--hostname", "x", "--ipc", "host"],
            "uts",
            "hello",
            "--hostname needs a UTS namespace of its own",
        ),
    ];
    let users = "needs the other's user namespace, too";
    home.run(&["run", "--pid", "container:other", &hello])
        .assert_refused(users);
    for (options, kind, guest, why) in cases {
        for whose in ["host", "container:other"] {
            let namespace = format!("{kind}={whose}");
            for how in ["run", "create"] {
                let words = [&[how, "--namespace", &namespace], options, &[guest]].concat();
                home.run(&words).assert_refused(why);
            }
        }
    }
    home.run(&["run", "--uts", "host", "--hostname", "x", &hello])
        .assert_refused("leave out --uts");
    assert_eq!(home.ok(&["ps", "--all", "--quiet"]).lines().count(), 1);
    home.ok(&["rm", "-f", "other"]);
    home.ok(&["image", "rm", "hello"]);
    home.assert_empty();
}

/// A device that is divided by weight as long as this lives: any by io.cost, or a loop device by BFQ.
struct Divided {
    file: PathBuf,
    undo: String,
}

impl Divided {
    fn new() -> Self {
        let devices = fs::read_dir("/sys/block").expect("devices").flatten();
        let mut devices: Vec<_> = devices.map(|device| device.path()).collect();
        devices.sort();
        let cost = PathBuf::from("/sys/fs/cgroup/io.cost.qos");
        let (file, text, undo) = if cost.exists() {
            let device = devices.last().expect("a device");
            let number = fs::read_to_string(device.join("dev")).expect("its number");
            let number = number.trim();
            (cost, format!("{number} enable=1"), format!("{number} enable=0"))
        } else {
            let device = devices.iter().rfind(|device| device.ends_with("loop7"));
            let file = device.expect("a loop device").join("queue/scheduler");
            (file, "bfq".into(), "none".into())
        };
        fs::write(&file, text).expect("a device can be divided");
        Self { file, undo }
    }
}

impl Drop for Divided {
    fn drop(&mut self) {
        let _ = fs::write(&self.file, &self.undo);
    }
}

#[test]
fn a_weight_of_disks_is_taken_only_where_somebody_divides_them() {
    let Some(home) = Home::new() else { return };
    let hello = guest_path("hello").display().to_string();
    home.run(&["run", "--io-weight", "50", &hello])
        .assert_refused("no block device of this host is divided by weight");
    let divided = Divided::new();
    home.start("w", &["--io-weight", "50"], &["live"]);
    let limits = home.says("w", "Limits");
    let mut weights = limits.match_indices(r#"weight","value":""#).peekable();
    assert!(weights.peek().is_some(), "{limits}");
    for (at, found) in weights {
        let value = limits[at + found.len()..].split('"').next().expect("a value");
        assert!(
            value == "100" || value.trim_start_matches("default ") == "50",
            "{limits}"
        );
    }
    assert!(limits.contains("50"), "{limits}");
    home.ok(&["rm", "-f", "w"]);
    drop(divided);
    home.assert_empty();
}

#[test]
fn what_is_refused_leaves_nothing() {
    let Some(home) = Home::new() else { return };
    let hello = guest_path("hello").display().to_string();
    let text = home.record.folder().file("text", "no guest").display().to_string();
    let [disk, net] = ["diskbench", "httpd"].map(|guest| guest_path(guest).display().to_string());
    let cases: [(&[&str], &str); 12] = [
        (&[&disk], "the guest needs a disk: add --disk PATH"),
        (
            &[&net],
            "the guest needs a network: add --net tap=NAME, or in a jail --network bridge",
        ),
        (&["nosuch"], "there is neither a file nosuch nor an image of that name"),
        (&["--memory-max", "4K", &hello], "the OOM killer killed"),
        (&["--cpuset-cpus", "777", &hello], "cpuset.cpus"),
        (
            &["--memory-low", "1M", "--memory-reservation", "1M", &hello],
            "--memory-low and --memory-reservation are the same",
        ),
        (&["--kvm", "/dev/nokvm", &hello], "/dev/nokvm does not exist"),
        (&["--disk", "/nosuch", &hello], "the disk /nosuch does not exist"),
        (
            &["--network", "container:nobody", &hello],
            "there is no instance nobody",
        ),
        (&["--volume", "/nosuch:/x", &hello], "the host's side must exist"),
        (&["--memory", "1K", &hello], "1024 bytes of memory"),
        (&[&text], "not an ELF file"),
    ];
    // On cgroup v1 the sentence names what there is instead.
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        home.run(&["run", "--memory-low", "1M", &hello])
            .assert_refused("use --memory-reservation");
    }
    for (options, why) in cases {
        for how in few(&[&["run"][..], &["run", "-d"], &["run", "--rm"]], 1) {
            home.run(&[how, options].concat()).assert_refused(why);
            assert_eq!(home.ok(&["ps", "--all", "--quiet"]), "", "{how:?} {options:?}");
        }
    }
    let cases: [(&[&str], &str); 6] = [
        (&["--balloon=17M", &hello], "the balloon cannot hold 17825792 bytes"),
        (&["--rm", "--restart", "always", &hello], "--rm needs an end"),
        (&["--process", &hello], "--process runs the program of an image"),
        (&["--no-jail", "--detach", &hello], "--detach needs a jail"),
        (&["--no-jail", "--network", "bridge", &hello], "--network needs a jail"),
        (&["--no-jail", "--pids-max", "9", &hello], "a limit needs a jail"),
    ];
    for (options, why) in cases {
        home.run(&[&["run"], options].concat()).assert_refused(why);
    }
    let words: [(&[&str], &str); 4] = [
        (&["run", "--label", "", &hello], "write KEY or KEY=VALUE"),
        (&["run", "--hostname", "a/b", &hello], "cannot be a host name"),
        (
            &["run", "--network", "bridge", "--ip", "x", &hello],
            "is not an address",
        ),
        (&["logs", "-n", "x", "y"], "is no number of lines"),
    ];
    for (words, why) in words {
        let run = home.run(words);
        run.assert_status(125);
        assert!(run.stderr_text().contains(why), "{words:?}: {}", run.stderr_text());
    }
    assert_eq!(home.ok(&["ps", "--all", "--quiet"]), "");
    for word in ["events", "live", "instances"] {
        assert!(home.path().join(word).exists());
    }
    home.assert_empty();
}

#[test]
fn a_supervisor_that_is_killed_leaves_nothing_for_long() {
    let Some(home) = Home::new() else { return };
    let rounds = std::env::var("CHITON_KILLS")
        .ok()
        .and_then(|rounds| rounds.parse().ok());
    let rounds = rounds.unwrap_or(if slow() { 3_u32 } else { 12 });
    let mut ids = Vec::new();
    for round in 0..rounds {
        let name = format!("k{round}");
        let mut child = Command::new(chiton_tests::chiton_path())
            .args(["run", "--name", &name])
            .arg(guest_path("live"))
            .env("CHITON_HOME", home.path())
            .env_remove("CHITON_JAIL")
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("chiton starts");
        // At a moment that differs: while it makes the instance, the jail, or when the guest runs.
        std::thread::sleep(Duration::from_micros((u64::from(round) * 7919) % 40_000));
        signal(&child, libc::SIGKILL);
        child.wait().expect("it ends");
        ids.extend(
            home.ok(&["ps", "--all", "--quiet", "--no-trunc"])
                .lines()
                .map(str::to_owned),
        );
    }
    home.chiton(&["run", "--rm"]).guest("hello").run().assert_status(0);
    // What was killed may be still about to end.
    home.until("the end of their cgroups", || {
        home.ok(&["prune"]);
        ids.iter().all(|id| cgroups(&id[..12]).is_empty())
    });
    let folder = home.path().display().to_string();
    home.until("the end of what the killed had started", || {
        !processes().iter().any(|process| is_of(process, &folder))
    });
    home.assert_empty();
}

//! What people do with instances all day, by the words that they know from elsewhere: lists, logs, events, consoles,
//! limits, clocks and namespaces of ordinary processes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use chiton_tests::{PATIENCE, Record, busybox, guest_path, is_root, kvm_works, nap, signal};

/// A record with an image `box`, whose program is busybox; `None`, with the reason said, where there can be none.
fn record() -> Option<Record> {
    if !kvm_works() || !busybox() {
        return None;
    }
    if !is_root() {
        assert!(std::env::var_os("CHITON_STRICT").is_none(), "root is required here");
        println!("SKIPPED: not root");
        return None;
    }
    let record = Record::new([]);
    record.ok(&["image", "build", "-t", "box", "--guest", "/bin/busybox"]);
    Some(record)
}

/// What a process in a jail prints.
#[track_caller]
fn process(record: &Record, options: &[&str], words: &[&str]) -> String {
    record.ok(&[&["run", "--rm", "--process"], options, &["box"], words].concat())
}

/// Starts a shell in the background.
#[track_caller]
fn shell(record: &Record, name: &str, options: &[&str], script: &str) -> String {
    let words = ["box", "sh", "-c", script];
    record.ok(&[&["run", "-d", "--process", "--name", name], options, &words].concat())
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what} does not come");
        nap();
    }
}

/// A command that goes on, and what it prints.
fn follow(record: &Record, args: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = record
        .command(args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("chiton starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe"));
    (child, lines)
}

#[test]
fn lists_show_what_they_are_asked_for() {
    let Some(record) = record() else { return };
    let live = guest_path("live").display().to_string();
    let long = "a word that is much longer than what a table has room for";
    let id = record.ok(&["run", "-d", "--name", "one", "-l", "color=blue", &live, long]);
    shell(&record, "two", &["-l", "color=red"], "exit 3");
    record.ok(&["wait", "two"]);
    let names = |args: &[&str]| {
        let mut words = vec!["ps", "--format", "{{.Name}}"];
        words.extend(args);
        record.ok(&words)
    };
    assert_eq!(names(&[]), "one");
    assert_eq!(names(&["--all"]).lines().count(), 2);
    assert_eq!(names(&["--filter", "status=exited"]), "two");
    assert_eq!(names(&["-a", "--filter", "name=tw"]), "two");
    assert_eq!(names(&["-a", "--filter", "label=color"]).lines().count(), 2);
    assert_eq!(
        names(&["-a", "--filter", "label=color=blue", "--filter", "name=one"]),
        "one"
    );
    assert_eq!(names(&["-a", "--filter", "image=box"]), "two");
    assert_eq!(names(&["--filter", "image=none"]), "");
    assert_eq!(record.ok(&["ps", "--no-trunc", "--quiet"]), id);
    assert!(id.starts_with(&record.ok(&["ps", "--quiet"])) && record.ok(&["ps", "-q"]).len() == 12);
    let table = record.ok(&["ps", "--all"]);
    assert!(
        table.starts_with("ID ") && table.contains("Exited (3)") && !table.contains(long),
        "{table}"
    );
    assert!(record.ok(&["ps", "--no-trunc"]).contains(long));
    let json = record.ok(&["ps", "--format", "json"]);
    assert!(
        json.contains(r#""Labels":["color=blue"]"#) && json.contains(r#""State":"running""#),
        "{json}"
    );
    let line = record.ok(&["ps", "--format", r"{{.State}}\t{{.Name}}:{{.Image}} {{.Command}}"]);
    assert!(line.starts_with("running\tone: ") && line.ends_with(long), "{line}");
    let top = record.ok(&["top", "one"]);
    assert!(top.starts_with("PROCESS") && top.contains("devices"), "{top}");
    let ended = record.output(&["top", "two"]);
    assert!(String::from_utf8_lossy(&ended.stderr).contains("only an instance that runs has threads"));
    record.ok(&["rm", "-f", "one", "two"]);
}

#[test]
fn logs_are_shown_from_where_they_are_asked_for() {
    let Some(record) = record() else { return };
    let start = "echo first; echo second; echo third >&2; while ! [ -e /go ]; do sleep 0.01; done; echo last";
    let folder = record.folder().path("shared").display().to_string();
    fs::create_dir(&folder).expect("a new folder");
    let start = start.replace("/go", "/shared/go");
    shell(&record, "l", &["-v", &format!("{folder}:/shared")], &start);
    until("output", || record.output(&["logs", "l"]).stderr.starts_with(b"third"));
    let logs = |args: &[&str]| {
        let output = record.output(&[&["logs"], args, &["l"]].concat());
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (out, err)
    };
    assert_eq!(logs(&[]), ("first\nsecond\n".into(), "third\n".into()));
    assert_eq!(logs(&["--tail", "2"]), ("second\n".into(), "third\n".into()));
    assert_eq!(logs(&["--tail", "0"]), (String::new(), String::new()));
    assert_eq!(logs(&["--since", "1h"]), logs(&[]));
    let (stamped, _) = logs(&["--timestamps", "-n", "3"]);
    for line in stamped.lines() {
        let (time, _) = line.split_once(' ').expect("a time");
        let year = time.split('-').next().and_then(|year| year.parse::<u32>().ok());
        assert!(year >= Some(2020) && time.ends_with('Z'), "{line}");
    }
    // From the second line on, as it says itself.
    let second = stamped
        .lines()
        .nth(1)
        .and_then(|line| line.split(' ').next())
        .expect("a time");
    let (since, _) = logs(&["--since", second]);
    assert!(since.ends_with("second\n"), "{since}");
    assert_eq!(logs(&["--since", "0s"]), (String::new(), String::new()));
    let (mut tail, mut lines) = follow(&record, &["logs", "--follow", "--tail", "2", "l"]);
    let mut before = String::new();
    lines.read_line(&mut before).expect("text");
    assert_eq!(before, "second\n");
    fs::write(format!("{folder}/go"), "").expect("it goes on");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "last\n");
    assert!(tail.wait().expect("it ends").success());
    record.ok(&["rm", "l"]);
}

#[test]
fn events_come_as_they_happen() {
    let Some(record) = record() else { return };
    let since = ["events", "--since", "1h", "--format", "{{.kind}} {{.name}}"];
    let (mut events, mut lines) = follow(&record, &since);
    let id = shell(&record, "e", &[], "exit 3");
    let mut next = || {
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    };
    assert_eq!([next(), next(), next()], ["create e", "start e", "die e"]);
    record.ok(&["rename", "e", "f"]);
    assert_eq!(next(), "rename f");
    // Its process has ended; what minds it may be still about to.
    record.ok(&["wait", "f"]);
    record.ok(&["rm", "f"]);
    assert_eq!(next(), "remove f");
    signal(&events, libc::SIGKILL);
    events.wait().expect("it ends");
    let all = record.ok(&["events", "--since", "1h", "--until", "0s", "--format", "json"]);
    assert_eq!(all.lines().filter(|line| line.contains(&id)).count(), 5, "{all}");
    assert_eq!(record.ok(&["events", "--since", "0s", "--until", "0s"]), "");
}

#[test]
fn a_console_is_looked_at_without_being_typed_into() {
    static LOOKS: AtomicBool = AtomicBool::new(false);
    let Some(record) = record() else { return };
    let cat = guest_path("cat").display().to_string();
    record.ok(&["run", "-d", "-i", "--name", "c", &cat]);
    let attach = |args: &[&str]| {
        let mut command = record.command(&[&["attach"], args, &["c"]].concat());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("chiton starts");
        let input = child.stdin.take().expect("a pipe");
        (child, input)
    };
    let (mut looks, mut unheard) = attach(&["--no-stdin"]);
    unheard.write_all(b"nobody hears this\n").expect("a pipe");
    drop(unheard);
    let (types, mut heard) = attach(&[]);
    let mut shown = looks.stdout.take().expect("a pipe");
    let looking = std::thread::spawn(move || {
        let mut text = vec![0];
        shown.read_exact(&mut text).expect("something to see");
        LOOKS.store(true, Ordering::SeqCst);
        shown.read_to_end(&mut text).expect("the rest");
        text
    });
    // Both are there before it ends.
    until("who looks on", || {
        heard.write_all(b"heard\n").expect("a pipe");
        record.ok(&["logs", "c"]).contains("heard") && LOOKS.load(Ordering::SeqCst)
    });
    record.ok(&["kill", "c"]);
    drop(heard);
    let typed = types.wait_with_output().expect("it ends");
    let looked = looks.wait().expect("it ends");
    for (status, text) in [(looked, looking.join().expect("text")), (typed.status, typed.stdout)] {
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("nobody"), "{text}");
        assert!(text.is_empty() || text.contains("heard"), "{text}");
        assert_eq!(status.code(), Some(137));
    }
    assert!(!record.ok(&["logs", "c"]).contains("nobody"));
    record.ok(&["rm", "c"]);
}

#[test]
fn who_attaches_a_terminal_tells_its_size_passes_signals_and_can_let_go() {
    let Some(record) = record() else { return };
    let live = guest_path("live").display().to_string();
    record.ok(&["run", "-d", "-i", "--name", "t", &live]);
    // It tells of sizes that are not the one with which it began.
    until("the guest", || record.ok(&["logs", "t"]).contains("ready"));
    let (terminal, name) = super::ports::terminal();
    let attach = |options: &[&str]| {
        let theirs = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&name)
            .expect("a terminal");
        let mut command = record.command(&[&["attach", "t"], options].concat());
        command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("chiton starts")
    };
    let sizes = |columns: u16, rows: u16| {
        until("the size", || {
            record.ok(&["logs", "t"]).contains(&format!("console {columns}x{rows}"))
        });
    };
    super::ports::resize(&terminal, 100, 40);
    let first = attach(&[]);
    sizes(100, 40);
    super::ports::resize(&terminal, 90, 30);
    // The kernel sends it to who has the terminal for its own.
    signal(&first, libc::SIGWINCH);
    sizes(90, 30);
    let mut keys = fs::File::from(terminal.try_clone().expect("a terminal"));
    keys.write_all(b"lost\x10\x11").expect("it takes it");
    let output = first.wait_with_output().expect("it lets go");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("t goes on; `chiton attach t`"),
        "{said}"
    );
    assert_eq!(record.ok(&["ps", "--quiet"]).lines().count(), 1);
    // Keys by which a terminal itself would hold its output and send a signal.
    super::ports::resize(&terminal, 70, 20);
    let other = attach(&["--detach-keys", "ctrl-s,ctrl-c"]);
    sizes(70, 20);
    keys.write_all(b"\x10\x11\x13\x03").expect("it takes it");
    assert!(other.wait_with_output().expect("it lets go").status.success());
    super::ports::resize(&terminal, 80, 24);
    let second = attach(&[]);
    sizes(80, 24);
    signal(&second, libc::SIGINT);
    assert_eq!(second.wait_with_output().expect("it ends").status.code(), Some(130));
    assert_eq!(record.ok(&["wait", "t"]), "130");
    record.ok(&["rm", "t"]);
    let output = record.output(&["run", "-it", &live]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("leave -t out"), "{said}");
}

#[test]
fn clocks_limits_and_namespaces_of_a_process_are_what_was_asked_for() {
    let Some(record) = record() else { return };
    let uptime = |options: &[&str]| {
        let text = process(&record, options, &["cat", "/proc/uptime"]);
        let seconds = text.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok());
        seconds.expect("seconds")
    };
    const YEAR: u64 = 365 * 86_400;
    let plain = uptime(&[]);
    let later = uptime(&["--clock", &format!("boottime={YEAR}")]);
    assert!((plain + YEAR..plain + YEAR + 600).contains(&later), "{plain} {later}");

    let limits = |options: &[&str]| {
        let script = "ulimit -Sn; ulimit -Hn; ulimit -Sl; ulimit -Su; ulimit -Sc";
        let text = process(&record, options, &["sh", "-c", script]);
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let usual = limits(&[]);
    assert_eq!(usual[0], "1024");
    assert_eq!(usual[2..], ["8192", "4096", "0"]);
    let asked = limits(&[
        "--ulimit",
        "nofile=64:128",
        "--ulimit",
        "nproc=77",
        "--ulimit",
        "memlock=65536",
    ]);
    assert_eq!(asked, ["64", "128", "64", "77", "0"]);
    let refused = record.output(&["run", "--ulimit", "files=3", "--process", "box"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("`files` is none of cpu, data"), "{said}");

    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace");
    for kind in ["uts", "ipc", "pid"] {
        let link = format!("/proc/self/ns/{kind}");
        let seen = |options: &[&str]| process(&record, options, &["readlink", &link]);
        let host = own(kind).display().to_string();
        assert_eq!(seen(&[&format!("--{kind}"), "host"]), host);
        assert_ne!(seen(&[]), host);
    }
    shell(&record, "other", &[], "sleep 1000");
    let there = ["--pid", "container:other", "--namespace", "user=container:other"];
    let number = record.ok(&["inspect", "--format", "{{.Jail.namespaces.pid}}", "other"]);
    let joined = process(&record, &there, &["readlink", "/proc/self/ns/pid"]);
    assert_eq!(joined, format!("pid:[{number}]"));
    record.ok(&["rm", "-f", "other"]);
}

#[test]
fn who_sits_at_a_terminal_sees_how_far_an_image_is() {
    let Some(record) = record() else { return };
    let file = record.folder().path("much");
    // What hardly shrinks, and takes longer than a bar needs to be shown.
    let mut state = 1_u32;
    let bytes: Vec<u8> = (0..8 << 20)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    fs::write(&file, bytes).expect("a new file");
    let files = format!("{}:/much", file.display());
    let seen = |args: &[&str]| {
        let (terminal, name) = super::ports::terminal();
        let theirs = fs::OpenOptions::new().write(true).open(name).expect("a terminal");
        let mut child = record
            .command(args)
            .stderr(theirs)
            .stdout(Stdio::null())
            .spawn()
            .expect("chiton starts");
        let mut text = Vec::new();
        // When nobody has the other side any more, that is an error.
        let _ = fs::File::from(terminal).read_to_end(&mut text);
        assert!(child.wait().expect("it ends").success());
        String::from_utf8_lossy(&text).into_owned()
    };
    let built = seen(&["image", "build", "-t", "much", "--guest", "/bin/busybox", "-f", &files]);
    assert!(built.contains("MiB/s") || built.contains("/8."), "{built:?}");
    let first = seen(&["run", "--rm", "--process", "much", "true"]);
    assert!(first.contains("iB"), "{first:?}");
    // What is unpacked is not unpacked again.
    assert_eq!(seen(&["run", "--rm", "--process", "much", "true"]), "");
}

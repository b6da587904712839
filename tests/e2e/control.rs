//! Control of running guests: `--control`, and the commands that use it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use chiton_tests::{Chiton, Folder, PATIENCE, Run, Running, end_listener, finish, kvm_works, signal};

/// A guest with a control socket.
pub(crate) struct Live {
    pub(crate) folder: Folder,
    pub(crate) socket: PathBuf,
    child: Running,
    input: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Live {
    pub(crate) fn start(options: &[&str], guest: &str, args: &[&str]) -> Self {
        let folder = Folder::new();
        let socket = folder.path("c.sock");
        let mut child = Chiton::new()
            .args(["run", "--control", text(&socket)])
            .args(options)
            .guest(guest)
            .args(args)
            .spawn();
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let start = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(start.elapsed() < PATIENCE, "nobody listens");
            std::thread::sleep(Duration::from_millis(1));
        }
        Self {
            folder,
            socket,
            child,
            input,
            lines,
        }
    }

    /// The next line of the guest's output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    /// Waits for a line.
    pub(crate) fn until(&mut self, wanted: &str) {
        loop {
            let line = self.line();
            if line == wanted {
                return;
            }
            assert!(!line.is_empty(), "the guest has ended without `{wanted}`");
        }
    }

    /// `chiton COMMAND SOCKET ARGS`.
    pub(crate) fn chiton(&self, command: &str, args: &[&str]) -> Run {
        Chiton::new().args([command, text(&self.socket)]).args(args).run()
    }

    pub(crate) fn client(&self) -> UnixStream {
        let client = UnixStream::connect(&self.socket).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a time");
        client
    }

    /// The answer to a line.
    pub(crate) fn ask(&self, line: &str) -> String {
        let mut client = self.client();
        client.write_all(line.as_bytes()).expect("it hears");
        client.write_all(b"\n").expect("it hears");
        answer(&mut client)
    }

    /// Waits for the end, after which the socket is gone.
    pub(crate) fn finish(mut self) -> Run {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("text");
        let mut run = finish(self.child);
        run.stdout = rest.into_bytes();
        // Until now, input had not ended.
        drop(self.input.take());
        assert!(!self.socket.exists(), "the socket is left");
        run
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn answer(client: &mut UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).expect("an answer");
    line.trim_end().to_owned()
}

/// Ticks of processor time that a process has used.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("an own process");
    let fields: Vec<_> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    // utime and stime.
    [11, 12]
        .iter()
        .map(|i| fields[*i].parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn a_guest_that_is_asked_to_stop_ends_by_itself() {
    if !kvm_works() {
        return;
    }
    let mut live = Live::start(&[], "live", &[]);
    live.until("ready");
    let mode = fs::metadata(&live.socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    live.chiton("stop", &[]).assert_status(0);
    live.until("asked to end");
    live.finish().assert_status(0);
}

#[test]
fn a_guest_that_does_not_end_when_asked_is_ended_after_its_time() {
    if !kvm_works() {
        return;
    }
    let live = Live::start(&[], "cat", &[]);
    live.chiton("stop", &["--timeout", "100ms"]).assert_status(0);
    live.finish()
        .assert_status(124)
        .assert_says("cat was asked to end, did not within 100ms, and was stopped");
}

#[test]
fn a_signal_asks_first_if_it_is_to_and_a_second_one_does_not() {
    if !kvm_works() {
        return;
    }
    let mut live = Live::start(&["--stop-timeout", "100s"], "live", &[]);
    live.until("ready");
    signal(&live.child, libc::SIGTERM);
    live.until("asked to end");
    live.finish().assert_status(0);

    let live = Live::start(&["--stop-timeout", "100ms"], "cat", &[]);
    live.client();
    signal(&live.child, libc::SIGTERM);
    live.finish().assert_status(143).assert_says("was ended by SIGTERM");

    let live = Live::start(&["--stop-timeout", "100s"], "cat", &[]);
    signal(&live.child, libc::SIGINT);
    while !live.ask(r#"{"query":{}}"#).contains(r#""stop_requested":true"#) {}
    signal(&live.child, libc::SIGTERM);
    live.finish().assert_status(143);
}

#[test]
fn servers_end_when_asked() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let vsock = folder.path("vsock");
    let mut live = Live::start(&["--vsock", text(&vsock)], "rpc", &["5000"]);
    live.until("rpc: serving at port 5000");
    // One client is connected and silent.
    let mut client = UnixStream::connect(&vsock).expect("it listens");
    client.write_all(b"CONNECT 5000\n").expect("it hears");
    assert!(answer(&mut client).starts_with("OK "));
    live.chiton("stop", &[]).assert_status(0);
    live.until("rpc: 0 calls of 1 clients");
    live.finish().assert_status(0);
    assert!(folder.names().is_empty());
}

#[test]
fn a_paused_guest_uses_no_time_and_goes_on_when_resumed() {
    if !kvm_works() {
        return;
    }
    for busy in [true, false] {
        let args = ["busy"];
        let mut live = Live::start(&[], "live", if busy { &args } else { &[] });
        live.until("ready");
        live.chiton("pause", &[]).assert_status(0);
        assert!(live.ask(r#"{"query":{}}"#).contains(r#""paused":true"#));
        let process = live.child.id();
        let before = ticks(process);
        std::thread::sleep(Duration::from_millis(1500));
        let used = ticks(process) - before;
        assert!(used < 30, "{used} ticks while it was paused");
        live.chiton("resume", &[]).assert_status(0);
        live.until("time jumped");
        assert!(live.ask(r#"{"query":{}}"#).contains(r#""paused":false"#));
        live.chiton("stop", &[]).assert_status(0);
        live.until("asked to end");
        live.finish().assert_status(0);
    }
}

#[test]
fn a_paused_guest_is_ended_by_a_signal_and_by_its_timeout() {
    if !kvm_works() {
        return;
    }
    let mut live = Live::start(&[], "live", &["busy"]);
    live.until("ready");
    live.chiton("pause", &[]).assert_status(0);
    signal(&live.child, libc::SIGTERM);
    live.finish().assert_status(143);

    // Its time may be up before it is paused, where much else runs.
    let paused = ["1s", "10s", "100s"].into_iter().any(|limit| {
        let folder = Folder::new();
        let socket = folder.path("c.sock");
        let mut child = Chiton::new()
            .args(["run", "--timeout", limit, "--control", text(&socket)])
            .guest("live")
            .spawn();
        let mut first = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        lines.read_line(&mut first).expect("text");
        let paused = Chiton::new().args(["pause", text(&socket)]).run();
        lines.read_to_string(&mut String::new()).expect("text");
        finish(child).assert_status(124);
        first == "ready\n" && paused.status.success()
    });
    assert!(paused, "it was never paused in time");
}

#[test]
fn every_processor_is_paused() {
    if !kvm_works() {
        return;
    }
    let live = Live::start(&["--cpus", "2"], "parallel", &["1000000"]);
    while !live.ask(r#"{"query":{}}"#).contains(r#""processors""#) {}
    live.chiton("pause", &[]).assert_status(0);
    let before = ticks(live.child.id());
    std::thread::sleep(Duration::from_millis(500));
    let used = ticks(live.child.id()) - before;
    assert!(used < 20, "{used} ticks while it was paused");
    live.chiton("stop", &["--timeout", "1ms"]).assert_status(0);
    live.finish().assert_status(124);
}

#[test]
fn limits_of_a_disk_change_while_it_is_read() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = folder.file("disk", vec![7; 4 << 20]);
    let option = format!("{}:ro,ops=1", text(&disk));
    // It would take an hour.
    let live = Live::start(&["--disk", &option], "sha256", &[]);
    let stats = live.chiton("stats", &[]);
    stats.assert_status(0);
    assert!(stats.stdout_text().contains("ops=1/1"), "{stats}");
    live.chiton("update", &["--disk", "0:bytes=64M/64K"]).assert_status(0);
    let run = live.finish();
    run.assert_status(0);
    assert!(!run.stdout.is_empty(), "{run}");

    let live = Live::start(&["--disk", &option], "sha256", &[]);
    live.chiton("update", &["--disk", "0:none"]).assert_status(0);
    live.finish().assert_status(0);
}

#[test]
fn the_console_gets_another_size() {
    if !kvm_works() {
        return;
    }
    let mut live = Live::start(&[], "live", &[]);
    live.until("ready");
    live.chiton("update", &["--console", "132x43"]).assert_status(0);
    live.until("console 132x43");
    live.chiton("stop", &[]).assert_status(0);
    live.finish().assert_status(0);
}

#[test]
fn the_balloon_follows_its_target_and_tells_its_statistics() {
    if !kvm_works() {
        return;
    }
    let mut live = Live::start(&["--balloon"], "live", &[]);
    live.until("ready");
    live.chiton("update", &["--balloon", "4M"]).assert_status(0);
    live.until("balloon 4096 KiB");
    live.chiton("update", &["--balloon", "1M"]).assert_status(0);
    live.until("balloon 1024 KiB");
    let start = Instant::now();
    // The first answer asks the guest for new ones.
    loop {
        let state = live.ask(r#"{"query":{}}"#);
        assert!(state.contains(r#""target":1048576"#), "{state}");
        if let Some((_, free)) = state.split_once(r#""free":"#)
            && state.contains(r#""actual":1048576"#)
            && free.starts_with(|c: char| c.is_ascii_digit())
        {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "no statistics: {state}");
    }
    let stats = live.chiton("stats", &[]).stdout_text();
    assert!(stats.contains("balloon: 1024 KiB of 1024 KiB wanted"), "{stats}");
    live.chiton("stop", &[]).assert_status(0);
    live.finish().assert_status(0);
}

#[test]
fn statistics_name_processors_devices_and_exits() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = folder.file("disk", [0; 4096]);
    let mut live = Live::start(&["--balloon", "--disk", text(&disk)], "live", &[]);
    live.until("ready");
    let stats = live.chiton("stats", &[]);
    stats.assert_status(0);
    let shown = stats.stdout_text();
    for words in [
        "doorbell kick",
        "ioeventfd",
        "console 0",
        "disk 0",
        "balloon 0",
        "running for",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // It waits for its next task soon after it has said that it is ready.
    let start = Instant::now();
    let json = loop {
        let json = live.chiton("stats", &["--json"]).stdout_text();
        if json.contains(r#""doorbell wait":"#) || start.elapsed() > PATIENCE {
            break json;
        }
    };
    assert_eq!(json.lines().count(), 1);
    for words in [
        r#"{"state":{"#,
        r#""paused":false"#,
        r#""processors":[{"number":0,"exits":{"#,
        r#""doorbell wait":"#,
        r#"{"kind":"disk","number":0,"failures":0,"limits":{}"#,
    ] {
        assert!(json.contains(words), "{words}: {json}");
    }
    live.chiton("stop", &[]).assert_status(0);
    live.finish().assert_status(0);
}

#[test]
fn what_cannot_be_done_is_refused_in_a_sentence() {
    if !kvm_works() {
        return;
    }
    let mut live = Live::start(&[], "live", &[]);
    live.until("ready");
    for (line, words) in [
        ("nonsense", "not a request"),
        ("{", "not a request"),
        ("", "not a request"),
        ("\u{1}\u{2}", "not a request"),
        (r#"{"explode":{}}"#, "unknown variant"),
        (
            r#"{"set":{"disks":[{"number":0,"limits":{}}]}}"#,
            "there is no disk 0: the guest has none",
        ),
        (
            r#"{"set":{"nets":[{"number":7,"limits":{}}]}}"#,
            "there is no network interface 7",
        ),
        (
            r#"{"set":{"disks":[{"number":0,"limits":{"ops":{"per_second":0,"burst":1}}}]}}"#,
            "with a rate of 0 nothing would ever be done",
        ),
        (
            r#"{"set":{"balloon":1}}"#,
            "the guest has no balloon: start it with --balloon",
        ),
        (r#"{"set":{"console":{"columns":0,"rows":9}}}"#, "shows nothing"),
    ] {
        let said = live.ask(line);
        assert!(
            said.starts_with(r#"{"error":""#) && said.contains(words),
            "{line}: {said}"
        );
    }
    live.chiton("update", &["--disk", "3:ops=1"])
        .assert_refused("there is no disk 3: the guest has none");
    live.chiton("update", &["--balloon", "1M"])
        .assert_refused("the guest has no balloon");
    live.chiton("update", &[]).assert_refused("nothing to update");

    let mut long = live.client();
    long.write_all(&[b'x'; 5000]).expect("it hears");
    assert!(answer(&mut long).contains("at most 4096 bytes"));
    assert_eq!(long.read(&mut [0; 1]).unwrap_or(0), 0, "the conversation is over");

    // It goes on all the same.
    live.chiton("stop", &[]).assert_status(0);
    live.until("asked to end");
    live.finish().assert_status(0);
}

#[test]
fn a_balloon_larger_than_memory_is_refused() {
    if !kvm_works() {
        return;
    }
    let mut live = Live::start(&["--balloon"], "live", &[]);
    live.until("ready");
    live.chiton("update", &["--balloon", "1G"])
        .assert_refused("the balloon cannot hold 1073741824 bytes: the guest has 16777216");
    live.chiton("stop", &[]).assert_status(0);
    live.finish().assert_status(0);
}

#[test]
fn clients_that_never_read_hold_nobody_up() {
    if !kvm_works() {
        return;
    }
    let mut live = Live::start(&[], "live", &[]);
    live.until("ready");
    // As much as fits: more answers than any socket takes.
    let mut lazy: Vec<_> = (0..10).map(|_| live.client()).collect();
    for client in &mut lazy {
        client.set_nonblocking(true).expect("a socket");
        let start = Instant::now();
        while client.write(b"{\"query\":{}}\n").is_ok() {
            assert!(start.elapsed() < PATIENCE, "it takes everything");
        }
    }
    // More than are served at a time, and they go away.
    drop((0..40).map(|_| live.client()).collect::<Vec<_>>());
    live.chiton("update", &["--console", "10x10"]).assert_status(0);
    live.until("console 10x10");
    live.chiton("stop", &[]).assert_status(0);
    live.until("asked to end");
    drop(lazy);
    live.finish().assert_status(0);
}

#[test]
fn many_requests_may_come_at_once_and_a_client_may_be_slow() {
    if !kvm_works() {
        return;
    }
    let mut live = Live::start(&[], "live", &[]);
    live.until("ready");
    let mut client = live.client();
    client
        .write_all(&b"{\"resume\":{}}\n".repeat(200))
        .and_then(|()| client.shutdown(std::net::Shutdown::Write))
        .expect("it hears");
    let mut all = String::new();
    client.read_to_string(&mut all).expect("answers");
    assert_eq!(all, "{\"done\":{}}\n".repeat(200));
    let mut client = live.client();
    for byte in b"{\"resume\":{}}\n" {
        client.write_all(&[*byte]).expect("it hears");
    }
    assert_eq!(answer(&mut client), r#"{"done":{}}"#);
    live.chiton("stop", &[]).assert_status(0);
    live.finish().assert_status(0);
}

#[test]
fn a_guest_that_is_gone_and_what_is_no_control_socket_are_told_apart() {
    let folder = Folder::new();
    let ask = |target: &str| Chiton::new().args(["stats", target]).run();
    ask("./nobody").assert_refused("./nobody does not exist: is the guest still running");
    let path = folder.path("c.sock");
    ask(text(&path)).assert_refused("does not exist: is the guest still running");
    let listener = UnixListener::bind(&path).expect("a socket");
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        answer(&mut stream);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("it hears");
        end_listener(listener);
    });
    ask(text(&path)).assert_refused("is not the control socket of a guest");
    other.join().expect("it answered");
    ask(text(&path)).assert_refused("nobody listens at");
    let file = folder.file("file.sock", b"");
    ask(text(&file)).assert_refused("nobody listens at");
}

#[test]
fn a_path_that_is_taken_is_refused_unless_nobody_listens_there() {
    let folder = Folder::new();
    let run = |path: &str| Chiton::new().args(["run", "--control", path]).guest("hello").run();
    let file = folder.file("file", b"precious");
    run(text(&file)).assert_refused("exists and is not a socket: choose another path");
    assert_eq!(fs::read(&file).expect("a file"), b"precious");
    run(&"x".repeat(200)).assert_refused("is too long for a Unix socket: use one of at most 107 bytes");
    run("no-such-folder/c").assert_refused("cannot make the socket no-such-folder/c");
    let path = folder.path("c.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    run(text(&path)).assert_refused("is in use: end who listens there, or choose another path");
    end_listener(listener);
    if kvm_works() {
        run(text(&path)).assert_status(0);
        assert!(!path.exists());
    }
}

#[test]
fn no_socket_is_left_by_a_start_that_fails_or_a_guest_that_is_killed() {
    let folder = Folder::new();
    let path = folder.path("c.sock");
    Chiton::new()
        .args(["run", "--kvm", "/nonexistent", "--control", text(&path)])
        .guest("hello")
        .run()
        .assert_refused("/nonexistent does not exist");
    assert!(!path.exists());
    if !kvm_works() {
        return;
    }
    let mut live = Live::start(&[], "live", &[]);
    live.until("ready");
    signal(&live.child, libc::SIGTERM);
    live.finish().assert_status(143);

    // Nobody can remove it at SIGKILL: the next start does.
    let mut live = Live::start(&[], "live", &[]);
    live.until("ready");
    let path = live.socket.clone();
    live.child.kill().expect("it runs");
    live.child.wait().expect("it ends");
    assert!(path.exists());
    Chiton::new()
        .args(["run", "--control", text(&path)])
        .guest("hello")
        .run()
        .assert_status(0);
    assert!(!path.exists());
}

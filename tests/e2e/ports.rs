//! Ports of the console: real guests, real sockets, terminals, pipes and files.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use chiton_tests::{Chiton, Folder, PATIENCE, finish, kvm_works, signal};

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", text(path))
}

fn connect(path: &Path) -> UnixStream {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).expect("a time");
                return stream;
            }
            Err(error) => assert!(start.elapsed() < PATIENCE, "nobody listens: {error}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_socket_is_a_port_for_one_client_after_the_other() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let (one, two) = (folder.path("one"), folder.path("two"));
    let guest = Chiton::new()
        .args([
            "run",
            "--port",
            &option("other", &one),
            "--port",
            &option("echo.1", &two),
        ])
        .guest("ports")
        .args(["echo", "echo.1", "3"])
        .spawn();
    let bytes: Vec<u8> = (0..200_000_u32).map(|i| ((i * 7) >> 3) as u8).collect();
    for _ in 0..3 {
        let mut stream = connect(&two);
        assert_eq!(fs::metadata(&two).expect("it").permissions().mode() & 0o777, 0o600);
        let mut writing = stream.try_clone().expect("a second descriptor");
        let sent = bytes.clone();
        let writer = std::thread::spawn(move || {
            writing.write_all(&sent).expect("the guest takes everything");
        });
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).expect("everything comes back");
        writer.join().expect("the writer ends");
        assert!(back == bytes, "other bytes came back");
        stream.shutdown(Shutdown::Both).expect("the end");
    }
    let run = finish(guest);
    run.assert_status(0);
    assert_eq!(run.stdout_text(), "open\n3 clients, 600000 bytes\n");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn what_a_client_said_before_it_left_is_not_lost() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let port = folder.path("port");
    let guest = Chiton::new()
        .args(["run", "--port", &option("p", &port)])
        .guest("ports")
        .args(["echo", "p", "2"])
        .spawn();
    for _ in 0..2 {
        connect(&port).write_all(b"gone already").expect("it fits");
    }
    let run = finish(guest);
    run.assert_status(0);
    assert_eq!(run.stdout_text(), "open\n2 clients, 24 bytes\n");
}

#[test]
fn a_client_that_shuts_its_sending_side_down_gets_everything_the_guest_writes() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let port = folder.path("port");
    let guest = Chiton::new()
        .args(["run", "--port", &option("p", &port)])
        .guest("ports")
        .args(["count", "p", "2"])
        .spawn();
    for words in ["one", "twelve"] {
        let mut stream = connect(&port);
        stream.write_all(words.as_bytes()).expect("it fits");
        stream.shutdown(Shutdown::Write).expect("the end of what it says");
        let mut answer = String::new();
        let mut line = BufReader::new(&stream);
        line.read_line(&mut answer).expect("the guest's answer");
        assert_eq!(answer, format!("{} bytes\n", words.len()));
    }
    let run = finish(guest);
    run.assert_status(0);
    assert_eq!(run.stdout_text(), "open\n2 clients, 9 bytes\n");
}

#[test]
fn a_file_and_a_pipe_take_what_a_guest_says() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let say = |path: &Path, words: &str| {
        Chiton::new()
            .args(["run", "--port", &option("log", path)])
            .guest("ports")
            .args(["say", "log", words])
            .run()
            .assert_status(0);
    };
    let file = folder.file("file", b"before\n");
    say(&file, "one");
    say(&file, "two");
    assert_eq!(fs::read(&file).expect("a file"), b"before\nonetwo");

    let pipe = folder.path("pipe");
    let name = std::ffi::CString::new(text(&pipe)).expect("no NUL");
    // SAFETY: the name is a string with its NUL.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    // Somebody holds the pipe open, so that it keeps what is written.
    let mut reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .expect("a pipe");
    say(&pipe, "three");
    let mut bytes = [0; 5];
    reader.read_exact(&mut bytes).expect("what was said");
    assert_eq!(&bytes, b"three");
    // To nobody: the guest does not wait.
    say(&folder.path("nobody"), "lost");
    say(Path::new("/dev/full"), "lost");
}

/// A terminal: our side, and the path of the other.
pub(crate) fn terminal() -> (OwnedFd, String) {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    assert!(fd >= 0, "no terminal");
    // SAFETY: the descriptor is new and owned by nobody else.
    let ours = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut name = [0_u8; 64];
    // SAFETY: the descriptor is that of a terminal, and the name has room for what is said.
    let ready = unsafe {
        libc::grantpt(fd) == 0 && libc::unlockpt(fd) == 0 && libc::ptsname_r(fd, name.as_mut_ptr().cast(), 64) == 0
    };
    assert!(ready, "no terminal");
    let name = name.split(|byte| *byte == 0).next().expect("a name");
    (ours, String::from_utf8_lossy(name).into_owned())
}

pub(crate) fn resize(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the size is on the stack, and the request reads it.
    let set = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(set, 0);
}

#[test]
fn a_terminal_tells_its_size_and_each_new_one() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let control = folder.path("c.sock");
    let (ours, theirs) = terminal();
    resize(&ours, 80, 25);
    let mut guest = Chiton::new()
        .args(["run", "--control", text(&control), "--port", &format!("tty={theirs}")])
        .guest("ports")
        .args(["size", "tty"])
        .spawn();
    let mut lines = BufReader::new(guest.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    assert_eq!(line(), "80x25");
    for (columns, rows) in [(132, 43), (1, 2)] {
        resize(&ours, columns, rows);
        // The kernel sends it to who has the terminal for its own.
        signal(&guest, libc::SIGWINCH);
        assert_eq!(line(), format!("{columns}x{rows}"));
    }
    Chiton::new().args(["stop", text(&control)]).run().assert_status(0);
    finish(guest).assert_status(0);
}

#[test]
fn a_terminal_carries_bytes_both_ways() {
    if !kvm_works() {
        return;
    }
    let (ours, theirs) = terminal();
    // SAFETY: an all-zero `termios` is a valid value to be overwritten.
    let mut raw: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is a terminal's, and `raw` lives as long as the calls.
    unsafe {
        libc::tcgetattr(ours.as_raw_fd(), &raw mut raw);
        libc::cfmakeraw(&raw mut raw);
        libc::tcsetattr(ours.as_raw_fd(), libc::TCSANOW, &raw const raw);
    }
    let guest = Chiton::new()
        .args(["run", "--port", &format!("tty={theirs}")])
        .guest("ports")
        .args(["echo", "tty"])
        .spawn();
    let mut ours = fs::File::from(ours);
    ours.write_all(b"hello").expect("it takes it");
    let mut back = [0; 5];
    ours.read_exact(&mut back).expect("it comes back");
    assert_eq!(&back, b"hello");
    signal(&guest, libc::SIGTERM);
    finish(guest).assert_status(143);
}

#[test]
fn a_client_that_does_not_read_stops_its_port_and_nothing_else() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let (port, control) = (folder.path("port"), folder.path("c.sock"));
    let guest = Chiton::new()
        .args(["run", "--control", text(&control), "--port", &option("p", &port)])
        .guest("ports")
        .args(["echo", "p"])
        .spawn();
    let mut lazy = connect(&port);
    lazy.set_nonblocking(true).expect("a socket");
    let start = Instant::now();
    // Both directions fill up.
    let mut full = Instant::now();
    while full.elapsed().as_millis() < 300 {
        if lazy.write(&[b'x'; 65536]).is_ok() {
            full = Instant::now();
        }
        assert!(start.elapsed() < PATIENCE, "it takes everything");
    }
    let stats = Chiton::new().args(["stats", text(&control)]).run();
    stats.assert_status(0);
    // It waits for room, and the host does not.
    signal(&guest, libc::SIGTERM);
    finish(guest).assert_status(143);
}

#[test]
fn ports_that_cannot_be_are_refused_and_leave_nothing() {
    let folder = Folder::new();
    let run = |ports: &[&str]| {
        let options = ports.iter().flat_map(|port| ["--port", *port]);
        Chiton::new()
            .args(["run"])
            .args(options)
            .guest("ports")
            .args(["say", "a", "b"])
            .run()
    };
    run(&["a b=x"]).assert_refused("`a b` is not a name of a port");
    run(&["a=/"]).assert_refused("/ is no end for the port a");
    run(&["a=no-such-folder/x"]).assert_refused("cannot make the socket no-such-folder/x");
    let (one, two) = (option("a", &folder.path("1")), option("a", &folder.path("2")));
    run(&[&one, &two]).assert_refused("two ports are called a");
    let many: Vec<_> = (0..9)
        .map(|i| option(&format!("p{i}"), &folder.path(&i.to_string())))
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    run(&many).assert_refused("9 ports are too many: the most is 8");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
    if !kvm_works() {
        return;
    }
    run(&[])
        .assert_status(1)
        .assert_says("start the guest with --port NAME=PATH");
    run(&[&option("other", &folder.path("1"))])
        .assert_status(1)
        .assert_says("the console has no port of this name");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn the_first_port_stays_what_it_is() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let run = Chiton::new()
        .args(["run", "--port", &option("p", &folder.path("p"))])
        .guest("cat")
        .stdin("through the first port")
        .run();
    run.assert_status(0);
    assert_eq!(run.stdout_text(), "through the first port");
}

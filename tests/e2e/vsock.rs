//! The socket device: real guests, real Unix sockets.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chiton_tests::{Chiton, Folder, PATIENCE, Running, end_listener, finish, finish_unread, kvm_works, signal, slow};

/// A guest with a socket device.
fn start(socket: &Path, guest: &str, args: &[&str]) -> Running {
    let options = ["run", "--exits", "--vsock", socket.to_str().expect("utf-8")];
    Chiton::new().args(options).guest(guest).args(args).spawn()
}

/// Connects to a port of the guest; a refusal is the end of the stream.
fn client(socket: &Path, port: u32) -> UnixStream {
    let start = Instant::now();
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(start.elapsed() < PATIENCE, "nobody listens: {error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    (&stream)
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .expect("a socket that takes a line");
    stream
}

/// The first line that comes; empty if the guest refuses.
fn line(stream: &mut UnixStream) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|n| n == 1) {
        line.push(char::from(byte[0]));
        if byte == *b"\n" {
            break;
        }
    }
    line
}

/// A connection that the guest has accepted. It listens soon after its start, not at it.
pub(crate) fn connected(socket: &Path, port: u32) -> UnixStream {
    let start = Instant::now();
    loop {
        let mut stream = client(socket, port);
        let line = line(&mut stream);
        if line.starts_with("OK ") {
            return stream;
        }
        assert!(start.elapsed() < PATIENCE, "port {port} does not answer: {line:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn place() -> (Folder, PathBuf) {
    let folder = Folder::new();
    let socket = folder.path("socket");
    (folder, socket)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8)
        .collect()
}

pub(crate) fn call(stream: &mut UnixStream, function: u8, argument: &[u8]) -> Vec<u8> {
    let len = argument.len() as u32 + 1;
    let request = [&len.to_le_bytes(), &[function][..], argument].concat();
    stream.write_all(&request).expect("a request");
    let mut len = [0; 4];
    stream.read_exact(&mut len).expect("a length");
    let mut result = vec![0; u32::from_le_bytes(len) as usize];
    stream.read_exact(&mut result).expect("a result");
    result
}

#[test]
fn functions_are_called_with_one_exit_each() {
    if !kvm_works() {
        return;
    }
    let (folder, socket) = place();
    let guest = start(&socket, "rpc", &["5000", "2"]);
    let mut stream = connected(&socket, 5000);
    let calls: u64 = 200;
    for i in 0..calls {
        let argument = [i.to_le_bytes(), 7_u64.to_le_bytes()].concat();
        assert_eq!(call(&mut stream, 1, &argument), (i + 7).to_le_bytes());
    }
    assert_eq!(call(&mut stream, 2, b"the same"), b"the same");
    assert_eq!(call(&mut stream, 3, b"a"), 0xaf63_dc4c_8601_ec8c_u64.to_le_bytes());
    drop(stream);
    let mut stream = connected(&socket, 5000);
    assert_eq!(call(&mut stream, 4, b""), (calls + 3).to_le_bytes());
    drop(stream);
    let run = finish(guest);
    run.assert_status(0);
    let exits = run.exits("all");
    assert!(exits < calls * 3 / 2 + 40, "{exits} exits for {calls} calls\n{run}");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn megabytes_go_there_and_back_and_each_direction_ends_by_itself() {
    if !kvm_works() {
        return;
    }
    let (_folder, socket) = place();
    let guest = start(&socket, "sockets", &["echo", "7", "1"]);
    let mut stream = connected(&socket, 7);
    let bytes = pattern(if slow() { 1 << 20 } else { 8 << 20 });
    let mut writing = stream.try_clone().expect("a second descriptor");
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || {
        writing.write_all(&sent).expect("the guest takes everything");
        writing.shutdown(Shutdown::Write).expect("half a close");
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("everything comes back");
    writer.join().expect("the writer ends");
    assert!(back == bytes, "{} bytes of {} came back", back.len(), bytes.len());
    finish(guest).assert_status(0);
    assert!(!socket.exists());
}

#[test]
fn a_client_that_does_not_read_stops_its_stream_and_no_other() {
    if !kvm_works() {
        return;
    }
    let (_folder, socket) = place();
    let guest = start(&socket, "sockets", &["echo", "7", "2"]);
    let mut lazy = connected(&socket, 7);
    let bytes = pattern(2 << 20);
    let mut writing = lazy.try_clone().expect("a second descriptor");
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || {
        writing.write_all(&sent).expect("the guest takes everything");
        writing.shutdown(Shutdown::Write).expect("half a close");
    });
    let mut quick = connected(&socket, 7);
    for _ in 0..20 {
        quick.write_all(b"ping").expect("a stream of its own");
        let mut pong = [0; 4];
        quick.read_exact(&mut pong).expect("an answer");
        assert_eq!(&pong, b"ping");
    }
    drop(quick);
    let mut back = Vec::new();
    lazy.read_to_end(&mut back).expect("everything comes back");
    writer.join().expect("the writer ends");
    assert!(back == bytes);
    finish(guest).assert_status(0);
}

#[test]
fn a_hundred_connections_at_once() {
    if !kvm_works() {
        return;
    }
    let (_folder, socket) = place();
    let count = if slow() { 20 } else { 100 };
    let guest = start(&socket, "sockets", &["echo", "7", &count.to_string()]);
    let mut streams = vec![connected(&socket, 7)];
    streams.extend((1..count).map(|_| client(&socket, 7)));
    for stream in &mut streams[1..] {
        assert!(line(stream).starts_with("OK "));
    }
    for (i, stream) in streams.iter_mut().enumerate() {
        stream.write_all(format!("number {i}\n").as_bytes()).expect("a line");
    }
    for (i, stream) in streams.iter_mut().enumerate() {
        assert_eq!(line(stream), format!("number {i}\n"));
    }
    drop(streams);
    let run = finish(guest);
    run.assert_status(0);
    assert!(run.stdout_text().contains(&format!("{count} at once")), "{run}");
}

#[test]
fn the_guest_connects_to_the_host() {
    if !kvm_works() {
        return;
    }
    let (folder, socket) = place();
    let served = folder.path("socket_1234");
    let listener = UnixListener::bind(&served).expect("a socket");
    let guest = start(&socket, "sockets", &["call", "1234", "who is there?"]);
    let (mut stream, _) = listener.accept().expect("the guest comes");
    let mut question = String::new();
    stream.read_to_string(&mut question).expect("its question, to the end");
    assert_eq!(question, "who is there?");
    // The other direction is still open.
    stream.write_all(b"the host").expect("an answer");
    drop(stream);
    let run = finish(guest);
    run.assert_status(0);
    assert_eq!(run.stdout_text(), "the host\n");
    fs::remove_file(served).expect("still there: it is not chiton's");
}

#[test]
fn where_nobody_serves_the_guest_is_refused() {
    if !kvm_works() {
        return;
    }
    let (_folder, socket) = place();
    let run = finish(start(&socket, "sockets", &["call", "99", "hello"]));
    run.assert_status(1)
        .assert_says("nobody on the host listens at port 99");
    assert!(!socket.exists());
}

#[test]
fn a_port_where_the_guest_does_not_listen_is_refused() {
    if !kvm_works() {
        return;
    }
    let (_folder, socket) = place();
    let guest = start(&socket, "sockets", &["echo", "7", "1"]);
    let open = connected(&socket, 7);
    assert_eq!(line(&mut client(&socket, 8)), "");
    // Who does not say what it wants is sent away, too.
    let mut rude = UnixStream::connect(&socket).expect("a socket");
    rude.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a line");
    assert_eq!(line(&mut rude), "");
    drop(open);
    finish(guest).assert_status(0);
}

#[test]
fn a_client_that_goes_is_noticed() {
    if !kvm_works() {
        return;
    }
    let (_folder, socket) = place();
    let guest = start(&socket, "sockets", &["gone", "7"]);
    let mut stream = connected(&socket, 7);
    stream.read_exact(&mut [0; 10_000]).expect("some bytes");
    drop(stream);
    let run = finish(guest);
    run.assert_status(0);
    assert!(run.stdout_text().contains("takes no more bytes"), "{run}");
}

#[test]
fn what_was_written_arrives_though_the_guest_has_ended() {
    if !kvm_works() {
        return;
    }
    let (_folder, socket) = place();
    let guest = start(&socket, "sockets", &["fill", "7"]);
    let mut stream = connected(&socket, 7);
    // By then the guest has filled the socket and what the device has room for, and wants to end.
    std::thread::sleep(Duration::from_millis(500));
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("everything, then the end");
    let run = finish(guest);
    run.assert_status(0);
    assert_eq!(run.stdout_text(), format!("{}\n", bytes.len()));
}

#[test]
fn a_client_that_never_reads_does_not_keep_the_guest_from_being_ended() {
    if !kvm_works() {
        return;
    }
    let (_folder, socket) = place();
    let guest = start(&socket, "sockets", &["fill", "7"]);
    let _stream = connected(&socket, 7);
    std::thread::sleep(Duration::from_millis(500));
    signal(&guest, libc::SIGTERM);
    let run = finish_unread(guest);
    assert!(matches!(run.status.code(), Some(0 | 143)), "{run}");
    assert!(!socket.exists());
}

#[test]
fn a_driver_that_lies_is_reset_and_harms_nobody() {
    if !kvm_works() {
        return;
    }
    for (lie, resets) in [
        ("cid", 1),
        ("host", 1),
        ("kind", 1),
        ("op", 1),
        ("len", 1),
        ("flood", 4096),
    ] {
        let (_folder, socket) = place();
        let resets = format!("sockets: {resets} resets\n");
        let run = finish(start(&socket, "sockets", &["lie", lie]));
        run.assert_status(0);
        assert_eq!(run.stdout_text(), resets, "{lie}: {run}");
    }
}

#[test]
fn the_socket_is_gone_however_the_guest_ends() {
    if !kvm_works() {
        return;
    }
    let (_folder, socket) = place();
    let guest = start(&socket, "sockets", &["echo", "7", "1"]);
    let _stream = connected(&socket, 7);
    signal(&guest, libc::SIGTERM);
    finish_unread(guest).assert_status(143);
    assert!(!socket.exists());

    let guest = start(&socket, "fault", &["null-read"]);
    finish(guest).assert_status(102);
    assert!(!socket.exists());
}

#[test]
fn a_path_that_is_taken_is_refused_unless_nobody_listens_there() {
    let (folder, socket) = place();
    let file = folder.file("file", b"precious");
    let run = |path: &Path| {
        let options = ["run", "--vsock", path.to_str().expect("utf-8")];
        Chiton::new()
            .args(options)
            .guest("sockets")
            .args(["call", "1", ""])
            .run()
    };
    run(&file).assert_refused("exists and is not a socket: choose another path");
    assert_eq!(fs::read(&file).expect("a file"), b"precious");

    let listener = UnixListener::bind(&socket).expect("a socket");
    run(&socket).assert_refused("is in use: end who listens there, or choose another path");
    assert!(socket.exists());

    // A socket that was left behind.
    end_listener(listener);
    if kvm_works() {
        run(&socket).assert_status(1).assert_says("nobody on the host listens");
        assert!(!socket.exists());
    }
}

#[test]
fn paths_and_context_ids_that_cannot_be_are_refused() {
    let (folder, _) = place();
    let run = |vsock: &str| Chiton::new().args(["run", "--vsock", vsock]).guest("sockets").run();
    run("socket,cid=2").assert_refused("the context ID 2 is not one for a guest");
    run("socket,cid=4294967295").assert_refused("the context ID 4294967295 is not one for a guest");
    run(&"x".repeat(200)).assert_refused("is too long for a Unix socket");
    run("no-such-folder/socket").assert_refused("cannot make the socket no-such-folder/socket");
    assert!(folder.names().is_empty());
}

#[test]
fn a_start_that_fails_leaves_no_socket() {
    let (_folder, socket) = place();
    Chiton::new()
        .args([
            "run",
            "--kvm",
            "/nonexistent",
            "--vsock",
            socket.to_str().expect("utf-8"),
        ])
        .guest("sockets")
        .run()
        .assert_refused("/nonexistent does not exist");
    assert!(!socket.exists());
}

#[test]
fn without_a_device_a_guest_is_told_how_to_get_one() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new()
        .args(["run"])
        .guest("sockets")
        .args(["echo", "7", "1"])
        .run();
    run.assert_status(1).assert_says("start the guest with --vsock PATH");
}

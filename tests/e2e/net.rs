//! Network interfaces: real TCP between the host and a guest.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use chiton_tests::{Chiton, Folder, PATIENCE, Running, Tap, finish, guest_path, kvm_works, signal, slow};

/// A guest that serves web pages, on a TAP device.
struct Server {
    running: Running,
    address: SocketAddr,
}

impl Server {
    fn start(tap: &Tap, more: &[&str]) -> Self {
        let mut running = Chiton::new()
            .args(["run", "--net", &tap.option()])
            .args(more)
            .guest("httpd")
            .spawn();
        // It says so when it listens.
        let mut line = Vec::new();
        let mut byte = [0];
        while byte[0] != b'\n' {
            let read = running
                .stdout
                .as_mut()
                .expect("a pipe")
                .read(&mut byte)
                .expect("httpd speaks");
            assert_ne!(read, 0, "httpd ended: {}", finish(running));
            line.push(byte[0]);
        }
        assert_eq!(line, format!("http://{}:80/\n", tap.guest()).into_bytes());
        Self {
            running,
            address: (tap.guest(), 80).into(),
        }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        Client(BufReader::new(stream))
    }

    fn stop(self) -> chiton_tests::Run {
        signal(&self.running, libc::SIGTERM);
        let run = finish(self.running);
        run.assert_status(128 + libc::SIGTERM);
        run
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn ask(&mut self, path: &str) {
        write!(self.0.get_mut(), "GET {path} HTTP/1.1\r\nHost: guest\r\n\r\n").expect("it reads");
    }

    /// The status and the length of the body, which follows.
    fn head(&mut self) -> (String, u64) {
        let (mut status, mut len) = (String::new(), 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("an answer");
            if line == "\r\n" {
                return (status, len);
            }
            assert!(!line.is_empty(), "the connection ended within an answer");
            if status.is_empty() {
                status = line.trim_end().to_owned();
            } else if let Some(value) = line.strip_prefix("Content-Length: ") {
                len = value.trim().parse().expect("a number");
            }
        }
    }

    fn get(&mut self, path: &str) -> (String, Vec<u8>) {
        self.ask(path);
        let (status, len) = self.head();
        let mut body = vec![0; usize::try_from(len).expect("a body")];
        self.0.read_exact(&mut body).expect("the body");
        (status, body)
    }
}

/// A TAP device, where KVM works too.
fn tap() -> Option<Tap> {
    if !kvm_works() {
        return None;
    }
    Tap::new()
}

#[test]
fn a_guest_serves_one_request_after_the_other_on_a_connection() {
    let Some(tap) = tap() else { return };
    let server = Server::start(&tap, &[]);
    let mut client = server.connect();
    for _ in 0..3 {
        let (status, body) = client.get("/");
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(String::from_utf8_lossy(&body).contains("<h1>Chiton</h1>"));
    }
    assert_eq!(client.get("/none").0, "HTTP/1.1 404 Not Found");
    let (_, status) = client.get("/status");
    let status = String::from_utf8(status).expect("text");
    assert!(status.contains("requests 5\nconnections 1, open 1\n"), "{status}");

    // Two requests at once are answered in turn, and one at a time byte by byte too.
    client.ask("/");
    client.ask("/bytes/3");
    let (_, len) = client.head();
    std::io::copy(&mut (&mut client.0).take(len), &mut std::io::sink()).expect("the body");
    assert_eq!(client.head().1, 3);

    for (request, answer) in [
        ("POST / HTTP/1.1\r\n\r\n", "405"),
        ("GET /\r\n\r\n", "400"),
        ("GET / HTTP/9.9\r\n\r\n", "505"),
        ("\r\n\r\n", "400"),
    ] {
        let mut client = server.connect();
        for byte in request.as_bytes() {
            client.0.get_mut().write_all(&[*byte]).expect("it reads");
        }
        assert!(client.head().0.contains(answer), "{request:?}");
        assert_eq!(client.0.read(&mut [0]).expect("the end"), 0);
    }
    server.stop();
}

#[test]
fn a_guest_serves_many_connections_at_once() {
    let Some(tap) = tap() else { return };
    let server = Server::start(&tap, &[]);
    let count = if slow() { 30 } else { 150 };
    let mut clients: Vec<_> = (0..count).map(|_| server.connect()).collect();
    for _ in 0..2 {
        for client in &mut clients {
            client.ask("/bytes/1000");
        }
        for client in &mut clients {
            let (status, len) = client.head();
            assert_eq!((status.as_str(), len), ("HTTP/1.1 200 OK", 1000));
            let mut body = vec![0; 1000];
            client.0.read_exact(&mut body).expect("the body");
        }
    }
    let status = String::from_utf8(clients[0].get("/status").1).expect("text");
    assert!(status.contains(&format!("open {count}\n")), "{status}");
    drop(clients);
    // Connections that ended make room for others.
    for _ in 0..count * 3 {
        assert_eq!(server.connect().get("/bytes/1").1, b"x");
    }
    server.stop();
}

#[test]
fn what_is_larger_than_every_buffer_arrives_whole() {
    let Some(tap) = tap() else { return };
    let server = Server::start(&tap, &["--exits"]);
    let len = if slow() { 1 << 20 } else { 32 << 20 };
    let (_, body) = server.connect().get(&format!("/bytes/{len}"));
    assert!(body.len() == len && body.iter().all(|byte| *byte == b'x'));
    server.stop();
}

#[test]
fn datagrams_come_back_from_a_guest() {
    let Some(tap) = tap() else { return };
    let mut running = Chiton::new()
        .args(["run", "--net", &tap.option()])
        .guest("netperf")
        .args(["7", "udp"])
        .spawn();
    // It says so when it listens.
    let mut byte = [0];
    while byte[0] != b'\n' {
        let read = running.stdout.as_mut().expect("a pipe").read(&mut byte);
        assert_eq!(read.expect("netperf speaks"), 1);
    }
    let socket = UdpSocket::bind((tap.host(), 0)).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    for len in [1, 2, 100, 1471, 1472, 0, 5] {
        let sent: Vec<u8> = (0..len).map(|i| i as u8).collect();
        socket.send_to(&sent, (tap.guest(), 7)).expect("it is sent");
        let mut got = vec![0; 2000];
        let (got_len, sender) = socket.recv_from(&mut got).expect("an answer");
        assert_eq!((&got[..got_len], sender), (&sent[..], (tap.guest(), 7).into()));
    }
    signal(&running, libc::SIGTERM);
    finish(running).assert_status(128 + libc::SIGTERM);
}

#[test]
fn a_tap_that_is_taken_away_leaves_the_guest_running() {
    let Some(tap) = tap() else { return };
    let mut server = Server::start(&tap, &[]);
    assert_eq!(server.connect().get("/bytes/1").1, b"x");
    tap.remove().expect("it is there");
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        server.running.try_wait().expect("a child").is_none(),
        "the guest goes on"
    );
    let run = server.stop();
    run.assert_says("the network interface is gone, and the guest's link is down");
    assert_eq!(run.stderr_text().matches("is gone").count(), 1, "{run}");
}

#[test]
fn a_tap_that_another_guest_uses_is_refused() {
    let Some(tap) = Tap::new() else { return };
    let _held = tap.hold();
    Chiton::new()
        .args(["run", "--net", &tap.option()])
        .guest("hello")
        .run()
        .assert_refused("is in use by another program");
}

#[test]
fn interfaces_that_cannot_be_used_are_refused_with_what_to_do() {
    let refuse = |net: &str, words: &str| {
        Chiton::new()
            .args(["run", "--net", net])
            .guest("hello")
            .run()
            .assert_refused(words);
    };
    refuse("tap=chiton-none", "does not exist: make it with `ip tuntap add");
    assert!(
        !Path::new("/sys/class/net/chiton-none").exists(),
        "it was not made either"
    );
    refuse("tap=a/b", "is not the name of a network interface");
    if Path::new("/dev/net/tun").exists() && chiton_tests::is_root() {
        refuse("tap=lo", "is not a TAP device");
    }
    let unusable = |net: &str, words: &str| {
        Chiton::new()
            .args(["run", "--net", net])
            .guest("hello")
            .run()
            .assert_status(125)
            .assert_says(words);
    };
    unusable("tap=a,mac=02:00", "is not an Ethernet address");
    unusable("tap=a,mac=03:00:00:00:00:01", "the first byte must be even");
    unusable("tap=a,ip=10.0.0.2", "lacks the length of its prefix");
    unusable("tap=a,ip=10.0.0.x/24", "is not an IP address");
    unusable("tap=a,mtu=9", "is not an MTU");
}

#[test]
fn a_tap_without_permission_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let Some(tap) = Tap::new() else { return };
    let folder = Folder::new();
    let (bin, guest) = (folder.path("chiton"), folder.path("guest"));
    std::fs::copy(chiton_tests::chiton_path(), &bin).expect("a copy anybody may run");
    std::fs::copy(guest_path("hello"), &guest).expect("a copy anybody may read");
    for path in [&bin, &guest] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("own file");
    }
    let run = std::process::Command::new(bin)
        .args(["run", "--net", &tap.option()])
        .arg(guest)
        .uid(65534)
        .gid(65534)
        .output()
        .expect("chiton starts");
    assert_eq!(run.status.code(), Some(125));
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(said.contains("no permission to use the TAP device"), "{said}");
}

#[test]
fn a_guest_that_needs_a_network_is_refused_without_one() {
    Chiton::new()
        .args(["run"])
        .guest("httpd")
        .run()
        .assert_refused("add --net tap=NAME");
}

#[test]
fn a_guest_without_an_address_says_so() {
    let Some(tap) = tap() else { return };
    let run = Chiton::new()
        .args(["run", "--net", &format!("tap={}", tap.name())])
        .guest("httpd")
        .run();
    run.assert_status(1).assert_says("the network interface has no address");
}

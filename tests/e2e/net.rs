//! Network interfaces: real TCP between the host and a guest.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use chiton_tests::{Chiton, Folder, PATIENCE, Running, Tap, finish, guest_path, kvm_works, signal, skip, slow};

/// A guest that serves web pages, on a TAP device.
struct Server {
    running: Running,
    address: SocketAddr,
}

impl Server {
    fn start(tap: &Tap, more: &[&str]) -> Self {
        Self::start_with(tap, "", more, &[])
    }

    /// With this behind what `--net` is told, and these arguments of the guest.
    fn start_with(tap: &Tap, options: &str, more: &[&str], words: &[&str]) -> Self {
        let mut running = Chiton::new()
            .args(["run", "--net", &format!("{}{options}", tap.option())])
            .args(more)
            .guest("httpd")
            .args(words)
            .spawn();
        // It says so when it listens.
        let line = line_of(&mut running);
        assert_eq!(
            line,
            format!("http://{}:80/", tap.guest()),
            "{}",
            if line.is_empty() {
                finish(running).to_string()
            } else {
                String::new()
            }
        );
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
        stop(self.running)
    }
}

/// The next line that a guest prints; what there was of it at the end.
fn line_of(running: &mut Running) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    let stdout = running.stdout.as_mut().expect("a pipe");
    while stdout.read(&mut byte).expect("a guest speaks") == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text")
}

/// Datagrams that come back, on a TAP device.
fn start_netperf(tap: &Tap, words: &[&str]) -> Running {
    let mut running = Chiton::new()
        .args(["run", "--net", &tap.option()])
        .guest("netperf")
        .args(words)
        .spawn();
    assert_ne!(line_of(&mut running), "");
    running
}

/// Waits until chiton itself says these words: who is to end at once may not come to say what is no news any more.
fn hears(running: &mut Running, words: &str) {
    let mut said = Vec::new();
    let stderr = running.stderr.as_mut().expect("a pipe");
    while !String::from_utf8_lossy(&said).contains(words) {
        let mut byte = [0];
        let len = stderr.read(&mut byte).expect("it speaks");
        assert_eq!(len, 1, "it ended with {}", String::from_utf8_lossy(&said));
        said.extend(byte);
    }
}

fn stop(running: Running) -> chiton_tests::Run {
    signal(&running, libc::SIGTERM);
    let run = finish(running);
    run.assert_status(128 + libc::SIGTERM);
    run
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
    let running = start_netperf(&tap, &["7", "udp"]);
    let socket = UdpSocket::bind((tap.host(), 0)).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    for len in [1, 2, 100, 1471, 1472, 0, 5] {
        let sent: Vec<u8> = (0..len).map(|i| i as u8).collect();
        socket.send_to(&sent, (tap.guest(), 7)).expect("it is sent");
        let mut got = vec![0; 2000];
        let (got_len, sender) = socket.recv_from(&mut got).expect("an answer");
        assert_eq!((&got[..got_len], sender), (&sent[..], (tap.guest(), 7).into()));
    }
    stop(running);
}

/// The device loop leaves input to a processor that waits, and must not to one that does not.
#[test]
fn datagrams_come_back_from_a_guest_that_never_sleeps() {
    let Some(tap) = tap() else { return };
    let running = start_netperf(&tap, &["7", "look"]);
    let socket = UdpSocket::bind((tap.host(), 0)).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    // More than there are buffers for frames.
    for round in 0..200_u32 {
        socket
            .send_to(&round.to_le_bytes(), (tap.guest(), 7))
            .expect("it is sent");
        let mut got = [0; 100];
        let len = socket.recv(&mut got).expect("an answer");
        assert_eq!(&got[..len], round.to_le_bytes());
    }
    stop(running);
}

#[test]
fn datagrams_that_the_host_leaves_uncut_arrive_one_by_one() {
    let Some(tap) = tap() else { return };
    let running = start_netperf(&tap, &["7", "udp"]);
    let socket = UdpSocket::bind((tap.host(), 0)).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    let size: libc::c_int = 100;
    // SAFETY: the option is an `int`, which lives here.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "the kernel cuts datagrams: {}", io::Error::last_os_error());
    let sent: Vec<u8> = (0..950).map(|i| (i / 100) as u8).collect();
    for _ in 0..3 {
        socket.send_to(&sent, (tap.guest(), 7)).expect("it is sent");
        for piece in sent.chunks(100) {
            let mut got = [0; 2000];
            let len = socket.recv(&mut got).expect("an answer");
            assert_eq!(&got[..len], piece);
        }
    }
    stop(running);
}

#[test]
fn datagrams_that_a_guest_leaves_uncut_are_one_frame_and_arrive_one_by_one() {
    let Some(tap) = tap() else { return };
    let running = start_netperf(&tap, &["7", "cut"]);
    let socket = UdpSocket::bind((tap.host(), 0)).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    let frames = || {
        let path = format!("/sys/class/net/{}/statistics/rx_packets", tap.name());
        let count = std::fs::read_to_string(path).expect("a count");
        count.trim().parse::<u64>().expect("a number")
    };
    let sent: Vec<u8> = (0..1350).map(|i| (i / 100) as u8).collect();
    let mut least = u64::MAX;
    for _ in 0..3 {
        let before = frames();
        socket.send_to(&sent, (tap.guest(), 7)).expect("it is sent");
        for piece in sent.chunks(100) {
            let mut got = [0; 2000];
            let len = socket.recv(&mut got).expect("an answer");
            assert_eq!(&got[..len], piece);
        }
        least = least.min(frames() - before);
    }
    // A device without USO has them cut by the guest.
    assert!([1, 14].contains(&least), "{least} frames of 14 datagrams");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let has_uso = (numbers.next(), numbers.next()) >= (Some(6), Some(2));
    assert_eq!(least == 1, has_uso, "on Linux {release}");
    stop(running);
}

#[test]
fn a_guest_has_the_address_and_the_mtu_that_it_is_given() {
    let Some(tap) = tap() else { return };
    let server = Server::start_with(&tap, ",mac=02:c4:17:00:be:ef,mtu=1280", &[], &[]);
    let mut client = server.connect();
    assert_eq!(client.get("/bytes/100000").1.len(), 100_000);
    let table = std::fs::read_to_string("/proc/net/arp").expect("the host's neighbours");
    let guest = format!("{} ", tap.guest());
    let line = table.lines().find(|line| line.starts_with(&guest)).expect("the guest");
    assert!(line.contains("02:c4:17:00:be:ef"), "{line}");
    // The guest says in its first segment how long one may be.
    let (mut longest, mut len): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the option is an `int`, given with its length.
    let result = unsafe {
        libc::getsockopt(
            client.0.get_ref().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MAXSEG,
            (&raw mut longest).cast(),
            &raw mut len,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    assert!((1180..=1240).contains(&longest), "segments of {longest} bytes");
    server.stop();
}

#[test]
fn a_guest_serves_the_files_of_a_folder_and_no_others() {
    let Some(tap) = tap() else { return };
    let outer = Folder::new();
    std::fs::create_dir_all(outer.path("site/sub")).expect("a folder");
    let large: Vec<u8> = (0..1_000_003_u32).map(|i| (i / 3) as u8).collect();
    for (path, bytes) in [
        ("secret", &b"not for you"[..]),
        ("site/index.html", b"<h1>here</h1>"),
        ("site/sub/a b.txt", b"text"),
        ("site/empty", b""),
        ("site/large", &large),
    ] {
        let _ = outer.file(path, bytes);
    }
    std::os::unix::fs::symlink(outer.path("secret"), outer.path("site/link")).expect("a link");
    let site = outer.path("site").display().to_string();
    let server = Server::start_with(&tap, "", &["--folder", &site], &["80", "site"]);
    let mut client = server.connect();
    let found = [
        ("/", &b"<h1>here</h1>"[..]),
        ("/index.html?again", b"<h1>here</h1>"),
        ("/sub/a%20b.txt", b"text"),
        ("/empty", b""),
        ("/large", &large),
        ("/bytes/3", b"xxx"),
    ];
    for (path, bytes) in found {
        let (status, body) = client.get(path);
        assert!(
            status == "HTTP/1.1 200 OK" && body == bytes,
            "{path}: {status}, {} bytes",
            body.len()
        );
    }
    for path in [
        "/none",
        "/link",
        "/sub",
        "/../secret",
        "/%2e%2e/secret",
        "/sub/../../secret",
        "/%00",
        "/a%",
    ] {
        let (status, body) = client.get(path);
        assert!(status.contains(" 40"), "{path}: {status}");
        assert!(!body.starts_with(b"not for"), "{path}");
    }
    // All on one connection.
    let status = String::from_utf8(client.get("/status").1).expect("text");
    assert!(status.contains("connections 1, open 1\n"), "{status}");
    server.stop();
}

#[test]
fn a_guest_sees_its_link_go_down_and_come_up() {
    let Some(tap) = tap() else { return };
    tap.set_link(false).expect("it is there");
    let mut running = Chiton::new()
        .args(["run", "--net", &tap.option()])
        .guest("netperf")
        .args(["7", "link"])
        .spawn();
    assert_eq!(line_of(&mut running), "link down", "as it was at the start");
    for _ in 0..5 {
        tap.set_link(true).expect("it is there");
        assert_eq!(line_of(&mut running), "link up");
        tap.set_link(false).expect("it is there");
        assert_eq!(line_of(&mut running), "link down");
    }
    tap.set_link(true).expect("it is there");
    assert_eq!(line_of(&mut running), "link up");
    tap.remove().expect("it is there");
    assert_eq!(line_of(&mut running), "link down", "for good");
    stop(running).assert_says("the network interface is gone, and the guest's link is down");
}

#[test]
fn a_link_that_flaps_under_load_loses_nothing() {
    let Some(tap) = tap() else { return };
    let server = Server::start(&tap, &[]);
    let len = 4 << 20;
    let mut client = server.connect();
    let download = std::thread::spawn(move || client.get(&format!("/bytes/{len}")).1.len());
    for _ in 0..10 {
        for up in [false, true] {
            tap.set_link(up).expect("it is there");
        }
    }
    assert_eq!(download.join().expect("a download"), len);
    server.stop();
}

#[test]
fn a_guest_serves_by_several_queues() {
    let Some(tap) = kvm_works().then(Tap::of_several_queues).flatten() else {
        return;
    };
    for queues in [1, 2, 8] {
        let server = Server::start_with(&tap, &format!(",queues={queues}"), &[], &[]);
        let mut clients: Vec<_> = (0..32).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.ask("/bytes/100000");
        }
        for client in &mut clients {
            let (_, len) = client.head();
            let mut body = Vec::new();
            (&mut client.0).take(len).read_to_end(&mut body).expect("the body");
            assert!(body.len() == 100_000 && body.iter().all(|byte| *byte == b'x'));
        }
        drop(clients);
        server.stop();
    }
}

#[test]
fn limits_hold_in_both_directions() {
    let Some(tap) = tap() else { return };
    let server = Server::start_with(&tap, ",bytes=1M/64K", &[], &[]);
    let start = Instant::now();
    let len = 2 << 20;
    assert_eq!(server.connect().get(&format!("/bytes/{len}")).1.len(), len);
    // Beyond a burst, which is a frame of the greatest length at least.
    assert!(start.elapsed() >= Duration::from_millis(1800), "{:?}", start.elapsed());
    server.stop();

    let mut running = Chiton::new()
        .args(["run", "--net", &format!("{},ops=50/1", tap.option())])
        .guest("netperf")
        .args(["7", "udp"])
        .spawn();
    assert_ne!(line_of(&mut running), "");
    let socket = UdpSocket::bind((tap.host(), 0)).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    socket.send_to(b"first", (tap.guest(), 7)).expect("it is sent");
    socket.recv(&mut [0; 9]).expect("an answer");
    let start = Instant::now();
    for _ in 0..50 {
        socket.send_to(b"more", (tap.guest(), 7)).expect("it is sent");
    }
    for _ in 0..50 {
        socket.recv(&mut [0; 9]).expect("an answer");
    }
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    stop(running);
}

/// A DHCP server on a TAP device, which gives addresses for long, and has them renewed every other second: T1, option 58
/// of RFC 2132, and T2, option 59, say when.
struct DhcpServer {
    child: std::process::Child,
    said: BufReader<std::process::ChildStderr>,
    _folder: Folder,
}

impl DhcpServer {
    /// `None` where there is none to be had.
    fn start(tap: &Tap) -> Option<Self> {
        let folder = Folder::new();
        let (leases, pid, config) = (folder.path("leases"), folder.path("pid"), folder.path("config"));
        std::fs::write(&leases, "").expect("a file");
        let text = format!(
            "start {0}\nend {0}\ninterface {1}\nlease_file {2}\npidfile {3}\nmin_lease 1\noption subnet \
             255.255.255.0\noption router {4}\noption lease 3600\noption 0x3a 00000002\noption 0x3b 00000b00\n",
            tap.guest(),
            tap.name(),
            leases.display(),
            pid.display(),
            tap.host()
        );
        std::fs::write(&config, text).expect("a file");
        let child = std::process::Command::new("busybox")
            .args(["udhcpd", "-f"])
            .arg(&config)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                skip("busybox", format_args!("its DHCP server does not start: {error}"));
                return None;
            }
        };
        let said = BufReader::new(child.stderr.take().expect("a pipe"));
        Some(Self {
            child,
            said,
            _folder: folder,
        })
    }

    /// Waits until it says so.
    fn says(&mut self, words: &str) {
        let mut all = String::new();
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            let len = self.said.read_line(&mut line).expect("text");
            all += &line;
            assert_ne!(len, 0, "it never said `{words}`: {all}");
        }
    }
}

impl Drop for DhcpServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_guest_gets_its_address_from_a_dhcp_server_and_renews_it() {
    let Some(tap) = tap() else { return };
    let Some(mut dhcp) = DhcpServer::start(&tap) else {
        return;
    };
    let mut running = Chiton::new()
        .args(["run", "--net", &format!("tap={},ip=dhcp", tap.name())])
        .guest("httpd")
        .spawn();
    assert_eq!(line_of(&mut running), format!("http://{}:80/", tap.guest()));
    dhcp.says("sending ACK");
    let server = Server {
        running,
        address: (tap.guest(), 80).into(),
    };
    assert_eq!(server.connect().get("/bytes/1").1, b"x");
    for _ in 0..2 {
        dhcp.says("sending ACK");
        assert_eq!(server.connect().get("/bytes/1").1, b"x");
    }
    server.stop();
}

#[test]
fn a_guest_whom_no_dhcp_server_answers_says_so() {
    let Some(tap) = tap() else { return };
    let run = Chiton::new()
        .args(["run", "--net", &format!("tap={},ip=dhcp", tap.name())])
        .guest("httpd")
        .run();
    run.assert_status(1)
        .assert_says("no DHCP server answered within 10 seconds");
}

#[test]
fn a_tap_that_is_taken_away_under_load_ends_nothing_else() {
    let Some(tap) = tap() else { return };
    let mut server = Server::start(&tap, &[]);
    let mut client = server.connect();
    client.ask(&format!("/bytes/{}", 1_u64 << 40));
    client.head();
    let mut some = vec![0; 1 << 20];
    client.0.read_exact(&mut some).expect("it flows");
    tap.remove().expect("it is there");
    // The kernel keeps no route to the guest, so that the client hears no more; nor may it block.
    client
        .0
        .get_ref()
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a time");
    while client.0.read(&mut some).is_ok_and(|len| len > 0) {}
    assert!(
        server.running.try_wait().expect("a child").is_none(),
        "the guest goes on"
    );
    hears(&mut server.running, "the network interface is gone");
    server.stop();
}

#[test]
fn curl_gets_files_from_a_guest_one_after_the_other() {
    let Some(tap) = tap() else { return };
    let server = Server::start(&tap, &[]);
    let url = |path: &str| format!("http://{}{path}", server.address.ip());
    let output = std::process::Command::new("curl")
        .args(["-sS", "-w", "%{http_code} %{num_connects}\\n", "--noproxy", "*"])
        .args([url("/bytes/10"), url("/none"), url("/bytes/3")])
        .output();
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let expected = "xxxxxxxxxx200 1\nthere is no such file\n404 0\nxxx200 0\n";
            assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
        }
        Err(error) => skip("curl", error),
    }
    server.stop();
}

#[test]
fn wrk_is_served_on_hundreds_of_connections_without_an_error() {
    let Some(tap) = tap() else { return };
    let server = Server::start(&tap, &[]);
    let connections = if slow() { 20 } else { 200 };
    let output = std::process::Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), "-d2s", "--timeout", "60s"])
        .arg(format!("http://{}/", server.address.ip()))
        .output();
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && said.contains("Requests/sec:"), "{said}");
            assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
            let status = String::from_utf8(server.connect().get("/status").1).expect("text");
            assert!(status.contains("open 1\n"), "{status}");
        }
        Err(error) => skip("wrk", error),
    }
    server.stop();
}

#[test]
fn a_tap_that_is_taken_away_leaves_the_guest_running() {
    let Some(tap) = tap() else { return };
    let mut server = Server::start(&tap, &[]);
    assert_eq!(server.connect().get("/bytes/1").1, b"x");
    tap.remove().expect("it is there");
    hears(
        &mut server.running,
        "the network interface is gone, and the guest's link is down",
    );
    // It would say so again and again.
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        server.running.try_wait().expect("a child").is_none(),
        "the guest goes on"
    );
    server.stop().assert_silent_about("is gone");
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
    if let Some(tap) = Tap::new() {
        refuse(&format!("tap={},queues=2", tap.name()), "has one queue: make one with");
    }
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
    unusable("tap=a,queues=9", "is not a number of queues");
    unusable("tap=a,ip=dhcp,gateway=10.0.0.1", "the DHCP server names the gateway");
    unusable("tap=a,ops=0", "nothing would ever be done");
}

#[test]
fn a_tap_without_permission_is_refused() {
    use std::os::unix::process::CommandExt;
    let Some(tap) = Tap::new() else { return };
    let folder = Folder::new();
    let bin = folder.program(&chiton_tests::chiton_path(), "chiton");
    let guest = folder.program(&guest_path("hello"), "guest");
    let run = std::process::Command::new(bin)
        .args(["run", "--no-jail", "--net", &tap.option()])
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

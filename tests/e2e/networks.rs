//! Networks of instances: names, published ports, the namespaces of others, and what is refused.
//!
//! Each test has a bridge and a record of its own, and checks at its end that nothing of them is left.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Instant;

use chiton_tests::{PATIENCE, Record, ask_by_datagram, busybox, free_port, guest_path, is_root, kvm_works, nap};

/// A bridge.
struct Net {
    record: Record,
    bridge: String,
    /// The first three bytes of its addresses.
    range: String,
}

impl Net {
    /// `None`, with the reason said, where there can be none.
    fn new() -> Option<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        if !kvm_works() {
            return None;
        }
        if !is_root() {
            assert!(std::env::var_os("CHITON_STRICT").is_none(), "root is required here");
            println!("SKIPPED: bridges need root");
            return None;
        }
        let (number, process) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
        let bridge = format!("chitest{}n{number}", process % 10_000);
        let range = format!("10.{}.{}", 96 + process % 64, number);
        let subnet = format!("{range}.0/29");
        Some(Self {
            record: Record::new([("CHITON_BRIDGE", bridge.clone()), ("CHITON_SUBNET", subnet)]),
            bridge,
            range,
        })
    }

    fn address(&self, last: u8) -> String {
        format!("{}.{last}", self.range)
    }

    fn output(&self, args: &[&str]) -> Output {
        self.record.output(args)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.record.ok(args)
    }

    /// Runs a guest to its end; what it printed.
    #[track_caller]
    fn guest(&self, options: &[&str], guest: &[&str]) -> String {
        let program = guest_path(guest[0]).display().to_string();
        self.ok(&[&["run", "--rm", "--timeout", "100s"], options, &[&program], &guest[1..]].concat())
    }

    /// Starts a guest in the background, and waits until it has said something: that it listens.
    #[track_caller]
    fn start(&self, name: &str, options: &[&str], guest: &[&str]) {
        let program = guest_path(guest[0]).display().to_string();
        self.ok(&[&["run", "-d", "--name", name], options, &[&program], &guest[1..]].concat());
        self.until(name, || !self.ok(&["logs", name]).is_empty());
    }

    #[track_caller]
    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < PATIENCE, "{what} does not come");
            nap();
        }
    }

    /// Has to be refused, for a reason with these words, and to leave nothing new.
    #[track_caller]
    fn refused(&self, options: &[&str], words: &str) {
        let before = self.traces();
        let program = guest_path("hello").display().to_string();
        let output = self.output(&[&["run", "--rm"], options, &[&program]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{options:?}: {said}");
        assert_eq!(self.traces(), before, "{options:?}");
    }

    /// What there is of the bridge: devices, tables, files.
    fn traces(&self) -> Vec<String> {
        let mut traces: Vec<_> = ports_of(&self.bridge);
        let state = self.record.folder().path("home/network").join(&self.bridge);
        for folder in ["leases", "owners", "hosts.own"] {
            let entries = fs::read_dir(state.join(folder)).into_iter().flatten().flatten();
            traces.extend(entries.filter_map(|entry| entry.file_name().into_string().ok()));
        }
        // It says only where to go on looking.
        traces.retain(|name| name != "last");
        traces.extend(fs::read_to_string(state.join("hosts")));
        traces
    }

    /// Ends all, and checks that nothing is left.
    #[track_caller]
    fn assert_empty(self, names: &[&str]) {
        for name in names {
            self.ok(&["rm", "--force", name]);
        }
        self.ok(&["prune"]);
        let left: Vec<_> = self
            .traces()
            .into_iter()
            .filter(|line| !line.starts_with("127."))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let hosts = fs::read_to_string(
            self.record
                .folder()
                .path("home/network")
                .join(&self.bridge)
                .join("hosts"),
        );
        assert!(hosts.is_ok_and(|hosts| !hosts.contains('#')), "names are left");
        assert!(
            !Path::new("/sys/class/net").join(&self.bridge).exists(),
            "the bridge is left"
        );
    }
}

impl Drop for Net {
    /// A test that failed leaves nothing to others either.
    fn drop(&mut self) {
        if thread::panicking() {
            let listed = self.output(&["ps", "--all", "--quiet"]).stdout;
            for id in String::from_utf8_lossy(&listed).lines() {
                self.output(&["rm", "--force", id]);
            }
            self.output(&["prune"]);
        }
    }
}

/// The devices on a bridge; none if it is not there.
fn ports_of(bridge: &str) -> Vec<String> {
    let path = Path::new("/sys/class/net").join(bridge).join("brif");
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A page, as its whole answer.
fn page(address: &str, port: u16) -> String {
    let address: SocketAddr = format!("{address}:{port}").parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn guests_find_each_other_by_name_as_they_come_and_go() {
    let Some(net) = Net::new() else { return };
    net.start("web", &["--network", "bridge"], &["httpd"]);
    assert!(
        net.guest(&["--network", "bridge"], &["fetch", "web"])
            .contains("<h1>Chiton</h1>")
    );
    assert!(
        net.guest(&["--network", "bridge"], &["fetch", "WEB"])
            .starts_with("HTTP/1.1 200")
    );
    net.start("late", &["--network", "bridge"], &["httpd"]);
    assert!(
        net.guest(&["--network", "bridge"], &["fetch", "late"])
            .contains("Chiton")
    );
    net.ok(&["rm", "--force", "late"]);
    let fetch = guest_path("fetch").display().to_string();
    let gone = net.output(&["run", "--rm", "--network", "bridge", &fetch, "name", "late"]);
    let said = String::from_utf8_lossy(&gone.stderr);
    assert!(!gone.status.success() && said.contains("late: network: "), "{said}");
    net.assert_empty(&["web"]);
}

#[test]
fn a_guest_and_the_host_reach_each_other() {
    let Some(net) = Net::new() else { return };
    net.start("web", &["--network", "bridge", "--ip", &net.address(5)], &["httpd"]);
    assert!(page(&net.address(5), 80).contains("Chiton"));
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    let serve = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a caller");
        let mut bytes = [0; 512];
        let _ = stream.read(&mut bytes).expect("a question");
        stream.write_all(b"from the host\n").expect("it listens");
    });
    let host = format!("host:{}", net.address(1));
    let said = net.guest(&["--network", "bridge", "--add-host", &host], &["fetch", "host", &port]);
    assert_eq!(said, "from the host");
    serve.join().expect("it was asked");
    net.assert_empty(&["web"]);
}

#[test]
fn published_ports_answer_from_the_host_and_from_guests() {
    let Some(net) = Net::new() else { return };
    let (tcp, udp) = (free_port(), free_port());
    net.start("web", &["--network", "bridge", "-p", &format!("{tcp}:80")], &["httpd"]);
    net.start(
        "echo",
        &["--network", "bridge", "-p", &format!("{udp}:7/udp")],
        &["netperf", "7", "udp"],
    );
    for address in ["127.0.0.1", &net.address(1)] {
        assert!(page(address, tcp).contains("Chiton"), "{address}");
        assert_eq!(
            ask_by_datagram(SocketAddr::new(address.parse().expect("an address"), udp), b"ping"),
            b"ping",
            "{address}"
        );
    }
    let host = net.address(1);
    let said = net.guest(&["--network", "bridge"], &["fetch", &host, &tcp.to_string()]);
    assert!(said.contains("Chiton"), "{said}");
    let (udp, other) = (udp.to_string(), format!("{udp}:7/udp"));
    let said = net.guest(&["--network", "bridge"], &["fetch", "udp", &host, &udp, "pong"]);
    assert!(said.ends_with(": pong"), "{said}");
    net.refused(&["--network", "bridge", "-p", &other], "in use by");
    net.assert_empty(&["web", "echo"]);
}

#[test]
fn a_guest_may_be_among_the_hosts_devices_or_beside_another() {
    let Some(net) = Net::new() else { return };
    net.start("web", &["--network", "bridge"], &["httpd"]);
    for network in ["host", "container:web"] {
        assert!(
            net.guest(&["--network", network], &["fetch", "web"]).contains("Chiton"),
            "{network}"
        );
        net.start("second", &["--network", network], &["httpd"]);
        assert!(
            net.guest(&["--network", "bridge"], &["fetch", "second"])
                .contains("Chiton"),
            "{network}"
        );
        net.ok(&["rm", "--force", "second"]);
    }
    assert_eq!(ports_of(&net.bridge).len(), 1, "only that of web");
    let live = guest_path("live").display().to_string();
    net.ok(&["run", "-d", "--name", "alone", &live]);
    net.refused(&["--network", "container:alone"], "no bridge for guests");
    net.assert_empty(&["web", "alone"]);
}

#[test]
fn a_guest_asks_the_dns_server_that_it_was_given() {
    let Some(net) = Net::new() else { return };
    // Its address is there while somebody is on the bridge.
    net.start("web", &["--network", "bridge"], &["httpd"]);
    let server = net.address(1);
    let socket = UdpSocket::bind((server.as_str(), 53)).expect("port 53 of the bridge is free");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    let serve = thread::spawn(move || {
        // Who waits long for an answer asks again.
        let mut asked = [false; 2];
        while asked != [true; 2] {
            let mut bytes = [0; 512];
            let (len, from) = socket.recv_from(&mut bytes).expect("a question");
            // RFC 1035, 4.1: the same question, and for one name one answer.
            let mut answer = bytes[..len].to_vec();
            let known = bytes[12..len].starts_with(b"\x05moray\x04test\x00");
            asked[usize::from(known)] = true;
            answer[2..4].copy_from_slice(if known { &[0x81, 0x80] } else { &[0x81, 0x83] });
            if known {
                answer[7] = 1;
                answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
            }
            socket.send_to(&answer, from).expect("it goes out");
        }
    });
    let options = ["--network", "bridge", "--dns", &server];
    assert_eq!(net.guest(&options, &["fetch", "name", "moray.test"]), "192.0.2.77");
    let fetch = guest_path("fetch").display().to_string();
    let unknown = net.output(&[&["run", "--rm"], &options[..], &[&fetch, "name", "eel.test"]].concat());
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        !unknown.status.success() && said.contains("eel.test: network: neither"),
        "{said}"
    );
    serve.join().expect("it was asked for both");
    net.assert_empty(&["web"]);
}

#[test]
fn links_of_an_image_are_in_nobodys_way_to_names() {
    let Some(net) = Net::new() else { return };
    if !busybox() {
        return;
    }
    // As an image of a distribution has them: the first is of systemd's resolver, which does not run in it.
    let etc = net.record.folder().path("etc");
    fs::create_dir(&etc).expect("a folder");
    symlink("/run/systemd/resolve/stub-resolv.conf", etc.join("resolv.conf")).expect("a link");
    symlink("../../../host/hosts", etc.join("hosts")).expect("a link");
    let files = format!("{}:/etc", etc.display());
    let dns = ["--network", "bridge", "--dns", "192.0.2.9"];
    net.ok(&["image", "build", "-t", "box", "--guest", "/bin/busybox", "-f", &files]);
    let guest = guest_path("fetch").display().to_string();
    net.ok(&["image", "build", "-t", "guest", "--guest", &guest, "-f", &files]);
    net.start("web", &["--network", "bridge"], &["httpd"]);
    for read_only in [&[][..], &["--read-only"]] {
        let run = |command: &[&str]| net.ok(&[&["run", "--rm"], &dns[..], read_only, command].concat());
        let said = run(&[
            "--process",
            "box",
            "cat",
            "/etc/hosts",
            "/etc/resolv.conf",
            "/host/hosts",
        ]);
        assert_eq!(said.matches("\tweb\t").count(), 2, "{said}");
        assert!(said.contains("nameserver 192.0.2.9"), "{said}");
        assert!(run(&["guest", "web"]).contains("<h1>Chiton</h1>"));
    }
    // Nothing of it is in the image.
    assert!(!net.ok(&["run", "--rm", "--process", "box", "ls", "/"]).contains("host"));
    fs::remove_file(etc.join("hosts")).expect("it is there");
    symlink("/proc/version", etc.join("hosts")).expect("a link");
    net.ok(&["image", "build", "-t", "bad", "--guest", "/bin/busybox", "-f", &files]);
    let bad = net.output(&[&["run", "--rm"], &dns[..], &["--process", "bad", "true"]].concat());
    let said = String::from_utf8_lossy(&bad.stderr);
    assert!(
        !bad.status.success() && said.contains("nothing goes over the kernel's own files"),
        "{said}"
    );
    net.assert_empty(&["web"]);
}

#[test]
fn an_ordinary_process_and_a_guest_find_each_other_by_name() {
    let Some(net) = Net::new() else { return };
    if !busybox() {
        return;
    }
    // An image whose entrypoint is any program: nobody looks into it before it is run as a process.
    net.ok(&["image", "build", "-t", "box", "--guest", "/bin/busybox"]);
    net.start("web", &["--network", "bridge"], &["httpd"]);
    let said = net.ok(&[
        "run",
        "--rm",
        "--network",
        "bridge",
        "--process",
        "box",
        "wget",
        "-q",
        "-O",
        "-",
        "http://web/",
    ]);
    assert!(said.contains("<h1>Chiton</h1>"), "{said}");
    let serve = ["httpd", "-f", "-p", "80", "-h", "/etc"];
    net.ok(&[
        &["run", "-d", "--name", "box", "--network", "bridge", "--process", "box"],
        &serve[..],
    ]
    .concat());
    let fetch = guest_path("fetch").display().to_string();
    let mut said = String::new();
    // It does not say when it listens.
    net.until("an answer", || {
        let output = net.output(&["run", "--rm", "--network", "bridge", &fetch, "box", "80", "/hosts"]);
        said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success()
    });
    assert!(said.contains("\tweb\t"), "{said}");
    let beside = [
        "run",
        "--rm",
        "--network",
        "container:web",
        "--process",
        "box",
        "cat",
        "/proc/net/dev",
    ];
    assert!(net.ok(&beside).contains("tap0"), "the namespace is the guest's");
    let none = net.ok(&["run", "--rm", "--process", "box", "cat", "/proc/net/dev"]);
    // Two lines of heads, and the loopback device.
    assert!(none.lines().count() == 3 && none.contains("lo:"), "{none}");
    net.assert_empty(&["web", "box"]);
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let Some(net) = Net::new() else { return };
    net.start("web", &["--network", "bridge", "--ip", &net.address(3)], &["httpd"]);
    net.refused(&["--network", "bridge", "--ip", &net.address(3)], "is taken by");
    net.refused(
        &["--network", "bridge", "--ip", "192.0.2.1"],
        "is not one for an instance",
    );
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    net.refused(&["--network", "bridge", "-p", &format!("{port}:80")], "is in use");
    net.refused(&["--network", "container:nobody"], "nobody");
    for option in [
        ["-p", "80:80"],
        ["--ip", "10.0.0.2"],
        ["--mac", "02:00:00:00:00:01"],
        ["--mtu", "1400"],
        ["--dns", "10.0.0.1"],
    ] {
        net.refused(&option, "needs a network of its own");
    }
    // A /29 has five addresses for instances.
    for name in ["a", "b", "c", "d"] {
        net.start(name, &["--network", "bridge"], &["httpd"]);
    }
    net.refused(&["--network", "bridge"], "all 5 addresses");
    net.assert_empty(&["web", "a", "b", "c", "d"]);
}

#[test]
fn the_next_command_takes_down_what_a_killed_supervisor_left() {
    let Some(net) = Net::new() else { return };
    let port = free_port();
    let publish = format!("{port}:80");
    net.start("web", &["--network", "bridge", "-p", &publish], &["httpd"]);
    let supervisor: i32 = net
        .ok(&["inspect", "--format", "{{.State.supervisor}}", "web"])
        .parse()
        .expect("a process");
    // SAFETY: no memory is involved; the process is the supervisor that was just started.
    assert_eq!(unsafe { libc::kill(supervisor, libc::SIGKILL) }, 0);
    net.until("the end", || !Path::new("/proc").join(supervisor.to_string()).exists());
    net.until("the end of the guest", || ports_of(&net.bridge).is_empty());
    // The port is free for the next one, without anybody having asked for a clean-up.
    net.start("next", &["--network", "bridge", "-p", &publish], &["httpd"]);
    assert!(page("127.0.0.1", port).contains("Chiton"));
    net.assert_empty(&["next"]);
}

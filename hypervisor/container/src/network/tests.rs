//! Real bridges, namespaces and ports, where this process may make them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::link::Links;
use super::*;
use crate::lock::until;

/// For what will surely come, so that a failure ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bridge of its own for each test.
struct Rig {
    folder: tempfile::TempDir,
    bridge: Bridge,
    name: String,
}

impl Rig {
    /// `None`, with the reason on standard output, where there can be none.
    fn new(bits: u8) -> Option<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CHITON_STRICT").is_none(), "networks need root");
            println!("SKIPPED: networks need root");
            return None;
        }
        let process = (std::process::id() % 200) as u8;
        let name = format!("chtest{process}x{number}");
        let subnet = format!("10.{}.{number}.0/{bits}", 32 + process % 32).parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let bridge = Bridge::open(folder.path(), &name, subnet).unwrap();
        Some(Self { folder, bridge, name })
    }

    fn id(&self, n: u32) -> String {
        let number = self
            .name
            .bytes()
            .fold(u64::from(n), |sum, byte| sum * 31 + u64::from(byte));
        format!("{number:032x}").chars().rev().collect()
    }

    /// Joins the first, with ports of the host. To see that nobody listens on one the bridge does so itself for a moment; a child
    /// that another test starts may do it for longer.
    fn publish(&self, name: &str, is_guest: bool, ports: &[Port]) -> Attached {
        let mut attached = None;
        until(|| {
            let kind = if is_guest { Kind::Guest } else { Kind::Process };
            match self.bridge.join(Request {
                ports,
                ..Request::new(&self.id(0), name, kind)
            }) {
                Err(NetworkError::PortInUse { .. }) => false,
                joined => {
                    attached = Some(joined.unwrap());
                    true
                }
            }
        });
        attached.unwrap()
    }

    fn is_clean(&self) -> bool {
        let names = Links::open().unwrap().names().unwrap();
        let tables = nat::tables().unwrap();
        let files = |folder: &str| {
            let entries = fs::read_dir(self.folder.path().join(folder)).unwrap().flatten();
            entries.filter(|entry| entry.file_name() != "last").count()
        };
        let devices = (0..9).any(|n| names.contains(&format!("ch{}", &self.id(n)[..12])));
        let own = (0..9).any(|n| tables.contains(&format!("chiton-{}", &self.id(n)[..12])));
        !names.contains(&self.name)
            && !devices
            && !own
            && !tables.contains(&format!("chiton-{}", self.name))
            && files("leases") + files("owners") == 0
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.bridge.sweep(|_| false).unwrap();
        if !thread::panicking() {
            assert!(self.is_clean(), "something is left");
        }
    }
}

/// Answers each connection with one line.
fn serve(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"hello\n"));
        }
    });
}

/// A port of TCP and UDP that nobody is given who asks for any, and that nobody connects from.
fn free_port() -> u16 {
    let first = 15_000 + std::process::id() as u16 % 10_000;
    let free =
        |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok() && UdpSocket::bind(("0.0.0.0", *port)).is_ok();
    (first..32_000).find(free).unwrap()
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let start = Instant::now();
    let mut stream = loop {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            // Devices that were just made may take longer to be up than the kernel looks for who has an address.
            Err(error) if error.kind() == ErrorKind::HostUnreachable && start.elapsed() < PATIENCE => {}
            connected => break connected?,
        }
    };
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The answer of who is there: the kernel joins a device to its bridge some time after it was told to, and nobody is
/// found behind it before.
fn answer(address: SocketAddr) -> std::io::Result<String> {
    let begun = Instant::now();
    loop {
        match ask(address) {
            Err(error) if error.kind() == ErrorKind::HostUnreachable && begun.elapsed() < PATIENCE => {}
            answer => return answer,
        }
    }
}

#[test]
fn the_host_and_processes_of_instances_reach_each_other() {
    let Some(rig) = Rig::new(24) else { return };
    let a = rig.bridge.join(Request::new(&rig.id(0), "a", Kind::Process)).unwrap();
    let b = rig.bridge.join(Request::new(&rig.id(1), "b", Kind::Process)).unwrap();
    assert_ne!(a.address, b.address);
    let listener = a
        .namespace
        .as_ref()
        .unwrap()
        .enter(|| TcpListener::bind((a.address, 80)))
        .unwrap();
    serve(listener);
    let to = SocketAddr::from((a.address, 80));
    assert_eq!(answer(to).unwrap(), "hello\n", "from the host");
    assert_eq!(
        b.namespace.as_ref().unwrap().enter(|| answer(to)).unwrap(),
        "hello\n",
        "from the other"
    );
    let hosts = fs::read_to_string(&a.hosts).unwrap();
    assert!(hosts.contains(&format!("{}\tb\t", b.address)), "{hosts}");
    let back = TcpListener::bind((a.gateway, 0)).unwrap();
    let to = back.local_addr().unwrap();
    serve(back);
    assert_eq!(
        a.namespace.as_ref().unwrap().enter(|| answer(to)).unwrap(),
        "hello\n",
        "from an instance to the host"
    );
}

#[test]
fn a_published_port_answers_on_every_address_of_the_host() {
    let Some(rig) = Rig::new(24) else { return };
    let free = free_port();
    let port: Port = format!("{free}:80").parse().unwrap();
    let udp: Port = format!("{free}:53/udp").parse().unwrap();
    let a = rig.publish("a", false, &[port, udp]);
    let b = rig.bridge.join(Request::new(&rig.id(1), "b", Kind::Process)).unwrap();
    serve(
        a.namespace
            .as_ref()
            .unwrap()
            .enter(|| TcpListener::bind(("0.0.0.0", 80)))
            .unwrap(),
    );
    assert_eq!(answer(([127, 0, 0, 1], free).into()).unwrap(), "hello\n");
    assert_eq!(answer((a.gateway, free).into()).unwrap(), "hello\n");
    let through = || answer((a.gateway, free).into());
    assert_eq!(
        b.namespace.as_ref().unwrap().enter(through).unwrap(),
        "hello\n",
        "from another instance"
    );

    let inside = a
        .namespace
        .as_ref()
        .unwrap()
        .enter(|| UdpSocket::bind(("0.0.0.0", 53)))
        .unwrap();
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    outside.send_to(b"?", ("127.0.0.1", free)).unwrap();
    inside.set_read_timeout(Some(PATIENCE)).unwrap();
    let (len, from) = inside.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(len, 1);
    inside.send_to(b"!", from).unwrap();
    outside.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(outside.recv_from(&mut [0; 8]).unwrap().0, 1);

    let again = rig
        .bridge
        .join(Request {
            ports: &[port],
            ..Request::new(&rig.id(2), "c", Kind::Process)
        })
        .unwrap_err();
    assert!(again.to_string().contains("is in use by"), "{again}");
    rig.bridge.leave(&rig.id(0)).unwrap();
    assert!(ask(([127, 0, 0, 1], free).into()).is_err());
}

#[test]
fn a_port_that_somebody_listens_on_is_refused_and_nothing_is_left() {
    let Some(rig) = Rig::new(24) else { return };
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port: Port = format!("{}:80", taken.local_addr().unwrap().port()).parse().unwrap();
    let error = rig
        .bridge
        .join(Request {
            ports: &[port],
            ..Request::new(&rig.id(0), "a", Kind::Process)
        })
        .unwrap_err();
    assert!(error.to_string().contains("of the host is in use"), "{error}");
    assert!(rig.is_clean());
}

#[test]
fn a_guests_tap_device_is_bridged_to_the_host() {
    let Some(rig) = Rig::new(24) else { return };
    let a = rig.bridge.join(Request::new(&rig.id(0), "a", Kind::Guest)).unwrap();
    let tap = a
        .namespace
        .as_ref()
        .unwrap()
        .enter(|| tap::open(&a.tap.as_ref().unwrap().name))
        .unwrap();
    let mut ready = [rustix::event::PollFd::new(&tap, rustix::event::PollFlags::IN)];
    let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
    let socket = UdpSocket::bind((a.gateway, 0)).unwrap();
    let mut frame = [0; 2048];
    // The host asks who has the address, and again if the devices were not all up the first time.
    let asked = |_| {
        socket.send_to(b"?", (a.address, 9)).unwrap();
        if rustix::event::poll(&mut ready, Some(&second)).unwrap() == 0 {
            return false;
        }
        let len = rustix::io::read(&tap, &mut frame).unwrap();
        // Behind 10 bytes of virtio-net header: ARP, with the address as its target.
        len >= 52 && frame[22..24] == [8, 6] && frame[48..52] == a.address.octets()
    };
    assert!((0..60).any(asked));
}

#[test]
fn devices_go_with_the_namespace_and_the_sweep_takes_the_rest() {
    let Some(rig) = Rig::new(24) else { return };
    let alive = rig.id(1);
    let port: Port = "127.0.0.1:9:9".parse().unwrap();
    drop(rig.publish("dead", true, &[port]));
    let kept = rig.bridge.join(Request::new(&alive, "alive", Kind::Process)).unwrap();
    assert_eq!(rig.bridge.sweep(|owner| owner == alive).unwrap(), 1);
    assert_eq!(rig.bridge.sweep(|owner| owner == alive).unwrap(), 0);
    let hosts = fs::read_to_string(&kept.hosts).unwrap();
    assert!(hosts.contains("alive") && !hosts.contains("dead"), "{hosts}");
    // Whoever is killed while it writes leaves a file that is not whole.
    let unfinished = ["new", "leases/new"].map(|name| rig.folder.path().join(name));
    unfinished.iter().for_each(|path| fs::write(path, "{").unwrap());
    assert_eq!(rig.bridge.sweep(|owner| owner == alive).unwrap(), 0);
    assert!(!unfinished.iter().any(|path| path.exists()));
    rig.bridge.leave(&alive).unwrap();
    rig.bridge.leave(&alive).unwrap();
    assert!(rig.is_clean());
}

#[test]
fn a_sweep_removes_the_bridge_of_whoever_was_killed_between_the_last_owner_and_that() {
    let Some(rig) = Rig::new(24) else { return };
    let dead = rig.id(0);
    drop(rig.bridge.join(Request::new(&dead, "dead", Kind::Process)).unwrap());
    fs::remove_file(rig.folder.path().join("owners").join(&dead)).unwrap();
    assert_eq!(rig.bridge.sweep(|_| false).unwrap(), 0);
    assert!(!Links::open().unwrap().names().unwrap().contains(&rig.name));
    // The other device goes with its namespace, some time.
    rig.bridge.leave(&dead).unwrap();
    assert!(rig.is_clean());
}

#[test]
fn when_all_addresses_are_taken_it_is_said_and_nothing_is_left() {
    let Some(rig) = Rig::new(29) else { return };
    for n in 0..5 {
        rig.bridge
            .join(Request::new(&rig.id(n), &format!("n{n}"), Kind::Process))
            .unwrap();
    }
    let error = rig
        .bridge
        .join(Request::new(&rig.id(5), "more", Kind::Process))
        .unwrap_err();
    assert!(error.to_string().contains("all 5 addresses of"), "{error}");
    assert!(!fs::read_to_string(rig.bridge.hosts_path()).unwrap().contains("more"));
}

#[test]
fn a_range_that_the_host_uses_otherwise_is_refused() {
    let Some(rig) = Rig::new(24) else { return };
    let _a = rig.bridge.join(Request::new(&rig.id(0), "a", Kind::Process)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = Bridge::open(folder.path(), "chtestother", rig.bridge.subnet()).unwrap();
    let error = other.join(Request::new(&rig.id(1), "b", Kind::Process)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("which the host reaches by {}", rig.name)),
        "{error}"
    );
}

#[test]
fn the_kernel_has_the_rules_that_it_was_given() {
    let Some(rig) = Rig::new(24) else { return };
    let port: Port = "127.0.0.1:9:9".parse().unwrap();
    let a = rig.publish("a", false, &[port]);
    let seen = |table: &str| -> Vec<(String, String, Vec<Vec<u8>>)> {
        let rules = nat::rules(&format!("chiton-{table}")).unwrap();
        let seen = |rule: nat::KernelRule| (rule.chain, rule.expressions.join(" "), rule.values);
        rules.into_iter().map(seen).collect()
    };
    let mut bridge = rig.name.clone().into_bytes();
    bridge.resize(16, 0);
    let subnet = rig.bridge.subnet().first().octets().to_vec();
    let way_out = [
        ("payload bitwise cmp meta cmp masq", vec![subnet, bridge.clone()]),
        ("meta cmp ct bitwise cmp masq", vec![bridge, vec![0; 4]]),
    ];
    let way_out = way_out.map(|(expressions, values)| ("out".to_owned(), expressions.to_owned(), values));
    assert_eq!(seen(&rig.name), way_out);
    let way_in = ["in", "self"].map(|chain| {
        let (here, there) = (vec![127, 0, 0, 1], a.address.octets().to_vec());
        let values = vec![here, vec![6], vec![0, 9], there, vec![0, 9]];
        let expressions = "payload cmp meta cmp payload cmp immediate immediate nat";
        (chain.to_owned(), expressions.to_owned(), values)
    });
    assert_eq!(seen(&rig.id(0)[..12]), way_in);
}

#[test]
fn whoever_is_beyond_the_host_sees_the_hosts_address_and_answers() {
    let Some(rig) = Rig::new(24) else { return };
    // Another network of the host, in which one machine knows nothing of bridges.
    let beyond = Namespace::new().unwrap();
    let device = format!("{}o", rig.name);
    let numbers = rig.bridge.subnet().first().octets();
    let subnet: Subnet = format!("198.18.{}.{}/29", numbers[1], numbers[2] * 8).parse().unwrap();
    let (host, other) = (subnet.gateway(), subnet.nth(0));
    let mut links = Links::open().unwrap();
    links.make_veth(&device, "out0", beyond.as_fd()).unwrap();
    let index = links.index(&device).unwrap();
    links.add_address(index, host, subnet).unwrap();
    links.set_up(index).unwrap();
    let furnish = || {
        let mut links = Links::open()?;
        let index = links.index("out0")?;
        links.add_address(index, other, subnet)?;
        links.set_up(index)?;
        Ok((TcpListener::bind((other, 80))?, UdpSocket::bind((other, 53))?))
    };
    let (tcp, udp) = beyond.enter(furnish).unwrap();

    let a = rig.bridge.join(Request::new(&rig.id(0), "a", Kind::Process)).unwrap();
    let inside = a.namespace.as_ref().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, from) = tcp.accept().unwrap();
            stream.write_all(format!("{}\n", from.ip()).as_bytes()).unwrap();
        });
        let said = inside.enter(|| answer((other, 80).into())).unwrap();
        assert_eq!(said, format!("{host}\n"));
    });
    let socket = inside.enter(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"?", (other, 53)).unwrap();
    let (_, from) = udp.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip(), host);
    udp.send_to(b"!", from).unwrap();
    assert_eq!(socket.recv_from(&mut [0; 8]).unwrap().1, (other, 53).into());

    // Without the rule none comes back.
    nat::remove(&format!("chiton-{}", rig.name)).unwrap();
    let connect = || TcpStream::connect_timeout(&(other, 80).into(), Duration::from_millis(300));
    assert!(inside.enter(connect).is_err());
    links.remove(&device).unwrap();
}

#[test]
fn a_bridge_of_others_is_left_alone_and_so_is_their_range() {
    let Some(rig) = Rig::new(28) else { return };
    let join = |bridge: &Bridge, n| bridge.join(Request::new(&rig.id(n), "x", Kind::Process));
    let first = join(&rig.bridge, 0).unwrap();
    let other = tempfile::tempdir().unwrap();
    let same_name = Bridge::open(other.path().join("a"), &rig.name, rig.bridge.subnet()).unwrap();
    let error = join(&same_name, 1).unwrap_err().to_string();
    let mine = fs::canonicalize(rig.folder.path()).unwrap();
    assert!(
        error.contains(&format!("is that of the instances of {}", mine.display())),
        "{error}"
    );
    let same_range = Bridge::open(other.path().join("b"), &format!("{}b", rig.name), rig.bridge.subnet()).unwrap();
    let error = join(&same_range, 1).unwrap_err().to_string();
    assert!(error.contains("overlaps"), "{error}");
    // Neither the refusal nor a sweep took it down.
    same_name.sweep(|_| false).unwrap();
    assert!(Links::open().unwrap().names().unwrap().contains(&rig.name));
    assert!(nat::tables().unwrap().contains(&format!("chiton-{}", rig.name)));
    // When those are gone for good, whoever comes takes it over.
    drop(first);
    rig.bridge.leave(&rig.id(0)).unwrap();
    let gone = tempfile::tempdir().unwrap();
    let forgotten = Bridge::open(gone.path(), &rig.name, rig.bridge.subnet()).unwrap();
    join(&forgotten, 2).unwrap();
    drop(gone);
    join(&same_name, 3).unwrap();
    same_name.leave(&rig.id(3)).unwrap();
    Links::open()
        .unwrap()
        .remove(&format!("ch{}", &rig.id(2)[..12]))
        .unwrap();
}

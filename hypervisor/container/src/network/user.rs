//! The network of an ordinary user, who may not change that of the host: a program called pasta makes of each
//! connection of the instance one of its own.
//!
//! ```text
//!   host                                    network namespace of an instance
//!  ┌───────────────────────────────┐       ┌──────────────────────────────────────────┐
//!  │ sockets of pasta ◀── pasta ───────────── eth0                                    │
//!  │   out: as the user's own      │       │   │ NAT, as on the host for a bridge     │
//!  │   in:  published ports        │       │  br0 (10.87.0.1/16) ── tap0 ── guest     │
//!  └───────────────────────────────┘       └──────────────────────────────────────────┘
//! ```
//!
//! A process's kernel has the address itself, at `eth0`. In both cases the gateway's address is the host's: what
//! is sent there goes to the host's own address, as on a bridge, and not to its loopback device.
//!
//! pasta runs outside, as the user, behind a filter and in namespaces of its own making. It ends with the process
//! that started it, however that ends, and nothing of it stays.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, set_parent_process_death_signal};

use super::bridge::{INNER, INSIDE, TAP, loopback_up, mac_of, no_ipv6};
use super::link::Links;
use super::{
    Attached, Kind, Namespace, NetworkError, OpenTap, Port, Protocol, Request, Subnet, Tap, hosts, nat, open_low_ports,
    tap,
};
use crate::jail::{IdMap, Keeper};

/// The program.
const PASTA: &str = "pasta";
/// Its side of a guest's namespace, between it and the bridge: link-local addresses, which nobody routes to.
const OUTER: Ipv4Addr = Ipv4Addr::new(169, 254, 87, 2);
const OUTER_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 87, 1);
const OUTER_BITS: u8 = 30;
/// What cannot be done, if the kernel refuses those.
const TRANSLATE: &str = "translate addresses by nf_tables";
/// The tables of nf_tables in the namespace: out, in, and to the host.
const TABLES: [&str; 3] = ["chiton", "chiton-in", "chiton-host"];

/// A network of one instance.
#[derive(Debug)]
pub struct UserNetwork {
    folder: PathBuf,
    subnet: Subnet,
}

/// The program that passes packets on. It is ended when this is dropped.
#[derive(Debug)]
pub struct Helper(Child);

impl Helper {
    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl UserNetwork {
    /// One with these addresses; what is to be known of it is kept in `folder`, which is the instance's.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, subnet: Subnet) -> Self {
        Self {
            folder: folder.into(),
            subnet,
        }
    }

    /// Makes the network of an instance whose users are these; a guest's TAP device is opened by `open_tap`.
    /// The caller has one thread.
    ///
    /// # Errors
    ///
    /// Any [`NetworkError`]. Nothing is left of it then.
    pub fn join(
        &self,
        ids: &IdMap,
        request: &Request<'_>,
        open_tap: OpenTap,
    ) -> Result<(Attached, Helper), NetworkError> {
        if geteuid().is_root() {
            return Err(NetworkError::Root);
        }
        let subnet = self.subnet;
        let address = request.address.unwrap_or(subnet.nth(0));
        if !subnet.is_for_instances(address) {
            return Err(NetworkError::Outside { address, subnet });
        }
        check_ports(request.ports)?;
        let is_guest = matches!(request.kind, Kind::Guest);
        let mac = request.mac.unwrap_or_else(|| mac_of(address));
        let plan = Plan {
            subnet,
            address,
            host: host_address(),
            mtu: request.mtu,
            ports: request.ports,
        };
        let furnish = || match is_guest {
            true => plan.furnish_for_guest(open_tap),
            false => plan.furnish_for_process().map(|()| Vec::new()),
        };
        let (keeper, namespaces) = Keeper::start(ids, furnish)?;
        let options = plan.options(is_guest, mac);
        let helper = self.start(&options, keeper.pid())?;
        let open = keeper.finish()?;
        let hosts = self.folder.join("hosts");
        let own = (request.name.to_owned(), address.into());
        hosts::make_own(&hosts, &[request.hosts, &[own]].concat())?;
        let attached = Attached {
            namespace: Some(Namespace::of_user(namespaces)),
            tap: is_guest.then(|| Tap { name: TAP.into(), open }),
            address,
            subnet,
            gateway: subnet.gateway(),
            mac,
            hosts,
        };
        Ok((attached, helper))
    }

    /// Starts the program, and waits until it is ready.
    fn start(&self, options: &[OsString], namespaces_of: i32) -> Result<Helper, NetworkError> {
        // It writes its number when it has done everything.
        let ready_path = self.folder.join("pasta.ready");
        let says_path = self.folder.join("pasta.log");
        remove(&ready_path)?;
        mknodat(CWD, &ready_path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|error| NetworkError::file("create", &ready_path)(error.into()))?;
        let ready = open(
            &ready_path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| NetworkError::file("open", &ready_path)(error.into()))?;
        let says = File::create(&says_path).map_err(NetworkError::file("create", &says_path))?;
        let mut command = Command::new(PASTA);
        command.args(options).arg("-P").arg(&ready_path);
        command.arg(namespaces_of.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(says);
        let parent = rustix::process::getpid();
        let die_with_parent = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // It may have died before.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::ErrorKind::Interrupted.into())
            }
        };
        // SAFETY: the function makes two system calls and allocates nothing.
        unsafe { command.pre_exec(die_with_parent) };
        let child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => NetworkError::NoHelper(PASTA),
            _ => NetworkError::kernel(format!("start {PASTA}"))(error),
        })?;
        let mut helper = Helper(child);
        let waited = helper.wait_ready(&ready);
        remove(&ready_path)?;
        match waited {
            Ok(true) => Ok(helper),
            Ok(false) => Err(NetworkError::Helper {
                program: PASTA,
                said: last_words(&says_path),
            }),
            Err(error) => Err(NetworkError::kernel(format!("wait for {PASTA}"))(error)),
        }
    }
}

impl Helper {
    /// Waits until it has written something there, or has ended; whether it is ready.
    fn wait_ready(&mut self, ready: &OwnedFd) -> io::Result<bool> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let end = pidfd_open(pid.ok_or(ErrorKind::InvalidInput)?, PidfdFlags::empty())?;
        loop {
            let mut events = [ready, &end].map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
            match poll(&mut events, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            if events[0].revents().contains(PollFlags::IN) {
                return Ok(true);
            }
            if !events[1].revents().is_empty() {
                return Ok(false);
            }
            // It closed the file and wrote nothing: it will end.
            let mut end = [PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut end, None))?;
        }
    }
}

/// Refuses ports that cannot be had, and those that lead to several: inside, nobody knows any more by which of the
/// host's addresses something came.
fn check_ports(ports: &[Port]) -> Result<(), NetworkError> {
    for (index, port) in ports.iter().enumerate() {
        let other = ports[..index].iter().find(|other| {
            other.clashes(port)
                || (other.host, other.protocol) == (port.host, port.protocol) && other.instance != port.instance
        });
        if other.is_some() {
            return Err(NetworkError::PortInUse {
                port: port.to_string(),
                by: " twice".into(),
            });
        }
        port.check_free()?;
    }
    Ok(())
}

/// The last line that it wrote that is about the matter.
fn last_words(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    // Some versions say that they cannot write to the host's log.
    let last = lines.rfind(|line| !line.ends_with("to syslog"));
    last.unwrap_or("it said nothing").to_owned()
}

fn remove(path: &Path) -> Result<(), NetworkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(NetworkError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The address by which the host reaches the world, and is reached; none, if it reaches nothing.
fn host_address() -> Option<Ipv4Addr> {
    // Nothing is sent: the kernel looks for a route, to an address that is nobody's (RFC 5737).
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

/// What is to be in the namespace.
#[derive(Debug)]
struct Plan<'a> {
    subnet: Subnet,
    address: Ipv4Addr,
    host: Option<Ipv4Addr>,
    mtu: Option<u16>,
    ports: &'a [Port],
}

impl Plan<'_> {
    /// The program's options.
    fn options(&self, is_guest: bool, mac: [u8; 6]) -> Vec<OsString> {
        // In the foreground, quiet, for IPv4; the device is given its addresses; nothing is asked for inside, no
        // connection goes to the host's loopback device, and no port leads anywhere that was not asked for.
        let mut words: Vec<String> = [
            "-f",
            "-q",
            "-4",
            "--config-net",
            "--no-dhcp",
            "--no-map-gw",
            "-T",
            "none",
            "-U",
            "none",
            "-I",
            INSIDE,
        ]
        .map(str::to_owned)
        .into();
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
        let (address, bits, gateway) = match is_guest {
            true => (OUTER, OUTER_BITS, OUTER_GATEWAY),
            false => (self.address, self.subnet.bits(), self.subnet.gateway()),
        };
        option("-a", address.to_string());
        option("-n", bits.to_string());
        option("-g", gateway.to_string());
        if !is_guest {
            option("--ns-mac-addr", mac.map(|byte| format!("{byte:02x}")).join(":"));
            self.mtu.into_iter().for_each(|mtu| option("-m", mtu.to_string()));
        }
        for (name, protocol) in [("-t", Protocol::Tcp), ("-u", Protocol::Udp)] {
            let mut ports = self.ports.iter().filter(|port| port.protocol == protocol).peekable();
            if ports.peek().is_none() {
                option(name, "none".into());
            }
            for port in ports {
                let at = port.address.map_or_else(String::new, |address| format!("{address}/"));
                // To the same port inside, from where it is led on: of datagrams from the host's loopback device
                // to another one, some versions lose the answers.
                option(name, format!("{at}{}", port.host));
            }
        }
        words.into_iter().map(OsString::from).collect()
    }

    /// Runs inside: a bridge with a new TAP device, and the way from and to the program's device.
    fn furnish_for_guest(&self, open_tap: OpenTap) -> io::Result<Vec<OwnedFd>> {
        no_ipv6().map_err(because("turn IPv6 off"))?;
        self.bridge().map_err(because("make a bridge and a TAP device"))?;
        for setting in ["ip_forward", &format!("conf/{INNER}/route_localnet")] {
            fs::write(Path::new("/proc/sys/net/ipv4").join(setting), "1").map_err(because(setting))?;
        }
        nat::way_out(TABLES[0], INNER, self.subnet).map_err(because(TRANSLATE))?;
        self.ways_from_and_to_host(OUTER).map_err(because(TRANSLATE))?;
        self.be_heard(OUTER, OUTER_GATEWAY);
        open_tap(TAP)
    }

    fn bridge(&self) -> io::Result<()> {
        let mut links = Links::open()?;
        tap::make(TAP)?;
        links.make_bridge(INNER)?;
        let (bridge, tap) = (links.index(INNER)?, links.index(TAP)?);
        links.add_address(bridge, self.subnet.gateway(), self.subnet)?;
        links.set_master(tap, bridge)?;
        if let Some(mtu) = self.mtu {
            links.set_mtu(tap, mtu.into())?;
        }
        links.set_up(tap)?;
        links.set_up(bridge)?;
        loopback_up(&mut links)
    }

    /// Runs inside: the program has made everything else.
    fn furnish_for_process(&self) -> io::Result<()> {
        no_ipv6().map_err(because("turn IPv6 off"))?;
        let up = Links::open().and_then(|mut links| loopback_up(&mut links));
        up.map_err(because("bring up the loopback device"))?;
        open_low_ports().map_err(because("ip_unprivileged_port_start"))?;
        self.ways_from_and_to_host(self.address).map_err(because(TRANSLATE))?;
        self.be_heard(self.address, self.subnet.gateway());
        Ok(())
    }

    /// Has the program learn the hardware address of its device's other side: until it has heard something from there it
    /// sends to all, and what is sent to all is not led on.
    fn be_heard(&self, own: Ipv4Addr, gateway: Ipv4Addr) {
        const DISCARD: u16 = 9;
        if !self.ports.is_empty() {
            // What is said is of no use to anybody, and neither is an error.
            let _ = UdpSocket::bind((own, 0)).and_then(|socket| socket.send_to(&[], (gateway, DISCARD)));
        }
    }

    /// Published ports arrive at the program's device, which has the address `outer`, and those from the host
    /// itself at the loopback device.
    fn ways_from_and_to_host(&self, outer: Ipv4Addr) -> io::Result<()> {
        let arriving = |port: &Port| {
            [outer, Ipv4Addr::LOCALHOST].map(|address| Port {
                address: Some(address),
                ..*port
            })
        };
        let ports: Vec<_> = self.ports.iter().flat_map(arriving).collect();
        if !ports.is_empty() {
            nat::way_in(TABLES[1], self.address, &ports)?;
        }
        match self.host {
            Some(host) => nat::way_over(TABLES[2], self.subnet.gateway(), host),
            None => Ok(()),
        }
    }
}

/// For `map_err`: with what could not be done.
fn because(doing: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::other(format!("{doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_gets_ports_as_it_reads_them() {
        let ports = ["8080:80", "127.0.0.1:5353:53/udp"].map(|port| port.parse().unwrap());
        let subnet: Subnet = "10.1.2.0/24".parse().unwrap();
        let plan = Plan {
            subnet,
            address: subnet.nth(0),
            host: None,
            mtu: Some(1400),
            ports: &ports,
        };
        let words = |is_guest| {
            let words = plan.options(is_guest, [2, 0, 0, 0, 0, 1]);
            let words: Vec<_> = words.into_iter().map(|word| word.into_string().unwrap()).collect();
            words.join(" ")
        };
        let guest = words(true);
        assert!(guest.ends_with("-a 169.254.87.2 -n 30 -g 169.254.87.1 -t 8080 -u 127.0.0.1/5353"));
        let process = words(false);
        assert!(
            process.contains("-a 10.1.2.2 -n 24 -g 10.1.2.1 --ns-mac-addr 02:00:00:00:00:01 -m 1400 -t "),
            "{process}"
        );
        let none = Plan { ports: &[], ..plan };
        let none: Vec<_> = none.options(true, [0; 6]);
        assert!(none.ends_with(&["-t", "none", "-u", "none"].map(OsString::from)));
    }

    #[test]
    fn a_port_of_the_host_leads_to_one_port() {
        let check = |ports: [&str; 2]| check_ports(&ports.map(|port| port.parse().unwrap()));
        check(["127.0.0.1:60080:80", "127.0.0.2:60080:80"]).unwrap();
        for ports in [
            ["60080:80", "127.0.0.1:60080:80"],
            ["127.0.0.1:60080:80", "127.0.0.2:60080:81"],
        ] {
            let error = check(ports).unwrap_err().to_string();
            assert!(error.contains("is in use twice"), "{error}");
        }
    }

    #[test]
    fn what_the_program_says_last_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            &file,
            "a\nNo interface with a default route\nFailed to send 9 bytes to syslog\n\n",
        )
        .unwrap();
        assert_eq!(last_words(file.path()), "No interface with a default route");
        assert_eq!(last_words(Path::new("/nowhere")), "it said nothing");
    }
}

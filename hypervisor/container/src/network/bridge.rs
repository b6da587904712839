//! A bridge on the host, and how instances come to it and leave it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::hosts::{self, Entry};
use super::lease::Leases;
use super::link::Links;
use super::{Namespace, NetworkError, Port, Subnet, nat, open_low_ports, remove, tap};

/// How much of an owner's ID is in the names of its devices, which have at most 15 bytes.
const SHORT: usize = 12;
/// The device of an instance on the bridge is called this and its ID.
const DEVICE: &str = "ch";
/// Where the outermost device of an instance's namespace is called.
pub(super) const INSIDE: &str = "eth0";
/// What the TAP device of a guest is called in its namespace.
pub(super) const TAP: &str = "tap0";
/// What the bridge in a guest's namespace is called.
pub(super) const INNER: &str = "br0";
/// The TAP device of a guest in another's namespace is called this and its ID.
pub(super) const BESIDE: &str = "t";

/// What is to be connected.
#[derive(Debug)]
pub enum Kind {
    /// A guest, which has the address itself, behind a TAP device.
    Guest,
    /// A guest whose TAP device is among the host's, straight on the bridge.
    GuestOfHost,
    /// A guest whose TAP device is beside that of another guest, in its namespace.
    GuestBeside(Namespace),
    /// Processes, whose kernel has the address.
    Process,
}

/// What is asked of a bridge for an instance.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its ID, of at least 12 letters and digits.
    pub owner: &'a str,
    /// What the others call it.
    pub name: &'a str,
    /// What it is.
    pub kind: Kind,
    /// The address; any that is free, if none.
    pub address: Option<Ipv4Addr>,
    /// The hardware address; one that follows from the address, if none.
    pub mac: Option<[u8; 6]>,
    /// The longest packet in bytes; what the kernel thinks, if none.
    pub mtu: Option<u16>,
    /// Ports of the host that lead to it.
    pub ports: &'a [Port],
    /// Names that only it knows.
    pub hosts: &'a [(String, IpAddr)],
}

impl<'a> Request<'a> {
    /// One that asks for nothing in particular.
    #[must_use]
    pub const fn new(owner: &'a str, name: &'a str, kind: Kind) -> Self {
        Self {
            owner,
            name,
            kind,
            address: None,
            mac: None,
            mtu: None,
            ports: &[],
            hosts: &[],
        }
    }
}

/// A bridge, with a range of addresses.
#[derive(Clone, Debug)]
pub struct Bridge {
    folder: PathBuf,
    name: String,
    subnet: Subnet,
}

/// A TAP device.
#[derive(Debug)]
pub struct Tap {
    /// What it is called in its namespace.
    pub name: String,
    /// What an [`OpenTap`] opened of it, where nobody else can enter that.
    pub open: Vec<OwnedFd>,
}

impl Tap {
    fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            open: Vec::new(),
        }
    }
}

/// Opens the TAP device of a name in the network namespace of the calling process.
pub type OpenTap = fn(&str) -> io::Result<Vec<OwnedFd>>;

/// What an instance got.
#[derive(Debug)]
pub struct Attached {
    /// The namespace to live in; none is the host's.
    pub namespace: Option<Namespace>,
    /// The TAP device in the namespace, for a [guest](Kind::Guest).
    pub tap: Option<Tap>,
    /// The address.
    pub address: Ipv4Addr,
    /// The range that it is in, in which everybody is reached directly.
    pub subnet: Subnet,
    /// Who passes on what is for others.
    pub gateway: Ipv4Addr,
    /// The hardware address that goes with the address.
    pub mac: [u8; 6],
    /// A file with the names of all instances on the bridge, which changes as they come and go.
    pub hosts: PathBuf,
}

/// What is written down of an owner, before anything is made for it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    address: Ipv4Addr,
    ports: Vec<Port>,
}

/// Who may change what belongs to a bridge, until it is dropped.
struct Turn {
    _lock: File,
}

impl Bridge {
    /// The bridge of this name, at most 15 letters and digits, with these addresses; what has to be known of
    /// its instances is kept in `folder`. The device is there while there are instances.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Name`], [`NetworkError::File`].
    pub fn open(folder: impl Into<PathBuf>, name: &str, subnet: Subnet) -> Result<Self, NetworkError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !(1..=15).contains(&name.len()) || !name.bytes().all(good) {
            return Err(NetworkError::Name(name.to_owned()));
        }
        let bridge = Self {
            folder: folder.into(),
            name: name.to_owned(),
            subnet,
        };
        for folder in [bridge.leases_path(), bridge.owners_path(), bridge.own_hosts_path()] {
            fs::create_dir_all(&folder).map_err(NetworkError::file("create the folder", &folder))?;
        }
        Ok(bridge)
    }

    /// What its device is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its addresses.
    #[must_use]
    pub const fn subnet(&self) -> Subnet {
        self.subnet
    }

    fn leases_path(&self) -> PathBuf {
        self.folder.join("leases")
    }

    fn owners_path(&self) -> PathBuf {
        self.folder.join("owners")
    }

    fn owner_path(&self, owner: &str) -> PathBuf {
        self.owners_path().join(owner)
    }

    /// A record that is being written.
    fn unfinished_path(&self) -> PathBuf {
        self.folder.join("new")
    }

    /// The file with the names of all instances.
    #[must_use]
    pub fn hosts_path(&self) -> PathBuf {
        self.folder.join("hosts")
    }

    /// The folder of the files of those who have names of their own.
    fn own_hosts_path(&self) -> PathBuf {
        self.folder.join("hosts.own")
    }

    fn turn(&self) -> Result<Turn, NetworkError> {
        let path = self.folder.join("lock");
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(NetworkError::file("create", &path))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| NetworkError::file("lock", &path)(error.into()))?;
        Ok(Turn { _lock: lock })
    }

    /// Connects an instance: a namespace, an address, a name, and ports of the host that lead to it.
    ///
    /// # Errors
    ///
    /// Any [`NetworkError`]. Nothing is left of it then.
    pub fn join(&self, request: Request<'_>) -> Result<Attached, NetworkError> {
        if !rustix::process::geteuid().is_root() {
            return Err(NetworkError::NotRoot);
        }
        let _turn = self.turn()?;
        self.check_ports(request.ports)?;
        let owner = request.owner;
        let result = self.try_join(request);
        if result.is_err() {
            // The first error says why; a second one would only hide it.
            let _ = self.leave_locked(owner);
        }
        result
    }

    fn try_join(&self, request: Request<'_>) -> Result<Attached, NetworkError> {
        let Request {
            owner,
            name,
            ports,
            mtu,
            ..
        } = request;
        let mut links = Links::open().map_err(NetworkError::kernel("open a netlink socket"))?;
        // Whoever is killed from here on is found by the address, or by the record.
        let folder = self.leases_path();
        let address = Leases::new(&folder, self.subnet).take(owner, request.address)?;
        self.write_record(
            owner,
            &Record {
                address,
                ports: ports.to_vec(),
            },
        )?;
        self.set_up(&mut links)?;
        let mut hosts = self.hosts_path();
        if !request.hosts.is_empty() {
            hosts = self.own_hosts_path().join(owner);
            hosts::make_own(&hosts, request.hosts)?;
        }
        hosts::change(&self.hosts_path(), &self.own_hosts_path(), |entries| {
            entries.push(Entry {
                address,
                name: name.to_owned(),
                owner: owner.to_owned(),
            });
        })?;
        let device = device(owner);
        let connected = format!("connect {device} to {}", self.name);
        let connect = |links: &mut Links| {
            let (end, bridge) = (links.index(&device)?, links.index(&self.name)?);
            links.set_master(end, bridge)?;
            mtu.map_or(Ok(()), |mtu| links.set_mtu(end, mtu.into()))?;
            links.set_up(end)
        };
        let mac = request.mac.unwrap_or_else(|| mac_of(address));
        let gateway = self.subnet.gateway();
        let furnished = "furnish a network namespace";
        let (namespace, tap) = match request.kind {
            Kind::GuestOfHost => {
                let make = |links: &mut Links| tap::make(&device).and_then(|()| connect(links));
                make(&mut links).map_err(NetworkError::kernel(connected))?;
                (None, Some(Tap::named(device)))
            }
            Kind::GuestBeside(namespace) => {
                let tap = format!("{BESIDE}{}", short(owner));
                let furnish = namespace.enter(|| furnish_beside(&tap, mtu));
                furnish.map_err(|error| match error.raw_os_error() {
                    Some(libc::ENODEV) => NetworkError::NoBridgeInside,
                    _ => NetworkError::kernel(furnished)(error),
                })?;
                (Some(namespace), Some(Tap::named(tap)))
            }
            kind @ (Kind::Guest | Kind::Process) => {
                let namespace = Namespace::new()?;
                let veth = links.make_veth(&device, INSIDE, namespace.as_fd());
                veth.and_then(|()| connect(&mut links))
                    .map_err(NetworkError::kernel(connected))?;
                let is_guest = matches!(kind, Kind::Guest);
                let furnish = || match is_guest {
                    true => furnish_for_guest(mtu),
                    false => furnish_for_process(address, mac, mtu, self.subnet),
                };
                namespace.enter(furnish).map_err(NetworkError::kernel(furnished))?;
                (Some(namespace), is_guest.then(|| Tap::named(TAP)))
            }
        };
        if !ports.is_empty() {
            nat::way_in(&table(owner), address, ports).map_err(NetworkError::kernel("publish ports by nf_tables"))?;
        }
        Ok(Attached {
            namespace,
            tap,
            address,
            subnet: self.subnet,
            gateway,
            mac,
            hosts,
        })
    }

    /// Takes down what was made for an instance; it may be gone already.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Kernel`], [`NetworkError::File`]; what is left then, the next call takes down.
    pub fn leave(&self, owner: &str) -> Result<(), NetworkError> {
        let _turn = self.turn()?;
        self.leave_locked(owner)
    }

    fn leave_locked(&self, owner: &str) -> Result<(), NetworkError> {
        let mut links = Links::open().map_err(NetworkError::kernel("open a netlink socket"))?;
        let record = self.read_record(owner)?;
        if record.as_ref().is_some_and(|record| !record.ports.is_empty()) {
            nat::remove(&table(owner)).map_err(NetworkError::kernel("take ports back from nf_tables"))?;
        }
        let device = device(owner);
        links
            .remove(&device)
            .map_err(NetworkError::kernel(format!("remove the device {device}")))?;
        if let Some(record) = record {
            let own = self.own_hosts_path();
            remove(&own.join(owner))?;
            hosts::change(&self.hosts_path(), &own, |entries| {
                entries.retain(|entry| entry.owner != owner)
            })?;
            let folder = self.leases_path();
            Leases::new(&folder, self.subnet).give_back(record.address)?;
            remove(&self.owner_path(owner))?;
        }
        if self.owners()?.next().is_none() && self.is_ours(&mut links)? {
            self.remove_device(&mut links)?;
        }
        Ok(())
    }

    fn remove_device(&self, links: &mut Links) -> Result<(), NetworkError> {
        nat::remove(&self.own_table()).map_err(NetworkError::kernel("remove a table of nf_tables"))?;
        links
            .remove(&self.name)
            .map_err(NetworkError::kernel(format!("remove the bridge {}", self.name)))
    }

    /// Takes down what was made for those who are dead; how many there were.
    ///
    /// # Errors
    ///
    /// As [`leave`](Self::leave).
    pub fn sweep(&self, lives: impl Fn(&str) -> bool) -> Result<usize, NetworkError> {
        let _turn = self.turn()?;
        let dead: Vec<_> = self.owners()?.filter(|owner| !lives(owner)).collect();
        for owner in &dead {
            self.leave_locked(owner)?;
        }
        // Whoever died before it had written anything down may have an address all the same.
        let folder = self.leases_path();
        let leases = Leases::new(&folder, self.subnet);
        for (address, owner) in leases.all()? {
            if !self.owner_path(&owner).exists() {
                leases.give_back(address)?;
            }
        }
        // Nobody writes beside whoever has the turn: a file that is not whole is of somebody who died over it.
        leases.forget_unfinished()?;
        remove(&self.unfinished_path())?;
        // Whoever was killed when the last owner was gone had the device still to remove. One without a mark may be
        // anybody's: nothing says here that it was made for an owner.
        if self.owners()?.next().is_none() {
            let mut links = Links::open().map_err(NetworkError::kernel("open a netlink socket"))?;
            let of = links.alias(&self.name);
            if of.map_err(NetworkError::kernel("look for a bridge"))? == Some(self.mark()) {
                self.remove_device(&mut links)?;
            }
        }
        Ok(dead.len())
    }

    fn owners(&self) -> Result<impl Iterator<Item = String>, NetworkError> {
        let path = self.owners_path();
        let entries = fs::read_dir(&path).map_err(NetworkError::file("read", &path))?;
        Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok()))
    }

    fn write_record(&self, owner: &str, record: &Record) -> Result<(), NetworkError> {
        let (path, new) = (self.owner_path(owner), self.unfinished_path());
        let bytes = serde_json::to_vec(record).map_err(|error| NetworkError::file("write", &path)(error.into()))?;
        fs::write(&new, bytes).map_err(NetworkError::file("write", &new))?;
        fs::rename(&new, &path).map_err(NetworkError::file("rename a file to", &path))
    }

    fn read_record(&self, owner: &str) -> Result<Option<Record>, NetworkError> {
        let path = self.owner_path(owner);
        match fs::read(&path) {
            Ok(bytes) => {
                let record = serde_json::from_slice(&bytes);
                Ok(Some(record.map_err(|error| {
                    NetworkError::file("understand", &path)(error.into())
                })?))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(NetworkError::file("read", &path)(error)),
        }
    }

    /// Refuses ports that lead elsewhere, or that somebody on the host listens on.
    fn check_ports(&self, ports: &[Port]) -> Result<(), NetworkError> {
        if ports.is_empty() {
            return Ok(());
        }
        let mut taken: BTreeMap<String, Vec<Port>> = BTreeMap::new();
        for owner in self.owners()? {
            let record = self.read_record(&owner)?;
            taken.insert(owner, record.map_or_else(Vec::new, |record| record.ports));
        }
        for (index, port) in ports.iter().enumerate() {
            let in_use = |by: String| NetworkError::PortInUse {
                port: port.to_string(),
                by,
            };
            if ports[..index].iter().any(|other| other.clashes(port)) {
                return Err(in_use(" twice".into()));
            }
            let owner = taken
                .iter()
                .find(|(_, ports)| ports.iter().any(|other| other.clashes(port)));
            if let Some((owner, _)) = owner {
                return Err(in_use(format!(" by {}", short(owner))));
            }
            port.check_free()?;
        }
        Ok(())
    }

    fn own_table(&self) -> String {
        format!("chiton-{}", self.name)
    }

    /// Makes the bridge if it is not there.
    fn set_up(&self, links: &mut Links) -> Result<(), NetworkError> {
        let name = &self.name;
        if links
            .find(name)
            .map_err(NetworkError::kernel("look for a bridge"))?
            .is_none()
        {
            self.refuse_overlap()?;
        }
        let trouble = || NetworkError::kernel(format!("make the bridge {name}"));
        let new = links.make_bridge(name).map_err(trouble())?;
        if let Some(of) = links.alias(name).map_err(trouble())? {
            let gone = of.starts_with('/') && !Path::new(&of).exists();
            if of != self.mark() && !gone {
                return Err(NetworkError::Others { name: name.clone(), of });
            }
        }
        let make = |links: &mut Links| {
            let index = links.index(name)?;
            links.set_alias(index, &self.mark())?;
            links.add_address(index, self.subnet.gateway(), self.subnet)?;
            links.set_up(index)
        };
        make(links).map_err(trouble())?;
        let out = self.own_table();
        let there = !new
            && nat::tables()
                .map_err(NetworkError::kernel("list nf_tables"))?
                .contains(&out);
        if !there {
            // Packets pass through the host, also those of the host itself that are for 127.0.0.1.
            for setting in ["ip_forward".to_owned(), format!("conf/{name}/route_localnet")] {
                let path = Path::new("/proc/sys/net/ipv4").join(setting);
                fs::write(&path, "1").map_err(NetworkError::file("write", &path))?;
            }
            // The last step: where the table is, whoever made it was not killed before the others.
            nat::way_out(&out, name, self.subnet).map_err(NetworkError::kernel("translate addresses by nf_tables"))?;
        }
        Ok(())
    }

    /// What is noted at the device, so that others who call theirs the same see that it is not theirs: the end of
    /// where its instances are recorded, which the kernel takes up to 255 bytes of.
    fn mark(&self) -> String {
        let folder = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let mut mark = folder.to_string_lossy().into_owned();
        while mark.len() > 255 {
            mark.remove(0);
        }
        mark
    }

    /// Whether the device is this bridge, or is not there.
    fn is_ours(&self, links: &mut Links) -> Result<bool, NetworkError> {
        let alias = links.alias(&self.name);
        let alias = alias.map_err(NetworkError::kernel("look for a bridge"))?;
        Ok(alias.is_none_or(|of| of == self.mark()))
    }

    /// Refuses a range by which the host reaches something else.
    fn refuse_overlap(&self) -> Result<(), NetworkError> {
        let path = Path::new("/proc/net/route");
        let routes = fs::read_to_string(path).map_err(NetworkError::file("read", path))?;
        for (device, other) in routes.lines().filter_map(route) {
            if other.bits() > 0 && other.overlaps(self.subnet) && device != self.name {
                let (subnet, device) = (self.subnet, device.to_owned());
                return Err(NetworkError::Overlap { subnet, other, device });
            }
        }
        Ok(())
    }
}

/// The device and the destination of a line of `/proc/net/route`.
fn route(line: &str) -> Option<(&str, Subnet)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(u32::swap_bytes);
    let (to, mask) = (number(1)?, number(7)?);
    Some((
        *fields.first()?,
        Subnet::around(Ipv4Addr::from_bits(to), mask.count_ones() as u8),
    ))
}

/// The hardware address that goes with an address, unless another is asked for.
pub(super) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x87, a, b, c, d]
}

pub(super) fn short(owner: &str) -> &str {
    owner.get(..SHORT).unwrap_or(owner)
}

fn device(owner: &str) -> String {
    format!("{DEVICE}{}", short(owner))
}

fn table(owner: &str) -> String {
    format!("chiton-{}", short(owner))
}

/// Has devices no addresses that nobody gave them.
pub(super) fn no_ipv6() -> io::Result<()> {
    for which in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        match fs::write(path, "1") {
            // A kernel without IPv6.
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Runs inside: a bridge from the veth's end to a new TAP device.
fn furnish_for_guest(mtu: Option<u16>) -> io::Result<()> {
    // Nobody here has an address: the guest hears nothing but the others.
    no_ipv6()?;
    let mut links = Links::open()?;
    tap::make(TAP)?;
    links.make_bridge(INNER)?;
    let bridge = links.index(INNER)?;
    for name in [INSIDE, TAP] {
        let index = links.index(name)?;
        links.set_master(index, bridge)?;
        mtu.map_or(Ok(()), |mtu| links.set_mtu(index, mtu.into()))?;
        links.set_up(index)?;
    }
    links.set_up(bridge)?;
    loopback_up(&mut links)
}

/// Runs inside another guest's namespace: a new TAP device on the bridge that is there.
pub(super) fn furnish_beside(tap: &str, mtu: Option<u16>) -> io::Result<()> {
    let mut links = Links::open()?;
    let bridge = links.index(INNER)?;
    tap::make(tap)?;
    let index = links.index(tap)?;
    links.set_master(index, bridge)?;
    mtu.map_or(Ok(()), |mtu| links.set_mtu(index, mtu.into()))?;
    links.set_up(index)
}

/// Runs inside: the address on the veth's end.
fn furnish_for_process(address: Ipv4Addr, mac: [u8; 6], mtu: Option<u16>, subnet: Subnet) -> io::Result<()> {
    let mut links = Links::open()?;
    let index = links.index(INSIDE)?;
    links.set_mac(index, mac)?;
    mtu.map_or(Ok(()), |mtu| links.set_mtu(index, mtu.into()))?;
    links.add_address(index, address, subnet)?;
    links.set_up(index)?;
    links.add_default_route(index, subnet.gateway())?;
    open_low_ports()?;
    loopback_up(&mut links)
}

pub(super) fn loopback_up(links: &mut Links) -> io::Result<()> {
    let loopback = links.index("lo")?;
    links.set_up(loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_prints_them() {
        let line = "eth0\t0000570A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0";
        let (device, subnet) = route(line).unwrap();
        assert_eq!((device, subnet.to_string()), ("eth0", "10.87.0.0/16".into()));
        assert!(route("Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask").is_none());
    }
}

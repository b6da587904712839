//! A network interface: one end of a TAP device, the other end of which is the host's kernel.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chiton_core::devices::net::{Link, Received, Sent, Status};
use chiton_core::devices::{Limits, Rate};
use chiton_shared::memory::Window;
use chiton_shared::virtio::net::{
    F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_USO4, F_GUEST_USO6, F_HOST_TSO4, F_HOST_TSO6, F_HOST_USO,
    Header,
};
use rustix::event::epoll;

use super::console::Failures;
use super::{iovec_of, transfer_iovecs};

/// The kernel's door to TAP devices.
const TUN: &str = "/dev/net/tun";

/// The most pairs of queues that an interface of a guest can have.
pub const MAX_QUEUES: u16 = 8;

/// The least MTU that IPv4 can do with, in bytes.
const MIN_MTU: u16 = 68;

/// Why a TAP device cannot be a guest's network interface.
#[derive(Debug, thiserror::Error)]
pub enum NetOpenError {
    /// A name that no interface can have.
    #[error("`{0}` is not the name of a network interface: it has 1 to 15 bytes without `/` and spaces")]
    Name(String),
    /// The kernel has no TAP devices.
    #[error("{TUN} does not exist: load the module (modprobe tun)")]
    NoTun,
    /// There is no such interface.
    #[error("the TAP device {0} does not exist: make it with `ip tuntap add {0} mode tap user $USER`")]
    Missing(String),
    /// Another program uses it.
    #[error("the TAP device {0} is in use by another program: end that one, or make a TAP device for this guest")]
    Busy(String),
    /// It may not be used.
    #[error(
        "no permission to use the TAP device {name}: make it with `ip tuntap add {name} mode tap user $USER`, and see \
         that you may open {TUN}"
    )]
    Permission {
        /// Its name.
        name: String,
    },
    /// It is another kind of interface.
    #[error("{0} is not a TAP device: make one with `ip tuntap add NAME mode tap`")]
    Kind(String),
    /// It was made for one queue.
    #[error("the TAP device {0} has one queue: make one with `ip tuntap add NAME mode tap multi_queue`")]
    OneQueue(String),
    /// A number of queues that cannot be.
    #[error("{0} queues are not possible: give 1 to {MAX_QUEUES}")]
    Queues(u16),
    /// An address that no single interface can have.
    #[error("{} is not the address of one interface: the first byte must be even, and not all may be zero", Mac(.0))]
    Mac([u8; 6]),
    /// An MTU that cannot be.
    #[error("an MTU of {0} bytes is not possible: give at least {MIN_MTU}")]
    Mtu(u16),
    /// A system call failed.
    #[error("cannot use the TAP device {name}: {call} failed: {source}")]
    System {
        /// Its name.
        name: String,
        /// The system call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// An Ethernet address, for people.
struct Mac<'a>(&'a [u8; 6]);

impl std::fmt::Display for Mac<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A guest's network interface: a TAP device that is open, which nobody else can use meanwhile.
#[derive(Debug)]
pub struct Net {
    /// A descriptor for each pair of queues.
    taps: Vec<File>,
    /// Hears of changes of the host's interfaces, and asks about them.
    changes: OwnedFd,
    pub(crate) limits: Limits,
    mac: [u8; 6],
    mtu: u16,
    offloads: u64,
    ip: Option<String>,
    gateway: Option<String>,
    dns: Option<String>,
}

impl Net {
    /// Opens the TAP device of this name, which must exist and need not be up.
    ///
    /// The guest's Ethernet address follows from that of the TAP device, and its MTU is that one's.
    ///
    /// # Errors
    ///
    /// [`NetOpenError`].
    pub fn tap(name: &str) -> Result<Self, NetOpenError> {
        Self::tap_with_queues(name, 1)
    }

    /// Opens the TAP device of this name with so many pairs of queues, 1 to [`MAX_QUEUES`]; more than
    /// one needs a TAP device that was made for that.
    ///
    /// # Errors
    ///
    /// [`NetOpenError`].
    pub fn tap_with_queues(name: &str, queues: u16) -> Result<Self, NetOpenError> {
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(NetOpenError::Queues(queues));
        }
        let mut request = Request::new(name)?;
        let system = |call| failed(name, call);
        let socket = socket().map_err(system("socket"))?;
        // TUNSETIFF would make an interface that does not exist.
        match request.call(&socket, libc::SIOCGIFINDEX) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                return Err(NetOpenError::Missing(name.to_owned()));
            }
            Err(error) => return Err(system("SIOCGIFINDEX")(error)),
        }
        let mut taps = Vec::with_capacity(queues.into());
        for queue in 0..queues {
            let tap = open_queue(name, &mut request, queues > 1)?;
            if queue > 0 {
                // The guest begins with one pair.
                attach(&tap, false).map_err(system("TUNSETQUEUE"))?;
            }
            taps.push(tap);
        }
        Self::opened(name, taps, socket)
    }

    /// The interface of descriptors that another process took [out of](Self::into_descriptors) one: it could
    /// enter the network namespace in which the TAP device is, and this one cannot.
    ///
    /// # Errors
    ///
    /// [`NetOpenError`].
    pub fn from_descriptors(name: &str, mut descriptors: Vec<OwnedFd>) -> Result<Self, NetOpenError> {
        let missing = || NetOpenError::Missing(name.to_owned());
        let socket = descriptors.pop().ok_or_else(missing)?;
        if descriptors.is_empty() {
            return Err(missing());
        }
        Self::opened(name, descriptors.into_iter().map(File::from).collect(), socket)
    }

    /// The descriptors of the interface.
    #[must_use]
    pub fn into_descriptors(self) -> Vec<OwnedFd> {
        let taps = self.taps.into_iter().map(OwnedFd::from);
        taps.chain([self.changes]).collect()
    }

    /// One whose queues are open.
    fn opened(name: &str, taps: Vec<File>, socket: OwnedFd) -> Result<Self, NetOpenError> {
        let mut request = Request::new(name)?;
        let system = |call| failed(name, call);
        request.call(&socket, libc::SIOCGIFMTU).map_err(system("SIOCGIFMTU"))?;
        // SAFETY: SIOCGIFMTU has just filled in this field.
        let mtu = unsafe { request.0.ifr_ifru.ifru_mtu };
        request
            .call(&socket, libc::SIOCGIFHWADDR)
            .map_err(system("SIOCGIFHWADDR"))?;
        // SAFETY: SIOCGIFHWADDR has just filled in this field.
        let host = unsafe { request.0.ifr_ifru.ifru_hwaddr.sa_data };
        let mut net = Self {
            taps,
            changes: socket,
            limits: Limits::default(),
            mac: beside([host[0], host[1], host[2], host[3], host[4], host[5]].map(|byte| byte as u8)),
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX).max(MIN_MTU),
            offloads: 0,
            ip: None,
            gateway: None,
            dns: None,
        };
        net.find_offloads();
        Ok(net)
    }

    /// With this Ethernet address for the guest.
    ///
    /// # Errors
    ///
    /// [`NetOpenError::Mac`] if it is a group's or zero.
    pub fn mac(mut self, mac: [u8; 6]) -> Result<Self, NetOpenError> {
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(NetOpenError::Mac(mac));
        }
        self.mac = mac;
        Ok(self)
    }

    /// With this greatest MTU, in bytes, instead of the TAP device's.
    ///
    /// # Errors
    ///
    /// [`NetOpenError::Mtu`] if it is less than 68.
    pub fn mtu(mut self, mtu: u16) -> Result<Self, NetOpenError> {
        if mtu < MIN_MTU {
            return Err(NetOpenError::Mtu(mtu));
        }
        self.mtu = mtu;
        Ok(self)
    }

    /// With this IP address and prefix length, which the guest finds in its environment.
    #[must_use]
    pub fn ip(mut self, address: std::net::IpAddr, prefix: u8) -> Self {
        self.ip = Some(format!("{address}/{prefix}"));
        self
    }

    /// With this router on the way to everywhere else, which the guest finds in its environment.
    #[must_use]
    pub fn gateway(mut self, address: std::net::IpAddr) -> Self {
        self.gateway = Some(address.to_string());
        self
    }

    /// With these DNS servers, which the guest finds in its environment.
    #[must_use]
    pub fn dns(mut self, servers: &[std::net::IpAddr]) -> Self {
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        self.dns = (!servers.is_empty()).then(|| servers.join(","));
        self
    }

    /// With a TAP device that is gone when this interface is, though it was made to stay.
    ///
    /// # Errors
    ///
    /// What TUNSETPERSIST says.
    pub fn transient(self) -> io::Result<Self> {
        // SAFETY: the argument is a number.
        match unsafe { libc::ioctl(self.taps[0].as_raw_fd(), libc::TUNSETPERSIST as libc::Ioctl, 0) } {
            0 => Ok(self),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// With an address that the guest is to ask a DHCP server for; it finds that in its environment.
    #[must_use]
    pub fn dhcp(mut self) -> Self {
        self.ip = Some("dhcp".into());
        self
    }

    /// With at most so many frames a second in each direction.
    #[must_use]
    pub const fn limit_ops(mut self, rate: Rate) -> Self {
        self.limits.ops = Some(rate);
        self
    }

    /// With at most so many bytes a second in each direction; the burst is 64 KiB at least.
    #[must_use]
    pub const fn limit_bytes(mut self, rate: Rate) -> Self {
        self.limits.bytes = Some(rate);
        self
    }

    /// The device's backend, for who has no guest of this crate.
    ///
    /// # Errors
    ///
    /// If the kernel has no descriptor for it.
    pub fn into_link(self) -> io::Result<impl Link> {
        TapLink::new(self, Arc::default())
    }

    /// What the environment of a guest says of this interface, number `index`.
    pub fn environment(&self, index: usize) -> impl Iterator<Item = String> {
        let ip = self.ip.as_ref().map(|ip| format!("CHITON_NET{index}_IP={ip}"));
        let gateway = self.gateway.as_ref();
        let gateway = gateway.map(|gateway| format!("CHITON_NET{index}_GATEWAY={gateway}"));
        let dns = self.dns.as_ref().map(|dns| format!("CHITON_NET{index}_DNS={dns}"));
        ip.into_iter().chain(gateway).chain(dns)
    }

    /// Asks the kernel which offloads it has: older ones lack those of UDP.
    fn find_offloads(&mut self) {
        let tcp = F_CSUM | F_GUEST_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | F_GUEST_TSO4 | F_GUEST_TSO6;
        let udp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6;
        self.offloads = if self.tell_offloads(udp) {
            tcp | F_HOST_USO | F_GUEST_USO4 | F_GUEST_USO6
        } else if self.tell_offloads(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6) {
            tcp
        } else {
            0
        };
        self.tell_offloads(0);
    }

    /// Tells the kernel which frames the guest takes; whether it agreed. All queues have the same.
    fn tell_offloads(&self, flags: libc::c_uint) -> bool {
        // SAFETY: the argument is a number, not a pointer.
        let result = unsafe {
            libc::ioctl(
                self.taps[0].as_raw_fd(),
                libc::TUNSETOFFLOAD as libc::Ioctl,
                libc::c_ulong::from(flags),
            )
        };
        result == 0
    }
}

const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;

/// An address that nobody else has if nobody else has this one: locally administered, one bit off.
const fn beside(host: [u8; 6]) -> [u8; 6] {
    let [a, b, c, d, e, f] = host;
    [(a & !1 | 2) ^ 4, b, c, d, e, f]
}

/// Opens one queue of a TAP device.
/// For `map_err`: which call failed for the device of this name.
fn failed(name: &str, call: &'static str) -> impl FnOnce(io::Error) -> NetOpenError {
    let name = name.to_owned();
    move |source| NetOpenError::System { name, call, source }
}

fn open_queue(name: &str, request: &mut Request, several: bool) -> Result<File, NetOpenError> {
    let system = |call| {
        move |source| NetOpenError::System {
            name: name.to_owned(),
            call,
            source,
        }
    };
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN)
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => NetOpenError::NoTun,
            io::ErrorKind::PermissionDenied => NetOpenError::Permission { name: name.to_owned() },
            _ => system("open")(source),
        })?;
    let mut set = |more: libc::c_int| {
        request.0.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | more) as libc::c_short;
        request.call(&tap, libc::TUNSETIFF as libc::c_ulong)
    };
    let is_invalid = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    let result = match set(if several { libc::IFF_MULTI_QUEUE } else { 0 }) {
        // A device made for several queues may be used with one.
        Err(error) if is_invalid(&error) && !several => set(libc::IFF_MULTI_QUEUE),
        Err(error) if is_invalid(&error) => return Err(NetOpenError::OneQueue(name.to_owned())),
        result => result,
    };
    result.map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY | libc::E2BIG) => NetOpenError::Busy(name.to_owned()),
        Some(libc::EPERM) => NetOpenError::Permission { name: name.to_owned() },
        Some(libc::EINVAL) => NetOpenError::Kind(name.to_owned()),
        _ => system("TUNSETIFF")(source),
    })?;
    let header = Header::SIZE as libc::c_int;
    // SAFETY: the kernel reads an `int` through the pointer.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ as libc::Ioctl, &raw const header) };
    if result < 0 {
        return Err(system("TUNSETVNETHDRSZ")(io::Error::last_os_error()));
    }
    Ok(tap)
}

/// Has the kernel use a queue of a TAP device, or not.
fn attach(queue: &File, wanted: bool) -> io::Result<()> {
    // SAFETY: an `ifreq` of zeros is one.
    let mut request = Request(unsafe { std::mem::zeroed() });
    let flag = if wanted {
        libc::IFF_ATTACH_QUEUE
    } else {
        libc::IFF_DETACH_QUEUE
    };
    request.0.ifr_ifru.ifru_flags = flag as libc::c_short;
    request.call(queue, libc::TUNSETQUEUE as libc::c_ulong)
}

/// A socket that tells of changes of the host's interfaces, and answers questions about them.
fn socket() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, netlink, socket_with};
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        // Protocol 0 is NETLINK_ROUTE.
        None,
    )?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, libc::RTMGRP_LINK as u32))?;
    Ok(socket)
}

/// A question about the interface of a name.
struct Request(libc::ifreq);

impl Request {
    fn new(name: &str) -> Result<Self, NetOpenError> {
        // SAFETY: an `ifreq` of zeros is one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let fits = (1..libc::IFNAMSIZ).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'%');
        if !fits || name == "." || name == ".." {
            return Err(NetOpenError::Name(name.to_owned()));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        Ok(Self(request))
    }

    fn call(&mut self, fd: &impl AsRawFd, call: libc::c_ulong) -> io::Result<()> {
        // SAFETY: every call made here reads and writes one `ifreq`.
        match unsafe { libc::ioctl(fd.as_raw_fd(), call as libc::Ioctl, &raw mut self.0) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Most windows that one frame lies in: as many as a device hands over at once.
const BATCH: usize = 64;

/// How many messages about changes one look takes at most; the descriptor stays ready if there are
/// more.
const MESSAGES_PER_LOOK: usize = 16;

/// The network device's backend.
pub(crate) struct TapLink {
    net: Net,
    /// Where there are several pairs: tells of input for those that are watched.
    ready: Option<OwnedFd>,
    failures: Arc<Failures>,
    /// It was said that the interface is gone.
    said: bool,
}

impl TapLink {
    pub(crate) fn new(net: Net, failures: Arc<Failures>) -> io::Result<Self> {
        let ready = if net.taps.len() > 1 {
            Some(epoll::create(epoll::CreateFlags::CLOEXEC)?)
        } else {
            None
        };
        Ok(Self {
            net,
            ready,
            failures,
            said: false,
        })
    }

    /// A duplicate of the descriptor that tells of input, for the device loop to watch.
    pub(crate) fn watched(&self) -> io::Result<OwnedFd> {
        match &self.ready {
            Some(ready) => ready.try_clone(),
            None => self.net.taps[0].as_fd().try_clone_to_owned(),
        }
    }

    /// A duplicate of the descriptor that tells of changes.
    pub(crate) fn changes(&self) -> io::Result<OwnedFd> {
        self.net.changes.try_clone()
    }

    /// The interface is there no more.
    fn gone(&mut self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        if !std::mem::replace(&mut self.said, true) {
            self.failures.link.store(errno, Ordering::Relaxed);
        }
    }

    /// Whether the interface is up, by its name of this moment.
    fn is_up(&self) -> io::Result<bool> {
        // SAFETY: an `ifreq` of zeros is one.
        let mut request = Request(unsafe { std::mem::zeroed() });
        request.call(&self.net.taps[0], libc::TUNGETIFF as libc::c_ulong)?;
        request.call(&self.net.changes, libc::SIOCGIFFLAGS)?;
        // SAFETY: SIOCGIFFLAGS has just filled in this field.
        let flags = unsafe { request.0.ifr_ifru.ifru_flags };
        Ok(libc::c_int::from(flags) & libc::IFF_UP != 0)
    }
}

impl Link for TapLink {
    fn mac(&self) -> [u8; 6] {
        self.net.mac
    }

    fn mtu(&self) -> u16 {
        self.net.mtu
    }

    fn offloads(&self) -> u64 {
        self.net.offloads
    }

    fn set_offloads(&mut self, features: u64) {
        let has = |feature, flag| if features & feature == 0 { 0 } else { flag };
        // The kernel knows both kinds of datagrams together only.
        let datagrams = F_GUEST_USO4 | F_GUEST_USO6;
        let datagrams = if features & datagrams == datagrams {
            TUN_F_USO4 | TUN_F_USO6
        } else {
            0
        };
        self.net.tell_offloads(
            has(F_GUEST_CSUM, libc::TUN_F_CSUM)
                | has(F_GUEST_TSO4, libc::TUN_F_TSO4)
                | has(F_GUEST_TSO6, libc::TUN_F_TSO6)
                | datagrams,
        );
    }

    fn status(&mut self) -> Status {
        // What a message says does not matter: the interface is asked.
        let mut message = [0_u8; 64];
        for _ in 0..MESSAGES_PER_LOOK {
            if rustix::io::read(&self.net.changes, &mut message) == Err(rustix::io::Errno::AGAIN) {
                break;
            }
        }
        match self.is_up() {
            Ok(true) => Status::Up,
            Ok(false) => Status::Down,
            // It is gone from under its descriptor.
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
                self.gone(&error);
                Status::Gone
            }
            // It has been moved to where it cannot be seen; frames may come and go.
            Err(_) => Status::Up,
        }
    }

    fn pairs(&self) -> u16 {
        self.net.taps.len() as u16
    }

    fn set_pairs(&mut self, pairs: u16) -> bool {
        let wanted = usize::from(pairs);
        // A queue that is attached or detached already says so by an error, as one that is gone does.
        self.net
            .taps
            .iter()
            .enumerate()
            .skip(1)
            .fold(true, |fine, (pair, tap)| {
                let already = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
                let done = attach(tap, pair < wanted).map_or_else(|error| already(&error), |()| true);
                done && fine
            })
    }

    fn watch(&mut self, pair: usize, wanted: bool) {
        let Some(ready) = &self.ready else { return };
        let data = epoll::EventData::new_u64(pair as u64);
        // This fails only for want of memory; then the guest misses input until it kicks.
        let _ = if wanted {
            epoll::add(ready, &self.net.taps[pair], data, epoll::EventFlags::IN)
        } else {
            epoll::delete(ready, &self.net.taps[pair])
        };
    }

    fn receive(&mut self, pair: usize, header: &mut [u8; Header::SIZE], to: &[Window<'_>]) -> Received {
        // What does not fit goes here, so that a frame that was cut off can be told from one that
        // fits exactly.
        let mut beyond = [0_u8; 1];
        let mut iovecs = [iovec_of(std::ptr::null_mut(), 0); BATCH + 2];
        iovecs[0] = iovec_of(header.as_mut_ptr(), Header::SIZE);
        let mut room = 0;
        let count = to.len().min(BATCH);
        for (iovec, window) in iovecs[1..].iter_mut().zip(&to[..count]) {
            *iovec = iovec_of(window.as_ptr(), window.len());
            room += window.len();
        }
        iovecs[1 + count] = iovec_of(beyond.as_mut_ptr(), 1);
        // SAFETY: header and last byte are borrowed here; the others are ranges of windows, valid
        // while those are borrowed, and the kernel writes them as a device would.
        let result = unsafe { transfer_iovecs(self.net.taps[pair].as_fd(), &iovecs[..count + 2], libc::readv) };
        match result {
            Ok(done) => match done.checked_sub(Header::SIZE) {
                Some(len) if len <= room => Received::Frame(len),
                _ => Received::TooLong,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::Empty,
            // Whatever it is, it would be said again and again.
            Err(error) => {
                self.gone(&error);
                Received::Gone
            }
        }
    }

    fn send(&mut self, pair: usize, header: &[u8; Header::SIZE], frame: &[Window<'_>]) -> Sent {
        let mut iovecs = [iovec_of(std::ptr::null_mut(), 0); BATCH + 2];
        iovecs[0] = iovec_of(header.as_ptr().cast_mut(), Header::SIZE);
        let count = frame.len().min(BATCH);
        for (iovec, window) in iovecs[1..].iter_mut().zip(&frame[..count]) {
            *iovec = iovec_of(window.as_ptr(), window.len());
        }
        // SAFETY: the header is borrowed here and only read; the others are ranges of windows, valid
        // while those are borrowed.
        let result = unsafe { transfer_iovecs(self.net.taps[pair].as_fd(), &iovecs[..=count], libc::writev) };
        match result {
            Ok(_) => Sent::Done,
            Err(error) => match error.raw_os_error() {
                Some(libc::EBADFD | libc::ENODEV | libc::ENXIO) => {
                    self.gone(&error);
                    Sent::Gone
                }
                // The interface is not up, which may change; or the kernel has no use for the frame.
                _ => Sent::Dropped,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_address_is_its_own() {
        let host = [0x02, 1, 2, 3, 4, 5];
        assert_eq!(beside(host), [0x06, 1, 2, 3, 4, 5]);
        assert_eq!(beside([0xFF; 6])[0] & 3, 2, "of one interface, locally administered");
    }

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in ["", "a/b", "a b", "..", "sixteen-bytes-xx", "tap%d"] {
            assert!(matches!(Net::tap(name), Err(NetOpenError::Name(_))), "{name}");
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_not_made() {
        assert!(matches!(Net::tap("chiton-none"), Err(NetOpenError::Missing(_))));
    }
}

//! A TAP device, made without any tool.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What the names of all of them begin with.
pub(crate) const PREFIX: &str = "chitest";

/// A TAP device that is up, with an address of the host's and one for a guest; it is gone when the
/// test is over.
#[derive(Debug)]
pub struct Tap {
    name: String,
    subnet: [u8; 3],
}

/// What a system call returned, or its error.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: an `ifreq` of zeros is one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn call(fd: &impl AsRawFd, call: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the calls made here read and write one `ifreq`.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), call as libc::Ioctl, &raw mut *request) })?;
    Ok(())
}

fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    check(fd)?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A packet socket on an interface: all frames of this EtherType, which are waited for no longer than
/// [`PATIENCE`](crate::PATIENCE).
///
/// # Errors
///
/// If there can be none.
pub fn frames(interface: &str, ether_type: u16) -> io::Result<File> {
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW)?;
    let mut request = request(interface);
    call(&socket, libc::SIOCGIFINDEX as libc::c_ulong, &mut request)?;
    // SAFETY: a `sockaddr_ll` of zeros is one.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ether_type.to_be();
    // SAFETY: SIOCGIFINDEX has just filled in this field.
    address.sll_ifindex = unsafe { request.ifr_ifru.ifru_ifindex };
    // Past the queueing discipline, which the kernel puts in place some time after a guest has
    // opened the TAP device, and which drops all frames until then.
    let bypass: libc::c_int = 1;
    // A few hundred frames wait here until this process has its turn.
    let room: libc::c_int = 4 << 20;
    let patience = libc::timeval {
        tv_sec: crate::PATIENCE.as_secs().cast_signed(),
        tv_usec: 0,
    };
    // SAFETY: each call is given a structure with its length.
    unsafe {
        check(libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const bypass).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        ))?;
        check(libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const room).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        ))?;
        check(libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const patience).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        ))?;
        check(libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        ))?;
    }
    Ok(File::from(socket))
}

impl Tap {
    /// A new TAP device; `None`, with the reason on standard output, where there can be none: a test
    /// skips itself then.
    ///
    /// # Panics
    ///
    /// If it can be made and not be set up; as [`skip`](crate::skip) if there can be none.
    #[must_use]
    pub fn new() -> Option<Self> {
        Self::with_flags(0)
    }

    /// Like [`new`](Self::new), but for several queues.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    #[must_use]
    pub fn of_several_queues() -> Option<Self> {
        Self::with_flags(libc::IFF_MULTI_QUEUE)
    }

    fn with_flags(more: libc::c_int) -> Option<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let name = format!("{PREFIX}{}x{number}", process % 10_000);
        let tun = match Self::make(&name, more) {
            Ok(tun) => tun,
            Err(error) => {
                crate::skip("TAP device", error);
                return None;
            }
        };
        let tap = Self {
            name,
            subnet: [10, 64 + (process % 128) as u8, number],
        };
        // SAFETY: the argument is a number.
        check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST as libc::Ioctl, 1) }).expect("it may stay");
        drop(tun);
        tap.set_up().expect("an address for the host");
        // A child that another test starts just now has a copy of the descriptor until it runs its program.
        let carrier = format!("/sys/class/net/{}/carrier", tap.name);
        let begun = Instant::now();
        while fs::read_to_string(&carrier).is_ok_and(|carrier| carrier.trim() == "1") {
            assert!(begun.elapsed() < crate::PATIENCE, "{} is not given back", tap.name);
            thread::sleep(Duration::from_millis(1));
        }
        Some(tap)
    }

    fn make(name: &str, more: libc::c_int) -> io::Result<File> {
        let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        let mut request = request(name);
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | more) as libc::c_short;
        call(&tun, libc::TUNSETIFF as libc::c_ulong, &mut request)?;
        Ok(tun)
    }

    fn set_up(&self) -> io::Result<()> {
        let socket = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
        let address = |ip: Ipv4Addr| {
            let [family_low, family_high] = (libc::AF_INET as u16).to_ne_bytes();
            let [a, b, c, d] = ip.octets();
            let data = [0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0].map(|byte: u8| byte.cast_signed());
            libc::sockaddr {
                sa_family: u16::from_ne_bytes([family_low, family_high]),
                sa_data: data,
            }
        };
        let mut request = request(&self.name);
        request.ifr_ifru.ifru_addr = address(self.host());
        call(&socket, libc::SIOCSIFADDR as libc::c_ulong, &mut request)?;
        request.ifr_ifru.ifru_addr = address(Ipv4Addr::new(255, 255, 255, 0));
        call(&socket, libc::SIOCSIFNETMASK as libc::c_ulong, &mut request)?;
        self.set_link(true)
    }

    /// Takes the host's end up or down.
    ///
    /// # Errors
    ///
    /// If it is not there any more.
    pub fn set_link(&self, up: bool) -> io::Result<()> {
        let socket = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
        let mut request = request(&self.name);
        request.ifr_ifru.ifru_flags = if up { libc::IFF_UP as libc::c_short } else { 0 };
        call(&socket, libc::SIOCSIFFLAGS as libc::c_ulong, &mut request)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's address on it.
    #[must_use]
    pub fn host(&self) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, 1)
    }

    /// An address for a guest on it.
    #[must_use]
    pub fn guest(&self) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, 2)
    }

    /// What `--net` needs to know.
    #[must_use]
    pub fn option(&self) -> String {
        format!("tap={},ip={}/24,gateway={}", self.name, self.guest(), self.host())
    }

    /// Opens it, as a program that uses it.
    ///
    /// # Panics
    ///
    /// If it cannot be opened.
    #[must_use]
    pub fn hold(&self) -> File {
        Self::make(&self.name, 0).expect("nobody else uses it")
    }

    /// [`frames`] on the host's end.
    ///
    /// # Errors
    ///
    /// If there can be none.
    pub fn frames(&self, ether_type: u16) -> io::Result<File> {
        frames(&self.name, ether_type)
    }

    /// Takes it away, even from under a program that uses it.
    ///
    /// # Errors
    ///
    /// If it is not there any more.
    pub fn remove(&self) -> io::Result<()> {
        let mut request = request(&self.name);
        call(
            &socket(libc::AF_INET, libc::SOCK_DGRAM)?,
            libc::SIOCGIFINDEX as libc::c_ulong,
            &mut request,
        )?;
        // SAFETY: SIOCGIFINDEX has just filled in this field.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        // A netlink header, and an `ifinfomsg` of which only the index counts.
        let mut message = [0_u8; 32];
        message[0..4].copy_from_slice(&32_u32.to_ne_bytes());
        message[4..6].copy_from_slice(&libc::RTM_DELLINK.to_ne_bytes());
        message[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
        message[20..24].copy_from_slice(&index.to_ne_bytes());
        let netlink = socket(libc::AF_NETLINK, libc::SOCK_RAW)?;
        let mut answer = [0_u8; 256];
        // SAFETY: both calls are given their buffer with its length.
        let len = unsafe {
            libc::send(netlink.as_raw_fd(), message.as_ptr().cast(), message.len(), 0);
            libc::recv(netlink.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0)
        };
        let errno = answer.get(16..20).and_then(|bytes| bytes.try_into().ok());
        match errno.map(i32::from_ne_bytes) {
            Some(0) if len >= 20 => Ok(()),
            Some(errno) if len >= 20 => Err(io::Error::from_raw_os_error(-errno)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

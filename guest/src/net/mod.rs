//! TCP and UDP, with the cargo feature `net`.
//!
//! ```text
//!  TcpListener · TcpStream · UdpSocket
//!        │  a stack for all of them: smoltcp
//!        ▼
//!  driver ◀══ receiveq1, transmitq1 ══▶ the host's TAP device
//! ```
//!
//! Simple: [`TcpStream::read`], [`TcpListener::accept`] and their like sleep until they are done.
//!
//! Many connections at once: the `try_` functions look at what has arrived and never sleep;
//! [`wait`] moves frames and sleeps until there is something new for them.
//!
//! ```no_run
//! use chiton_guest::net::{NetError, TcpListener};
//!
//! # fn main() -> Result<(), NetError> {
//! let listener = TcpListener::bind(7)?;
//! loop {
//!     let stream = listener.accept()?;
//!     let mut bytes = [0; 1024];
//!     loop {
//!         match stream.read(&mut bytes)? {
//!             0 => break,
//!             n => stream.write_all(&bytes[..n])?,
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! [`resolve`] finds the address of a name: another instance of the network, or what DNS knows.
//!
//! The first network interface is used, with the address that `--net` gives it, or that a DHCP
//! server gives with `ip=dhcp`: whatever uses the network first then asks for it, and sleeps until
//! there is an answer. The lease is renewed while the guest waits for something on the network.

mod checksum;
mod datagrams;
mod dhcp;
pub mod driver;
mod phy;
mod resolve;
mod stack;
mod tcp;
mod udp;

use core::mem::offset_of;
use core::net::{IpAddr, SocketAddr};

use chiton_shared::boot::DeviceEntry;
use chiton_shared::virtio::id;
use chiton_shared::virtio::net::{Config, F_STATUS, S_LINK_UP};

use crate::boot;
use crate::host::{Doorbells, Host};
use crate::queue::{Exits, QueueError};
use crate::time::Instant;

pub use resolve::resolve;
pub use tcp::{Options, TcpListener, TcpStream};
pub use udp::UdpSocket;

/// Why the network does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The machine has no network interface.
    #[error("there is no network interface; start the guest with --net tap=NAME,ip=ADDRESS/PREFIX")]
    Missing,
    /// The interface has no address.
    #[error("the network interface has no address; start the guest with --net tap=NAME,ip=ADDRESS/PREFIX, or ip=dhcp")]
    NoAddress,
    /// No DHCP server has given the interface an address.
    #[error(
        "network: no DHCP server answered within {0} seconds; see that one serves the TAP device's network, or start \
         the guest with --net tap=NAME,ip=ADDRESS/PREFIX"
    )]
    NoLease(u64),
    /// The DHCP server took the address back.
    #[error("network: the address that the DHCP server gave has expired, and there is no other yet")]
    LeaseLost,
    /// What the environment says of the interface's addresses cannot be read.
    #[error("network: `{0}` is not an address")]
    Address(&'static str),
    /// The device's configuration makes no sense.
    #[error("network: the device's configuration makes no sense")]
    Configuration,
    /// The device failed.
    #[error("network: {0}")]
    Device(#[from] QueueError),
    /// Somebody listens on the port.
    #[error("network: port {0} is in use, or no port")]
    InUse(u16),
    /// There is no way there.
    #[error("network: {0} cannot be reached from this interface's address")]
    Unaddressable(SocketAddr),
    /// Nobody listens there.
    #[error("network: {0} refused the connection")]
    Refused(SocketAddr),
    /// Nobody answered.
    #[error("network: the other end did not answer")]
    TimedOut,
    /// The connection broke, or was shut down.
    #[error("network: the connection is no more")]
    Reset,
    /// Nobody is called that.
    #[error("network: neither the hosts file nor a DNS server knows that name")]
    UnknownName,
    /// The hosts file does not have the name, and there is nobody else to ask.
    #[error("network: the hosts file does not have that name, and there is no DNS server; give one by --dns ADDRESS")]
    NoServer,
    /// A datagram longer than the socket's buffer.
    #[error("network: a datagram of {0} bytes is too long")]
    TooLong(usize),
}

/// Moves frames, and sleeps until some have come, a timer of TCP has run out, or `deadline` (`None`:
/// never). It may return early, so look again at what you wait for.
///
/// # Errors
///
/// [`NetError::Device`] if the device fails.
pub fn wait(deadline: Option<Instant>) -> Result<(), NetError> {
    stack::wait(deadline)
}

/// How many pairs of queues the interface uses: the `queues=` of its `--net` option.
///
/// # Errors
///
/// Any [`NetError`] if the network does not work.
pub fn pairs() -> Result<usize, NetError> {
    stack::with(|stack| Ok(stack.pairs()))
}

/// The pair by which frames between these two ports go, of so many pairs: those that are sent always, and
/// those that come once one has been sent.
#[must_use]
pub fn pair_of(port: u16, other: u16, pairs: usize) -> usize {
    phy::pair_of(&[port.to_be_bytes(), other.to_be_bytes()].concat(), pairs)
}

/// From now on the interrupts of a pair of queues come to the processor that calls.
///
/// # Errors
///
/// [`NetError::Device`] if there is no such pair.
pub fn bind(pair: usize) -> Result<(), NetError> {
    stack::with(|stack| stack.bind(pair))
}

/// As [`wait`]. But on the processor that the pair is [bound](bind) to, if processors
/// [halt](crate::interrupts::idle) here, only what comes by this pair ends the sleep early; what comes by others
/// is for whoever waits for them. So each processor can wait for its own connections.
///
/// # Errors
///
/// [`NetError::Device`] if the device fails or there is no such pair.
pub fn wait_for(pair: usize, deadline: Option<Instant>) -> Result<(), NetError> {
    stack::wait_for(pair, deadline)
}

/// Moves frames and does not sleep.
///
/// # Errors
///
/// [`NetError::Device`] if the device fails.
pub fn poll() -> Result<(), NetError> {
    stack::with(|stack| {
        stack.poll()?;
        stack.tell();
        Ok(())
    })
}

/// This guest's address and the length of its prefix. By DHCP it may change.
///
/// # Errors
///
/// [`NetError::NoAddress`], [`NetError::Address`]; by DHCP [`NetError::NoLease`] or
/// [`NetError::LeaseLost`].
pub fn address() -> Result<(IpAddr, u8), NetError> {
    match source_of(0)? {
        Source::Given(address, prefix) => Ok((address, prefix)),
        Source::Dhcp => stack::with(|stack| stack.address().ok_or(NetError::LeaseLost)),
    }
}

/// This guest's Ethernet address.
///
/// # Errors
///
/// Any [`NetError`] if the network does not work.
pub fn mac() -> Result<[u8; 6], NetError> {
    stack::with(|stack| Ok(stack.traits().mac))
}

/// Whether the link is up. This is one exit.
#[must_use]
pub fn is_up() -> bool {
    boot::devices(id::NET)
        .next()
        .is_some_and(|entry| is_link_up(&Doorbells, entry))
}

/// Without `VIRTIO_NET_F_STATUS` a link counts as up (virtio 1.3 section 5.1.4.2).
fn is_link_up(host: &impl Host, entry: &DeviceEntry) -> bool {
    let status = || host.read_config_half(entry.registers, offset_of!(Config, status) as u64);
    entry.features & F_STATUS == 0 || status() & S_LINK_UP != 0
}

/// How often the driver rang so far, besides to wait.
///
/// # Errors
///
/// Any [`NetError`] if the network does not work.
pub fn exits() -> Result<Exits, NetError> {
    stack::with(|stack| Ok(stack.exits()))
}

/// Where the interface's address comes from.
enum Source {
    /// The host gave it, with the length of its prefix.
    Given(IpAddr, u8),
    /// A DHCP server is asked.
    Dhcp,
}

fn source_of(index: usize) -> Result<Source, NetError> {
    match stack::variable(index, "IP").ok_or(NetError::NoAddress)? {
        "dhcp" => Ok(Source::Dhcp),
        text => {
            let (address, prefix) = parse(text).ok_or(NetError::Address(text))?;
            Ok(Source::Given(address, prefix))
        }
    }
}

fn gateway_of(index: usize) -> Result<Option<IpAddr>, NetError> {
    stack::variable(index, "GATEWAY")
        .map(|text| text.parse().map_err(|_| NetError::Address(text)))
        .transpose()
}

/// Reads `ADDRESS/PREFIX`.
fn parse(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix = prefix.parse().ok()?;
    (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;

    #[test]
    fn a_link_without_a_status_is_up() {
        let machine = Machine::new(8, |_, _| None);
        for (features, status, up) in [(0, 0, true), (F_STATUS, 0, false), (F_STATUS, S_LINK_UP, true)] {
            let entry = DeviceEntry {
                features,
                ..DeviceEntry::default()
            };
            machine.config_words[1].set(u32::from(status) << 16 | 0xFFFE);
            assert_eq!(is_link_up(&&machine, &entry), up, "{features:#x} {status}");
        }
    }

    #[test]
    fn addresses_have_a_prefix_that_they_can_have() {
        assert_eq!(parse("10.0.0.2/24"), Some(([10, 0, 0, 2].into(), 24)));
        assert!(parse("fd00::2/64").is_some());
        for text in ["10.0.0.2", "10.0.0.2/33", "10.0.0/8", "/24", "fd00::2/129"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

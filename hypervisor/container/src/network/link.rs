//! Network devices, their addresses and routes, by rtnetlink(7).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::Subnet;
use super::netlink::{Attributes, Family, Message, Socket};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

/// Flags of a request that makes something (`NLM_F_REPLACE`, `NLM_F_EXCL`, `NLM_F_CREATE`).
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

/// `AF_INET` as netlink has it.
const INET: u8 = 2;
/// `IFF_UP`.
const UP: u32 = 1;

/// The devices of a network namespace: that in which this was made.
#[derive(Debug)]
pub(super) struct Links {
    socket: Socket,
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

impl Links {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: Socket::open(Family::Route)?,
        })
    }

    /// The number of a device; `None` if there is none of this name.
    pub(super) fn find(&mut self, name: &str) -> io::Result<Option<u32>> {
        let index = |body: &[u8]| {
            let bytes = body.get(4..8)?.try_into().ok()?;
            Some(u32::from_ne_bytes(bytes))
        };
        Ok(self.ask(name, index)?.flatten())
    }

    /// What somebody noted at a device; `None` if nobody did, or there is no device of this name.
    pub(super) fn alias(&mut self, name: &str) -> io::Result<Option<String>> {
        let alias = |body: &[u8]| Attributes(body.get(16..)?).string(IFLA_IFALIAS).map(str::to_owned);
        Ok(self.ask(name, alias)?.flatten().filter(|alias| !alias.is_empty()))
    }

    /// Notes something at a device, 255 bytes at most.
    pub(super) fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        let message = Message::new(NEW_LINK, 0, &link_header(index, 0, 0)).with(IFLA_IFALIAS, alias.as_bytes());
        self.socket.request(message)
    }

    /// What is read of the kernel's answer about a device; `None` if there is none of this name.
    fn ask<T>(&mut self, name: &str, read: impl Fn(&[u8]) -> T) -> io::Result<Option<T>> {
        let message = Message::new(GET_LINK, 0, &link_header(0, 0, 0)).with_str(IFLA_IFNAME, name);
        let mut answer = None;
        let result = self.socket.dump(message, &mut |kind, body| {
            if kind == NEW_LINK {
                answer = Some(read(body));
            }
        });
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(answer),
        }
    }

    /// The number of a device that has to be there.
    pub(super) fn index(&mut self, name: &str) -> io::Result<u32> {
        self.find(name)?
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// The names of all devices.
    #[cfg(test)]
    pub(super) fn names(&mut self) -> io::Result<Vec<String>> {
        /// `NLM_F_ROOT | NLM_F_MATCH`.
        const DUMP: u16 = 0x300;
        let mut names = Vec::new();
        let message = Message::new(GET_LINK, DUMP, &link_header(0, 0, 0));
        self.socket.dump(message, &mut |_, body| {
            let name = body.get(16..).and_then(|bytes| Attributes(bytes).string(IFLA_IFNAME));
            names.extend(name.map(str::to_owned));
        })?;
        Ok(names)
    }

    /// Makes a bridge; whether it was not there before.
    pub(super) fn make_bridge(&mut self, name: &str) -> io::Result<bool> {
        let message = Message::new(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0))
            .with_str(IFLA_IFNAME, name)
            .nested(IFLA_LINKINFO, |info| info.with_str(IFLA_INFO_KIND, "bridge"));
        match self.socket.request(message) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Makes a pair of devices, each the other end of the other: `name` here, `peer` in that namespace.
    pub(super) fn make_veth(&mut self, name: &str, peer: &str, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let namespace = namespace.as_raw_fd().cast_unsigned();
        let message = Message::new(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0))
            .with_str(IFLA_IFNAME, name)
            .nested(IFLA_LINKINFO, |info| {
                info.with_str(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                    data.nested(VETH_INFO_PEER, |other| {
                        other
                            .raw(&link_header(0, 0, 0))
                            .with_str(IFLA_IFNAME, peer)
                            .with_u32(IFLA_NET_NS_FD, namespace)
                    })
                })
            });
        self.socket.request(message)
    }

    /// Removes a device; it may be gone already.
    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        let message = Message::new(DELETE_LINK, 0, &link_header(0, 0, 0)).with_str(IFLA_IFNAME, name);
        match self.socket.request(message) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Makes a device a port of a bridge.
    pub(super) fn set_master(&mut self, index: u32, bridge: u32) -> io::Result<()> {
        let message = Message::new(NEW_LINK, 0, &link_header(index, 0, 0)).with_u32(IFLA_MASTER, bridge);
        self.socket.request(message)
    }

    /// Gives a device a hardware address.
    pub(super) fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        let message = Message::new(NEW_LINK, 0, &link_header(index, 0, 0)).with(IFLA_ADDRESS, &mac);
        self.socket.request(message)
    }

    /// Says how long a device's packets are at most, in bytes.
    pub(super) fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let message = Message::new(NEW_LINK, 0, &link_header(index, 0, 0)).with_u32(IFLA_MTU, mtu);
        self.socket.request(message)
    }

    /// Switches a device on.
    pub(super) fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.socket
            .request(Message::new(NEW_LINK, 0, &link_header(index, UP, UP)))
    }

    /// Gives a device an address, and with it a route to the range; it may have them already.
    pub(super) fn add_address(&mut self, index: u32, address: Ipv4Addr, subnet: Subnet) -> io::Result<()> {
        let mut header = [INET, subnet.bits(), 0, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let message = Message::new(NEW_ADDRESS, CREATE | REPLACE, &header)
            .with(IFA_LOCAL, &address.octets())
            .with(IFA_ADDRESS, &address.octets());
        self.socket.request(message)
    }

    /// Sends what has no other route to this address, by this device.
    pub(super) fn add_default_route(&mut self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        // rtmsg: table main (254), protocol static (4), scope universe (0), type unicast (1).
        let header = [INET, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        let message = Message::new(NEW_ROUTE, CREATE | REPLACE, &header)
            .with(RTA_GATEWAY, &gateway.octets())
            .with_u32(RTA_OIF, index);
        self.socket.request(message)
    }
}

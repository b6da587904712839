//! What people write behind the options `--net` and `--vsock`, for each program that has them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::host::vsock::DEFAULT_CID;
use crate::{Net, Vsock, VsockError};

/// Where a guest's address comes from: `10.0.0.2/24` or `dhcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    /// It is this, with a prefix of this length.
    Given(IpAddr, u8),
    /// The guest asks a DHCP server.
    Dhcp,
}

impl FromStr for Ip {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "dhcp" {
            return Ok(Self::Dhcp);
        }
        let (ip, len) = text
            .split_once('/')
            .ok_or_else(|| format!("`{text}` lacks the length of its prefix: write 10.0.0.2/24, or dhcp"))?;
        let ip = address(ip)?;
        let max = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = len.parse().ok().filter(|len| *len <= max);
        let prefix =
            prefix.ok_or_else(|| format!("`{len}` is not the length of a prefix of {ip}: write 0 to {max}"))?;
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(format!("{ip} is not the address of one interface"));
        }
        Ok(Self::Given(ip, prefix))
    }
}

/// Reads an IP address.
///
/// # Errors
///
/// A sentence, if it is none.
pub fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an IP address: write it as 10.0.0.1 or fd00::1"))
}

/// What a guest is told of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Its own address.
    pub ip: Option<Ip>,
    /// Where the way leads out of the network.
    pub gateway: Option<IpAddr>,
}

impl Addresses {
    /// Refuses a gateway that does not go with the address.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        let Some(gateway) = self.gateway else { return Ok(()) };
        match self.ip {
            Some(Ip::Given(ip, _)) if gateway.is_ipv4() != ip.is_ipv4() => Err(format!(
                "the gateway {gateway} and the address {ip} are of different kinds"
            )),
            Some(Ip::Given(..)) => Ok(()),
            Some(Ip::Dhcp) => Err("the DHCP server names the gateway: leave it out, or give ip=ADDRESS/PREFIX".into()),
            None => Err("a gateway is of use only with an address: add ip=ADDRESS/PREFIX".into()),
        }
    }

    /// Has the guest of this network be told.
    #[must_use]
    pub fn tell(&self, mut net: Net) -> Net {
        match self.ip {
            Some(Ip::Given(address, prefix)) => net = net.ip(address, prefix),
            Some(Ip::Dhcp) => net = net.dhcp(),
            None => {}
        }
        match self.gateway {
            Some(gateway) => net.gateway(gateway),
            None => net,
        }
    }
}

/// A socket device: `PATH[,cid=N]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VsockArgument {
    /// The Unix socket.
    pub path: PathBuf,
    /// The guest's context ID.
    pub cid: u64,
}

impl VsockArgument {
    /// Makes the socket.
    ///
    /// # Errors
    ///
    /// As [`Vsock::listen`].
    pub fn listen(&self) -> Result<Vsock, VsockError> {
        Vsock::listen(&self.path, self.cid)
    }
}

impl FromStr for VsockArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, cid) = match text.rsplit_once(",cid=") {
            Some((path, number)) => {
                let cid = number.parse();
                (
                    path,
                    cid.map_err(|_| format!("`{number}` is not a context ID: write cid=3"))?,
                )
            }
            None => (text, DEFAULT_CID),
        };
        if path.is_empty() {
            return Err("a socket device needs the path of a Unix socket".into());
        }
        Ok(Self { path: path.into(), cid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_devices() {
        let option = |path: &str, cid| {
            let path = path.into();
            Ok(VsockArgument { path, cid })
        };
        assert_eq!("/run/a".parse(), option("/run/a", 3));
        assert_eq!("a,b,cid=77".parse(), option("a,b", 77));
        for text in ["", ",cid=3", "a,cid=", "a,cid=-1", "a,cid=x"] {
            assert!(text.parse::<VsockArgument>().is_err(), "{text}");
        }
    }
}

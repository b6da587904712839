//! Ports of the host that lead to an instance.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::NetworkError;

/// What a port is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// Its number in an IP header.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host's and where it leads, written `[IP:]HOST:INSTANCE[/udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// The address of the host's that it is published on; all of them if none.
    pub address: Option<Ipv4Addr>,
    /// The port of the host.
    pub host: u16,
    /// The port of the instance.
    pub instance: u16,
    /// Of what.
    pub protocol: Protocol,
}

impl Port {
    /// Whether two cannot be published at the same time.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        let same_address = self.address.is_none() || other.address.is_none() || self.address == other.address;
        same_address && self.host == other.host && self.protocol == other.protocol
    }

    /// Refuses one that a program of the host listens on, or that this process may not have.
    pub(super) fn check_free(&self) -> Result<(), NetworkError> {
        let at = SocketAddrV4::new(self.address.unwrap_or(Ipv4Addr::UNSPECIFIED), self.host);
        let free = match self.protocol {
            Protocol::Tcp => TcpListener::bind(at).map(drop),
            Protocol::Udp => UdpSocket::bind(at).map(drop),
        };
        free.map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => NetworkError::PortInUse {
                port: self.to_string(),
                by: String::new(),
            },
            ErrorKind::PermissionDenied => NetworkError::PortDenied(self.to_string()),
            _ => NetworkError::kernel(format!("publish the port {self}"))(error),
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}:")?;
        }
        write!(f, "{}:{}/{}", self.host, self.instance, self.protocol)
    }
}

impl FromStr for Port {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why| NetworkError::Port {
            text: text.to_owned(),
            why,
        };
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(wrong("the protocol is tcp or udp")),
        };
        let mut words = ports.rsplit(':');
        let mut port = || {
            let word = words
                .next()
                .ok_or_else(|| wrong("it needs a port of the host and one of the instance"))?;
            let port = word.parse().ok().filter(|port| *port != 0);
            port.ok_or_else(|| wrong("a port is a number from 1 to 65535"))
        };
        let (instance, host) = (port()?, port()?);
        let address = words.next().map(str::parse).transpose();
        let address = address.map_err(|_| wrong("the address is one of IPv4"))?;
        if words.next().is_some() {
            return Err(wrong("it has too many parts"));
        }
        Ok(Self {
            address,
            host,
            instance,
            protocol,
        })
    }
}

impl TryFrom<String> for Port {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_docker_writes_them() {
        for (text, written) in [
            ("8080:80", "8080:80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("5353:53/udp", "5353:53/udp"),
        ] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), written);
        }
        for text in [
            "",
            "80",
            "0:80",
            "80:0",
            "70000:80",
            "a:80",
            "1:2:3",
            "1.2.3.4:5:6:7",
            "80:80/sctp",
            ":80",
        ] {
            let error = text.parse::<Port>().unwrap_err().to_string();
            assert!(error.contains("is not a port to publish"), "{error}");
        }
    }

    #[test]
    fn the_same_port_clashes_unless_addresses_or_protocols_differ() {
        let clash = |a: &str, b: &str| a.parse::<Port>().unwrap().clashes(&b.parse().unwrap());
        assert!(clash("80:1", "80:2") && clash("127.0.0.1:80:1", "80:2"));
        assert!(!clash("80:1", "81:1") && !clash("80:1", "80:1/udp") && !clash("127.0.0.1:80:1", "127.0.0.2:80:1"));
    }
}

//! What can go wrong with a network.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::Subnet;

/// Why an instance cannot be connected.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused something.
    #[error("cannot {doing}: {source}")]
    Kernel {
        /// What was to be done.
        doing: String,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be used.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// What was to be done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Networks of the host's are root's.
    #[error("a bridge network needs root: use --network user, or run as root")]
    NotRoot,
    /// This one is not root's.
    #[error("a user network is for ordinary users, this is root: use --network bridge")]
    Root,
    /// The program that a user's network needs is not there.
    #[error("a user network needs the program {0}, which is not installed: install it (Debian's package passt)")]
    NoHelper(&'static str),
    /// That program ended.
    #[error("the network's program {program} ended: {said}{}", program_advice(said))]
    Helper {
        /// Which.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// Its namespace cannot be made.
    #[error(transparent)]
    Namespace(#[from] crate::jail::Error),
    /// A bridge cannot be called that.
    #[error("`{0}` is no name of a bridge: use 1 to 15 letters, digits and -")]
    Name(String),
    /// There is no way for a guest in the namespace of another.
    #[error("the network namespace of that instance has no bridge for guests: only a guest on a bridge has one")]
    NoBridgeInside,
    /// Ports lead to the first in a network.
    #[error("ports lead to {0}, whose network it is: publish them there, or use --network user")]
    PortsBeside(String),
    /// This is not a range of addresses.
    #[error("`{0}` is not a range of IPv4 addresses: write 10.87.0.0/16, with 8 to 29 bits")]
    Subnet(String),
    /// The bridge is that of others, who give out the same addresses.
    #[error("the bridge {name} is that of the instances of {of}: choose another by CHITON_BRIDGE and CHITON_SUBNET")]
    Others {
        /// Its name.
        name: String,
        /// What is noted at it.
        of: String,
    },
    /// The host reaches something else by these addresses.
    #[error("the range {subnet} overlaps {other}, which the host reaches by {device}: choose another range")]
    Overlap {
        /// The range.
        subnet: Subnet,
        /// The route that is there already.
        other: Subnet,
        /// Its device.
        device: String,
    },
    /// No address is left.
    #[error("all {count} addresses of {subnet} are taken: remove instances, or choose a larger range")]
    Exhausted {
        /// The range.
        subnet: Subnet,
        /// How many addresses it has for instances.
        count: u32,
    },
    /// Somebody has this address.
    #[error("the address {address} is taken by {owner}")]
    Taken {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        owner: String,
    },
    /// The address is not one for an instance.
    #[error("the address {address} is not one for an instance of {subnet}")]
    Outside {
        /// The address.
        address: Ipv4Addr,
        /// The range.
        subnet: Subnet,
    },
    /// This is not a port to publish.
    #[error("`{text}` is not a port to publish ({why}): write 8080:80, 127.0.0.1:8080:80 or 5353:53/udp")]
    Port {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Somebody listens there, or publishes it.
    #[error("the port {port} of the host is in use{by}: publish another one")]
    PortInUse {
        /// The address and port.
        port: String,
        /// By whom, if it is known.
        by: String,
    },
    /// The port is not for ordinary users.
    #[error("the port {0} of the host is root's: publish one above those of net.ipv4.ip_unprivileged_port_start")]
    PortDenied(String),
    /// The answer of the kernel is not one.
    #[error("the kernel's answer to `{0}` has no meaning")]
    Answer(String),
}

/// What to do about a program of the network that ended, where that is known.
fn program_advice(said: &str) -> &'static str {
    if said.contains("tun") {
        return "; it needs /dev/net/tun, open to this user as distributions have it: modprobe tun, chmod 666 /dev/net/tun";
    }
    ""
}

impl NetworkError {
    /// For `map_err`: this could not be done.
    pub(super) fn kernel<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Kernel {
            doing: doing.into(),
            source: source.into(),
        }
    }

    /// For `map_err`: this could not be done with a file.
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

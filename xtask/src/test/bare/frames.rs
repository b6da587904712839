//! Ethernet frames to a guest and back, by a packet socket (packet(7)) at the host's end of a TAP device: no protocol of the
//! host is in the way.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType,
    addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
    bind, netdevice, socket_with, sockopt,
};

use super::LIMIT;

/// For local experiments (IEEE Std 802): nobody else has such frames.
const ETHER_TYPE: u16 = 0x88b5;
/// Length of the two addresses and the type.
const HEADER: usize = 14;
/// How long frames are: the shortest, one of an odd length, and the longest.
const LENGTHS: [usize; 3] = [60, 601, 1514];
/// How many there are, for whoever returns them.
pub(super) const COUNT: &str = "3";

/// `struct sockaddr_ll`, as far as binding needs it.
#[repr(C)]
struct Address {
    family: u16,
    /// In the order of the network.
    protocol: u16,
    index: u32,
    rest: [u8; 12],
}

// SAFETY: the pointer is to a `sockaddr_ll` of that length, which lives until `f` returns.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}

/// A socket for such frames of this interface.
fn open(interface: &str) -> io::Result<File> {
    let family = AddressFamily::PACKET;
    // No protocol: nothing is received before the socket is bound.
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let address = Address {
        family: family.as_raw(),
        protocol: ETHER_TYPE.to_be(),
        index: netdevice::name_to_index(&socket, interface)?,
        rest: [0; 12],
    };
    bypass_queueing(&socket)?;
    // A machine that takes longer is dead.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LIMIT))?;
    bind(&socket, &address)?;
    Ok(File::from(socket))
}

/// Sends past the queueing discipline, which drops all frames until the kernel has it in place, some time after a TAP device
/// was opened.
fn bypass_queueing(socket: &OwnedFd) -> io::Result<()> {
    let yes: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS);
    // SAFETY: the option is an `int`, given with its length.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const yes).cast(), len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends [`COUNT`] frames by this interface, each when the one before has come back; returns what came back.
pub(super) fn echoed(interface: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut socket = open(interface)?;
    let mut all = Vec::new();
    for len in LENGTHS {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend(ETHER_TYPE.to_be_bytes());
        // Every byte there is, also those that a line escapes.
        frame.extend((0..len - HEADER).map(|n| n as u8));
        socket.write_all(&frame)?;
        let mut back = [0; 2048];
        let len = socket.read(&mut back)?;
        all.push(back[..len].to_vec());
    }
    Ok(all)
}

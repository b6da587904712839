//! UDP.

use alloc::vec;
use core::net::SocketAddr;
use core::num::NonZeroU16;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{self, PacketBuffer, PacketMetadata};
use smoltcp::wire::IpEndpoint;

use super::{NetError, stack};

/// How many datagrams wait in either direction at most.
const DATAGRAMS: usize = 64;

/// How many bytes they have together at most.
const BYTES: usize = 64 << 10;

/// Length of a UDP header, in bytes.
const UDP: usize = 8;

/// How many datagrams, and bytes of them, go out as one frame at most: the first is a limit of Linux.
const AT_ONCE: usize = 64;
const LONGEST: usize = 65_000;

/// Sends and receives datagrams on a port.
#[derive(Debug)]
pub struct UdpSocket(SocketHandle);

impl UdpSocket {
    /// A socket on this port.
    ///
    /// # Errors
    ///
    /// [`NetError::InUse`] if another one is on it, or it is 0; any other if the network does not
    /// work.
    pub fn bind(port: u16) -> Result<Self, NetError> {
        stack::with(|stack| {
            let used = stack.sockets.iter().any(|(_, socket)| match socket {
                smoltcp::socket::Socket::Udp(socket) => socket.endpoint().port == port,
                _ => false,
            });
            let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; DATAGRAMS], vec![0; BYTES]);
            let mut socket = udp::Socket::new(buffer(), buffer());
            if used || socket.bind(port).is_err() {
                return Err(NetError::InUse(port));
            }
            Ok(Self(stack.sockets.add(socket)))
        })
    }

    /// Sends a datagram, and sleeps until there is room for it.
    ///
    /// # Errors
    ///
    /// [`NetError::TooLong`], [`NetError::Unaddressable`]; [`NetError::Device`] if the device fails.
    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<(), NetError> {
        self.send_with(datagram, IpEndpoint::from(to).into(), to)?;
        stack::with(|stack| stack.poll().map(drop))
    }

    fn send_with(&self, datagram: &[u8], meta: udp::UdpMetadata, to: SocketAddr) -> Result<(), NetError> {
        stack::block(|stack| {
            let socket = stack.sockets.get_mut::<udp::Socket<'_>>(self.0);
            if datagram.len() > socket.payload_send_capacity() {
                return Err(NetError::TooLong(datagram.len()));
            }
            match socket.send_slice(datagram, meta) {
                Ok(()) => Ok(Some(())),
                Err(udp::SendError::BufferFull) => Ok(None),
                Err(udp::SendError::Unaddressable) => Err(NetError::Unaddressable(to)),
            }
        })
    }

    /// Sends bytes as datagrams of `size` bytes each, of which the last may be shorter, and sleeps until there is room
    /// for them. Where the device cuts datagrams (`VIRTIO_NET_F_HOST_USO`), many go out as one frame, at the price of one.
    ///
    /// # Errors
    ///
    /// [`NetError::TooLong`] if datagrams of this size do not fit into the interface's MTU; as
    /// [`send_to`](Self::send_to).
    pub fn send_segments(&self, bytes: &[u8], size: NonZeroU16, to: SocketAddr) -> Result<(), NetError> {
        let one = usize::from(size.get());
        let traits = stack::with(|stack| Ok(stack.traits()))?;
        let headers = UDP + if to.is_ipv4() { 20 } else { 40 };
        if one + headers > usize::from(traits.mtu) {
            return Err(NetError::TooLong(one));
        }
        let at_once = if traits.datagrams {
            one * (LONGEST / one).min(AT_ONCE)
        } else {
            one
        };
        for piece in bytes.chunks(at_once) {
            let mut meta = udp::UdpMetadata::from(IpEndpoint::from(to));
            if piece.len() > one {
                meta.meta.segmentation_offload_size = Some(size);
            }
            self.send_with(piece, meta, to)?;
        }
        stack::with(|stack| stack.poll().map(drop))
    }

    /// Receives a datagram, and sleeps until there is one: its length and sender. What does not fit
    /// is lost.
    ///
    /// # Errors
    ///
    /// [`NetError::Device`] if the device fails.
    pub fn recv_from(&self, to: &mut [u8]) -> Result<(usize, SocketAddr), NetError> {
        stack::block(|stack| Ok(receive(stack.sockets.get_mut(self.0), to)))
    }

    /// Receives a datagram, if there is one.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](Self::recv_from).
    pub fn try_recv_from(&self, to: &mut [u8]) -> Result<Option<(usize, SocketAddr)>, NetError> {
        stack::with(|stack| Ok(receive(stack.sockets.get_mut(self.0), to)))
    }
}

fn receive(socket: &mut udp::Socket<'_>, to: &mut [u8]) -> Option<(usize, SocketAddr)> {
    let (datagram, meta) = socket.recv().ok()?;
    let len = datagram.len().min(to.len());
    to[..len].copy_from_slice(&datagram[..len]);
    let sender = SocketAddr::new(meta.endpoint.addr.into(), meta.endpoint.port);
    Some((len, sender))
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        let _ = stack::with(|stack| {
            stack.sockets.remove(self.0);
            Ok(())
        });
    }
}

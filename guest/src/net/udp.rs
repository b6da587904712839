//! UDP.

use alloc::vec;
use core::net::SocketAddr;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{self, PacketBuffer, PacketMetadata};

use super::{NetError, stack};

/// How many datagrams wait in either direction at most.
const DATAGRAMS: usize = 64;

/// How many bytes they have together at most.
const BYTES: usize = 64 << 10;

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
        stack::block(|stack| {
            let socket = stack.sockets.get_mut::<udp::Socket<'_>>(self.0);
            if datagram.len() > socket.payload_send_capacity() {
                return Err(NetError::TooLong(datagram.len()));
            }
            match socket.send_slice(datagram, to) {
                Ok(()) => Ok(Some(())),
                Err(udp::SendError::BufferFull) => Ok(None),
                Err(udp::SendError::Unaddressable) => Err(NetError::Unaddressable(to)),
            }
        })?;
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

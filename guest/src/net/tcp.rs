//! TCP.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, State};

use super::{NetError, stack};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How a listener's connections are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many connections may come about at the same moment; a caller beyond is refused.
    pub backlog: usize,
    /// How many connections may wait to be accepted; a caller beyond is refused.
    pub waiting: usize,
    /// How many bytes of each connection can wait to be read.
    pub receive: usize,
    /// How many bytes of each connection can be on their way out.
    pub send: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backlog: 8,
            waiting: 128,
            receive: 16 << 10,
            send: 16 << 10,
        }
    }
}

/// Waits for connections to a port.
#[derive(Debug)]
pub struct TcpListener(usize);

/// What the stack knows of a listener.
pub(super) struct Listening {
    port: u16,
    options: Options,
    idle: Vec<SocketHandle>,
    /// Connections that have begun and were not accepted, in their order.
    begun: VecDeque<SocketHandle>,
}

pub(super) fn socket(receive: usize, send: usize) -> tcp::Socket<'static> {
    let mut socket = tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; receive]),
        tcp::SocketBuffer::new(vec![0; send]),
    );
    socket.set_nagle_enabled(false);
    socket
}

impl Listening {
    /// Sorts out the sockets that have met a caller, and has others listen instead.
    pub(super) fn refill(&mut self, sockets: &mut SocketSet<'static>) {
        let mut i = 0;
        while let Some(handle) = self.idle.get(i) {
            if sockets.get::<tcp::Socket<'_>>(*handle).state() == State::Listen {
                i += 1;
            } else {
                self.begun.push_back(self.idle.remove(i));
            }
        }
        self.begun.retain(|handle| {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(*handle);
            // A caller who gave up before anybody answered: the socket may listen again.
            let gone = matches!(socket.state(), State::Closed | State::Listen);
            if gone {
                sockets.remove(*handle);
            }
            !gone
        });
        while self.idle.len() < self.options.backlog && self.idle.len() + self.begun.len() < self.options.waiting {
            let mut socket = socket(self.options.receive, self.options.send);
            if socket.listen(self.port).is_err() {
                return;
            }
            self.idle.push(sockets.add(socket));
        }
    }

    fn take(&mut self, sockets: &mut SocketSet<'static>) -> Option<SocketHandle> {
        let ready = |handle: &SocketHandle| {
            let state = sockets.get::<tcp::Socket<'_>>(*handle).state();
            !matches!(state, State::SynReceived | State::Listen | State::Closed)
        };
        let at = self.begun.iter().position(ready)?;
        let taken = self.begun.remove(at);
        self.refill(sockets);
        taken
    }
}

impl TcpListener {
    /// Listens on this port.
    ///
    /// # Errors
    ///
    /// [`NetError::InUse`] if somebody does already, or it is 0; any other if the network does not
    /// work.
    pub fn bind(port: u16) -> Result<Self, NetError> {
        Self::bind_with(port, Options::default())
    }

    /// Listens on this port, for connections like that.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn bind_with(port: u16, options: Options) -> Result<Self, NetError> {
        stack::with(|stack| {
            if port == 0 || stack.listeners.iter().flatten().any(|other| other.port == port) {
                return Err(NetError::InUse(port));
            }
            let mut listening = Listening {
                port,
                options,
                idle: Vec::new(),
                begun: VecDeque::new(),
            };
            listening.refill(&mut stack.sockets);
            let free = stack.listeners.iter().position(Option::is_none);
            let index = free.unwrap_or(stack.listeners.len());
            if free.is_none() {
                stack.listeners.push(None);
            }
            stack.listeners[index] = Some(listening);
            Ok(Self(index))
        })
    }

    /// The next connection; sleeps until there is one.
    ///
    /// # Errors
    ///
    /// [`NetError::Device`] if the device fails.
    pub fn accept(&self) -> Result<TcpStream, NetError> {
        stack::block(|stack| Ok(self.take(stack)))
    }

    /// The next connection, if there is one.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub fn try_accept(&self) -> Result<Option<TcpStream>, NetError> {
        stack::with(|stack| Ok(self.take(stack)))
    }

    fn take(&self, stack: &mut stack::Stack) -> Option<TcpStream> {
        let listening = stack.listeners[self.0].as_mut()?;
        listening.take(&mut stack.sockets).map(TcpStream)
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let _ = stack::with(|stack| {
            if let Some(listening) = stack.listeners[self.0].take() {
                for handle in listening.idle {
                    stack.sockets.remove(handle);
                }
                for handle in listening.begun {
                    stack.leave(handle);
                }
            }
            Ok(())
        });
    }
}

/// A connection. It ends in order when it is dropped; what was written by then still goes out while
/// the guest waits for something on the network.
#[derive(Debug)]
pub struct TcpStream(SocketHandle);

impl TcpStream {
    /// Connects to `to`, with 64 KiB of buffer in each direction, and sleeps until that is done.
    ///
    /// # Errors
    ///
    /// [`NetError::Refused`], [`NetError::TimedOut`], [`NetError::Unaddressable`];
    /// [`NetError::Device`] if the device fails.
    pub fn connect(to: SocketAddr) -> Result<Self, NetError> {
        Self::connect_with(to, 64 << 10)
    }

    /// Connects to a port of whoever has this name, as [`resolve`](super::resolve) finds it.
    ///
    /// # Errors
    ///
    /// As [`resolve`](super::resolve) and [`connect`](Self::connect).
    pub fn connect_to(name: &str, port: u16) -> Result<Self, NetError> {
        Self::connect((super::resolve(name)?, port).into())
    }

    /// Like [`connect`](Self::connect), with so many bytes of buffer in each direction.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_with(to: SocketAddr, buffer: usize) -> Result<Self, NetError> {
        let stream = Self(stack::with(|stack| stack.connect(to, buffer))?);
        stream.with(|socket| socket.set_timeout(Some(CONNECT.into())))?;
        let start = crate::time::Instant::now();
        stack::block(|stack| {
            let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(stream.0);
            match socket.state() {
                State::SynSent | State::SynReceived => Ok(None),
                State::Closed if start.elapsed() >= CONNECT => Err(NetError::TimedOut),
                State::Closed => Err(NetError::Refused(to)),
                _ => {
                    socket.set_timeout(None);
                    Ok(Some(()))
                }
            }
        })?;
        Ok(stream)
    }

    fn with<R>(&self, f: impl FnOnce(&mut tcp::Socket<'static>) -> R) -> Result<R, NetError> {
        stack::with(|stack| Ok(f(stack.sockets.get_mut(self.0))))
    }

    /// The other end's address, while there is a connection.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        let end = self.with(|socket| socket.remote_endpoint()).ok()??;
        Some(SocketAddr::new(end.addr.into(), end.port))
    }

    /// Ends the connection with [`NetError::Reset`] when the other end does not answer for so long.
    /// Without this it may take for ever.
    ///
    /// # Errors
    ///
    /// [`NetError::Device`].
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), NetError> {
        self.with(|socket| {
            socket.set_timeout(timeout.map(Into::into));
            socket.set_keep_alive(timeout.map(|timeout| (timeout / 2).into()));
        })
    }

    /// Reads what has arrived, and sleeps until something has: how many bytes, 0 at the end.
    ///
    /// # Errors
    ///
    /// [`NetError::Reset`] if the connection broke; [`NetError::Device`].
    pub fn read(&self, to: &mut [u8]) -> Result<usize, NetError> {
        if let Some(len) = self.try_read(to)? {
            return Ok(len);
        }
        stack::block(|stack| try_read(stack.sockets.get_mut(self.0), to))
    }

    /// Has `f` look at bytes that have arrived, where they are, and say how many of them it is done
    /// with; sleeps until there are some. `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_with<R>(&self, mut f: impl FnMut(&[u8]) -> (usize, R)) -> Result<Option<R>, NetError> {
        stack::block(|stack| {
            let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(self.0);
            let empty = socket.may_recv() && !socket.can_recv();
            if empty || socket.state() == State::SynReceived {
                return Ok(None);
            }
            let result = socket.recv(|bytes| {
                let (done, result) = f(bytes);
                (done.min(bytes.len()), result)
            });
            match result {
                Ok(result) => Ok(Some(Some(result))),
                Err(tcp::RecvError::Finished) => Ok(Some(None)),
                Err(tcp::RecvError::InvalidState) => Err(NetError::Reset),
            }
        })
    }

    /// Reads what has arrived: how many bytes, 0 at the end, `None` if nothing has arrived.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn try_read(&self, to: &mut [u8]) -> Result<Option<usize>, NetError> {
        self.with(|socket| try_read(socket, to))?
    }

    /// Writes as much as there is room for, and sleeps until there is any: how many bytes.
    ///
    /// # Errors
    ///
    /// [`NetError::Reset`] if the connection broke or was shut down; [`NetError::Device`].
    pub fn write(&self, from: &[u8]) -> Result<usize, NetError> {
        match self.try_write(from)? {
            0 if !from.is_empty() => stack::block(|stack| {
                let written = try_write(stack.sockets.get_mut(self.0), from)?;
                Ok(Some(written).filter(|written| *written > 0))
            }),
            written => Ok(written),
        }
    }

    /// Writes as much as there is room for: how many bytes.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn try_write(&self, from: &[u8]) -> Result<usize, NetError> {
        self.with(|socket| try_write(socket, from))?
    }

    /// Writes everything, and sleeps as long as that takes.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_all(&self, from: &[u8]) -> Result<(), NetError> {
        let mut rest = from;
        while !rest.is_empty() {
            rest = &rest[self.write(rest)?..];
        }
        Ok(())
    }

    /// Writes no more: the other end sees the end of the stream.
    ///
    /// # Errors
    ///
    /// [`NetError::Device`].
    pub fn shutdown(&self) -> Result<(), NetError> {
        self.with(tcp::Socket::close)
    }

    /// Writes no more, and sleeps until the other end has everything.
    ///
    /// # Errors
    ///
    /// [`NetError::Device`].
    pub fn close(self) -> Result<(), NetError> {
        self.shutdown()?;
        stack::block(|stack| {
            let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(self.0);
            let state = socket.state();
            let pending = matches!(state, State::FinWait1 | State::Closing | State::LastAck);
            Ok((!pending || socket.send_queue() == 0 && state == State::Closed).then_some(()))
        })
    }
}

fn try_read(socket: &mut tcp::Socket<'_>, to: &mut [u8]) -> Result<Option<usize>, NetError> {
    if socket.state() == State::SynReceived {
        return Ok(None);
    }
    match socket.recv_slice(to) {
        Ok(0) if !to.is_empty() => Ok(None),
        Ok(len) => Ok(Some(len)),
        Err(tcp::RecvError::Finished) => Ok(Some(0)),
        Err(tcp::RecvError::InvalidState) => Err(NetError::Reset),
    }
}

fn try_write(socket: &mut tcp::Socket<'_>, from: &[u8]) -> Result<usize, NetError> {
    socket.send_slice(from).map_err(|_| NetError::Reset)
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let _ = stack::with(|stack| {
            stack.leave(self.0);
            Ok(())
        });
    }
}

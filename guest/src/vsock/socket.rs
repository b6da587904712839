//! Listeners and streams.

use chiton_shared::virtio::vsock::shutdown;

use super::connection::Ports;
use super::{Driver, VsockError, until, with};
use crate::time::Instant;

/// What a stream will not do any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Receive.
    Read,
    /// Send: the other side reads to the end.
    Write,
    /// Either.
    Both,
}

/// A port of this guest that programs on the host can connect to.
#[derive(Debug)]
pub struct VsockListener {
    port: u32,
}

impl VsockListener {
    /// Listens at this port until it is dropped.
    ///
    /// # Errors
    ///
    /// [`VsockError::Missing`], [`VsockError::PortTaken`], [`VsockError::Device`].
    pub fn bind(port: u32) -> Result<Self, VsockError> {
        with(|driver| driver.listen(port))?;
        Ok(Self { port })
    }

    /// The next connection, if there is one.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn try_accept(&self) -> Result<Option<VsockStream>, VsockError> {
        let ports = with(|driver| driver.try_accept(self.port))?;
        Ok(ports.map(|ports| VsockStream { ports }))
    }

    /// The next connection; sleeps until there is one.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn accept(&self) -> Result<VsockStream, VsockError> {
        self.accept_until(None)
    }

    /// The next connection; sleeps until there is one, or `deadline` has come (`None`: never).
    ///
    /// # Errors
    ///
    /// [`VsockError::Timeout`], [`VsockError::Device`].
    pub fn accept_until(&self, deadline: Option<Instant>) -> Result<VsockStream, VsockError> {
        let ports = sleep_until(deadline, |driver| driver.try_accept(self.port))?;
        Ok(VsockStream { ports })
    }
}

impl Drop for VsockListener {
    fn drop(&mut self) {
        // A device that failed listens no more.
        let _ = with(|driver| {
            driver.unlisten(self.port);
            Ok(())
        });
    }
}

/// A stream of bytes to and from the host. Dropping it closes it; what was written still arrives.
#[derive(Debug)]
pub struct VsockStream {
    ports: Ports,
}

impl VsockStream {
    /// Connects to a port of the host; sleeps until the host has answered.
    ///
    /// # Errors
    ///
    /// [`VsockError::Missing`], [`VsockError::Refused`], [`VsockError::Device`].
    pub fn connect(port: u32) -> Result<Self, VsockError> {
        let ports = with(|driver| driver.connect(port))?;
        let stream = Self { ports };
        sleep_until(None, |driver| Ok(driver.is_connected(ports)?.then_some(())))?;
        Ok(stream)
    }

    /// The port on this side.
    #[must_use]
    pub const fn local_port(&self) -> u32 {
        self.ports.guest
    }

    /// The port on the host's side.
    #[must_use]
    pub const fn peer_port(&self) -> u32 {
        self.ports.host
    }

    /// Copies bytes that are there, without sleeping: how many, 0 if no more will come, or `None`
    /// if there are none now.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn try_read(&mut self, to: &mut [u8]) -> Result<Option<usize>, VsockError> {
        with(|driver| driver.try_read(self.ports, to))
    }

    /// Copies bytes, after sleeping until there are some: how many, 0 if no more will come.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn read(&mut self, to: &mut [u8]) -> Result<usize, VsockError> {
        self.read_until(None, to)
    }

    /// As [`read`](Self::read), until `deadline` (`None`: for ever).
    ///
    /// # Errors
    ///
    /// [`VsockError::Timeout`], [`VsockError::Device`].
    pub fn read_until(&mut self, deadline: Option<Instant>, to: &mut [u8]) -> Result<usize, VsockError> {
        sleep_until(deadline, |driver| driver.try_read(self.ports, to))
    }

    /// Fills `to`, and sleeps as long as that takes.
    ///
    /// # Errors
    ///
    /// [`VsockError::Reset`] if the stream ends before; [`VsockError::Device`].
    pub fn read_exact(&mut self, to: &mut [u8]) -> Result<(), VsockError> {
        let mut rest = to;
        while !rest.is_empty() {
            let len = self.read(rest)?;
            if len == 0 {
                return Err(VsockError::Reset);
            }
            rest = &mut rest[len..];
        }
        Ok(())
    }

    /// Hands over bytes, without sleeping: how many, or `None` if the host has no room for any.
    ///
    /// # Errors
    ///
    /// [`VsockError::Reset`], [`VsockError::Closed`], [`VsockError::Device`].
    pub fn try_write(&mut self, from: &[u8]) -> Result<Option<usize>, VsockError> {
        with(|driver| driver.try_write(self.ports, from))
    }

    /// Hands over bytes, after sleeping until the host has room for some: how many.
    ///
    /// # Errors
    ///
    /// [`VsockError::Reset`], [`VsockError::Closed`], [`VsockError::Device`].
    pub fn write(&mut self, from: &[u8]) -> Result<usize, VsockError> {
        sleep_until(None, |driver| driver.try_write(self.ports, from))
    }

    /// Hands over all bytes, and sleeps as long as that takes.
    ///
    /// # Errors
    ///
    /// [`VsockError::Reset`], [`VsockError::Closed`], [`VsockError::Device`].
    pub fn write_all(&mut self, from: &[u8]) -> Result<(), VsockError> {
        let mut rest = from;
        while !rest.is_empty() {
            let len = self.write(rest)?;
            rest = &rest[len..];
        }
        Ok(())
    }

    /// Has the host take what was written, with one kick.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn flush(&mut self) -> Result<(), VsockError> {
        with(Driver::flush)
    }

    /// Closes one direction, or both.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn shutdown(&mut self, how: Shutdown) -> Result<(), VsockError> {
        let flags = match how {
            Shutdown::Read => shutdown::RECEIVE,
            Shutdown::Write => shutdown::SEND,
            Shutdown::Both => shutdown::BOTH,
        };
        with(|driver| driver.shut(self.ports, flags))
    }
}

impl Drop for VsockStream {
    fn drop(&mut self) {
        // With the device its connections are gone.
        let _ = with(|driver| {
            driver.close(self.ports);
            Ok(())
        });
    }
}

/// Tries until something comes of it, and sleeps in between.
fn sleep_until<R>(
    deadline: Option<Instant>,
    mut attempt: impl FnMut(&mut Driver<'static, crate::host::Doorbells>) -> Result<Option<R>, VsockError>,
) -> Result<R, VsockError> {
    with(|driver| {
        loop {
            if let Some(result) = attempt(driver)? {
                return Ok(result);
            }
            let ns = until(deadline);
            if ns == 0 {
                return Err(VsockError::Timeout);
            }
            driver.sleep(ns)?;
        }
    })
}

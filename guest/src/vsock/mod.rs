//! Sockets: streams of bytes to and from programs on the host.
//!
//! What is written is handed over when the guest sleeps for something (in [`VsockStream::read`],
//! [`VsockListener::accept`], [`wait`]), when it ends, or by [`flush`]. So an answer and the sleep
//! for the next question take one exit together.
//!
//! ```no_run
//! use chiton_guest::vsock::{VsockError, VsockListener};
//!
//! # fn main() -> Result<(), VsockError> {
//! let listener = VsockListener::bind(5000)?;
//! let mut stream = listener.accept()?;
//! let mut buffer = [0; 512];
//! loop {
//!     let len = stream.read(&mut buffer)?;
//!     if len == 0 {
//!         return Ok(());
//!     }
//!     stream.write_all(&buffer[..len])?;
//! }
//! # }
//! ```
//!
//! Many streams at once: ask each by `try_read` and `try_accept`, which do not sleep; when none has
//! anything, [`wait`].

mod connection;
mod driver;
mod socket;

#[cfg(test)]
mod tests;

use chiton_shared::virtio::id;
use chiton_shared::virtio::vsock::{RECEIVE, TRANSMIT};
use spin::{Mutex, MutexGuard};

use crate::boot;
use crate::host::Doorbells;
use crate::queue::{Exits, Queue, QueueError};
use crate::time::Instant;
pub use driver::Driver;
pub use socket::{Shutdown, VsockListener, VsockStream};

/// Why a socket does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VsockError {
    /// The machine has no socket device.
    #[error("vsock: this machine has no socket device; start the guest with --vsock PATH")]
    Missing,
    /// The device failed.
    #[error("vsock: {0}")]
    Device(#[from] QueueError),
    /// The device's configuration is cut short.
    #[error("vsock: the device's configuration is cut short")]
    Configuration,
    /// Somebody in this guest listens at the port already.
    #[error("vsock: port {0} is taken; bind it once")]
    PortTaken(u32),
    /// Nobody on the host serves the port.
    #[error("vsock: nobody on the host listens at port {0} (the Unix socket PATH_{0})")]
    Refused(u32),
    /// The other side has ended the connection.
    #[error("vsock: the other side has ended the connection")]
    Reset,
    /// The other side receives no more, or this side has said that it sends no more.
    #[error("vsock: the stream takes no more bytes")]
    Closed,
    /// The time is up.
    #[error("vsock: the time is up")]
    Timeout,
}

static DRIVER: Mutex<Option<Driver<'static, Doorbells>>> = Mutex::new(None);

/// The driver, opened if it is not.
fn open() -> Result<MutexGuard<'static, Option<Driver<'static, Doorbells>>>, VsockError> {
    let mut driver = DRIVER.lock();
    if driver.is_none() {
        let entry = boot::devices(id::VSOCK).next().ok_or(VsockError::Missing)?;
        // SAFETY: the boot page describes queues as the contract has it, and these are opened
        // here only, once: a driver that was opened is never dropped, and one whose queues cannot
        // be used cannot be used the next time either.
        let (receive, transmit) = unsafe {
            (
                Queue::open(entry, RECEIVE, Doorbells)?,
                Queue::open(entry, TRANSMIT, Doorbells)?,
            )
        };
        *driver = Some(Driver::new(receive, transmit, &entry.config)?);
    }
    Ok(driver)
}

/// Does something with the driver.
fn with<R>(action: impl FnOnce(&mut Driver<'static, Doorbells>) -> Result<R, VsockError>) -> Result<R, VsockError> {
    match open()?.as_mut() {
        Some(driver) => action(driver),
        None => Err(VsockError::Missing),
    }
}

/// Sleeps until some socket has news, or `deadline` has come (`None`: never). It may return early.
///
/// # Errors
///
/// [`VsockError::Missing`], [`VsockError::Device`].
pub fn wait(deadline: Option<Instant>) -> Result<(), VsockError> {
    with(|driver| driver.sleep(until(deadline)))
}

/// Has the host take what was written, with one kick.
///
/// # Errors
///
/// [`VsockError::Missing`], [`VsockError::Device`].
pub fn flush() -> Result<(), VsockError> {
    with(Driver::flush)
}

/// Has [`time::wait`](crate::time::wait) return when some socket has news, and tells whether one
/// has some already.
///
/// # Errors
///
/// [`VsockError::Missing`], [`VsockError::Device`].
pub fn arm() -> Result<bool, VsockError> {
    with(Driver::arm)
}

/// This guest's context ID.
///
/// # Errors
///
/// [`VsockError::Missing`], [`VsockError::Device`].
pub fn cid() -> Result<u64, VsockError> {
    with(|driver| Ok(driver.cid()))
}

/// How often the driver rang so far.
///
/// # Errors
///
/// [`VsockError::Missing`], [`VsockError::Device`].
pub fn exits() -> Result<Exits, VsockError> {
    with(|driver| Ok(driver.exits()))
}

/// How many nanoseconds there are left.
fn until(deadline: Option<Instant>) -> u64 {
    deadline.map_or(u64::MAX, |deadline| {
        u64::try_from(deadline.duration_since(Instant::now()).as_nanos()).unwrap_or(u64::MAX)
    })
}

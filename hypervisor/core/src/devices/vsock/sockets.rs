//! The host's side of the connections.

use chiton_shared::memory::Window;

use crate::devices::console::{Input, Output};

/// Names a socket on the host: never the same for two sockets of one [`Sockets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket(pub u64);

/// What happened on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants a connection to this port of the guest.
    Asked {
        /// The other end.
        socket: Socket,
        /// The guest's port.
        port: u32,
    },
    /// Reading or writing may go on. (If it cannot after all, no harm is done.)
    Ready(Socket),
    /// The way to the other end is lost, and with it what was on its way: the connection is reset.
    Lost(Socket),
}

/// The host has nobody for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Sockets on the host. No call waits.
///
/// A socket is there from [`connect`](Self::connect) or [`Event::Asked`] on, until
/// [`close`](Self::close).
pub trait Sockets: Send {
    /// The next thing that happened, if there is one; what happens while this is asked again and again
    /// may be told only after a `None`. Whoever got [`Input::Empty`] or
    /// [`Output::Full`] hears of it when that changes.
    fn next_event(&mut self) -> Option<Event>;

    /// Connects to whoever serves this port of the host.
    ///
    /// # Errors
    ///
    /// [`Refused`] if nobody does.
    fn connect(&mut self, port: u32) -> Result<Socket, Refused>;

    /// Tells a socket that asked that the guest has accepted, and which port it has on the host.
    fn accepted(&mut self, socket: Socket, port: u32);

    /// Fills the windows, in order, with bytes that are there.
    fn read(&mut self, socket: Socket, to: &[Window<'_>]) -> Input;

    /// Takes bytes, from the first on.
    fn write(&mut self, socket: Socket, from: &[u8]) -> Output;

    /// No more bytes will be written.
    fn finish(&mut self, socket: Socket);

    /// Ends a socket.
    fn close(&mut self, socket: Socket);
}

//! The line: how a guest on bare metal reaches sockets and a network, though the machine has neither.
//!
//! A second serial line leads to a program on another machine, or on the one that emulates this. That
//! program has the sockets and the network; here every call of [`Sockets`] and [`Link`] is a question
//! sent along the line, and waits for its answer.
//!
//! ```text
//!   the machine                              its other end
//!   device model ─▶ LineSockets ┐            ┌─▶ Sockets (Unix sockets)
//!                   LineLink   ─┴▶ Line ═══▶ Far
//!                                     ◀═══   └─▶ Link (a TAP device)
//! ```
//!
//! - `frame`: bytes on the line: where a frame begins and ends, and whether it is whole;
//! - `call`: what is in a frame: a call, or the answer to one;
//! - `near`: the machine's end, which asks;
//! - `far`: the other end, which answers.
//!
//! **Who answers never speaks first.** So nobody sends while the other does, no byte comes when nobody
//! reads, and a line without flow control is enough. A question or an answer that is lost or damaged is
//! noticed, since no answer comes, and the question is asked again: by its number the other end sees that
//! it has answered it before, and says the same again instead of doing the same again.
//!
//! **Nothing piles up on either side.** Bytes stay in the sockets of the other end until the guest has
//! given room and credit for them, as they do under KVM; there is one frame at a time on the line.
//!
//! [`Sockets`]: chiton_core::devices::vsock::Sockets
//! [`Link`]: chiton_core::devices::net::Link

mod call;
mod far;
mod frame;
mod near;
#[cfg(test)]
mod tests;

pub use call::{Answer, Call, News, Nonsense, Outside};
pub use far::Far;
pub use frame::{Reader, write};
pub use near::{Line, LineError, LineLink, LineSockets, Told, Wire};

/// What both ends have to speak. A change of any frame has another number.
pub const VERSION: u8 = 2;

/// The longest call or answer, in bytes: the longest frame of Ethernet, with room for what stands before it.
const MAX_BODY: usize = 1600;

/// The most bytes of a stream that one call carries.
const MAX_BYTES: usize = 1024;

/// The longest frame of Ethernet, with the tag of a VLAN, in bytes.
const MAX_ETHERNET: usize = 1518;

/// The greatest MTU that such frames allow.
const MAX_MTU: u16 = 1500;

//! A guest that is a function: the host calls it again and again, each time in the state in which it
//! was when it was ready.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! extern crate alloc;
//! use alloc::vec::Vec;
//!
//! chiton_guest::function!(shout);
//!
//! fn shout(request: &[u8]) -> Vec<u8> {
//!     request.to_ascii_uppercase()
//! }
//! ```
//!
//! What should be done once and be there for every call is done before [`serve`]:
//!
//! ```ignore
//! chiton_guest::entry!(main);
//!
//! fn main() -> core::convert::Infallible {
//!     let table = expensive();
//!     chiton_guest::call::serve(64 << 10, |request| look_up(&table, request))
//! }
//! ```
//!
//! A call finds nothing of the call before: no memory, no register. Random numbers differ all the
//! same ([`Random::new`](crate::random::Random::new), also one that was made before the first call): the host passes a new
//! seed. Time goes on.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::fmt::Display;
use core::mem::offset_of;

use chiton_shared::call::{Call, HOST};
use chiton_shared::doorbell::{self, MAILBOX_TEXT_OFFSET};

use crate::{console, host, processors};

/// How many bytes a request of a guest made by [`function!`](crate::function!) may have.
pub const DEFAULT_ROOM: usize = 64 << 10;

/// What a function may return: a reply, or a failure with words for whoever called.
pub trait Reply {
    /// The value for the doorbell, 0 if all is well, and the bytes.
    fn answer(self) -> (u32, Vec<u8>);
}

impl Reply for Vec<u8> {
    fn answer(self) -> (u32, Vec<u8>) {
        (0, self)
    }
}

impl<E: Display> Reply for Result<Vec<u8>, E> {
    /// A failure has the number 1.
    fn answer(self) -> (u32, Vec<u8>) {
        match self {
            Ok(reply) => (0, reply),
            Err(error) => (1, error.to_string().into_bytes()),
        }
    }
}

/// A failure with a number other than 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The number; 0 is taken for 1.
    pub code: u32,
    /// Words for whoever called.
    pub words: Vec<u8>,
}

impl Reply for Result<Vec<u8>, Failure> {
    fn answer(self) -> (u32, Vec<u8>) {
        match self {
            Ok(reply) => (0, reply),
            Err(failure) => (failure.code.max(1), failure.words),
        }
    }
}

/// Says that the guest is ready, and answers calls for ever. A request has `room` bytes at the most.
///
/// What is printed goes out with the reply.
pub fn serve<R: Reply>(room: usize, mut function: impl FnMut(&[u8]) -> R) -> Infallible {
    let mut request = alloc::vec![0; room];
    let (mut value, mut reply) = (0, Vec::new());
    loop {
        let call = ring(value, &mut request, &reply);
        // The host has checked that it fits.
        let len = (call.request_len as usize).min(room);
        (value, reply) = function(&request[..len]).answer();
    }
}

/// Leaves the record in the mailbox, rings, and reads what the host has put there.
fn ring(value: u32, request: &mut [u8], reply: &[u8]) -> Call {
    console::flush_at_end();
    let record = Call {
        request: request.as_mut_ptr().expose_provenance() as u64,
        room: request.len() as u64,
        reply: reply.as_ptr().expose_provenance() as u64,
        reply_len: reply.len() as u64,
        ..Call::default()
    };
    let text = processors::own_mailbox().cast::<u8>().wrapping_add(MAILBOX_TEXT_OFFSET);
    let mut bytes = record.to_bytes();
    for (i, byte) in bytes[..HOST].iter().enumerate() {
        // SAFETY: this processor's mailbox is mapped writable by the contract, is reached through raw
        // pointers only, and its text is longer than the record.
        unsafe { text.add(i).write_volatile(*byte) };
    }
    host::ring(doorbell::CALL, value);
    for (i, byte) in bytes.iter_mut().enumerate().skip(offset_of!(Call, request_len)) {
        // SAFETY: as above.
        *byte = unsafe { text.add(i).read_volatile() };
    }
    Call::from_bytes(&bytes)
}

/// Makes a function the whole guest: it takes the request's bytes and returns a [`Reply`].
///
/// The options are those of [`entry!`](crate::entry!). A request has up to [`DEFAULT_ROOM`] bytes; for more, or to do
/// something before the first call, use `entry!` and [`serve`].
#[macro_export]
macro_rules! function {
    ($function:path $(, $option:ident = $value:expr)* $(,)?) => {
        fn serve_calls() -> ::core::convert::Infallible {
            $crate::call::serve($crate::call::DEFAULT_ROOM, $function)
        }

        $crate::entry!(serve_calls $(, $option = $value)*);
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_never_taken_for_a_reply() {
        let failure = |code| {
            Err::<Vec<u8>, _>(Failure {
                code,
                words: b"no".to_vec(),
            })
        };
        assert_eq!(failure(0).answer(), (1, b"no".to_vec()));
        assert_eq!(failure(7).answer(), (7, b"no".to_vec()));
        assert_eq!(Err::<Vec<u8>, _>("no").answer(), (1, b"no".to_vec()));
        assert_eq!(Ok::<_, Failure>(b"yes".to_vec()).answer(), (0, b"yes".to_vec()));
    }
}

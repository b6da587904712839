//! Calls: a guest that is a function, called by the host again and again.
//!
//! ```text
//!   guest                                              host
//!     │ start, and whatever every call should find done  │
//!     │ ── CALL (ready) ────────────────────────────────▶│  keeps this state
//!     │ ◀── request, its length, a new generation ───────│◀── somebody calls
//!     │ work                                             │
//!     │ ── CALL (the reply is there) ───────────────────▶│──▶ the reply
//!     │                                                  │  puts the state back: memory, registers
//!     │ ◀── the next request ────────────────────────────│◀── somebody calls
//! ```
//!
//! A guest rings [`CALL`](crate::doorbell::CALL) with a [`Call`] in its mailbox. The first time it says
//! that it is ready; each further time, that it has replied. `out` comes back when there is a
//! request, in the guest's own memory where the guest said. That is all: a guest in any language
//! does it in ten instructions.
//!
//! A guest whose state was put back, or copied, is of another [generation](crate::boot::Generation), with a new
//! seed: what it made of random numbers before would be the same in each call.

use crate::doorbell::MAILBOX_TEXT;

/// The most bytes that a request or a reply may have.
pub const MAX: u64 = 16 << 20;

/// What stands in the [mailbox's text](crate::doorbell::Mailbox::text) when the guest rings
/// [`CALL`](crate::doorbell::CALL), and when the host comes back from it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Guest: where the next request is to be put. It is memory of the guest's own, from
    /// [`map::GUEST`](crate::map::GUEST) on.
    pub request: u64,
    /// Guest: the most bytes that fit there, up to [`MAX`].
    pub room: u64,
    /// Guest: where the reply is. Not looked at the first time.
    pub reply: u64,
    /// Guest: how many bytes the reply has, up to [`MAX`].
    pub reply_len: u64,
    /// Host: how many bytes the request has, up to `room`.
    pub request_len: u64,
}

/// Offset of [`Call::request_len`]: from here on, the host writes.
pub const HOST: usize = core::mem::offset_of!(Call, request_len);

impl Call {
    /// Size of the structure, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// As the bytes that stand in the mailbox.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let words = [self.request, self.room, self.reply, self.reply_len, self.request_len];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// From those bytes. Whether the addresses are any good is for the reader to check.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let word = |n: usize| u64::from_le_bytes(words[n]);
        Self {
            request: word(0),
            room: word(1),
            reply: word(2),
            reply_len: word(3),
            request_len: word(4),
        }
    }
}

const _: () = {
    assert!(Call::SIZE == 40);
    assert!(HOST == 32);
    assert!(Call::SIZE <= MAILBOX_TEXT);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_where_the_contract_has_it() {
        let call = Call {
            request: 1,
            room: 2,
            reply: 3,
            reply_len: 4,
            request_len: 5,
        };
        let bytes = call.to_bytes();
        assert_eq!([bytes[0], bytes[8], bytes[16], bytes[24], bytes[32]], [1, 2, 3, 4, 5]);
        assert_eq!(Call::from_bytes(&bytes), call);
    }
}

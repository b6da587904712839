//! What the guest was started with, and the machine it runs on.

use chiton_shared::boot::Strings;
use x86_64::registers::segmentation::{CS, Segment};

use crate::boot;

/// What stands for a string that is not UTF-8.
const NOT_TEXT: &str = "\u{fffd}";

/// The arguments. The first is the guest's name.
pub fn args() -> impl Iterator<Item = &'static str> {
    // SAFETY: the boot page says where the strings are, and they never change.
    unsafe { strings(boot::page().args) }
}

/// The environment, as pairs of name and value.
pub fn vars() -> impl Iterator<Item = (&'static str, &'static str)> {
    // SAFETY: as for `args`.
    unsafe { strings(boot::page().env) }.filter_map(|pair| pair.split_once('='))
}

/// The value of an environment variable.
#[must_use]
pub fn var(name: &str) -> Option<&'static str> {
    vars().find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The ring this code runs in, as the processor has it: 0 or 3.
#[must_use]
pub fn ring() -> u8 {
    CS::get_reg().rpl() as u8
}

/// Size of guest memory, in bytes.
#[must_use]
pub fn memory() -> u64 {
    boot::page().memory
}

/// Whether the host has asked the guest to end, as `chiton stop` does. It costs nothing to look, and
/// a [`wait`](crate::time::wait) ends when it happens: look again after each.
///
/// ```no_run
/// use chiton_guest::{env, time};
///
/// while !env::stop_requested() {
///     // … do what there is to do …
///     time::wait(None);
/// }
/// ```
#[must_use]
pub fn stop_requested() -> bool {
    boot::stop_requested()
}

/// Names this guest among all that have been: another one at each start, and each time it goes on from a snapshot, of which
/// there may be clones. What is to be nobody else's (keys, nonces, names) is made anew when this has changed; a
/// [`wait`](crate::time::wait) ends when it has. [`Random`](crate::random::Random) does so by itself.
///
/// ```no_run
/// use chiton_guest::env;
///
/// let mut own = env::generation();
/// loop {
///     if env::generation() != own {
///         own = env::generation();
///         // … new keys …
///     }
/// #   break;
/// }
/// ```
#[must_use]
pub fn generation() -> u128 {
    u128::from_le_bytes(boot::generation().id)
}

/// The strings of a list.
///
/// # Safety
///
/// The list must lie in memory that never changes.
unsafe fn strings(list: Strings) -> impl Iterator<Item = &'static str> {
    let bytes = if list.start == 0 {
        &[]
    } else {
        // SAFETY: the caller's promise.
        unsafe { core::slice::from_raw_parts(list.start as *const u8, list.len as usize) }
    };
    bytes
        .split_inclusive(|byte| *byte == 0)
        .take(list.count as usize)
        .map(|string| string.strip_suffix(&[0]).unwrap_or(string))
        .map(|string| core::str::from_utf8(string).unwrap_or(NOT_TEXT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(bytes: &'static [u8], count: u32) -> Vec<&'static str> {
        let list = Strings {
            start: bytes.as_ptr().expose_provenance() as u64,
            len: bytes.len() as u32,
            count,
        };
        // SAFETY: static bytes.
        unsafe { strings(list) }.collect()
    }

    #[test]
    fn strings_are_split_at_their_nuls() {
        assert_eq!(list(b"hello\0\0world\0", 3), ["hello", "", "world"]);
        assert_eq!(list(b"a\0b\0c\0", 2), ["a", "b"]);
    }

    #[test]
    fn a_list_that_lies_is_cut_to_what_is_there() {
        assert_eq!(list(b"a\0b", 9), ["a", "b"]);
        assert_eq!(list(b"\xff\0ok\0", 2), [NOT_TEXT, "ok"]);
        // SAFETY: an empty list.
        assert_eq!(unsafe { strings(Strings::default()) }.count(), 0);
    }
}

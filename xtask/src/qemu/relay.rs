//! Carries a stream out of the nested machine byte for byte, up to a mark that ends it.

use std::io::{self, Read, Write};

/// Copies `from` to `to` until `mark` comes, and returns the line that follows the mark; `None`
/// if the stream ends without one.
///
/// A byte is held back only while it may still belong to the mark, so that a prompt without a
/// newline appears at once.
///
/// # Errors
///
/// If reading or writing fails.
pub(crate) fn until_mark(from: &mut impl Read, to: &mut impl Write, mark: &[u8]) -> io::Result<Option<String>> {
    let mut held: Vec<u8> = Vec::new();
    let mut chunk = [0; 64 << 10];
    loop {
        let len = match from.read(&mut chunk) {
            Ok(0) => {
                to.write_all(&held)?;
                return Ok(None);
            }
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        held.extend_from_slice(&chunk[..len]);
        if let Some(at) = held.windows(mark.len()).position(|w| w == mark) {
            to.write_all(&held[..at])?;
            to.flush()?;
            return line(held.split_off(at + mark.len()), from).map(Some);
        }
        let free = held.len() - possible_start(&held, mark);
        to.write_all(&held[..free])?;
        to.flush()?;
        held.drain(..free);
    }
}

/// How many bytes at the end of `bytes` may be the beginning of `mark`.
fn possible_start(bytes: &[u8], mark: &[u8]) -> usize {
    (1..mark.len())
        .rev()
        .find(|len| bytes.ends_with(&mark[..*len]))
        .unwrap_or(0)
}

fn line(mut start: Vec<u8>, from: &mut impl Read) -> io::Result<String> {
    let mut byte = [0];
    while !start.contains(&b'\n') && from.read(&mut byte)? == 1 {
        start.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(start.split(|b| *b == b'\n').next().unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Gives what it holds in pieces of one length.
    struct Pieces(VecDeque<u8>, usize);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(buffer.len()).min(self.0.len());
            for (to, from) in buffer.iter_mut().zip(self.0.drain(..len)) {
                *to = from;
            }
            Ok(len)
        }
    }

    #[test]
    fn nothing_is_lost_or_added_however_the_stream_is_cut() {
        let stream = b"a\0M\0MA\0MARKless\0\0MARK7\nrest";
        for piece in 1..=stream.len() {
            let mut from = Pieces(stream.iter().copied().collect(), piece);
            let mut to = Vec::new();
            let line = until_mark(&mut from, &mut to, b"\0\0MARK").unwrap();
            assert_eq!(to, b"a\0M\0MA\0MARKless", "pieces of {piece}");
            assert_eq!(line.as_deref(), Some("7"), "pieces of {piece}");
        }
    }

    #[test]
    fn a_stream_that_breaks_off_says_so() {
        let mut to = Vec::new();
        let line = until_mark(&mut &b"half\0MA"[..], &mut to, b"\0MARK").unwrap();
        assert_eq!((line, to.as_slice()), (None, &b"half\0MA"[..]));
    }

    #[test]
    fn text_without_a_newline_is_not_held_back() {
        assert_eq!(possible_start(b"name? ", b"\0MARK"), 0);
        assert_eq!(possible_start(b"name? \0M", b"\0MARK"), 2);
    }
}

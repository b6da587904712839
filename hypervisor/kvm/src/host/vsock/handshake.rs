//! The first line of a client: `CONNECT <port>\n`.

use std::os::fd::OwnedFd;

/// The longest line there is: the word, a space, ten digits, and the end.
const MAX_LINE: usize = "CONNECT 4294967295\n".len();

/// How far the line has come.
#[derive(Debug, Default)]
pub(super) struct Handshake(Vec<u8>);

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The line has not ended.
    Unfinished,
    /// This port of the guest.
    Port(u32),
    /// It says something else, or is gone.
    Nonsense,
}

impl Handshake {
    /// Reads what is there of the line, and nothing behind it: that belongs to the guest.
    pub(super) fn read(&mut self, fd: &OwnedFd) -> Progress {
        while self.0.len() < MAX_LINE {
            match super::read_byte(fd) {
                Ok(Some(b'\n')) => return port(&self.0).map_or(Progress::Nonsense, Progress::Port),
                Ok(Some(byte)) => self.0.push(byte),
                Err(rustix::io::Errno::AGAIN) => return Progress::Unfinished,
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(_) => return Progress::Nonsense,
            }
        }
        Progress::Nonsense
    }
}

fn port(line: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(line.strip_prefix(b"CONNECT ")?).ok()?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_word_and_a_number() {
        assert_eq!(port(b"CONNECT 0"), Some(0));
        assert_eq!(port(b"CONNECT 4294967295"), Some(u32::MAX));
        for line in [
            "",
            "CONNECT",
            "CONNECT ",
            "CONNECT +1",
            "CONNECT 4294967296",
            "CONNECT 1 ",
            "connect 1",
            "CONNECT  1",
        ] {
            assert_eq!(port(line.as_bytes()), None, "{line}");
        }
    }
}

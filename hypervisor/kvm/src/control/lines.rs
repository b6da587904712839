//! Requests out of a stream of bytes, a line each.

use super::protocol::{MAX_REQUEST, Request, RequestError};

/// What a client has said and nobody has answered: the longest line and its end at most.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    over: bool,
}

impl Lines {
    /// How many bytes more can be taken: none while a whole line waits, once they fill the room, nor after a
    /// line that was too long.
    #[must_use]
    pub const fn room(&self) -> usize {
        if self.over {
            0
        } else {
            (MAX_REQUEST + 1).saturating_sub(self.bytes.len())
        }
    }

    /// Takes bytes; those beyond the [`room`](Self::room) are lost.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(self.room())]);
    }

    /// Whether there is a whole line.
    #[must_use]
    pub fn has_line(&self) -> bool {
        self.bytes.contains(&b'\n')
    }

    /// Whether a line was too long, after which nothing more is taken.
    #[must_use]
    pub const fn are_over(&self) -> bool {
        self.over
    }

    /// The next line, if all of it is there; one that is too long is the last.
    pub fn next_request(&mut self) -> Option<Result<Request, RequestError>> {
        if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let request = Request::parse(&self.bytes[..end]);
            self.bytes.drain(..=end);
            return Some(request);
        }
        if self.bytes.len() > MAX_REQUEST {
            self.bytes = Vec::new();
            self.over = true;
            return Some(Err(RequestError::TooLong));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_came_in() {
        let said = b"{\"query\":{}}\n{\"pause\":{}}\nnonsense\n{\"resume\"";
        for piece in 1..said.len() {
            let mut lines = Lines::default();
            let mut requests = Vec::new();
            for bytes in said.chunks(piece) {
                lines.extend(bytes);
                while let Some(request) = lines.next_request() {
                    requests.push(request.ok());
                }
            }
            assert_eq!(
                requests,
                [Some(Request::Query {}), Some(Request::Pause {}), None],
                "{piece}"
            );
            assert!(!lines.has_line() && !lines.are_over());
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_the_last() {
        let mut lines = Lines::default();
        lines.extend(&[b' '; MAX_REQUEST]);
        assert!(lines.next_request().is_none());
        assert_eq!(lines.room(), 1);
        lines.extend(b"  \n");
        assert!(matches!(lines.next_request(), Some(Err(RequestError::TooLong))));
        assert_eq!((lines.room(), lines.are_over()), (0, true));
        lines.extend(b"{\"query\":{}}\n");
        assert!(lines.next_request().is_none());
    }
}

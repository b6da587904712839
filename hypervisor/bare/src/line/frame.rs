//! Frames on the line, "in HDLC-like framing" (RFC 1662): a flag byte before and behind each, bytes that
//! could be taken for one escaped, and a 32-bit checksum at the end.
//!
//! ```text
//!   0x7e │ sequence │ body … │ CRC-32, least significant byte first │ 0x7e
//!          └── of these, 0x7e is 0x7d 0x5e, and 0x7d is 0x7d 0x5d ──┘
//! ```
//!
//! Whatever comes before a flag is a frame or nothing at all, so that noise costs no more than the frame
//! it meets.

use alloc::vec::Vec;

use super::MAX_BODY;

/// Before and behind each frame (section 3.1).
const FLAG: u8 = 0x7e;
/// The next byte has [`TURN`] in it (section 4.2).
const ESCAPE: u8 = 0x7d;
/// The bit by which an escaped byte differs from what is meant.
const TURN: u8 = 0x20;
/// Length of the checksum.
const CHECKSUM: usize = 4;

/// Writes a frame in the place of what is in `to`.
pub fn write(sequence: u8, body: &[u8], to: &mut Vec<u8>) {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&[sequence]);
    sum.update(body);
    let sum = sum.finalize().to_le_bytes();
    to.clear();
    to.push(FLAG);
    for &byte in [sequence].iter().chain(body).chain(&sum) {
        if matches!(byte, FLAG | ESCAPE) {
            to.extend([ESCAPE, byte ^ TURN]);
        } else {
            to.push(byte);
        }
    }
    to.push(FLAG);
}

/// Finds frames in what comes along the line.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    escaped: bool,
    /// What has come since the last flag is no frame, whatever follows.
    spoilt: bool,
    /// The frame was handed out; the next byte begins another.
    complete: bool,
}

impl Reader {
    /// Takes a byte; the sequence number and the body if it completes a frame that is whole.
    pub fn take(&mut self, byte: u8) -> Option<(u8, &[u8])> {
        if core::mem::take(&mut self.complete) {
            self.bytes.clear();
        }
        match byte {
            FLAG => {
                self.complete = true;
                let whole = !(core::mem::take(&mut self.spoilt) | core::mem::take(&mut self.escaped));
                return self.frame().filter(|_| whole);
            }
            ESCAPE => self.escaped = true,
            _ if self.bytes.len() > MAX_BODY + CHECKSUM => self.spoilt = true,
            _ => {
                let turn = if core::mem::take(&mut self.escaped) { TURN } else { 0 };
                self.bytes.push(byte ^ turn);
            }
        }
        None
    }

    /// What has come, if its checksum is right.
    fn frame(&self) -> Option<(u8, &[u8])> {
        let (content, sum) = self.bytes.split_last_chunk::<CHECKSUM>()?;
        let (sequence, body) = content.split_first()?;
        (crc32fast::hash(content) == u32::from_le_bytes(*sum)).then_some((*sequence, body))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All frames that a reader finds.
    fn read(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut reader = Reader::default();
        let frames = bytes.iter().filter_map(|byte| {
            let frame = reader.take(*byte);
            frame.map(|(sequence, body)| (sequence, body.to_vec()))
        });
        frames.collect()
    }

    fn written(sequence: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(sequence, body, &mut bytes);
        bytes
    }

    #[test]
    fn a_frame_is_as_the_standard_has_it() {
        // The checksum of "123456789" is the one by which CRC-32 is known.
        let sum = 0xcbf4_3926_u32.to_le_bytes();
        assert_eq!(written(b'1', b"23456789"), [b"~123456789", &sum[..], b"~"].concat());
        let bytes = written(0x7e, &[0x7d]);
        assert_eq!(&bytes[..5], [0x7e, 0x7d, 0x5e, 0x7d, 0x5d]);
    }

    #[test]
    fn what_is_too_long_is_no_frame_and_takes_no_memory() {
        let mut reader = Reader::default();
        for _ in 0..10 * MAX_BODY {
            assert!(reader.take(b'x').is_none());
        }
        assert!(reader.bytes.len() <= MAX_BODY + 1 + CHECKSUM);
        assert!(reader.take(FLAG).is_none());
        assert_eq!(read(&written(1, &[2; MAX_BODY])), [(1, vec![2; MAX_BODY])]);
        assert_eq!(read(&written(1, &[2; MAX_BODY + 1])), []);
    }

    #[test]
    fn a_flag_behind_an_escape_ends_what_is_no_frame() {
        let mut bytes = written(3, b"abc");
        let end = bytes.len() - 1;
        bytes.insert(end, ESCAPE);
        assert_eq!(read(&bytes), []);
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(bodies in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..5)) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|(sequence, body)| written(*sequence, body)).collect();
            prop_assert_eq!(read(&bytes), bodies);
        }

        #[test]
        fn a_changed_byte_costs_its_frame_and_no_other(
            body in prop::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), change in 1_u8..,
        ) {
            let mut bytes = written(7, &body);
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            bytes.extend(written(8, b"next"));
            let frames = read(&bytes);
            // A frame that has lost its last flag is ended by the next frame's first.
            prop_assert_eq!(frames.last(), Some(&(8, b"next".to_vec())));
            prop_assert!(frames.iter().all(|frame| frame.0 == 8 || *frame == (7, body.clone())));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            for (_, body) in read(&bytes) {
                prop_assert!(body.len() <= MAX_BODY);
            }
        }
    }
}

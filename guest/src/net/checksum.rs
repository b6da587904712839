//! The checksums of TCP and UDP, as far as the driver has to do with them.

/// Where the checksum of a frame is, and what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where the checksummed part begins.
    pub(super) start: usize,
    /// Where it ends: Ethernet pads short frames.
    end: usize,
    /// Where the checksum is, from `start` on.
    pub(super) offset: usize,
    /// Sum of the pseudo header.
    pub(super) pseudo: u16,
    pub(super) is_udp: bool,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Finds the TCP or UDP checksum of an Ethernet frame; `None` if there is none, or it is a fragment.
pub(super) fn find(frame: &[u8]) -> Option<Found> {
    let half = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let (protocol, start, len, addresses) = match half(12)? {
        0x0800 => {
            let header = usize::from(*frame.get(14)? & 0xF) * 4;
            let total = usize::from(half(16)?);
            // Neither a fragment nor the first of several.
            if half(20)? & 0x3FFF != 0 || header < 20 {
                return None;
            }
            (
                *frame.get(23)?,
                14 + header,
                total.checked_sub(header)?,
                frame.get(26..34)?,
            )
        }
        0x86DD => (*frame.get(20)?, 54, usize::from(half(18)?), frame.get(22..54)?),
        _ => return None,
    };
    let offset = match protocol {
        TCP => 16,
        UDP => 6,
        _ => return None,
    };
    let end = start + len;
    if len < offset + 2 || end > frame.len() {
        return None;
    }
    let pseudo = sum(addresses) + u64::from(protocol) + len as u64;
    Some(Found {
        start,
        end,
        offset,
        pseudo: fold(pseudo),
        is_udp: protocol == UDP,
    })
}

impl Found {
    /// Whether the checksum is right.
    pub(super) fn is_right(&self, frame: &[u8]) -> bool {
        let body = &frame[self.start..self.end];
        let absent = self.is_udp && body[self.offset..self.offset + 2] == [0, 0];
        absent || fold(u64::from(self.pseudo) + sum(body)) == u16::MAX
    }
}

/// The sum of big-endian 16-bit words, the last one padded with zero.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    sum + rest.first().map_or(0, |byte| u64::from(*byte) << 8)
}

/// The checksum of these bytes: what makes their sum all ones.
pub(super) fn of(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

const fn fold(sum: u64) -> u16 {
    let mut sum = sum;
    while sum > u16::MAX as u64 {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A UDP datagram over IPv4 from 10.0.0.1:1 to 10.0.0.2:2 with three bytes, padded.
    fn datagram() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([
            8, 0, 0x45, 0, 0, 31, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        frame.extend([0, 1, 0, 2, 0, 11, 0, 0, b'a', b'b', b'c', 0xEE]);
        frame
    }

    #[test]
    fn a_right_checksum_is_right_and_any_other_is_not() {
        let mut frame = datagram();
        let found = find(&frame).unwrap();
        assert_eq!((found.start, found.offset), (34, 6));
        assert!(found.is_right(&frame), "UDP may go without");
        let value = !fold(u64::from(found.pseudo) + sum(&frame[34..45]));
        frame[40..42].copy_from_slice(&value.to_be_bytes());
        assert!(find(&frame).unwrap().is_right(&frame));
        frame[42] ^= 1;
        assert!(!find(&frame).unwrap().is_right(&frame));
    }

    #[test]
    fn a_frame_cut_anywhere_has_no_checksum_and_is_no_panic() {
        let frame = datagram();
        for len in 0..45 {
            assert_eq!(find(&frame[..len]), None, "{len}");
        }
        let mut random = crate::random::Random::seeded(3);
        for _ in 0..if cfg!(miri) { 20 } else { 20_000 } {
            let mut frame = datagram();
            for _ in 0..random.below(8) {
                let at = random.below(frame.len() as u64) as usize;
                frame[at] = random.below(256) as u8;
            }
            if let Some(found) = find(&frame) {
                let _ = found.is_right(&frame);
            }
        }
    }
}

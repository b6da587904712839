//! UDP datagrams that a device hands over as one frame (`VIRTIO_NET_HDR_GSO_UDP_L4`), taken apart.

use alloc::vec::Vec;

use chiton_shared::virtio::net::ETHERNET;

/// Length of a UDP header, in bytes.
const UDP: usize = 8;

/// Datagrams of one sender to one receiver, with the headers of the frame they came in.
#[derive(Debug)]
pub(super) struct Datagrams {
    /// All of them: headers, then payload after payload.
    frame: Vec<u8>,
    /// Length of all headers, in bytes.
    headers: usize,
    /// Payload of each but the last, in bytes.
    size: usize,
    /// Where in `frame` the payload of the next begins.
    next: usize,
    /// The one that is handed out now.
    current: Vec<u8>,
}

impl Datagrams {
    /// Takes apart a frame whose datagrams have `size` bytes of payload; `None` if it is none.
    pub(super) fn new(frame: &[u8], size: u16) -> Option<Self> {
        let ip = match frame.get(12..14)? {
            [8, 0] => usize::from(*frame.get(ETHERNET)? & 0xF) * 4,
            [0x86, 0xDD] => 40,
            _ => return None,
        };
        let headers = ETHERNET + ip + UDP;
        if size == 0 || ip < 20 || headers >= frame.len() {
            return None;
        }
        Some(Self {
            frame: frame.to_vec(),
            headers,
            size: size.into(),
            next: headers,
            current: Vec::new(),
        })
    }

    /// Goes on to the next; whether there is one.
    pub(super) fn advance(&mut self) -> bool {
        let end = self.frame.len().min(self.next + self.size);
        if self.next >= end {
            return false;
        }
        self.current.clear();
        self.current.extend_from_slice(&self.frame[..self.headers]);
        self.current.extend_from_slice(&self.frame[self.next..end]);
        let udp = (UDP + end - self.next) as u16;
        self.next = end;
        let at = self.headers - UDP;
        self.put(at + 4, udp);
        if self.frame[12..14] == [8, 0] {
            self.put(ETHERNET + 2, (at - ETHERNET) as u16 + udp);
            self.put(ETHERNET + 10, 0);
            let sum = super::checksum::of(&self.current[ETHERNET..at]);
            self.put(ETHERNET + 10, sum);
        } else {
            self.put(ETHERNET + 4, udp);
        }
        true
    }

    fn put(&mut self, at: usize, value: u16) {
        self.current[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// The frame of the one that was gone on to.
    pub(super) fn current(&self) -> &[u8] {
        &self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(payload: usize) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([
            8, 0, 0x45, 0, 0xEE, 0xEE, 0, 0, 0, 0, 64, 17, 0xEE, 0xEE, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        frame.extend([0, 1, 0, 2, 0xEE, 0xEE, 0, 0]);
        frame.extend((0..payload).map(|i| i as u8));
        frame
    }

    #[test]
    fn each_datagram_has_lengths_and_a_checksum_of_its_own() {
        let mut datagrams = Datagrams::new(&v4(25), 10).unwrap();
        let mut payload = Vec::new();
        for len in [10, 10, 5] {
            assert!(datagrams.advance());
            let frame = datagrams.current();
            assert_eq!(frame.len(), 42 + len);
            assert_eq!((usize::from(frame[17]), usize::from(frame[39])), (28 + len, 8 + len));
            assert_eq!(
                super::super::checksum::of(&frame[14..34]),
                0,
                "the header's sum is right"
            );
            payload.extend_from_slice(&frame[42..]);
        }
        assert!(!datagrams.advance());
        assert_eq!(payload, v4(25)[42..]);
    }

    #[test]
    fn datagrams_over_ipv6_have_a_length_without_the_header() {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xDD, 0x60, 0, 0, 0, 0xEE, 0xEE, 17, 64]);
        frame.extend([0xFD; 32]);
        frame.extend([0, 1, 0, 2, 0xEE, 0xEE, 0, 0, b'a', b'b', b'c']);
        let mut datagrams = Datagrams::new(&frame, 2).unwrap();
        for len in [2, 1] {
            assert!(datagrams.advance());
            let frame = datagrams.current();
            assert_eq!(
                (frame.len(), frame[19], frame[59]),
                (62 + len, 8 + len as u8, 8 + len as u8)
            );
        }
        assert!(!datagrams.advance());
    }

    #[test]
    fn what_is_no_train_of_datagrams_is_none_and_no_panic() {
        assert!(Datagrams::new(&v4(25), 0).is_none());
        let whole = v4(3);
        for len in 0..=42 {
            assert!(Datagrams::new(&whole[..len], 1).is_none(), "{len}");
        }
        let mut random = crate::random::Random::seeded(5);
        for _ in 0..if cfg!(miri) { 20 } else { 20_000 } {
            let mut frame = v4(60);
            for _ in 0..random.below(8) {
                let at = random.below(frame.len() as u64) as usize;
                frame[at] = random.below(256) as u8;
            }
            if let Some(mut datagrams) = Datagrams::new(&frame, 1 + random.below(70) as u16) {
                while datagrams.advance() {}
            }
        }
    }
}

//! Any bytes that come along a bare machine's line: at the machine's end, and at the other.
#![no_main]

use chiton_bare::line::{Answer, Call, Far, Line, LineSockets, Reader, Wire, write};
use chiton_core::devices::vsock::{Event, Sockets};
use libfuzzer_sys::fuzz_target;

/// A wire on which these bytes come, whatever is asked.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Wire for Bytes<'_> {
    fn send(&mut self, _bytes: &[u8]) {}

    fn receive(&mut self) -> Option<u8> {
        self.0.next().copied()
    }

    fn now_ns(&self) -> u64 {
        0
    }
}

/// The bytes themselves, or frames of which each has the length that the byte before it says: by chance no checksum is
/// right.
fn on_the_line(data: &[u8]) -> Vec<u8> {
    let Some((0, mut rest)) = data.split_first().map(|(kind, rest)| (kind & 1, rest)) else {
        return data.to_vec();
    };
    let mut all = Vec::new();
    let mut frame = Vec::new();
    let mut sequence = 0_u8;
    while let Some((len, behind)) = rest.split_first() {
        let (body, behind) = behind.split_at(behind.len().min((*len).into()));
        sequence = sequence.wrapping_add(1);
        write(sequence, body, &mut frame);
        all.append(&mut frame);
        rest = behind;
    }
    all
}

fuzz_target!(|data: &[u8]| {
    let data = &on_the_line(data)[..];
    let mut reader = Reader::default();
    for byte in data {
        if let Some((_, body)) = reader.take(*byte) {
            let _ = Call::parse(body);
            let _ = Answer::parse(body);
        }
    }
    let mut far = Far::new(&[]);
    let answers = data.iter().filter_map(|byte| far.take(*byte).map(<[u8]>::len));
    assert!(answers.sum::<usize>() <= data.len() * 64, "answers of nobody are short");

    if let Ok((line, told)) = Line::open(Bytes(data.iter()), "com2") {
        assert!(told.link.is_none_or(|(_, mtu)| (68..=1500).contains(&mtu)));
        let mut sockets = LineSockets::new(line);
        let mut open = Vec::new();
        for _ in 0..16 {
            match sockets.next_event() {
                Some(Event::Asked { socket, .. }) => {
                    assert!(!open.contains(&socket), "a name is one socket's");
                    open.push(socket);
                }
                Some(Event::Lost(socket)) => assert!(open.contains(&socket)),
                _ => {}
            }
            if let Ok(socket) = sockets.connect(1) {
                assert!(!open.contains(&socket), "a name is one socket's");
                open.push(socket);
            }
        }
    }
});

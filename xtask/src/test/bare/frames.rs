//! Ethernet frames to a guest and back, by a packet socket (packet(7)) at the host's end of a TAP device: no protocol of the
//! host is in the way.

use std::io::{self, Read, Write};

/// For local experiments (IEEE Std 802): nobody else has such frames.
const ETHER_TYPE: u16 = 0x88b5;
/// Length of the two addresses and the type.
const HEADER: usize = 14;
/// How long frames are: the shortest, one of an odd length, and the longest.
const LENGTHS: [usize; 3] = [60, 601, 1514];
/// How many there are, for whoever returns them.
pub(super) const COUNT: &str = "3";

/// Sends [`COUNT`] frames by this interface, each when the one before has come back; returns what came back.
pub(super) fn echoed(interface: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut socket = chiton_tests::frames(interface, ETHER_TYPE)?;
    let mut all = Vec::new();
    for len in LENGTHS {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend(ETHER_TYPE.to_be_bytes());
        // Every byte there is, also those that a line escapes.
        frame.extend((0..len - HEADER).map(|n| n as u8));
        socket.write_all(&frame)?;
        let mut back = [0; 2048];
        let len = socket.read(&mut back)?;
        all.push(back[..len].to_vec());
    }
    Ok(all)
}

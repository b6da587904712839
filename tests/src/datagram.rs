//! Asks by datagrams.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// Sends a datagram until there is an answer, since one that comes before its reader is lost; the answer.
///
/// # Panics
///
/// If there is none within [`PATIENCE`].
#[must_use]
#[track_caller]
pub fn ask_by_datagram(address: SocketAddr, question: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let soon = Some(Duration::from_millis(200));
    socket.set_read_timeout(soon).expect("a time");
    socket.connect(address).expect("an address");
    let mut bytes = vec![0; 2048];
    let start = Instant::now();
    loop {
        socket.send(question).expect("it goes out");
        match socket.recv(&mut bytes) {
            Err(error) => assert!(start.elapsed() < PATIENCE, "no answer from {address}: {error}"),
            Ok(len) => {
                bytes.truncate(len);
                return bytes;
            }
        }
    }
}

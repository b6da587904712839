//! The other end of what is measured: TCP and UDP as the guest `netperf` speaks them.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

/// How much is read or written at a time, in bytes.
const PIECE: usize = 256 << 10;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the server, which is the guest or stands in for it.
    To,
    /// From the server.
    From,
}

/// Moves so many bytes over a connection, and returns the seconds it took until the last one had
/// arrived.
pub(super) fn transfer(server: SocketAddr, way: Way, bytes: u64) -> io::Result<f64> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut piece = vec![b'x'; PIECE];
    let mut left = bytes;
    let start = Instant::now();
    match way {
        Way::To => {
            while left > 0 {
                let len = left.min(PIECE as u64) as usize;
                stream.write_all(&piece[..len])?;
                left -= len as u64;
            }
            stream.shutdown(std::net::Shutdown::Write)?;
            // The server closes when it has read everything.
            if stream.read(&mut piece)? != 0 {
                return Err(io::Error::other("the server sends where it should receive"));
            }
        }
        Way::From => {
            stream.write_all(b"s")?;
            while left > 0 {
                match stream.read(&mut piece)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    len => left = left.saturating_sub(len as u64),
                }
            }
        }
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Sends datagrams of 64 bytes, each when the one before has come back, and returns the seconds a
/// round takes.
pub(super) fn ping(server: SocketAddr, rounds: u32, pause: Duration) -> io::Result<f64> {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 2048];
    let mut spent = Duration::ZERO;
    for round in 0..rounds {
        let sent = round.to_le_bytes().repeat(16);
        let start = Instant::now();
        socket.send(&sent)?;
        let len = socket.recv(&mut buffer)?;
        spent += start.elapsed();
        if buffer[..len] != sent {
            return Err(io::Error::other("another datagram came back"));
        }
        std::thread::sleep(pause);
    }
    Ok(spent.as_secs_f64() / f64::from(rounds))
}

/// Serves TCP as `netperf` does, on threads of its own, for as long as this process lives.
pub(super) fn serve_tcp(at: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(at)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes ends its connection as it likes.
            let _ = serve(stream);
        }
    });
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut piece = vec![b'x'; PIECE];
    let len = stream.read(&mut piece)?;
    if piece[..len].first() == Some(&b's') {
        piece[0] = b'x';
        loop {
            stream.write_all(&piece)?;
        }
    }
    while stream.read(&mut piece)? != 0 {}
    Ok(())
}

/// Returns datagrams to their sender, for as long as this process lives.
pub(super) fn serve_udp(at: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(at)?;
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, sender)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], sender);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Nobody else has this address. A port of the one protocol is found by the other's, which a child of another
    /// test may have open for a moment longer.
    const ANY: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 85, 78, 73), 0);

    #[test]
    fn both_ways_end_when_everything_has_arrived() {
        let socket = UdpSocket::bind(ANY).expect("a port");
        let server = socket.local_addr().expect("an address");
        serve_tcp(server).expect("it serves");
        for way in [Way::To, Way::From] {
            for bytes in [1, 1 << 20] {
                assert!(transfer(server, way, bytes).expect("it moves") > 0.0);
            }
        }
    }

    #[test]
    fn a_datagram_comes_back() {
        let listener = TcpListener::bind(ANY).expect("a port");
        let server = listener.local_addr().expect("an address");
        serve_udp(server).expect("it serves");
        assert!(ping(server, 3, Duration::ZERO).expect("it comes back") > 0.0);
    }
}

//! Talk with guests that have sockets: whom they say they serve, and calls of the guest `rpc`.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc,
};

/// The port that a guest says it serves, in a line of its console.
pub(crate) fn port_of(line: &str) -> Option<u32> {
    let says = ["rpc: serving at port ", "sockets: waiting at port "];
    says.iter().find_map(|says| line.strip_prefix(says))?.parse().ok()
}

/// A connection to a port of a guest whose socket is there.
///
/// # Errors
///
/// If there is nobody, or the guest does not accept.
pub(crate) fn connect(path: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path)?;
    writeln!(stream, "CONNECT {port}")?;
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
    }
    Ok(stream)
}

/// Calls a function of `rpc`: its number, its argument; what it answers.
///
/// # Errors
///
/// If the connection ends.
pub(crate) fn call(stream: &mut UnixStream, function: u8, argument: &[u8]) -> io::Result<Vec<u8>> {
    let len = (argument.len() as u32 + 1).to_le_bytes();
    stream.write_all(&[&len[..], &[function], argument].concat())?;
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let mut answer = vec![0; u32::from_le_bytes(len) as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// A console, of which each line is told when it is complete.
pub(crate) struct Lines {
    begun: Vec<u8>,
    lines: mpsc::Sender<String>,
}

impl Lines {
    /// The console, and where its lines come out.
    pub(crate) fn new() -> (Self, mpsc::Receiver<String>) {
        let (lines, receiver) = mpsc::channel();
        let begun = Vec::new();
        (Self { begun, lines }, receiver)
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.begun)).into_owned();
                // Who does not listen any more has heard enough.
                let _ = self.lines.send(line);
            } else {
                self.begun.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

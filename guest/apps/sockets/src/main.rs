//! Streams to and from the host:
//!
//! - `sockets echo PORT N` serves N streams, as many as come at once: each gets back what it sends,
//!   until it sends no more;
//! - `sockets call PORT TEXT` connects to the host, sends the text, and prints what comes back;
//! - `sockets gone PORT` writes to one client until that one is gone;
//! - `sockets fill PORT` writes to one client as much as goes, says how much, and ends;
//! - `sockets lie LIE` sends what no driver may: see `lies`.
#![no_std]
#![no_main]

extern crate alloc;

mod lies;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use chiton_guest::time::Instant;
use chiton_guest::vsock::{self, Shutdown, VsockError, VsockListener, VsockStream};
use chiton_guest::{env, println};

chiton_guest::entry!(main);

fn main() -> Result<i32, VsockError> {
    let words: Vec<&str> = env::args().skip(1).collect();
    let number = |i: usize| words.get(i).and_then(|word| word.parse::<u32>().ok()).unwrap_or(0);
    match words.first() {
        Some(&"echo") => echo(number(1), number(2))?,
        Some(&"call") => call(number(1), words.get(2).unwrap_or(&""))?,
        Some(&"gone") => gone(number(1))?,
        Some(&"fill") => fill(number(1))?,
        Some(&"lie") => return lies::tell(words.get(1).unwrap_or(&"")),
        _ => {
            println!("sockets: echo PORT N, call PORT TEXT, gone PORT, fill PORT, or lie LIE");
            return Ok(2);
        }
    }
    Ok(0)
}

/// A stream that is echoed.
struct Echo {
    stream: VsockStream,
    /// What is still to be sent back.
    rest: Vec<u8>,
    ended: bool,
}

impl Echo {
    /// Goes on as far as that is possible without sleeping; whether anything happened.
    fn step(&mut self, buffer: &mut [u8]) -> Result<bool, VsockError> {
        let mut happened = false;
        if self.rest.is_empty()
            && !self.ended
            && let Some(len) = self.stream.try_read(buffer)?
        {
            self.ended = len == 0;
            self.rest.extend_from_slice(&buffer[..len]);
            happened = true;
        }
        if !self.rest.is_empty()
            && let Some(len) = self.stream.try_write(&self.rest)?
        {
            self.rest.drain(..len);
            happened = true;
        }
        Ok(happened)
    }
}

fn echo(port: u32, count: u32) -> Result<(), VsockError> {
    let listener = VsockListener::bind(port)?;
    println!("sockets: echo at port {port}");
    let mut streams: Vec<Echo> = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    let (mut accepted, mut most) = (0, 0);
    while accepted < count || !streams.is_empty() {
        let mut happened = false;
        while accepted < count
            && let Some(stream) = listener.try_accept()?
        {
            let rest = Vec::new();
            streams.push(Echo {
                stream,
                rest,
                ended: false,
            });
            accepted += 1;
            happened = true;
        }
        most = most.max(streams.len());
        let mut i = 0;
        while let Some(echo) = streams.get_mut(i) {
            match echo.step(&mut buffer) {
                Ok(more) => happened |= more,
                Err(VsockError::Reset | VsockError::Closed) => {
                    println!("sockets: a client has gone");
                    echo.rest.clear();
                    echo.ended = true;
                }
                Err(error) => return Err(error),
            }
            if echo.ended && echo.rest.is_empty() {
                streams.swap_remove(i);
                happened = true;
            } else {
                i += 1;
            }
        }
        if !happened {
            vsock::wait(None)?;
        }
    }
    println!("sockets: {accepted} streams, {most} at once at the most");
    Ok(())
}

fn call(port: u32, text: &str) -> Result<(), VsockError> {
    let mut stream = VsockStream::connect(port)?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 256];
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            len => answer.extend_from_slice(&buffer[..len]),
        }
    }
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(())
}

fn gone(port: u32) -> Result<(), VsockError> {
    let listener = VsockListener::bind(port)?;
    println!("sockets: waiting at port {port}");
    let mut stream = listener.accept()?;
    let bytes = vec![7; 4096];
    loop {
        if let Err(error) = stream.write_all(&bytes) {
            println!("sockets: {error}");
            return Ok(());
        }
    }
}

fn fill(port: u32) -> Result<(), VsockError> {
    let listener = VsockListener::bind(port)?;
    let mut stream = listener.accept()?;
    let bytes = vec![7; 4096];
    let mut written = 0;
    loop {
        if let Some(len) = stream.try_write(&bytes)? {
            written += len;
            continue;
        }
        let deadline = Instant::now() + Duration::from_millis(100);
        while Instant::now() < deadline {
            vsock::wait(Some(deadline))?;
        }
        match stream.try_write(&bytes)? {
            Some(len) => written += len,
            None => break,
        }
    }
    println!("{written}");
    Ok(())
}

//! Serves function calls from the host, over a socket: `rpc [PORT] [CLIENTS]`.
//!
//! A request is a length (32 bits, little-endian), a byte that names the function, and its argument,
//! both counted by the length. A response is a length and a result. Functions:
//!
//! | byte | argument | result |
//! |---|---|---|
//! | 1 sum | numbers of 64 bits | their sum, modulo 2^64 |
//! | 2 echo | bytes | the same bytes |
//! | 3 digest | bytes | their FNV-1a digest, 64 bits |
//! | 4 count | nothing | how many calls there were, with this one |
//!
//! Clients are served in turn, until the host asks the guest to end (`chiton stop`), or as many as
//! CLIENTS says. One who sends anything else loses the connection.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use chiton_guest::vsock::{self, VsockError, VsockListener, VsockStream};
use chiton_guest::{env, println};

chiton_guest::entry!(main);

/// The port without one on the command line.
const PORT: u32 = 5000;

/// The longest request, in bytes.
const MAX: usize = 1 << 20;

fn main() -> Result<(), VsockError> {
    let mut numbers = env::args().skip(1).map(|word| word.parse().ok());
    let port = numbers.next().flatten().unwrap_or(PORT);
    let clients = numbers.next().flatten();
    let listener = VsockListener::bind(port)?;
    println!("rpc: serving at port {port}");
    let mut calls = 0;
    let mut served = 0;
    while clients != Some(served) {
        let Some(stream) = unless_stopped(|| listener.try_accept())? else {
            break;
        };
        match serve(stream, &mut calls) {
            Ok(()) | Err(VsockError::Reset | VsockError::Closed) => {}
            Err(error) => return Err(error),
        }
        served += 1;
    }
    println!("rpc: {calls} calls of {served} clients");
    Ok(())
}

/// Tries until something comes of it, and sleeps in between; `None` if the host would have the guest
/// end instead.
fn unless_stopped<R>(mut attempt: impl FnMut() -> Result<Option<R>, VsockError>) -> Result<Option<R>, VsockError> {
    loop {
        if env::stop_requested() {
            return Ok(None);
        }
        match attempt()? {
            None => vsock::wait(None)?,
            some => return Ok(some),
        }
    }
}

/// Answers one client until it goes.
fn serve(mut stream: VsockStream, calls: &mut u64) -> Result<(), VsockError> {
    let mut request = Vec::new();
    loop {
        let mut len = [0; 4];
        match unless_stopped(|| stream.try_read(&mut len))? {
            None | Some(0) => return Ok(()),
            Some(read) => stream.read_exact(&mut len[read..])?,
        }
        let len = u32::from_le_bytes(len) as usize;
        if len == 0 || len > MAX {
            return Ok(());
        }
        request.resize(len, 0);
        stream.read_exact(&mut request)?;
        *calls += 1;
        let Some(result) = call(&request, *calls) else {
            return Ok(());
        };
        let mut response = vec![0; 4];
        response[..].copy_from_slice(&(result.len() as u32).to_le_bytes());
        response.extend(result);
        // It goes out when the next request is waited for.
        stream.write_all(&response)?;
    }
}

/// Calls a function; `None` if there is none like that.
fn call(request: &[u8], calls: u64) -> Option<Vec<u8>> {
    let (function, argument) = request.split_first()?;
    Some(match function {
        1 if argument.len().is_multiple_of(8) => {
            let numbers = argument.chunks_exact(8).filter_map(|n| n.try_into().ok());
            let sum = numbers.map(u64::from_le_bytes).fold(0, u64::wrapping_add);
            sum.to_le_bytes().to_vec()
        }
        2 => argument.to_vec(),
        3 => digest(argument).to_le_bytes().to_vec(),
        4 => calls.to_le_bytes().to_vec(),
        _ => return None,
    })
}

/// FNV-1a, of 64 bits.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

//! Fetches what a machine of some name serves over HTTP: `fetch NAME [PORT] [PATH]`. With the word `name` in
//! front, it says the address of a name only; with `udp`, it sends the words behind NAME and PORT as a datagram,
//! and prints the answer.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use chiton_guest::net::{self, NetError, TcpStream, UdpSocket};
use chiton_guest::{console, env, println};

chiton_guest::entry!(main, heap = 4 * MIB, needs = &[NET]);

const USAGE: &str = "usage: fetch NAME [PORT] [PATH], fetch name NAME, or fetch udp NAME PORT TEXT";

fn main() -> Result<(), String> {
    let words: Vec<_> = env::args().skip(1).collect();
    match words[..] {
        ["name", name] => println!("{}", net::resolve(name).map_err(|error| why(name, error))?),
        ["udp", name, port, text] => {
            let port = port.parse().map_err(|_| String::from(USAGE))?;
            datagram(name, port, text).map_err(|error| why(name, error))?;
        }
        [name] => get(name, 80, "/").map_err(|error| why(name, error))?,
        [name, port] | [name, port, _] => {
            let port = port.parse().map_err(|_| String::from(USAGE))?;
            get(name, port, words.get(2).unwrap_or(&"/")).map_err(|error| why(name, error))?;
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn why(name: &str, error: NetError) -> String {
    format!("{name}: {error}")
}

/// Writes the answer, head and all, to the console.
fn get(name: &str, port: u16, path: &str) -> Result<(), NetError> {
    let stream = TcpStream::connect_to(name, port)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            // A console that is closed hears nothing, and there is nobody else to tell.
            len => drop(console::write(&bytes[..len])),
        }
    }
}

fn datagram(name: &str, port: u16, text: &str) -> Result<(), NetError> {
    let to = net::resolve(name)?;
    let socket = UdpSocket::bind(5000)?;
    socket.send_to(text.as_bytes(), (to, port).into())?;
    let mut bytes = [0; 2048];
    let (len, from) = socket.recv_from(&mut bytes)?;
    println!("{from}: {}", String::from_utf8_lossy(&bytes[..len]));
    Ok(())
}

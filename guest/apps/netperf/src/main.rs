//! Measures TCP: `netperf [PORT]` takes what a client sends and throws it away. If the first byte is
//! `s`, it sends instead, until the client goes. `netperf PORT udp` returns datagrams to their sender;
//! `netperf PORT look` does so without ever going to sleep; `netperf PORT cut` returns them as datagrams of 100 bytes;
//! `netperf PORT link` says when the link goes down and up.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::{format, vec};
use core::num::NonZeroU16;

use chiton_guest::net::{NetError, Options, TcpListener, TcpStream, UdpSocket};
use chiton_guest::time::Instant;
use chiton_guest::{console, env, net, println};

chiton_guest::entry!(main, heap = 8 * MIB, needs = &[NET]);

/// One connection at a time, with much room.
const OPTIONS: Options = Options {
    backlog: 1,
    waiting: 2,
    receive: 1 << 20,
    send: 1 << 20,
};

fn main() -> Result<(), String> {
    let port = env::args().nth(1).unwrap_or("5001");
    let port = port
        .parse()
        .map_err(|_| format!("usage: netperf [PORT], not `{port}`"))?;
    let result = match env::args().nth(2) {
        Some("udp") => echo(port),
        Some("cut") => cut(port),
        Some("look") => look(port),
        Some("link") => watch(port),
        _ => serve(port),
    };
    result.map_err(|error| format!("{error}"))
}

fn serve(port: u16) -> Result<(), NetError> {
    let listener = TcpListener::bind_with(port, OPTIONS)?;
    println!("{}:{port}", net::address()?.0);
    loop {
        let _ = console::flush();
        let stream = listener.accept()?;
        let start = Instant::now();
        let mut bytes = 0;
        let verb = match run(&stream, &mut bytes) {
            Ok(verb) => verb,
            // Who is served for as long as he likes ends that as he likes.
            Err(NetError::Reset) => "moved",
            Err(error) => return Err(error),
        };
        let ms = start.elapsed().as_millis().max(1) as u64;
        println!("{verb} {bytes} bytes in {ms} ms: {} Mbit/s", bytes * 8 / ms / 1000);
    }
}

fn echo(port: u16) -> Result<(), NetError> {
    let socket = UdpSocket::bind(port)?;
    println!("{}:{port}", net::address()?.0);
    let mut datagram = vec![0; 64 << 10];
    loop {
        let (len, sender) = socket.recv_from(&mut datagram)?;
        socket.send_to(&datagram[..len], sender)?;
    }
}

/// As [`echo`], but cuts what comes.
fn cut(port: u16) -> Result<(), NetError> {
    const SIZE: NonZeroU16 = NonZeroU16::new(100).unwrap();
    let socket = UdpSocket::bind(port)?;
    println!("{}:{port}", net::address()?.0);
    let mut datagram = vec![0; 64 << 10];
    loop {
        let (len, sender) = socket.recv_from(&mut datagram)?;
        socket.send_segments(&datagram[..len], SIZE, sender)?;
    }
}

/// As [`echo`], but looks again and again, as a guest does that has other work.
fn look(port: u16) -> Result<(), NetError> {
    let socket = UdpSocket::bind(port)?;
    println!("{}:{port}", net::address()?.0);
    let _ = console::flush();
    let mut datagram = vec![0; 64 << 10];
    loop {
        if let Some((len, sender)) = socket.try_recv_from(&mut datagram)? {
            socket.send_to(&datagram[..len], sender)?;
        }
        net::poll()?;
    }
}

fn watch(port: u16) -> Result<(), NetError> {
    let _listener = TcpListener::bind(port)?;
    let mut up = None;
    loop {
        let now = net::is_up();
        if up.replace(now) != Some(now) {
            println!("link {}", if now { "up" } else { "down" });
            let _ = console::flush();
        }
        net::wait(None)?;
    }
}

fn run(stream: &TcpStream, bytes: &mut u64) -> Result<&'static str, NetError> {
    let mut piece = vec![0; 256 << 10];
    let len = stream.read(&mut piece)?;
    if piece[..len].first() == Some(&b's') {
        loop {
            *bytes += stream.write(&piece)? as u64;
        }
    }
    *bytes += len as u64;
    while let Some(len) = stream.read_with(|bytes| (bytes.len(), bytes.len()))? {
        *bytes += len as u64;
    }
    Ok("took")
}

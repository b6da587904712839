//! Uses a port of the console by its name:
//!
//! - `ports echo NAME [CLIENTS]` sends back what comes, until so many clients have come and gone;
//! - `ports count NAME [CLIENTS]` tells each client, at the end of what it sends, how many bytes that was;
//! - `ports say NAME TEXT` sends a text;
//! - `ports size NAME` tells the size of the terminal at the other end, and each new one, until it is
//!   asked to end.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;

use chiton_guest::console::{self, ConsoleError};
use chiton_guest::{env, println, time};

chiton_guest::entry!(main, needs = &[CONSOLE]);

const USAGE: &str = "usage: ports echo NAME [CLIENTS] | count NAME [CLIENTS] | say NAME TEXT | size NAME";

fn main() -> Result<(), String> {
    let mut words = env::args().skip(1);
    let (what, name) = words.next().zip(words.next()).ok_or(USAGE)?;
    let more = words.next();
    let clients = more.and_then(|clients| clients.parse().ok()).unwrap_or(1);
    let done = match what {
        "echo" => echo(name, clients),
        "count" => count(name, clients),
        "say" => console::port(name).and_then(|mut port| port.write(more.unwrap_or_default().as_bytes())),
        "size" => size(name),
        _ => return Err(USAGE.to_string()),
    };
    done.map_err(|error| error.to_string())
}

fn echo(name: &str, clients: u32) -> Result<(), ConsoleError> {
    let mut port = console::port(name)?;
    println!("open");
    let mut buffer = vec![0; 4096];
    let (mut gone, mut bytes) = (0, 0);
    while gone < clients {
        match port.read(&mut buffer)? {
            0 => gone += 1,
            len => {
                bytes += len;
                port.write(&buffer[..len])?;
            }
        }
    }
    println!("{gone} clients, {bytes} bytes");
    Ok(())
}

fn count(name: &str, clients: u32) -> Result<(), ConsoleError> {
    let mut port = console::port(name)?;
    println!("open");
    let mut buffer = vec![0; 4096];
    let (mut ended, mut all, mut bytes) = (0, 0, 0);
    while ended < clients {
        match port.read(&mut buffer)? {
            0 => {
                port.write(format!("{bytes} bytes\n").as_bytes())?;
                ended += 1;
                all += core::mem::take(&mut bytes);
            }
            len => bytes += len,
        }
    }
    println!("{ended} clients, {all} bytes");
    Ok(())
}

fn size(name: &str) -> Result<(), ConsoleError> {
    let port = console::port(name)?;
    let mut last = (0, 0);
    while !env::stop_requested() {
        let size = port.size()?;
        if size != last {
            last = size;
            println!("{}x{}", size.0, size.1);
        }
        if !port.arm()? {
            time::wait(None);
        }
    }
    Ok(())
}

//! A web server: `httpd [PORT [FOLDER]]`. It serves the files below a folder of the guest's, such as one that the host
//! gives it with `--folder`, or without one those in `src/files`; its status; and `/bytes/N`: N bytes, for measuring. It ends when the host asks it to (`chiton stop`).
#![no_std]
#![no_main]

extern crate alloc;

mod connection;
mod folder;
mod request;

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};

use chiton_guest::net::{self, Options, TcpListener};
use chiton_guest::{console, env, heap, println, time};
use connection::Connection;

chiton_guest::entry!(main, heap = 12 * MIB, needs = &[NET]);

/// The most connections at a time; who comes later waits.
const CONNECTIONS: usize = 256;

/// Requests are short and answers are long. The heap has room for all connections there can be, those
/// that wait included.
const OPTIONS: Options = Options {
    backlog: 8,
    waiting: 200,
    receive: 4 << 10,
    send: 16 << 10,
};

/// What there is to serve.
static FILES: &[(&str, &str, &[u8])] = &[("/", "text/html", include_bytes!("files/index.html").as_slice())];

/// What is counted.
#[derive(Default)]
struct Counts {
    connections: u64,
    requests: u64,
    open: usize,
}

fn main() -> Result<(), String> {
    let port = env::args().nth(1).unwrap_or("80");
    let port = port
        .parse()
        .map_err(|_| format!("usage: httpd [PORT [FOLDER]], where a port is not `{port}`"))?;
    serve(port, env::args().nth(2)).map_err(|error| format!("{error}"))
}

fn serve(port: u16, folder: Option<&str>) -> Result<(), net::NetError> {
    let listener = TcpListener::bind_with(port, OPTIONS)?;
    println!("http://{}:{port}/", net::address()?.0);
    let _ = console::flush();
    let mut counts = Counts::default();
    let mut connections: Vec<Connection> = vec![];
    while !env::stop_requested() {
        while connections.len() < CONNECTIONS
            && let Some(stream) = listener.try_accept()?
        {
            counts.connections += 1;
            connections.push(Connection::new(stream));
        }
        counts.open = connections.len();
        connections.retain_mut(|connection| connection.go_on(|path| answer(path, folder, &mut counts)));
        if connections.len() == counts.open || connections.is_empty() {
            net::wait(connections.iter().map(Connection::deadline).min())?;
        }
    }
    println!(
        "httpd: {} requests of {} connections",
        counts.requests, counts.connections
    );
    Ok(())
}

/// The answer to a request for `path`: status, type and bytes.
fn answer(path: &str, folder: Option<&str>, counts: &mut Counts) -> (&'static str, &'static str, connection::Body) {
    use connection::Body;
    counts.requests += 1;
    if path == "/status" {
        return ("200 OK", "text/plain", Body::Owned(status(counts).into_bytes()));
    }
    if let Some(Ok(count)) = path.strip_prefix("/bytes/").map(str::parse) {
        return ("200 OK", "application/octet-stream", Body::Pattern(count));
    }
    if let Some(folder) = folder {
        return folder::answer(folder, path);
    }
    match FILES.iter().find(|(name, ..)| *name == path) {
        Some((_, kind, bytes)) => ("200 OK", kind, Body::Static(bytes)),
        None => ("404 Not Found", "text/plain", Body::Static(b"there is no such file\n")),
    }
}

fn status(counts: &Counts) -> String {
    let Counts {
        connections,
        requests,
        open,
    } = counts;
    let used = heap::usage().map_or(0, |usage| usage.used >> 10);
    let exits = net::exits().unwrap_or_default();
    format!(
        "uptime {} s\nrequests {requests}\nconnections {connections}, open {open}\nheap {used} KiB in use\nkicks {}\n",
        time::uptime().as_secs(),
        exits.kicks
    )
}

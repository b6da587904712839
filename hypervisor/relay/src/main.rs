//! The other end of a bare machine's line: `chiton-relay [DEVICE] --vsock PATH --net tap=NAME`.
//!
//! A machine without an operating system has a serial line, and this program, at its other end, the
//! sockets and the network that it lacks: the same Unix sockets and TAP device, by the same code, that
//! `chiton run` gives a guest under KVM. What is said on the line is in `chiton_bare::line`.
//!
//! ```text
//!   serial line ─▶ Far ─▶ UnixSockets (chiton-kvm)
//!                   └───▶ TAP device  (chiton-kvm)
//! ```
//!
//! - `net`: what stands behind `--net`;
//! - `terminal`: a serial device, made a line that changes no byte;
//! - here: bytes in, bytes out.

mod net;
mod terminal;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chiton_bare::line::Far;
use chiton_kvm::arguments::VsockArgument;
use chiton_kvm::{NetOpenError, VsockError};
use clap::Parser;

use net::NetOption;

/// Gives a guest on bare metal sockets and a network, along a serial line.
#[derive(Debug, Parser)]
#[command(name = "chiton-relay")]
struct Options {
    /// The serial device, such as /dev/ttyUSB0; standard input, as a socket, without one.
    device: Option<PathBuf>,
    /// Sockets between host and guest, at this Unix socket; the guest's context ID is N.
    #[arg(long, value_name = "PATH[,cid=N]")]
    vsock: Option<VsockArgument>,
    /// A network interface, whose other end is the TAP device NAME.
    #[arg(short, long, value_name = "tap=NAME[,ip=ADDRESS/PREFIX|dhcp][,gateway=ADDRESS]", value_parser = net::net)]
    net: Option<NetOption>,
}

/// Why there is nothing to relay.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The sockets cannot be made.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// The network cannot be opened.
    #[error(transparent)]
    Net(#[from] NetOpenError),
    /// A descriptor is missing.
    #[error("cannot watch the sockets: {0}")]
    Watch(#[from] chiton_kvm::Error),
    /// The line fails.
    #[error("the line {name} failed: {source}")]
    Line {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chiton-relay: {error}");
            ExitCode::from(125)
        }
    }
}

fn run(options: &Options) -> Result<(), Error> {
    let name = options
        .device
        .as_deref()
        .map_or("on standard input".into(), |path| path.display().to_string());
    let line_error = |source| Error::Line {
        name: name.clone(),
        source,
    };
    // What may be refused is, before anybody hears of this end.
    let net = options.net.as_ref().map(NetOption::open).transpose()?;
    let environment: Vec<_> = net.iter().flat_map(|net| net.environment(0)).collect();
    let mut far = Far::new(&environment);
    if let Some(net) = net {
        far = far.link(net.into_link().map_err(line_error)?);
    }
    let mut file = None;
    if let Some(vsock) = &options.vsock {
        let (sockets, of_socket) = vsock.listen()?.open()?;
        file = of_socket;
        far = far.sockets(vsock.cid, sockets);
    }
    let line = open(options.device.as_deref()).map_err(line_error)?;
    // Whoever started this waits for that: from now on there is somebody to answer.
    println!("ready");
    let relayed = relay(&line, &mut far).map_err(line_error);
    drop(file);
    relayed
}

/// Answers until the line ends.
fn relay(mut line: &File, far: &mut Far) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        // Bochs sends byte by byte, and the kernel holds back what comes behind one that was not acknowledged. What is no
        // connection has no such thing.
        let _ = rustix::net::sockopt::set_tcp_quickack(line, true);
        let len = match line.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // An emulator that is gone has closed its end of the socket.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        };
        for byte in &bytes[..len] {
            match far.take(*byte).map(|answer| line.write_all(answer)) {
                Some(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                answered => answered.transpose()?,
            };
        }
    }
}

/// The line: a serial device, or the socket that is standard input.
fn open(device: Option<&Path>) -> io::Result<File> {
    let Some(path) = device else {
        return rustix::stdio::stdin().try_clone_to_owned().map(File::from);
    };
    let line = OpenOptions::new().read(true).write(true).open(path)?;
    terminal::make_transparent(line.as_fd())?;
    Ok(line)
}

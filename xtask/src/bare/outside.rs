//! What a guest has outside of its machine: `chiton-relay`, at the other end of the second serial port.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    build, command,
    error::{Error, Result},
    paths,
    ui::Task,
};

/// What a guest is to have there.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct OutsideArgs {
    /// Sockets between host and guest, at this Unix socket, as with `chiton run`.
    #[arg(long, value_name = "PATH[,cid=N]")]
    pub(crate) vsock: Option<String>,
    /// A network interface, whose other end is the TAP device NAME, as with `chiton run`.
    #[arg(short, long, value_name = "tap=NAME[,ip=ADDRESS/PREFIX|dhcp][,gateway=ADDRESS]")]
    pub(crate) net: Option<String>,
}

impl OutsideArgs {
    /// Whether it is to have anything.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.vsock.is_some() || self.net.is_some()
    }

    fn arguments(&self) -> impl Iterator<Item = &str> {
        let vsock = self.vsock.iter().flat_map(|vsock| ["--vsock", vsock]);
        vsock.chain(self.net.iter().flat_map(|net| ["--net", net]))
    }
}

/// Arguments of `cargo xtask relay`.
#[derive(Debug, clap::Args)]
pub(crate) struct RelayArgs {
    /// The serial device that the line is at, such as /dev/ttyUSB0.
    device: PathBuf,
    #[command(flatten)]
    outside: OutsideArgs,
}

/// Is the other end of a real machine's line, until somebody ends it; returns its status.
///
/// # Errors
///
/// If it does not build or start.
pub(crate) fn relay(args: &RelayArgs) -> Result<i32> {
    let mut relay = Command::new(Relay::program()?);
    relay.arg(&args.device).args(args.outside.arguments());
    command::status(&mut relay)
}

/// `chiton-relay` at work, at the other end of a line; it dies with this value, and the line stays open as long.
pub(crate) struct Relay {
    child: Child,
    /// Bochs does not outlive a connection that is closed.
    _line: TcpStream,
}

impl Relay {
    /// Builds the program. It has to be there before the machine is, which does not wait for long.
    ///
    /// # Errors
    ///
    /// If it does not build.
    pub(crate) fn program() -> Result<PathBuf> {
        let task = Task::start("building chiton-relay");
        let mut cargo = build::cargo();
        cargo.args(["build", "--package", "chiton-relay"]);
        command::quietly(&task, &mut cargo)?;
        task.done();
        Ok(paths::target().join("debug/chiton-relay"))
    }

    /// Starts it, and waits until it is ready to answer.
    ///
    /// # Errors
    ///
    /// If it refuses what it is told, of which it has said why.
    pub(crate) fn start(program: &Path, line: TcpStream, args: &OutsideArgs) -> Result<Self> {
        let mut relay = Command::new(program);
        let start_error = |source| Error::Start {
            program: program.display().to_string(),
            source,
        };
        let kept = line.try_clone().map_err(start_error)?;
        relay.args(args.arguments());
        relay.stdin(OwnedFd::from(line)).stdout(Stdio::piped());
        command::dies_with_us(&mut relay);
        let mut child = relay.spawn().map_err(start_error)?;
        let mut ready = String::new();
        if let Some(output) = &mut child.stdout {
            BufReader::new(output).read_line(&mut ready).map_err(start_error)?;
        }
        if ready.is_empty() {
            let status = child.wait().map_err(start_error)?;
            return Err(status.code().map_or_else(
                || Error::Command {
                    command: command::shown(&relay),
                    status,
                    output: String::new(),
                },
                Error::Said,
            ));
        }
        Ok(Self { child, _line: kept })
    }

    /// Kills it, as if its machine had been switched off: the line is there, and nobody at it.
    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

//! `chiton attach`: the console of an instance that runs.

use std::error::Error;
use std::io::{Read, Write, stdin, stdout};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use chiton_container::instance::Outputs;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only look: what is typed does not go to the instance.
    #[arg(long)]
    no_stdin: bool,

    /// The instance: a name, an ID, or the beginning of one.
    #[arg(value_name = "INSTANCE")]
    target: String,
}

/// The status is the instance's own.
pub(super) fn run(options: &Options) -> Result<u8, Box<dyn Error>> {
    let instance = super::open()?.find(&options.target)?;
    let status = instance.status()?;
    if !status.is_live() {
        return Err(instance
            .wrong(status, "start it first, or see what it wrote with `chiton logs`")
            .into());
    }
    let mut stream = Outputs::attach(&instance)?;
    if !options.no_stdin {
        let stream = stream.try_clone()?;
        // It ends with the process: nobody waits for a terminal.
        thread::spawn(move || feed(&stream));
    }
    let mut piece = [0; 16 << 10];
    loop {
        let len = stream.read(&mut piece)?;
        if len == 0 {
            break;
        }
        stdout().write_all(&piece[..len])?;
        stdout().flush()?;
    }
    instance.wait()?;
    Ok(super::wait::status_of(&instance)?.unwrap_or(0))
}

fn feed(mut stream: &UnixStream) {
    // Where this fails there is nobody left to tell.
    let _ = std::io::copy(&mut stdin().lock(), &mut stream);
    let _ = stream.shutdown(Shutdown::Write);
}

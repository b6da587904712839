//! In the background: a supervisor of its own, which outlives the command that made it.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};

use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{FAILED, words};

/// What the supervisor says when the instance has begun. Anything else is why it has not.
const BEGUN: u8 = 0;
/// The longest that it says, in bytes.
const LONGEST: u64 = 64 << 10;

/// Why there is no instance in the background, in the supervisor's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

/// Has `supervise` do its work in a process of its own, and calls the function it is given when the instance
/// has begun. This process then goes on.
pub(super) fn run(
    verbose: u8,
    supervise: impl FnOnce(Box<dyn FnOnce()>) -> Result<i32, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: this process has one thread, so that the copy finds no lock taken.
    if let ForkResult::Parent { .. } = unsafe { fork()? } {
        drop(write);
        let mut said = vec![0; 1];
        let mut pipe = File::from(read).take(LONGEST);
        if pipe.read(&mut said)? == 0 {
            return Err(Said("the supervisor died before it had said anything".into()).into());
        }
        if said[0] == BEGUN {
            return Ok(());
        }
        pipe.read_to_end(&mut said)?;
        return Err(Said(String::from_utf8_lossy(&said).into_owned()).into());
    }
    drop(read);
    let mut pipe = File::from(write);
    let result = leave_terminal().map_err(Into::into).and_then(|()| {
        let mut pipe = pipe.try_clone()?;
        supervise(Box::new(move || {
            // Nobody to hear it means that nobody minds.
            let _ = pipe.write_all(&[BEGUN]);
        }))
    });
    match result {
        Ok(code) => std::process::exit(code),
        Err(error) => {
            let said = if verbose > 0 {
                words(error.as_ref())
            } else {
                error.to_string()
            };
            let _ = pipe.write_all(said.as_bytes());
            std::process::exit(FAILED.into());
        }
    }
}

/// A session of its own, and nobody's input and output.
fn leave_terminal() -> io::Result<()> {
    setsid()?;
    let nobody = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nobody)?;
    dup2_stdout(&nobody)?;
    Ok(dup2_stderr(&nobody)?)
}

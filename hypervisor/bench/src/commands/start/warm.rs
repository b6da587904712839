//! Starts that find most of the work done: from a snapshot, from a pool.

use std::{
    io::{Read, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

use chiton_bench::{
    timeline::Waterfall,
    trial::{Result, TrialError, answer, guest},
};
use chiton_kvm::{Guest, Pool, PoolOptions};

use super::variants::{Bed, Way};

/// Another guest, beside the one that is measured.
fn beside(bed: &Bed, name: &str) -> Result<PathBuf> {
    guest(Some(&bed.guest.with_file_name(name)), name)
}

/// The command that goes on from a snapshot, which is taken now if there is none yet.
pub(super) fn from_snapshot(bed: &Bed, words: &[&str]) -> Result<Command> {
    let file = bed.place.path().join("waiting.snap");
    if !file.exists() {
        take(bed, &file)?;
    }
    let mut command = bed.chiton.command(words);
    command.arg("--from").arg(file);
    Ok(command)
}

/// Takes a snapshot of `cat` that has copied a line, and waits for the next.
fn take(bed: &Bed, file: &PathBuf) -> Result<()> {
    let socket = bed.place.path().join("control");
    let mut command = bed.chiton.command(&["run", "--no-jail", "--control"]);
    command.arg(&socket).arg(beside(bed, "cat")?);
    let mut cat = Running::start(command)?;
    cat.echo(b"ready\n")?;
    let mut snapshot = bed.chiton.command(&["snapshot", "--stop"]);
    answer(snapshot.arg(socket).arg(file)).map(drop)
}

/// A guest that runs until this is dropped.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = command.spawn().map_err(TrialError::start(&command))?;
        Ok(Self(child))
    }

    /// Comes back when the guest has copied these bytes.
    fn echo(&mut self, bytes: &[u8]) -> Result<()> {
        let (Some(input), Some(output)) = (&mut self.0.stdin, &mut self.0.stdout) else {
            return Ok(());
        };
        let mut copy = vec![0; bytes.len()];
        input
            .write_all(bytes)
            .and_then(|()| output.read_exact(&mut copy))
            .map_err(TrialError::system("talk with the guest cat"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended if the snapshot was taken.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Calls of a pool in this process.
pub(super) fn pool(bed: &Bed) -> Result<Way> {
    let failed = |error: &dyn std::error::Error| TrialError::Found(format!("there is no warm pool: {error}"));
    let guest = Guest::open(beside(bed, "function")?).map_err(|error| failed(&error))?;
    let options = PoolOptions {
        timed: true,
        ..PoolOptions::default()
    };
    let pool = Pool::new(guest, options).map_err(|error| failed(&error))?;
    Ok(Box::new(move |_| {
        let began = Instant::now();
        let reply = pool.call(b"count").map_err(|error| failed(&error))?;
        let whole = began.elapsed();
        // It counts its calls: what is not the first was not put back.
        if reply.bytes != b"1" {
            return Err(TrialError::Found(format!(
                "a call found what another had left: {:?}",
                String::from_utf8_lossy(&reply.bytes)
            )));
        }
        let phases = reply.phases.unwrap_or_default();
        let parts = [
            ("request in", phases.request),
            ("run", phases.run),
            ("reply out", phases.reply),
            ("reset", phases.reset),
        ];
        let rest = parts.iter().fold(whole, |rest, (_, took)| rest.saturating_sub(*took));
        let parts = parts.into_iter().chain([("pool", rest)]);
        let phases = parts.map(|(name, took)| (name.to_owned(), u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)));
        Ok(Waterfall {
            phases: phases.collect(),
        })
    }))
}

//! What comes over the network: one at a time, and asked for again if it does not come.

use std::{
    fs::{self, File},
    process::Command,
    thread,
    time::Duration,
};

use crate::{
    command,
    error::{Error, Result},
    paths,
    ui::Task,
};

/// How long to wait before each of the other tries, in seconds.
const PAUSES: [u64; 3] = [5, 15, 30];

/// Does something while no other step or task does anything of the kind: neither apt nor rustup nor pip is made for two
/// at once. Whoever waited looks again whether it is still to be done.
///
/// # Errors
///
/// If nobody can be kept out, and what `work` says.
pub(crate) fn alone<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let place = paths::target();
    fs::create_dir_all(&place).map_err(Error::file("create", &place))?;
    let path = place.join("fetching");
    let lock = File::create(&path).map_err(Error::file("create", &path))?;
    lock.lock().map_err(Error::file("lock", &path))?;
    work()
}

/// Runs a command that needs the network, as often as it takes within reason, and returns what it printed.
///
/// # Errors
///
/// What the last try ended with.
pub(crate) fn quietly(task: &Task, command: &mut Command) -> Result<String> {
    let mut pauses = PAUSES.into_iter();
    loop {
        match (command::quietly(task, command), pauses.next()) {
            // What cannot be started is not there the next time either.
            (Err(Error::Command { command, status, .. }), Some(pause)) => {
                eprintln!("  `{command}` failed ({status}); again in {pause} s");
                thread::sleep(Duration::from_secs(pause));
            }
            (result, _) => return result,
        }
    }
}

/// `apt-get`, which waits for others that install something just now, as a new machine does on its own.
pub(crate) fn apt_get() -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=5"]);
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_at_a_time_is_there() {
        let inside = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    alone(|| {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    })
                });
            }
        });
    }

    #[test]
    fn what_cannot_be_started_is_not_tried_again() {
        let error = quietly(&Task::silent(), &mut Command::new("no-such-program-here"));
        assert!(matches!(error, Err(Error::Start { .. })), "{error:?}");
    }
}

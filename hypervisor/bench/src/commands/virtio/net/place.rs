//! Network namespaces to measure in. A thread is in each; what it starts is there too, and when
//! thread and programs are gone the kernel takes namespace and interfaces away.

use std::{
    path::PathBuf,
    process::Command,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use rustix::thread::{UnshareFlags, gettid, unshare_unsafe};

use chiton_bench::trial::{Result, TrialError, answer};

use crate::commands::virtio::bench::tool;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace.
pub(in super::super) struct Namespace {
    jobs: SyncSender<Job>,
    path: PathBuf,
}

impl Namespace {
    /// A new one, with its loopback interface up.
    ///
    /// # Errors
    ///
    /// If it cannot be made, which takes root.
    pub(in super::super) fn new() -> Result<Self> {
        let (jobs, to_do) = sync_channel::<Job>(0);
        let (tell, told) = sync_channel(1);
        thread::spawn(move || {
            // SAFETY: no file descriptors are unshared, which alone could surprise other threads.
            let result = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
            let _ = tell.send(result.map(|()| gettid()));
            for job in to_do {
                job();
            }
        });
        let tid = told
            .recv()
            .map_err(|_| TrialError::Missing("the thread of a namespace died".into()))?
            .map_err(|error| TrialError::Missing(format!("no network namespace: {error}; run this as root")))?;
        let path = format!("/proc/{}/task/{tid}/ns/net", std::process::id()).into();
        let namespace = Self { jobs, path };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Where a program finds it.
    pub(super) const fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Does something there. Threads and programs that it starts stay there.
    ///
    /// # Errors
    ///
    /// If the thread of the namespace is gone, after a panic.
    pub(in super::super) fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> Result<R> {
        let (tell, told) = sync_channel(1);
        let job = move || {
            let _ = tell.send(job());
        };
        let died = || TrialError::Missing("the thread of a namespace died".into());
        self.jobs.send(Box::new(job)).map_err(|_| died())?;
        told.recv().map_err(|_| died())
    }

    /// Runs `ip` with these words.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub(in super::super) fn ip(&self, words: &str) -> Result<()> {
        self.asked(words).map(drop)
    }

    /// What `ip` with these words answers.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub(super) fn asked(&self, words: &str) -> Result<String> {
        let mut ip = Command::new(tool("ip", "iproute2")?);
        ip.args(words.split(' '));
        self.run(move || answer(&mut ip))?
    }

    /// How many frames an interface has carried, in both directions.
    ///
    /// # Errors
    ///
    /// If there is no such interface.
    pub(super) fn frames(&self, interface: &str) -> Result<u64> {
        let table = self
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?
            .map_err(TrialError::file("read", "/proc/thread-self/net/dev"))?;
        frames(&table, interface).ok_or_else(|| TrialError::Found(format!("no interface {interface} in:\n{table}")))
    }
}

/// Frames received and sent, from a table as in `/proc/net/dev`.
fn frames(table: &str, interface: &str) -> Option<u64> {
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    Some(fields.get(1)? + fields.get(9)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_both_directions_are_added() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets errs\n    lo: 5 6 0 0 0 0 0 0 5 6 0 0 0 0 0 0\n  \
                     tap0: 100 20 0 0 0 0 0 0 300 4 0 0 0 0 0 0\n";
        assert_eq!(frames(table, "tap0"), Some(24));
        assert_eq!(frames(table, "tap"), None);
    }
}

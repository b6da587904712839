use std::{
    fs,
    ops::{AddAssign, Sub},
    path::Path,
};

use crate::trial::{Result, TrialError};

/// What threads have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Processor time, of user and system, in nanoseconds.
    pub time: u64,
    /// How often one gave up its processor, or had it taken: at most as often it was woken.
    pub switches: u64,
    /// How many there are.
    pub threads: u64,
}

impl Activity {
    /// Of all threads of a process, those among them that are the kernel's.
    ///
    /// # Errors
    ///
    /// If it has ended, or the kernel does not count (`CONFIG_SCHED_INFO`).
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/task");
        let entries = fs::read_dir(&path).map_err(TrialError::file("read", &path))?;
        let mut all = Self::default();
        for entry in entries {
            let folder = entry.map_err(TrialError::file("read", &path))?.path();
            match Self::of_thread(&folder) {
                // It has ended since it was listed, and is no more of the process.
                Err(_) if !folder.exists() => {}
                activity => all += activity?,
            }
        }
        Ok(all)
    }

    fn of_thread(folder: &Path) -> Result<Self> {
        let read = |name| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(TrialError::file("read", path))
        };
        let found = || TrialError::Found(format!("{} does not say what the thread did", folder.display()));
        Ok(Self {
            time: time(&read("schedstat")?).ok_or_else(found)?,
            switches: switches(&read("status")?).ok_or_else(found)?,
            threads: 1,
        })
    }
}

/// The first number of `schedstat`: time on a processor, in nanoseconds (Linux, `Documentation/scheduler/sched-stats.rst`).
fn time(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

fn switches(status: &str) -> Option<u64> {
    let of = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line?.trim().parse().ok()
    };
    of("voluntary_ctxt_switches:")?.checked_add(of("nonvoluntary_ctxt_switches:")?)
}

impl AddAssign for Activity {
    fn add_assign(&mut self, other: Self) {
        self.time += other.time;
        self.switches += other.switches;
        self.threads += other.threads;
    }
}

impl Sub for Activity {
    type Output = Self;

    /// What was done since; of threads, as many as there are now.
    fn sub(self, before: Self) -> Self {
        Self {
            time: self.time.saturating_sub(before.time),
            switches: self.switches.saturating_sub(before.switches),
            threads: self.threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use super::*;

    #[test]
    fn time_and_switches_are_read_of_each_thread() {
        assert_eq!(time("1200 64832 1\n"), Some(1200));
        assert_eq!(time(""), None);
        assert_eq!(
            switches("Threads:\t1\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n"),
            Some(9)
        );
        assert_eq!(switches("voluntary_ctxt_switches:\t7\n"), None);
    }

    #[test]
    fn a_thread_that_works_is_seen_to() {
        let mut working = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let before = Activity::of(working.id()).unwrap();
        let done = (0..60_000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            let done = Activity::of(working.id()).unwrap() - before;
            (done.time > 100_000).then_some(done)
        });
        working.kill().unwrap();
        working.wait().unwrap();
        assert_eq!(done.unwrap().threads, 1);
    }

    #[test]
    fn threads_may_end_while_they_are_looked_at() {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::thread::spawn(|| {}).join().unwrap();
                }
            });
            let looks: Vec<_> = (0..500).map(|_| Activity::of(std::process::id())).collect();
            over.store(true, Ordering::Relaxed);
            assert!(looks.iter().all(Result::is_ok), "{looks:?}");
        });
    }
}

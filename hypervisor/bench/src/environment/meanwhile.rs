use std::path::Path;

use crate::run::{Disturbed, Samples};

/// What disturbs a measurement while it is made: begun before, asked after.
///
/// Both figures are of the kernel: `steal` of all processors together, from `/proc/stat`, which counts
/// hundredths of a second; migrations of the calling thread, from `/proc/thread-self/sched`.
/// A kernel that does not say leaves them absent.
#[derive(Clone, Copy, Debug)]
pub struct Meanwhile {
    steal: Option<u64>,
    migrations: Option<u64>,
}

impl Meanwhile {
    /// Begins to watch. Migrations are those of the thread that calls this.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            steal: steal(),
            migrations: migrations(),
        }
    }

    /// Tells the samples what happened since [`Meanwhile::begin`], which the same thread called.
    pub fn end(self, samples: &mut Samples) {
        samples.disturbed(self.so_far());
    }

    /// Steal and migrations since [`Meanwhile::begin`], which the same thread called.
    #[must_use]
    pub fn so_far(&self) -> Disturbed {
        let since = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Disturbed {
            steal: since(steal(), self.steal),
            migrations: since(migrations(), self.migrations),
        }
    }
}

/// Time that the processors waited for the host, in nanoseconds.
fn steal() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks = stolen(&text)?;
    ticks.checked_mul(1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// The eighth number of the line `cpu`, proc_stat(5).
fn stolen(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    line.split_whitespace().nth(7)?.parse().ok()
}

fn migrations() -> Option<u64> {
    migrated(&std::fs::read_to_string(Path::new("/proc/thread-self/sched")).ok()?)
}

fn migrated(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("se.nr_migrations"))?;
    line.split_once(':')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_number() {
        let text = "cpu  1 2 3 4 5 6 7 42 9 0\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(stolen(text), Some(42));
        assert_eq!(stolen("cpu  1 2 3\n"), None);
    }

    #[test]
    fn migrations_are_read_and_not_guessed() {
        let text = "cat (1, #threads: 1)\nse.nr_migrations                             :                    3\n";
        assert_eq!(migrated(text), Some(3));
        assert_eq!(migrated("nothing of the kind"), None);
    }

    #[test]
    fn a_thread_that_is_moved_is_counted_where_the_kernel_counts() {
        let Some(before) = migrations() else { return };
        let all = rustix::thread::sched_getaffinity(None).unwrap();
        let here: Vec<_> = (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|cpu| all.is_set(*cpu))
            .collect();
        for cpu in here.iter().cycle().take(4) {
            let mut one = rustix::thread::CpuSet::new();
            one.set(*cpu);
            rustix::thread::sched_setaffinity(None, &one).unwrap();
        }
        rustix::thread::sched_setaffinity(None, &all).unwrap();
        let moved = migrations().unwrap() - before;
        assert!(here.len() < 2 || moved >= 2, "{moved} on {here:?}");
    }
}

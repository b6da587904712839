//! Reads the accounts of a cgroup, each from the hierarchy that keeps it.

use super::{Pressures, Stats};
use crate::cgroup::controller::{Controller, Version};
use crate::cgroup::error::Result;
use crate::cgroup::group::Cgroup;
use crate::cgroup::{v1, v2};

impl Cgroup {
    /// What it has used until now.
    pub fn stats(&self) -> Result<Stats> {
        let unified = self.unified();
        let of = |controller| {
            self.branch(controller)
                .map(|branch| (branch.version, branch.path.as_path()))
        };
        let on_v1 = |controller| match of(controller) {
            Some((Version::V1, path)) => Some(path),
            _ => None,
        };
        let cpu = match (on_v1(Controller::Cpuacct), unified) {
            // A hybrid host's v2 tree counts processor time too, but not throttling.
            (Some(cpuacct), _) => v1::stats::cpu(Some(cpuacct), on_v1(Controller::Cpu))?,
            (None, Some(directory)) => v2::stats::cpu(directory)?,
            (None, None) => None,
        };
        let memory = match of(Controller::Memory) {
            Some((Version::V1, path)) => v1::stats::memory(path)?,
            Some((Version::V2, path)) => v2::stats::memory(path)?,
            None => None,
        };
        let io = match of(Controller::Io) {
            Some((Version::V1, path)) => v1::stats::io(path)?,
            Some((Version::V2, path)) => v2::stats::io(path)?,
            None => None,
        };
        let pids = match of(Controller::Pids) {
            Some((_, path)) => v2::stats::pids(path)?,
            None => None,
        };
        let pressure = Pressures::read(unified.filter(|directory| directory.join("cpu.pressure").exists()))?;
        Ok(Stats {
            cpu,
            memory,
            io,
            pids,
            pressure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cpu, Io};
    use crate::cgroup::file::fixture;
    use crate::cgroup::{v1, v2};

    #[test]
    fn v2_accounts_are_read_from_its_files() {
        let directory = fixture(
            "v2-stats",
            &[
                (
                    "cpu.stat",
                    "usage_usec 12345678\nuser_usec 10000000\nsystem_usec 2345678\nnr_periods 1234\nnr_throttled 56\nthrottled_usec 789012\n",
                ),
                ("memory.current", "157286400\n"),
                ("memory.peak", "209715200\n"),
                ("memory.max", "max\n"),
                ("memory.swap.current", "0\n"),
                ("memory.swap.max", "1048576\n"),
                (
                    "memory.stat",
                    "anon 104857600\nfile 52428800\nkernel 131072\nshmem 0\nfile_mapped 16777216\n",
                ),
                (
                    "memory.events",
                    "low 1\nhigh 12\nmax 3\noom 2\noom_kill 5\noom_group_kill 1\n",
                ),
                (
                    "io.stat",
                    "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:0 \n",
                ),
                ("pids.current", "3\n"),
                ("pids.max", "64\n"),
                ("pids.events", "max 7\n"),
            ],
        );
        let cpu = v2::stats::cpu(&directory).unwrap().unwrap();
        assert_eq!(
            (cpu.usage_usec, cpu.nr_throttled, cpu.throttled_usec),
            (12_345_678, Some(56), Some(789_012))
        );
        let memory = v2::stats::memory(&directory).unwrap().unwrap();
        assert_eq!(
            (memory.current, memory.peak, memory.max),
            (157_286_400, Some(209_715_200), None)
        );
        assert_eq!((memory.swap, memory.swap_max), (Some(0), Some(1_048_576)));
        assert_eq!(
            (memory.anon, memory.kernel, memory.pgfault),
            (Some(104_857_600), Some(131_072), None)
        );
        let events = memory.events;
        assert_eq!((events.low, events.high, events.max), (Some(1), Some(12), Some(3)));
        assert_eq!(
            (events.oom, events.oom_kill, events.oom_group_kill),
            (Some(2), Some(5), Some(1))
        );
        let expected = Io {
            device: "254:0".into(),
            rbytes: 4096,
            wbytes: 8192,
            rios: 1,
            wios: 2,
        };
        // A device that did nothing has an empty line.
        assert_eq!(v2::stats::io(&directory).unwrap().unwrap(), [expected]);
        let pids = v2::stats::pids(&directory).unwrap().unwrap();
        assert_eq!(
            (pids.current, pids.peak, pids.max, pids.refused),
            (3, None, Some(64), Some(7))
        );
    }

    #[test]
    fn v1_accounts_are_read_from_its_files_in_the_same_units() {
        let directory = fixture(
            "v1-stats",
            &[
                ("cpuacct.usage", "12345678901\n"),
                ("cpuacct.usage_user", "10000000000\n"),
                ("cpuacct.usage_sys", "2345678901\n"),
                ("cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 5000000\n"),
                ("memory.usage_in_bytes", "4096\n"),
                ("memory.max_usage_in_bytes", "8192\n"),
                ("memory.limit_in_bytes", "67108864\n"),
                ("memory.memsw.limit_in_bytes", "68157440\n"),
                ("memory.failcnt", "9\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
                (
                    "memory.stat",
                    "cache 1\nrss 2\ntotal_cache 100\ntotal_rss 200\ntotal_swap 0\n",
                ),
                (
                    "blkio.throttle.io_service_bytes_recursive",
                    "254:0 Read 4096\n254:0 Write 0\n254:0 Total 4096\nTotal 4096\n",
                ),
                (
                    "blkio.throttle.io_serviced_recursive",
                    "254:0 Read 1\n254:0 Write 0\nTotal 1\n",
                ),
            ],
        );
        let cpu = v1::stats::cpu(Some(&directory), Some(&directory)).unwrap().unwrap();
        let expected = Cpu {
            usage_usec: 12_345_678,
            user_usec: 10_000_000,
            system_usec: 2_345_678,
            nr_periods: Some(10),
            nr_throttled: Some(4),
            throttled_usec: Some(5_000),
        };
        assert_eq!(cpu, expected);
        let memory = v1::stats::memory(&directory).unwrap().unwrap();
        assert_eq!((memory.current, memory.peak), (4096, Some(8192)));
        assert_eq!((memory.max, memory.swap_max), (Some(64 << 20), Some(1 << 20)));
        assert_eq!((memory.anon, memory.file, memory.swap), (Some(200), Some(100), Some(0)));
        assert_eq!(
            (memory.events.max, memory.events.oom_kill, memory.events.high),
            (Some(9), Some(2), None)
        );
        let io = v1::stats::io(&directory).unwrap().unwrap();
        assert_eq!((io.len(), io[0].rbytes, io[0].rios, io[0].wbytes), (1, 4096, 1, 0));
    }

    #[test]
    fn a_controller_that_is_not_there_has_no_accounts() {
        let directory = fixture("no-stats", &[("memory.current", "what?\n")]);
        assert_eq!(v2::stats::io(&directory).unwrap(), None);
        assert_eq!(v2::stats::pids(&directory).unwrap(), None);
        let error = v2::stats::memory(&directory).unwrap_err().to_string();
        assert!(error.ends_with("does not read as a number: `what?`"), "{error}");
    }
}

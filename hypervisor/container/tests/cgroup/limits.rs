//! Limits hold, and can be changed while something runs.

use std::time::{Duration, Instant};

use chiton_container::cgroup::{Cgroup, Controller, Error, Limits, Scope};

use crate::bed::{BUSY, on_each, shell, skip, until};
use crate::loop_device::LoopDevice;

#[test]
fn a_quota_throttles_a_busy_loop() {
    on_each(|bed| {
        let limits = Limits {
            cpu_max: Some("0.1".parse().unwrap()),
            cpu_weight: Some("50".parse().unwrap()),
            ..Limits::default()
        };
        let group = bed.group("busy", &limits);
        let mut child = shell(&group, BUSY);
        until("throttling", || {
            let cpu = group.stats().unwrap().cpu.unwrap();
            let enough = cpu.nr_throttled >= Some(3) && cpu.throttled_usec > Some(0) && cpu.usage_usec > 10_000;
            // The kernel may count on while it tells.
            enough && cpu.nr_periods >= cpu.nr_throttled
        });
        group.remove().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn without_a_quota_nothing_is_throttled() {
    on_each(|bed| {
        let group = bed.group("free", &Limits::default());
        let mut child = shell(&group, BUSY);
        until("time", || group.stats().unwrap().cpu.unwrap().usage_usec > 50_000);
        assert_eq!(group.stats().unwrap().cpu.unwrap().nr_throttled.unwrap_or(0), 0);
        group.remove().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn a_limit_of_tasks_refuses_a_fork() {
    on_each(|bed| {
        let limits = Limits {
            pids_max: Some("3".parse().unwrap()),
            ..Limits::default()
        };
        let group = bed.group("few", &limits);
        let mut child = shell(&group, "for i in 1 2 3 4 5 6; do sleep 100 & done; wait");
        until("refusal", || group.stats().unwrap().pids.unwrap().refused > Some(0));
        let pids = group.stats().unwrap().pids.unwrap();
        assert_eq!(pids.max, Some(3));
        assert!(pids.current <= 3, "{pids:?}");
        group.remove().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn a_set_of_processors_can_be_given_later() {
    on_each(|bed| {
        let group = bed.group("set", &Limits::default());
        let mut child = shell(&group, "exec sleep 1000");
        // As another program would: what it makes for that, the maker removes with the rest.
        let mut other = Cgroup::open(&bed.parent, "set").unwrap();
        let limits = Limits {
            cpuset_cpus: Some("0".parse().unwrap()),
            cpuset_mems: Some("0".parse().unwrap()),
            ..Limits::default()
        };
        other.update(&limits).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        assert_eq!(allowed.map(str::trim), Some("0"), "{status}");
        group.remove().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn limits_change_while_it_runs_and_from_another_process() {
    on_each(|bed| {
        let limits = Limits {
            memory_max: Some("64M".parse().unwrap()),
            swap_max: Some("0".parse().unwrap()),
            pids_max: Some("10".parse().unwrap()),
            ..Limits::default()
        };
        let group = bed.group("live", &limits);
        let mut child = shell(&group, "exec sleep 1000");
        let stats = group.stats().unwrap();
        let memory = stats.memory.unwrap();
        assert_eq!((memory.max, memory.swap_max), (Some(64 << 20), Some(0)));
        assert_eq!(stats.pids.unwrap().max, Some(10));

        // As another program would: by name, without holding it.
        let mut other = Cgroup::open(&bed.parent, "live").unwrap();
        for (memory, tasks) in [("128M", "20"), ("32M", "max")] {
            let limits = Limits {
                memory_max: Some(memory.parse().unwrap()),
                pids_max: Some(tasks.parse().unwrap()),
                ..Limits::default()
            };
            other.update(&limits).unwrap();
            let stats = group.stats().unwrap();
            let now = stats.memory.unwrap();
            assert_eq!(now.max.map(|max| format!("{}M", max >> 20)).as_deref(), Some(memory));
            assert_eq!(now.swap_max, Some(0), "swap keeps its limit");
            assert_eq!(stats.pids.unwrap().max, tasks.parse().ok());
        }
        group.remove().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn what_only_v2_has_is_refused_on_v1_and_leaves_nothing() {
    on_each(|bed| {
        let limits = Limits {
            memory_high: Some("32M".parse().unwrap()),
            memory_low: Some("16M".parse().unwrap()),
            memory_min: Some("8M".parse().unwrap()),
            ..Limits::default()
        };
        let made = Cgroup::create(&bed.parent, "high", &limits);
        if bed.on_v2(Controller::Memory) {
            let group = made.unwrap();
            let path = group.paths().next().unwrap();
            let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
            assert_eq!(read("memory.high"), "33554432\n");
            assert_eq!(read("memory.low"), "16777216\n");
            assert_eq!(read("memory.min"), "8388608\n");
            assert_eq!(read("memory.oom.group"), "1\n");
            group.remove().unwrap();
        } else {
            let error = made.unwrap_err();
            assert!(matches!(error, Error::NoCounterpart { .. }), "{error}");
            assert!(
                error.to_string().starts_with("--memory-high exists on cgroup v2 only"),
                "{error}"
            );
        }
        // The bed looks that nothing is left of it.
    });
}

#[test]
fn processors_that_are_not_there_are_refused_and_nothing_is_left() {
    on_each(|bed| {
        let limits = Limits {
            cpuset_cpus: Some("8000".parse().unwrap()),
            ..Limits::default()
        };
        match Cgroup::create(&bed.parent, "none", &limits) {
            // v2 takes any set, and uses what there is of it.
            Ok(group) => group.remove().unwrap(),
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("cannot write `8000` to "), "{error}");
                assert!(error.ends_with("within what the parent cgroup has"), "{error}");
            }
        }
    });
}

/// A disk that can be read past the page cache: a real one, or a loop device over a file.
pub(crate) struct Disk {
    pub(crate) node: String,
    _device: Option<LoopDevice>,
}

impl Disk {
    pub(crate) fn find() -> Option<Self> {
        let nodes = ["/dev/vda", "/dev/sda", "/dev/nvme0n1"];
        if let Some(node) = nodes.into_iter().find(|node| std::fs::File::open(node).is_ok()) {
            return Some(Self {
                node: node.into(),
                _device: None,
            });
        }
        let device = LoopDevice::new(2 << 20)?;
        Some(Self {
            node: device.node.clone(),
            _device: Some(device),
        })
    }
}

#[test]
fn a_rate_of_a_disk_holds_and_is_counted() {
    let Some(disk) = Disk::find() else {
        return skip("no block device can be read here");
    };
    on_each(|bed| {
        let limits = Limits {
            io_max: vec![format!("{}:rbps=1M", disk.node).parse().unwrap()],
            ..Limits::default()
        };
        let group = bed.group("disk", &limits);
        let started = Instant::now();
        let read = format!("dd if={} of=/dev/null bs=65536 count=16 iflag=direct 2>&1", disk.node);
        let output = shell(&group, &read).wait_with_output().unwrap();
        let took = started.elapsed();
        assert!(output.status.success(), "{output:?}");
        // 1 MiB at 1 MiB a second; the kernel lets the first slice of time pass at once.
        assert!(took > Duration::from_millis(600), "{took:?}");
        let io = group.stats().unwrap().io.unwrap();
        let bytes: u64 = io.iter().map(|device| device.rbytes).sum();
        let reads: u64 = io.iter().map(|device| device.rios).sum();
        assert!(bytes >= 1 << 20 && reads >= 1, "{io:?}");
        group.remove().unwrap();
    });
}

#[test]
fn pressure_says_whose_it_is() {
    on_each(|bed| {
        let limits = Limits {
            cpu_max: Some("0.05".parse().unwrap()),
            ..Limits::default()
        };
        let group = bed.group("pressed", &limits);
        let mut child = shell(&group, BUSY);
        let has_v2 = group.fd().is_some();
        let expected = if has_v2 { Scope::Cgroup } else { Scope::Host };
        // On a hybrid host the quota is v1's, and the v2 tree sees the waiting for it all the same.
        until("pressure", || {
            let pressure = group.stats().unwrap().pressure;
            assert_eq!(pressure.scope, expected);
            pressure.cpu.unwrap().some.total > 0
        });
        let pressure = group.stats().unwrap().pressure;
        assert!(pressure.memory.is_some() && pressure.io.is_some(), "{pressure:?}");
        group.remove().unwrap();
        child.wait().unwrap();
    });
}

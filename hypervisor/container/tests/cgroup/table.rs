//! Every limit, as the kernel has it: set, changed while something runs, and taken away again.

use std::path::Path;
use std::time::Duration;

use chiton_container::cgroup::{Cgroup, Controller, Error, IoMax, Limits, Weight};

use crate::bed::{BUSY, on_each, shell, skip, until};
use crate::limits::Disk;

/// A limit, and the file in which the kernel has it.
struct Row {
    controller: Controller,
    limit: fn(&mut Limits, &str),
    v2: &'static str,
    /// Empty: v1 has nothing like it.
    v1: &'static str,
    /// What it is set to first, what it is changed to next, and so on: as its user says it, as v2 does, and v1.
    steps: &'static [(&'static str, &'static str, &'static str)],
}

/// `max` of v1, in bytes: all that whole pages can count.
const ALL: &str = "9223372036854771712";
const M8: &str = "8388608";
const M16: &str = "16777216";
const M24: &str = "25165824";
const M32: &str = "33554432";

/// All but those of block devices.
const TABLE: &[Row] = &[
    Row {
        controller: Controller::Cpu,
        limit: |limits, text| limits.cpu_max = Some(text.parse().unwrap()),
        v2: "cpu.max",
        v1: "cpu.cfs_quota_us",
        steps: &[
            ("0.5", "50000 100000", "50000"),
            ("5000/10000", "5000 10000", "5000"),
            ("max", "max 100000", "-1"),
        ],
    },
    Row {
        controller: Controller::Cpu,
        limit: |limits, text| limits.cpu_weight = Some(text.parse().unwrap()),
        v2: "cpu.weight",
        v1: "cpu.shares",
        steps: &[("50", "50", "512"), ("300", "300", "3072"), ("100", "100", "1024")],
    },
    Row {
        controller: Controller::Cpuset,
        limit: |limits, text| limits.cpuset_cpus = Some(text.parse().unwrap()),
        v2: "cpuset.cpus",
        v1: "cpuset.cpus",
        steps: &[("0", "0", "0"), ("0-1", "0-1", "0-1"), ("1", "1", "1")],
    },
    Row {
        controller: Controller::Cpuset,
        limit: |limits, text| limits.cpuset_mems = Some(text.parse().unwrap()),
        v2: "cpuset.mems",
        v1: "cpuset.mems",
        steps: &[("0", "0", "0")],
    },
    Row {
        controller: Controller::Memory,
        limit: |limits, text| limits.memory_max = Some(text.parse().unwrap()),
        v2: "memory.max",
        v1: "memory.limit_in_bytes",
        steps: &[
            ("16M", M16, M16),
            ("32M", M32, M32),
            ("8M", M8, M8),
            ("max", "max", ALL),
        ],
    },
    Row {
        controller: Controller::Memory,
        limit: |limits, text| limits.memory_high = Some(text.parse().unwrap()),
        v2: "memory.high",
        v1: "",
        steps: &[("16M", M16, ""), ("8M", M8, ""), ("max", "max", "")],
    },
    Row {
        controller: Controller::Memory,
        limit: |limits, text| limits.memory_low = Some(text.parse().unwrap()),
        v2: "memory.low",
        v1: "",
        steps: &[("16M", M16, ""), ("8M", M8, ""), ("0", "0", "")],
    },
    Row {
        controller: Controller::Memory,
        limit: |limits, text| limits.memory_min = Some(text.parse().unwrap()),
        v2: "memory.min",
        v1: "",
        steps: &[("16M", M16, ""), ("8M", M8, ""), ("0", "0", "")],
    },
    Row {
        controller: Controller::Memory,
        limit: |limits, text| limits.memory_reservation = Some(text.parse().unwrap()),
        v2: "memory.low",
        v1: "memory.soft_limit_in_bytes",
        steps: &[("16M", M16, M16), ("8M", M8, M8)],
    },
    // v1 limits memory and swap together, and memory is 16M.
    Row {
        controller: Controller::Memory,
        limit: |limits, text| {
            limits.memory_max = Some("16M".parse().unwrap());
            limits.swap_max = Some(text.parse().unwrap());
        },
        v2: "memory.swap.max",
        v1: "memory.memsw.limit_in_bytes",
        steps: &[("8M", M8, M24), ("0", "0", M16), ("16M", M16, M32), ("max", "max", ALL)],
    },
    Row {
        controller: Controller::Pids,
        limit: |limits, text| limits.pids_max = Some(text.parse().unwrap()),
        v2: "pids.max",
        v1: "pids.max",
        steps: &[("10", "10", "10"), ("20", "20", "20"), ("max", "max", "max")],
    },
];

/// What a file of the group has, in whichever hierarchy it is.
fn find(group: &Cgroup, file: &str) -> Option<String> {
    let text = |path: &Path| std::fs::read_to_string(path.join(file)).ok();
    group.paths().find_map(text)
}

#[test]
fn every_limit_is_set_changed_and_taken_away() {
    on_each(|bed| {
        for row in TABLE {
            let v2 = bed.on_v2(row.controller);
            if bed.host.hierarchy(row.controller).is_none() {
                skip(&format!("there is no controller {}", row.controller));
                continue;
            }
            let limits = |step: &str| {
                let mut limits = Limits::default();
                (row.limit)(&mut limits, step);
                limits
            };
            let made = Cgroup::create(&bed.parent, "row", &limits(row.steps[0].0));
            if !v2 && row.v1.is_empty() {
                assert!(matches!(made.unwrap_err(), Error::NoCounterpart { .. }), "{}", row.v2);
                continue;
            }
            let group = made.unwrap();
            let mut child = shell(&group, "exec sleep 1000");
            // As another program would: by name, without holding it.
            let mut other = Cgroup::open(&bed.parent, "row").unwrap();
            let file = if v2 { row.v2 } else { row.v1 };
            let alone = std::thread::available_parallelism().unwrap().get() == 1;
            for (index, (said, on_v2, on_v1)) in row.steps.iter().enumerate() {
                if alone && row.controller == Controller::Cpuset && said.contains('1') {
                    continue;
                }
                if index > 0 {
                    other.update(&limits(said)).unwrap();
                }
                let expected = if v2 { on_v2 } else { on_v1 };
                let found = find(&other, file).unwrap_or_else(|| panic!("there is no {file}"));
                assert_eq!(found.trim(), *expected, "{file} for {said}");
            }
            group.remove().unwrap();
            child.wait().unwrap();
        }
    });
}

#[test]
fn every_rate_of_a_disk_is_set_changed_and_taken_away() {
    let Some(disk) = Disk::find() else {
        return skip("no block device can be read here");
    };
    let whole: IoMax = format!("{}:rbps=1", disk.node).parse().unwrap();
    let (major, minor) = whole.device.number().unwrap();
    on_each(|bed| {
        let limits = |rates: String| Limits {
            io_max: vec![format!("{major}:{minor}:{rates}").parse().unwrap()],
            ..Limits::default()
        };
        let mut group = bed.group("rates", &Limits::default());
        let keys = ["rbps", "wbps", "riops", "wiops"];
        let files = ["read_bps", "write_bps", "read_iops", "write_iops"];
        for (index, (key, file)) in keys.into_iter().zip(files).enumerate() {
            for value in ["1048576", "2097152", "max"] {
                group.update(&limits(format!("{key}={value}"))).unwrap();
                let mut rates = ["max"; 4];
                rates[index] = value;
                let [a, b, c, d] = rates;
                let (file, all) = if bed.on_v2(Controller::Io) {
                    let line = format!("{major}:{minor} rbps={a} wbps={b} riops={c} wiops={d}");
                    ("io.max".to_owned(), line)
                } else {
                    (
                        format!("blkio.throttle.{file}_device"),
                        format!("{major}:{minor} {value}"),
                    )
                };
                let expected = if value == "max" { "" } else { all.as_str() };
                assert_eq!(
                    find(&group, &file).unwrap().trim(),
                    expected,
                    "{file} for {key}={value}"
                );
            }
        }
        group.remove().unwrap();
    });
}

/// The scheduler that divides by shares, for a device that nobody uses, as long as this lives.
struct Bfq(std::path::PathBuf);

impl Bfq {
    fn choose() -> Option<Self> {
        let device = (0..8)
            .rev()
            .map(|number| format!("/sys/block/loop{number}/queue/scheduler"));
        let this = device.map(|file| Self(file.into())).find(|this| this.0.exists())?;
        std::fs::write(&this.0, "bfq").is_ok().then_some(this)
    }
}

impl Drop for Bfq {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.0, "none");
    }
}

#[test]
fn a_share_of_disks_is_set_and_changed() {
    let Some(_bfq) = Bfq::choose() else {
        return skip("no loop device can have the scheduler BFQ");
    };
    on_each(|bed| {
        let weight = |text: &str| Limits {
            io_weight: Some(text.parse().unwrap()),
            ..Limits::default()
        };
        let mut group = bed.group("share", &weight("50"));
        for text in ["50", "300", "100"] {
            group.update(&weight(text)).unwrap();
            let bfq: Weight = text.parse().unwrap();
            let places = [
                ("io.weight", format!("default {text}")),
                ("io.bfq.weight", format!("default {}", bfq.bfq())),
                ("blkio.weight", bfq.bfq().to_string()),
                ("blkio.bfq.weight", bfq.bfq().to_string()),
            ];
            let found = places.map(|(file, expected)| (find(&group, file), expected));
            let holds = |(found, expected): &(Option<String>, String)| {
                found.as_ref().is_some_and(|found| found.trim() == expected)
            };
            assert!(found.iter().any(holds), "{text}: {found:?}");
        }
        group.remove().unwrap();
    });
}

#[test]
fn shares_of_a_processor_are_what_two_busy_loops_get() {
    on_each(|bed| {
        let limits = |weight: &str| Limits {
            cpu_weight: Some(weight.parse().unwrap()),
            cpuset_cpus: Some("0".parse().unwrap()),
            ..Limits::default()
        };
        let mut light = bed.group("light", &limits("100"));
        let heavy = bed.group("heavy", &limits("300"));
        let mut children = [shell(&light, BUSY), shell(&heavy, BUSY)];
        let used = |group: &Cgroup| group.stats().unwrap().cpu.unwrap().usage_usec as f64;
        until("both", || used(&light) > 1e4 && used(&heavy) > 1e4);
        // The scheduler owes nobody much for long: whatever stood still meanwhile, the shares come out in the end.
        let settle = |light: &Cgroup, shares: std::ops::Range<f64>| {
            let before = (used(light), used(&heavy));
            until(&format!("shares of {shares:?}"), || {
                std::thread::sleep(Duration::from_millis(20));
                let (light, heavy) = (used(light) - before.0, used(&heavy) - before.1);
                light + heavy > 6e5 && shares.contains(&(heavy / light))
            });
        };
        settle(&light, 2.0..4.5);
        light.update(&limits("300")).unwrap();
        settle(&light, 0.6..1.6);
        light.remove().unwrap();
        heavy.remove().unwrap();
        for child in &mut children {
            child.wait().unwrap();
        }
    });
}

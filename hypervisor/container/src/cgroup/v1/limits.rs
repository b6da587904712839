//! Limits as v1 files.

use std::path::Path;

use super::stats::limit;
use crate::cgroup::controller::Controller;
use crate::cgroup::error::{Error, Result};
use crate::cgroup::group::Setting;
use crate::cgroup::limits::{Limits, Size};

const LIMIT: &str = "memory.limit_in_bytes";
const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";

/// What to write for a controller, in order.
pub(in super::super) fn settings(limits: &Limits, controller: Controller, directory: &Path) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let mut set = |limit, file: &str, value: Option<String>| {
        settings.extend(value.map(|value| Setting::new(limit, file, value)));
    };
    match controller {
        Controller::Cpu => {
            if let Some(max) = limits.cpu_max {
                let quota = max.quota.map_or_else(|| "-1".into(), |quota| quota.to_string());
                set("--cpu-max", "cpu.cfs_period_us", Some(max.period.to_string()));
                set("--cpu-max", "cpu.cfs_quota_us", Some(quota));
            }
            set(
                "--cpu-weight",
                "cpu.shares",
                limits.cpu_weight.map(|weight| weight.shares().to_string()),
            );
        }
        Controller::Cpuset => {
            set(
                "--cpuset-cpus",
                "cpuset.cpus",
                limits.cpuset_cpus.as_ref().map(ToString::to_string),
            );
            set(
                "--cpuset-mems",
                "cpuset.mems",
                limits.cpuset_mems.as_ref().map(ToString::to_string),
            );
        }
        Controller::Memory => {
            v2_only(limits)?;
            set(
                "--memory-reservation",
                "memory.soft_limit_in_bytes",
                limits.memory_reservation.map(in_bytes),
            );
            settings.extend(memory_and_swap(limits, directory)?);
        }
        Controller::Io => {
            for limit in &limits.io_max {
                let (major, minor) = limit.device.number()?;
                for (key, rate) in limit.rates() {
                    let file = match key {
                        "rbps" => "blkio.throttle.read_bps_device",
                        "wbps" => "blkio.throttle.write_bps_device",
                        "riops" => "blkio.throttle.read_iops_device",
                        _ => "blkio.throttle.write_iops_device",
                    };
                    // 0 takes a limit away.
                    let value = rate.map(|rate| if rate == u64::MAX { 0 } else { rate });
                    set("--io-max", file, value.map(|rate| format!("{major}:{minor} {rate}")));
                }
            }
            // `blkio.weight` was of the CFQ scheduler, gone since Linux 5.0, and had BFQ's range.
            let file = if directory.join("blkio.weight").exists() {
                "blkio.weight"
            } else {
                "blkio.bfq.weight"
            };
            set(
                "--io-weight",
                file,
                limits.io_weight.map(|weight| weight.bfq().to_string()),
            );
        }
        Controller::Pids => set("--pids-max", "pids.max", limits.pids_max.map(|count| count.to_string())),
        Controller::Cpuacct | Controller::Freezer => {}
    }
    Ok(settings)
}

fn in_bytes(size: Size) -> String {
    match size {
        Size::Max => "-1".into(),
        Size::Bytes(bytes) => bytes.to_string(),
    }
}

/// Refuses what v1 has nothing like.
fn v2_only(limits: &Limits) -> Result<()> {
    let missing = [
        ("--memory-high", limits.memory_high, "use --memory-max, a hard limit"),
        (
            "--memory-low",
            limits.memory_low,
            "use --memory-reservation, a soft limit",
        ),
        (
            "--memory-min",
            limits.memory_min,
            "use --memory-reservation, a soft limit",
        ),
    ];
    match missing.into_iter().find(|(_, size, _)| size.is_some()) {
        Some((limit, _, instead)) => Err(Error::NoCounterpart {
            limit,
            controller: Controller::Memory,
            instead,
        }),
        None => Ok(()),
    }
}

/// v1 limits the sum of memory and swap, where v2 limits swap alone; and at no moment may memory's
/// limit be above the sum's, so the order depends on which way the sum goes.
fn memory_and_swap(limits: &Limits, directory: &Path) -> Result<Vec<Setting>> {
    if limits.memory_max.is_none() && limits.swap_max.is_none() {
        return Ok(Vec::new());
    }
    let size = |bytes: Option<u64>| bytes.map_or(Size::Max, Size::Bytes);
    let old = size(limit(&directory.join(LIMIT))?.flatten());
    let old_sum = size(limit(&directory.join(WITH_SWAP))?.flatten());
    let memory = limits.memory_max.unwrap_or(old);
    let swap = match (limits.swap_max, old, old_sum) {
        (Some(swap), ..) => swap,
        (None, Size::Bytes(memory), Size::Bytes(sum)) => Size::Bytes(sum.saturating_sub(memory)),
        (None, ..) => Size::Max,
    };
    let sum = match (memory, swap) {
        (Size::Bytes(memory), Size::Bytes(swap)) => Size::Bytes(memory.saturating_add(swap)),
        _ => Size::Max,
    };
    let with_swap = Setting::new("--swap-max", WITH_SWAP, in_bytes(sum));
    let alone = Setting::new("--memory-max", LIMIT, in_bytes(memory));
    let changes_sum = limits.swap_max.is_some() || sum != old_sum;
    let raises = match (sum, old_sum) {
        (Size::Bytes(sum), Size::Bytes(old)) => sum > old,
        (Size::Max, _) => true,
        (Size::Bytes(_), Size::Max) => false,
    };
    Ok(match (changes_sum, raises) {
        (false, _) => vec![alone],
        (true, true) => vec![with_swap, alone],
        (true, false) => vec![alone, with_swap],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::file::fixture;

    fn written(limits: &Limits, controller: Controller, directory: &Path) -> Vec<(String, String)> {
        settings(limits, controller, directory)
            .unwrap()
            .into_iter()
            .map(|setting| (setting.file, setting.value))
            .collect()
    }

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.into(), value.into())
    }

    const UNLIMITED: &str = "9223372036854771712\n";

    #[test]
    fn limits_are_written_as_v1_spells_them() {
        let limits = Limits {
            cpu_max: Some("0.5".parse().unwrap()),
            cpu_weight: Some("200".parse().unwrap()),
            io_max: vec!["8:0:rbps=1K,wiops=max".parse().unwrap()],
            io_weight: Some("10000".parse().unwrap()),
            ..Limits::default()
        };
        let nowhere = Path::new("/nonexistent");
        assert_eq!(
            written(&limits, Controller::Cpu, nowhere),
            [
                pair("cpu.cfs_period_us", "100000"),
                pair("cpu.cfs_quota_us", "50000"),
                pair("cpu.shares", "2048")
            ]
        );
        assert_eq!(
            written(&limits, Controller::Io, nowhere),
            [
                pair("blkio.throttle.read_bps_device", "8:0 1024"),
                pair("blkio.throttle.write_iops_device", "8:0 0"),
                pair("blkio.bfq.weight", "1000")
            ]
        );
    }

    #[test]
    fn memory_alone_leaves_unlimited_swap_alone() {
        let directory = fixture("v1-alone", &[(LIMIT, UNLIMITED), (WITH_SWAP, UNLIMITED)]);
        let limits = Limits {
            memory_max: Some("64M".parse().unwrap()),
            ..Limits::default()
        };
        assert_eq!(
            written(&limits, Controller::Memory, &directory),
            [pair(LIMIT, "67108864")]
        );
    }

    #[test]
    fn a_falling_sum_is_written_after_memory() {
        let directory = fixture("v1-falls", &[(LIMIT, UNLIMITED), (WITH_SWAP, UNLIMITED)]);
        let limits = Limits {
            memory_max: Some("64M".parse().unwrap()),
            swap_max: Some("1M".parse().unwrap()),
            ..Limits::default()
        };
        assert_eq!(
            written(&limits, Controller::Memory, &directory),
            [pair(LIMIT, "67108864"), pair(WITH_SWAP, "68157440")]
        );
    }

    #[test]
    fn a_rising_sum_is_written_before_memory_and_keeps_the_swap() {
        let directory = fixture("v1-rises", &[(LIMIT, "67108864\n"), (WITH_SWAP, "68157440\n")]);
        let limits = Limits {
            memory_max: Some("128M".parse().unwrap()),
            ..Limits::default()
        };
        assert_eq!(
            written(&limits, Controller::Memory, &directory),
            [pair(WITH_SWAP, "135266304"), pair(LIMIT, "134217728")]
        );
    }

    #[test]
    fn what_only_v2_has_is_refused() {
        for (limits, option) in [
            (
                Limits {
                    memory_high: Some(Size::Max),
                    ..Limits::default()
                },
                "--memory-high",
            ),
            (
                Limits {
                    memory_low: Some(Size::Max),
                    ..Limits::default()
                },
                "--memory-low",
            ),
            (
                Limits {
                    memory_min: Some(Size::Max),
                    ..Limits::default()
                },
                "--memory-min",
            ),
        ] {
            let error = settings(&limits, Controller::Memory, Path::new("/nonexistent")).unwrap_err();
            let error = error.to_string();
            assert!(
                error.starts_with(&format!("{option} exists on cgroup v2 only")),
                "{error}"
            );
        }
    }
}

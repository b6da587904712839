//! Limits as v2 files.

use std::path::Path;

use crate::cgroup::controller::Controller;
use crate::cgroup::error::Result;
use crate::cgroup::group::Setting;
use crate::cgroup::limits::{CpuMax, Limits, Size};

/// What to write for a controller, in order.
pub(in super::super) fn settings(limits: &Limits, controller: Controller, directory: &Path) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let mut set = |limit, file: &str, value: Option<String>| {
        settings.extend(value.map(|value| Setting::new(limit, file, value)));
    };
    match controller {
        Controller::Cpu => {
            set("--cpu-max", "cpu.max", limits.cpu_max.map(cpu_max));
            set(
                "--cpu-weight",
                "cpu.weight",
                limits.cpu_weight.map(|weight| weight.get().to_string()),
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
            let bytes = |size: Option<Size>| size.map(in_bytes);
            set("--memory-min", "memory.min", bytes(limits.memory_min));
            set("--memory-low", "memory.low", bytes(limits.memory_low));
            set("--memory-reservation", "memory.low", bytes(limits.memory_reservation));
            set("--memory-high", "memory.high", bytes(limits.memory_high));
            set("--memory-max", "memory.max", bytes(limits.memory_max));
            set("--swap-max", "memory.swap.max", bytes(limits.swap_max));
        }
        Controller::Io => {
            for limit in &limits.io_max {
                let (major, minor) = limit.device.number()?;
                let rates: String = limit
                    .rates()
                    .into_iter()
                    .filter_map(|(key, rate)| match rate? {
                        u64::MAX => Some(format!(" {key}=max")),
                        rate => Some(format!(" {key}={rate}")),
                    })
                    .collect();
                set("--io-max", "io.max", Some(format!("{major}:{minor}{rates}")));
            }
            // One file of each who may divide a device: io.cost and BFQ.
            if let Some(weight) = limits.io_weight {
                let bfq = directory.join("io.bfq.weight").exists();
                if directory.join("io.weight").exists() || !bfq {
                    set("--io-weight", "io.weight", Some(format!("default {}", weight.get())));
                }
                if bfq {
                    set("--io-weight", "io.bfq.weight", Some(weight.bfq().to_string()));
                }
            }
        }
        Controller::Pids => set("--pids-max", "pids.max", limits.pids_max.map(|count| count.to_string())),
        Controller::Cpuacct | Controller::Freezer => {}
    }
    Ok(settings)
}

fn in_bytes(size: Size) -> String {
    match size {
        Size::Max => "max".into(),
        Size::Bytes(bytes) => bytes.to_string(),
    }
}

/// `cpu.max`: quota and period.
fn cpu_max(max: CpuMax) -> String {
    match max.quota {
        Some(quota) => format!("{quota} {}", max.period),
        None => format!("max {}", max.period),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::file::fixture;

    fn written(limits: &Limits, controller: Controller) -> Vec<(String, String)> {
        settings(limits, controller, Path::new("/nonexistent"))
            .unwrap()
            .into_iter()
            .map(|setting| (setting.file, setting.value))
            .collect()
    }

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.into(), value.into())
    }

    #[test]
    fn limits_are_written_as_v2_spells_them() {
        let limits = Limits {
            cpu_max: Some("0.5".parse().unwrap()),
            cpu_weight: Some("200".parse().unwrap()),
            memory_max: Some("64M".parse().unwrap()),
            swap_max: Some("max".parse().unwrap()),
            pids_max: Some("12".parse().unwrap()),
            io_max: vec!["8:0:rbps=1K,wiops=max".parse().unwrap()],
            io_weight: Some("50".parse().unwrap()),
            ..Limits::default()
        };
        assert_eq!(
            written(&limits, Controller::Cpu),
            [pair("cpu.max", "50000 100000"), pair("cpu.weight", "200")]
        );
        assert_eq!(
            written(&limits, Controller::Memory),
            [pair("memory.max", "67108864"), pair("memory.swap.max", "max")]
        );
        assert_eq!(
            written(&limits, Controller::Io),
            [
                pair("io.max", "8:0 rbps=1024 wiops=max"),
                pair("io.weight", "default 50")
            ]
        );
        assert_eq!(written(&limits, Controller::Pids), [pair("pids.max", "12")]);
    }

    #[test]
    fn a_weight_is_written_for_whoever_divides() {
        let limits = Limits {
            io_weight: Some("10000".parse().unwrap()),
            ..Limits::default()
        };
        let weights = [pair("io.weight", "default 10000"), pair("io.bfq.weight", "1000")];
        for files in [&["io.weight", "io.bfq.weight"][..], &["io.weight"], &["io.bfq.weight"]] {
            let directory = fixture("v2-weight", &[]);
            for file in files {
                std::fs::write(directory.join(file), "").unwrap();
            }
            let settings = settings(&limits, Controller::Io, &directory).unwrap();
            let written = settings.into_iter().map(|setting| (setting.file, setting.value));
            let expected = weights.iter().filter(|(file, _)| files.contains(&file.as_str()));
            assert!(written.eq(expected.cloned()), "{files:?}");
        }
    }

    #[test]
    fn no_limit_is_no_write() {
        for controller in Controller::ALL {
            assert_eq!(written(&Limits::default(), controller), []);
        }
    }
}

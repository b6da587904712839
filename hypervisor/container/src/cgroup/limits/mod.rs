//! Limits: what a cgroup may use, as types that read themselves from an option's text.
//!
//! They say what they mean in the terms of cgroup v2; the modules [`v2`](super::v2) and
//! [`v1`](super::v1) say which files they become.

mod cpu;
mod cpuset;
mod io;
mod size;

pub use cpu::{CpuMax, Weight};
pub use cpuset::Set;
pub use io::{Device, IoMax};
pub use size::{Count, Size};

use super::controller::Controller;

/// A limit that cannot be: what was written, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadLimit(pub(super) String);

/// What a cgroup may use. What is none is left as it is: without limit in a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processor time in each period (`--cpu-max`).
    pub cpu_max: Option<CpuMax>,
    /// Share of processor time when others want it too; 1 to 10000, 100 for all that say nothing
    /// (`--cpu-weight`).
    pub cpu_weight: Option<Weight>,
    /// Processors it may run on (`--cpuset-cpus`).
    pub cpuset_cpus: Option<Set>,
    /// Memory nodes it may use (`--cpuset-mems`).
    pub cpuset_mems: Option<Set>,
    /// Memory it can never exceed; beyond it, the OOM killer comes (`--memory-max`).
    pub memory_max: Option<Size>,
    /// Memory beyond which it is slowed and its memory reclaimed; v2 only (`--memory-high`).
    pub memory_high: Option<Size>,
    /// Memory that is not reclaimed while others have unprotected memory; v2 only (`--memory-low`).
    pub memory_low: Option<Size>,
    /// Memory that is never reclaimed; v2 only (`--memory-min`).
    pub memory_min: Option<Size>,
    /// Memory to which it is pushed back when the host is short: `memory.low` on v2, the soft limit
    /// on v1 (`--memory-reservation`).
    pub memory_reservation: Option<Size>,
    /// Swap it can use beside its memory (`--swap-max`). Docker's `--memory-swap` is the sum of both: see
    /// [`swap_of_total`](Self::swap_of_total).
    pub swap_max: Option<Size>,
    /// Tasks: processes and threads. KVM adds a kernel task of its own to the process that runs a
    /// machine; it counts (`--pids-max`).
    pub pids_max: Option<Count>,
    /// Rates of block devices (`--io-max`).
    pub io_max: Vec<IoMax>,
    /// Share of block devices when others want them too; 1 to 10000 (`--io-weight`).
    pub io_weight: Option<Weight>,
}

impl Limits {
    /// The swap that is left of docker's `--memory-swap`, the sum of memory and swap.
    pub fn swap_of_total(memory: Option<Size>, total: Size) -> Result<Size, BadLimit> {
        match (memory, total) {
            (_, Size::Max) => Ok(Size::Max),
            (Some(Size::Bytes(memory)), Size::Bytes(total)) => {
                total.checked_sub(memory).map(Size::Bytes).ok_or_else(|| {
                    BadLimit(format!(
                        "--memory-swap is the sum of memory and swap: {} is less than --memory-max {}",
                        Size::Bytes(total),
                        Size::Bytes(memory)
                    ))
                })
            }
            (None | Some(Size::Max), Size::Bytes(_)) => Err(BadLimit(
                "--memory-swap is the sum of memory and swap: it needs --memory-max too".into(),
            )),
        }
    }

    /// Refuses limits that contradict each other.
    pub fn check(&self) -> Result<(), BadLimit> {
        if self.memory_low.is_some() && self.memory_reservation.is_some() {
            return Err(BadLimit(
                "--memory-low and --memory-reservation are the same limit on cgroup v2: give one of them".into(),
            ));
        }
        let order = [
            ("--memory-min", self.memory_min),
            ("--memory-low", self.memory_low),
            ("--memory-reservation", self.memory_reservation),
            ("--memory-high", self.memory_high),
        ];
        let bytes = |size: Option<Size>| match size {
            Some(Size::Bytes(bytes)) => Some(bytes),
            _ => None,
        };
        let max = bytes(self.memory_max);
        for (name, size) in order {
            if let (Some(bytes), Some(max)) = (bytes(size), max)
                && bytes > max
            {
                return Err(BadLimit(format!(
                    "{name} {} is more than --memory-max {}, which ends the cgroup's growth first",
                    Size::Bytes(bytes),
                    Size::Bytes(max)
                )));
            }
        }
        for (index, limit) in self.io_max.iter().enumerate() {
            if self.io_max[..index].iter().any(|other| other.device == limit.device) {
                return Err(BadLimit(format!(
                    "--io-max names {} twice: write its rates in one, as DEV:rbps=1M,wbps=1M",
                    limit.device
                )));
            }
        }
        Ok(())
    }

    /// The controllers these limits need, each with the option that needs it.
    pub(super) fn needs(&self) -> Vec<(Controller, &'static str)> {
        let memory = |limit: Option<Size>| limit.is_some();
        [
            (Controller::Cpu, "--cpu-max", self.cpu_max.is_some()),
            (Controller::Cpu, "--cpu-weight", self.cpu_weight.is_some()),
            (Controller::Cpuset, "--cpuset-cpus", self.cpuset_cpus.is_some()),
            (Controller::Cpuset, "--cpuset-mems", self.cpuset_mems.is_some()),
            (Controller::Memory, "--memory-max", memory(self.memory_max)),
            (Controller::Memory, "--memory-high", memory(self.memory_high)),
            (Controller::Memory, "--memory-low", memory(self.memory_low)),
            (Controller::Memory, "--memory-min", memory(self.memory_min)),
            (
                Controller::Memory,
                "--memory-reservation",
                memory(self.memory_reservation),
            ),
            (Controller::Memory, "--swap-max", memory(self.swap_max)),
            (Controller::Pids, "--pids-max", self.pids_max.is_some()),
            (Controller::Io, "--io-max", !self.io_max.is_empty()),
            (Controller::Io, "--io-weight", self.io_weight.is_some()),
        ]
        .into_iter()
        .filter_map(|(controller, limit, wanted)| wanted.then_some((controller, limit)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Option<Size> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn swap_is_what_is_left_of_the_sum() {
        assert_eq!(
            Limits::swap_of_total(size("64M"), Size::Bytes(96 << 20)),
            Ok(Size::Bytes(32 << 20))
        );
        assert_eq!(
            Limits::swap_of_total(size("64M"), Size::Bytes(64 << 20)),
            Ok(Size::Bytes(0))
        );
        assert_eq!(Limits::swap_of_total(None, Size::Max), Ok(Size::Max));
    }

    #[test]
    fn a_sum_less_than_its_part_is_refused() {
        let error = Limits::swap_of_total(size("64M"), Size::Bytes(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--memory-swap is the sum of memory and swap: 1 is less than --memory-max 64M"
        );
        let error = Limits::swap_of_total(None, Size::Bytes(1)).unwrap_err();
        assert!(error.to_string().ends_with("it needs --memory-max too"), "{error}");
    }

    #[test]
    fn a_limit_that_is_never_reached_is_refused() {
        let limits = Limits {
            memory_max: size("64M"),
            memory_high: size("65M"),
            ..Limits::default()
        };
        let error = limits.check().unwrap_err().to_string();
        assert!(
            error.starts_with("--memory-high 65M is more than --memory-max 64M"),
            "{error}"
        );
    }

    #[test]
    fn two_rates_of_one_device_are_refused() {
        let limits = Limits {
            io_max: vec!["8:0:rbps=1".parse().unwrap(), "8:0:wbps=1".parse().unwrap()],
            ..Limits::default()
        };
        assert!(limits.check().unwrap_err().to_string().contains("names 8:0 twice"));
    }
}

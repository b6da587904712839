//! The limits that hold, as the kernel has them.

use std::path::PathBuf;

use serde::Serialize;

use super::controller::{Controller, Version};
use super::error::Result;
use super::file;
use super::group::Cgroup;

/// A limit as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// What it limits: the name of the v2 file with `_` for the dot, as those of [`Limits`](super::Limits).
    #[serde(skip)]
    pub name: &'static str,
    /// The file that says it.
    pub file: PathBuf,
    /// What is in the file.
    pub value: String,
}

/// Name and file of each limit of a controller.
fn files(controller: Controller, version: Version) -> &'static [(&'static str, &'static str)] {
    use Version::{V1, V2};
    match (controller, version) {
        (Controller::Cpu, V1) => &[
            ("cpu_max", "cpu.cfs_quota_us"),
            ("cpu_period", "cpu.cfs_period_us"),
            ("cpu_weight", "cpu.shares"),
        ],
        (Controller::Cpu, V2) => &[("cpu_max", "cpu.max"), ("cpu_weight", "cpu.weight")],
        (Controller::Cpuset, _) => &[("cpuset_cpus", "cpuset.cpus"), ("cpuset_mems", "cpuset.mems")],
        (Controller::Memory, V1) => &[
            ("memory_max", "memory.limit_in_bytes"),
            ("memory_reservation", "memory.soft_limit_in_bytes"),
            ("memory_and_swap_max", "memory.memsw.limit_in_bytes"),
        ],
        (Controller::Memory, V2) => &[
            ("memory_max", "memory.max"),
            ("memory_high", "memory.high"),
            ("memory_low", "memory.low"),
            ("memory_min", "memory.min"),
            ("swap_max", "memory.swap.max"),
        ],
        (Controller::Io, V1) => &[
            ("io_max_rbps", "blkio.throttle.read_bps_device"),
            ("io_max_wbps", "blkio.throttle.write_bps_device"),
            ("io_max_riops", "blkio.throttle.read_iops_device"),
            ("io_max_wiops", "blkio.throttle.write_iops_device"),
            ("io_weight", "blkio.weight"),
            ("io_bfq_weight", "blkio.bfq.weight"),
        ],
        (Controller::Io, V2) => &[
            ("io_max", "io.max"),
            ("io_weight", "io.weight"),
            ("io_bfq_weight", "io.bfq.weight"),
        ],
        (Controller::Pids, _) => &[("pids_max", "pids.max")],
        (Controller::Cpuacct | Controller::Freezer, _) => &[],
    }
}

impl Cgroup {
    /// The limits that hold now, of those that this kernel has.
    pub fn held(&self) -> Result<Vec<Held>> {
        let mut all = Vec::new();
        for controller in Controller::ALL {
            let Some(branch) = self.branch(controller) else {
                continue;
            };
            for (name, file) in files(controller, branch.version) {
                let path = branch.path.join(file);
                if let Some(text) = file::read_optional(&path)? {
                    all.push(Held {
                        name,
                        file: path,
                        value: text.trim_end().to_owned(),
                    });
                }
            }
        }
        Ok(all)
    }
}

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

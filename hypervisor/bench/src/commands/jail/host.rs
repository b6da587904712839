//! What instances could leave behind in the kernel's memory.

use std::{collections::BTreeSet, fs, thread, time::Duration};

use chiton_bench::{
    host::{Memory, processes},
    trial::Result,
};

/// How long the kernel gets to take down what the last instances had.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// What the whole machine has, whoever made it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Host {
    network_namespaces: u64,
    processes: u64,
    slab: u64,
    unreclaimable: u64,
    available: u64,
}

impl Host {
    /// Reads it now.
    ///
    /// # Errors
    ///
    /// If /proc cannot be read.
    pub(super) fn read() -> Result<Self> {
        let memory = Memory::read()?;
        let processes = processes()?;
        let namespaces: BTreeSet<_> = processes
            .iter()
            .filter_map(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok())
            .collect();
        Ok(Self {
            network_namespaces: namespaces.len() as u64,
            processes: processes.len() as u64,
            slab: (memory.slab_reclaimable + memory.slab_unreclaimable) >> 10,
            unreclaimable: memory.slab_unreclaimable >> 10,
            available: memory.available >> 10,
        })
    }

    /// How far each figure moves while nothing is measured.
    ///
    /// # Errors
    ///
    /// If /proc cannot be read.
    pub(super) fn noise() -> Result<[u64; 5]> {
        let mut bounds = [(u64::MAX, 0); 5];
        for _ in 0..10 {
            for ((low, high), (_, now)) in bounds.iter_mut().zip(Self::read()?.figures()) {
                *low = now.min(*low);
                *high = now.max(*high);
            }
            thread::sleep(SETTLE / 10);
        }
        Ok(bounds.map(|(low, high)| high - low))
    }

    /// Memory that nobody can take back but who has it, in kB, at each look: what a leak would make more of.
    pub(super) fn memory(looks: &[Self]) -> [(&'static str, Vec<f64>); 2] {
        let kept = looks.iter().map(|host| host.unreclaimable as f64);
        let taken = looks.iter().map(|host| -(host.available as f64));
        [
            ("the kernel's own (SUnreclaim)", kept.collect()),
            ("all that is not available", taken.collect()),
        ]
    }

    /// Each with its name.
    pub(super) fn figures(self) -> [(&'static str, u64); 5] {
        [
            ("network namespaces", self.network_namespaces),
            ("processes", self.processes),
            ("Slab, kB", self.slab),
            ("  SUnreclaim, kB", self.unreclaimable),
            ("MemAvailable, kB", self.available),
        ]
    }
}

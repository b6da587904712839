use std::fs;

use super::kilobytes;
use crate::trial::{Result, TrialError};

const PATH: &str = "/proc/meminfo";

/// The host's memory, in bytes (Linux, `Documentation/filesystems/proc.rst`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What new programs can have without anything being swapped.
    pub available: u64,
    /// Slab that could be given back: names and inodes of files.
    pub slab_reclaimable: u64,
    /// Slab that cannot.
    pub slab_unreclaimable: u64,
    /// Stacks of threads in the kernel.
    pub kernel_stack: u64,
    /// Page tables of processes.
    pub page_tables: u64,
    /// Page tables of guests.
    pub guest_page_tables: u64,
    /// What each processor has a copy of: counters of network and mount namespaces, of control groups.
    pub per_cpu: u64,
}

impl Memory {
    /// Reads it now.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or does not say how much memory there is.
    pub fn read() -> Result<Self> {
        Self::parse(&fs::read_to_string(PATH).map_err(TrialError::file("read", PATH))?)
    }

    fn parse(text: &str) -> Result<Self> {
        let must = |name| {
            kilobytes(text, name).ok_or_else(|| TrialError::Found(format!("{PATH} does not say what {name} is")))
        };
        // What a kernel does not count is none.
        let may = |name| kilobytes(text, name).unwrap_or(0);
        Ok(Self {
            total: must("MemTotal")?,
            available: must("MemAvailable")?,
            slab_reclaimable: may("SReclaimable"),
            slab_unreclaimable: may("SUnreclaim"),
            kernel_stack: may("KernelStack"),
            page_tables: may("PageTables"),
            guest_page_tables: may("SecPageTables"),
            per_cpu: may("Percpu"),
        })
    }

    /// The kinds of memory of the kernel that are counted one by one, each with its name and what it is.
    #[must_use]
    pub fn kernel(&self) -> [(&'static str, &'static str, u64); 6] {
        [
            (
                "slab, unreclaimable",
                "SUnreclaim: tasks, namespaces, sockets, groups",
                self.slab_unreclaimable,
            ),
            (
                "slab, reclaimable",
                "SReclaimable: names and inodes of files",
                self.slab_reclaimable,
            ),
            ("kernel stacks", "KernelStack: one for each thread", self.kernel_stack),
            ("page tables", "PageTables: of processes", self.page_tables),
            ("guest page tables", "SecPageTables: of guests", self.guest_page_tables),
            (
                "per-processor",
                "Percpu: counters of namespaces and groups",
                self.per_cpu,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_the_whole_names_of_lines() {
        let text =
            "MemTotal:  100 kB\nMemAvailable: 50 kB\nSReclaimable: 7 kB\nSecPageTables: 3 kB\nPageTables: 2 kB\n";
        let memory = Memory::parse(text).unwrap();
        assert_eq!((memory.total, memory.available), (100 << 10, 50 << 10));
        assert_eq!((memory.page_tables, memory.guest_page_tables), (2 << 10, 3 << 10));
        assert_eq!((memory.slab_reclaimable, memory.slab_unreclaimable), (7 << 10, 0));
        assert!(Memory::read().unwrap().total > 1 << 20);
    }

    #[test]
    fn a_file_without_the_memory_there_is_is_refused() {
        for text in [
            "",
            "MemTotal: 1 kB",
            "MemTotal: x kB\nMemAvailable: 1 kB",
            "MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB",
        ] {
            assert!(
                Memory::parse(text)
                    .unwrap_err()
                    .to_string()
                    .starts_with("/proc/meminfo does not say")
            );
        }
    }
}

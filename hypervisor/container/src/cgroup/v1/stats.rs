//! Accounts from v1 files.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cgroup::error::Result;
use crate::cgroup::file::{flat, number, read, read_optional};
use crate::cgroup::stats::{Cpu, Events, Io, Memory};

/// A number, or none where there is no such file.
fn amount(path: &Path) -> Result<Option<u64>> {
    read_optional(path)?.map(|text| number(path, &text)).transpose()
}

/// A limit: none where there is no such file; some none where it is the largest number of pages,
/// which is how v1 says unlimited.
pub(in super::super) fn limit(path: &Path) -> Result<Option<Option<u64>>> {
    Ok(amount(path)?.map(|bytes| (bytes < 1 << 62).then_some(bytes)))
}

/// From the controllers `cpuacct` and `cpu`, which may be in different hierarchies.
pub(in super::super) fn cpu(cpuacct: Option<&Path>, cpu: Option<&Path>) -> Result<Option<Cpu>> {
    let Some(cpuacct) = cpuacct else {
        return Ok(None);
    };
    let nanoseconds = |file: &str| amount(&cpuacct.join(file)).map(|time| time.unwrap_or(0) / 1_000);
    let throttling = match cpu {
        Some(cpu) => read(&cpu.join("cpu.stat"))?,
        None => String::new(),
    };
    Ok(Some(Cpu {
        usage_usec: nanoseconds("cpuacct.usage")?,
        user_usec: nanoseconds("cpuacct.usage_user")?,
        system_usec: nanoseconds("cpuacct.usage_sys")?,
        nr_periods: flat(&throttling, "nr_periods"),
        nr_throttled: flat(&throttling, "nr_throttled"),
        throttled_usec: flat(&throttling, "throttled_time").map(|time| time / 1_000),
    }))
}

pub(in super::super) fn memory(directory: &Path) -> Result<Option<Memory>> {
    let Some(current) = amount(&directory.join("memory.usage_in_bytes"))? else {
        return Ok(None);
    };
    let stat = read(&directory.join("memory.stat"))?;
    // With `total_`: of children too, as v2 counts.
    let field = |key: &str| flat(&stat, &format!("total_{key}"));
    let max = limit(&directory.join("memory.limit_in_bytes"))?.flatten();
    let sum = limit(&directory.join("memory.memsw.limit_in_bytes"))?.flatten();
    let oom = read_optional(&directory.join("memory.oom_control"))?.unwrap_or_default();
    Ok(Some(Memory {
        current,
        peak: amount(&directory.join("memory.max_usage_in_bytes"))?,
        max,
        swap: field("swap"),
        swap_max: sum.zip(max).map(|(sum, max)| sum.saturating_sub(max)),
        anon: field("rss"),
        file: field("cache"),
        kernel: amount(&directory.join("memory.kmem.usage_in_bytes"))?,
        shmem: field("shmem"),
        file_mapped: field("mapped_file"),
        file_dirty: field("dirty"),
        file_writeback: field("writeback"),
        pgfault: field("pgfault"),
        pgmajfault: field("pgmajfault"),
        events: Events {
            max: amount(&directory.join("memory.failcnt"))?,
            oom_kill: flat(&oom, "oom_kill"),
            ..Events::default()
        },
    }))
}

/// `blkio.throttle.io_service_bytes` and `io_serviced`: lines of `MAJ:MIN OPERATION NUMBER`.
pub(in super::super) fn io(directory: &Path) -> Result<Option<Vec<Io>>> {
    let mut devices: BTreeMap<String, Io> = BTreeMap::new();
    let mut found = false;
    for (what, is_bytes) in [("io_service_bytes", true), ("io_serviced", false)] {
        let recursive = read_optional(&directory.join(format!("blkio.throttle.{what}_recursive")))?;
        let text = match recursive {
            Some(text) => Some(text),
            None => read_optional(&directory.join(format!("blkio.throttle.{what}")))?,
        };
        found |= text.is_some();
        for line in text.unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let (Some(device), Some(operation), Some(number)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            let io = devices.entry(device.to_owned()).or_insert_with(|| Io {
                device: device.to_owned(),
                rbytes: 0,
                wbytes: 0,
                rios: 0,
                wios: 0,
            });
            match (operation, is_bytes) {
                ("Read", true) => io.rbytes = number,
                ("Write", true) => io.wbytes = number,
                ("Read", false) => io.rios = number,
                ("Write", false) => io.wios = number,
                _ => {}
            }
        }
    }
    Ok(found.then(|| devices.into_values().collect()))
}

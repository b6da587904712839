//! Accounts from v2 files.

use std::path::Path;

use crate::cgroup::error::Result;
use crate::cgroup::file::{flat, nested, number_or_max, read, read_optional};
use crate::cgroup::stats::{Cpu, Events, Io, Memory, Pids};

/// A number: none where there is no such file, some none where it says `max`.
fn amount(path: &Path) -> Result<Option<Option<u64>>> {
    read_optional(path)?.map(|text| number_or_max(path, &text)).transpose()
}

/// `cpu.stat`; its first three lines are there without the controller too.
pub(in super::super) fn cpu(directory: &Path) -> Result<Option<Cpu>> {
    let text = read(&directory.join("cpu.stat"))?;
    Ok(Some(Cpu {
        usage_usec: flat(&text, "usage_usec").unwrap_or(0),
        user_usec: flat(&text, "user_usec").unwrap_or(0),
        system_usec: flat(&text, "system_usec").unwrap_or(0),
        nr_periods: flat(&text, "nr_periods"),
        nr_throttled: flat(&text, "nr_throttled"),
        throttled_usec: flat(&text, "throttled_usec"),
    }))
}

pub(in super::super) fn memory(directory: &Path) -> Result<Option<Memory>> {
    let amount = |file| amount(&directory.join(file));
    let Some(current) = amount("memory.current")? else {
        return Ok(None);
    };
    let stat = read(&directory.join("memory.stat"))?;
    let field = |key| flat(&stat, key);
    Ok(Some(Memory {
        current: current.unwrap_or(0),
        peak: amount("memory.peak")?.flatten(),
        max: amount("memory.max")?.flatten(),
        swap: amount("memory.swap.current")?.flatten(),
        swap_max: amount("memory.swap.max")?.flatten(),
        anon: field("anon"),
        file: field("file"),
        kernel: field("kernel"),
        shmem: field("shmem"),
        file_mapped: field("file_mapped"),
        file_dirty: field("file_dirty"),
        file_writeback: field("file_writeback"),
        pgfault: field("pgfault"),
        pgmajfault: field("pgmajfault"),
        events: events(&read(&directory.join("memory.events"))?),
    }))
}

/// `memory.events`.
fn events(text: &str) -> Events {
    Events {
        low: flat(text, "low"),
        high: flat(text, "high"),
        max: flat(text, "max"),
        oom: flat(text, "oom"),
        oom_kill: flat(text, "oom_kill"),
        oom_group_kill: flat(text, "oom_group_kill"),
    }
}

/// `io.stat`: `MAJ:MIN rbytes=… wbytes=… rios=… wios=… dbytes=… dios=…`.
pub(in super::super) fn io(directory: &Path) -> Result<Option<Vec<Io>>> {
    let text = read_optional(&directory.join("io.stat"))?;
    Ok(text.map(|text| {
        text.lines()
            .filter_map(|line| {
                Some(Io {
                    device: line.split_once(' ')?.0.to_owned(),
                    rbytes: nested(line, "rbytes")?,
                    wbytes: nested(line, "wbytes")?,
                    rios: nested(line, "rios")?,
                    wios: nested(line, "wios")?,
                })
            })
            .collect()
    }))
}

/// The same files on both.
pub(in super::super) fn pids(directory: &Path) -> Result<Option<Pids>> {
    let amount = |file| amount(&directory.join(file));
    let Some(current) = amount("pids.current")? else {
        return Ok(None);
    };
    let events = read_optional(&directory.join("pids.events"))?;
    Ok(Some(Pids {
        current: current.unwrap_or(0),
        peak: amount("pids.peak")?.flatten(),
        max: amount("pids.max")?.flatten(),
        refused: events.and_then(|text| flat(&text, "max")),
    }))
}

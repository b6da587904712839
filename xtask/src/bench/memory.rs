//! What an idle guest costs the host.

use std::{fs, path::Path, process::Stdio, thread, time::Duration};

use crate::{
    build,
    error::{Error, Result},
};

/// Guest memory of the measured instance; no other mapping has this size.
const GUEST_KB: u64 = 24 << 10;

/// Proportional set size, in kB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Of the whole process.
    pub(super) total: u64,
    /// Of guest memory: pages that the guest or its loader touched.
    pub(super) guest: u64,
}

/// Runs a guest that waits for input, and looks at it.
pub(super) fn of_idle_guest(chiton: &Path, cat: &Path) -> Result<Memory> {
    let mut run = build::without_jail(chiton);
    run.args(["run", "--memory", &format!("{}M", GUEST_KB >> 10)]).arg(cat);
    let child = run
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|source| Error::Start {
        program: chiton.display().to_string(),
        source,
    })?;
    // It is idle long before that.
    thread::sleep(Duration::from_millis(500));
    let path = format!("/proc/{}/smaps", child.id());
    let smaps = fs::read_to_string(&path).map_err(Error::file("read", Path::new(&path)));
    // End of input ends the guest.
    drop(child.stdin.take());
    drop(child.wait());
    let memory = in_smaps(&smaps?);
    if memory.guest == 0 {
        return Err(Error::Found(format!("{path} shows no guest memory of {GUEST_KB} kB")));
    }
    Ok(memory)
}

/// Adds up a process's mappings (Linux, `Documentation/filesystems/proc.rst`).
fn in_smaps(smaps: &str) -> Memory {
    let mut memory = Memory::default();
    let mut size = 0;
    for line in smaps.lines() {
        let kb = || {
            line.split_whitespace()
                .nth(1)
                .and_then(|kb| kb.parse().ok())
                .unwrap_or(0)
        };
        if line.starts_with("Size:") {
            size = kb();
        } else if line.starts_with("Pss:") {
            memory.total += kb();
            if size == GUEST_KB {
                memory.guest += kb();
            }
        }
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_told_by_its_size() {
        let smaps = "7f00-7f01 rw-p\nSize:  24576 kB\nRss: 200 kB\nPss:  180 kB\nPss_Dirty: 9 kB\n\
                     7f02-7f03 r-xp\nSize:  2000 kB\nPss:  700 kB\n";
        assert_eq!(in_smaps(smaps), Memory { total: 880, guest: 180 });
    }
}

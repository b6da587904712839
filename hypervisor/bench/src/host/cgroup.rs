use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::trial::{Result, TrialError};

const TOP: &str = "/sys/fs/cgroup";

/// What is charged to a control group of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// All of it (`memory.current`; v1: `memory.usage_in_bytes`).
    pub all: u64,
    /// Of it, memory of the kernel (`kernel` of `memory.stat`; v1: `memory.kmem.usage_in_bytes`).
    pub kernel: u64,
}

impl Charged {
    /// To the group that a process is in.
    ///
    /// # Errors
    ///
    /// If it has ended, or no hierarchy has a group with the controller for it.
    pub fn to(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/cgroup");
        let groups = fs::read_to_string(&path).map_err(TrialError::file("read", &path))?;
        let of_v1 = group(&groups, |controllers| {
            controllers.split(',').any(|name| name == "memory")
        });
        if let Some(group) = of_v1 {
            let folder = below(&Path::new(TOP).join("memory"), group);
            return Ok(Self {
                all: number(&folder.join("memory.usage_in_bytes"))?,
                kernel: number(&folder.join("memory.kmem.usage_in_bytes"))?,
            });
        }
        let group = group(&groups, str::is_empty)
            .ok_or_else(|| TrialError::Found(format!("{path} names no group of memory")))?;
        let folder = below(Path::new(TOP), group);
        let stat = folder.join("memory.stat");
        let text = fs::read_to_string(&stat).map_err(TrialError::file("read", &stat))?;
        Ok(Self {
            all: number(&folder.join("memory.current"))?,
            kernel: counted(&text, "kernel")
                .ok_or_else(|| TrialError::Found(format!("{} does not count the kernel's", stat.display())))?,
        })
    }
}

/// The path of the hierarchy whose controllers are these (cgroups(7), `/proc/PID/cgroup`).
fn group(groups: &str, is_wanted: impl Fn(&str) -> bool) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut words = line.splitn(3, ':');
        let (_, controllers, path) = (words.next()?, words.next()?, words.next()?);
        is_wanted(controllers).then_some(path)
    })
}

fn below(top: &Path, group: &str) -> PathBuf {
    top.join(group.trim_start_matches('/'))
}

fn number(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).map_err(TrialError::file("read", path))?;
    let number = text.trim().parse().ok();
    number.ok_or_else(|| TrialError::Found(format!("{} is no number: {:?}", path.display(), text.trim())))
}

fn counted(stat: &str, name: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_controller_and_may_have_a_colon() {
        let groups = "9:name=systemd:/\n4:cpu,memory:/chiton/ab:c\n0::/x\n";
        let memory = |controllers: &str| controllers.split(',').any(|name| name == "memory");
        assert_eq!(group(groups, memory), Some("/chiton/ab:c"));
        assert_eq!(group(groups, str::is_empty), Some("/x"));
        assert_eq!(group("1:cpu:/\n", memory), None);
        assert_eq!(below(Path::new("/top"), "/a"), Path::new("/top/a"));
    }

    #[test]
    fn a_count_is_found_by_its_whole_name() {
        assert_eq!(counted("kernel_stack 5\nkernel 7\n", "kernel"), Some(7));
        assert_eq!(counted("kernel_stack 5\n", "kernel"), None);
    }
}

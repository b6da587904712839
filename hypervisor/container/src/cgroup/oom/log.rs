//! What the kernel's log says of the OOM killer.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use super::Victim;
use crate::kernel_log;

/// A killing, as the kernel logged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The cgroup whose limit it was, from the top of the tree; none if it was no limit.
    pub(super) limited: Option<String>,
    /// The cgroup of who was killed.
    pub(super) victims: String,
    pub(super) victim: Victim,
}

/// The kernel's log from now on; none where it may not be read.
pub(super) fn follow() -> Option<File> {
    let mut log = kernel_log::open()?;
    log.seek(SeekFrom::End(0)).ok()?;
    Some(log)
}

/// The killings logged since it was last asked.
pub(super) fn killings(log: &mut File) -> Vec<Record> {
    let mut records = Vec::new();
    kernel_log::each(log, |text| records.extend(parse(text)));
    records
}

/// `oom-kill:constraint=…,nodemask=…,cpuset=…,mems_allowed=…,oom_memcg=…,task_memcg=…,task=…,pid=…,uid=…`.
///
/// The name of a task is its own choice, and may hold commas: what stands before it is read from the
/// front, what stands behind it from the back.
fn parse(text: &str) -> Option<Record> {
    let fields = text.strip_prefix("oom-kill:")?;
    let (front, task) = fields.split_once(",task=")?;
    let value = |key: &str| {
        let (_, value) = front.split_once(key)?;
        // A cgroup's name may hold commas too, though not ours; both paths end where the next key begins.
        Some(
            value
                .split_once(",task_memcg=")
                .map_or(value, |(value, _)| value)
                .to_owned(),
        )
    };
    let (task, _uid) = task.rsplit_once(",uid=")?;
    let (name, pid) = task.rsplit_once(",pid=")?;
    Some(Record {
        limited: value(",oom_memcg="),
        victims: value(",task_memcg=")?,
        victim: Victim {
            pid: pid.parse().ok()?,
            name: name.chars().filter(|c| !c.is_control()).take(64).collect(),
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As it is read from the log.
    fn parse(record: &str) -> Option<Record> {
        super::parse(kernel_log::of_kernel(record)?)
    }

    fn record(name: &str) -> String {
        format!(
            "6,1234,5678,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
             oom_memcg=/chiton/a,task_memcg=/chiton/a/b,task={name},pid=42,uid=0\n SUBSYSTEM=x\n"
        )
    }

    #[test]
    fn a_killing_names_limit_and_victim() {
        let record = parse(&record("hog")).unwrap();
        assert_eq!(record.limited.as_deref(), Some("/chiton/a"));
        assert_eq!(record.victims, "/chiton/a/b");
        assert_eq!((record.victim.pid, record.victim.name.as_str()), (42, "hog"));
    }

    #[test]
    fn a_name_cannot_pretend_to_be_another_field() {
        let record = parse(&record("x,pid=1,uid=0")).unwrap();
        assert_eq!((record.victim.pid, record.victim.name.as_str()), (42, "x,pid=1,uid=0"));
        let record = parse(&self::record(",task_memcg=/y")).unwrap();
        assert_eq!(record.victims, "/chiton/a/b");
    }

    #[test]
    fn a_killing_for_no_limit_names_none() {
        let text = "3,1,2,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,\
                    task_memcg=/chiton/a,task=hog,pid=42,uid=0\n";
        assert_eq!(parse(text).unwrap().limited, None);
    }

    #[test]
    fn what_a_program_wrote_to_the_log_is_not_believed() {
        assert_eq!(parse(&record("hog").replacen("6,", "14,", 1)), None);
    }

    proptest! {
        #[test]
        fn any_record_is_taken_without_a_panic(text in "[ -~\n]{0,200}") {
            let _ = parse(&text);
            let _ = parse(&format!("6,1,2,-;oom-kill:{text}"));
        }
    }
}

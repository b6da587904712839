//! What the kernel's log says of the OOM killer.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use super::Victim;

/// More records than this are not looked through.
const MAX_RECORDS: usize = 10_000;

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
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .ok()?;
    log.seek(SeekFrom::End(0)).ok()?;
    Some(log)
}

/// The killings logged since it was last asked.
pub(super) fn killings(log: &mut File) -> Vec<Record> {
    let mut records = Vec::new();
    // One read gives one record, of at most 8 KiB (Documentation/ABI/testing/dev-kmsg).
    let mut buffer = [0; 8192];
    for _ in 0..MAX_RECORDS {
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => records.extend(parse(&String::from_utf8_lossy(&buffer[..length]))),
            // Records were overwritten before they were read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    records
}

/// `PRIORITY,…;oom-kill:constraint=…,nodemask=…,cpuset=…,mems_allowed=…,oom_memcg=…,task_memcg=…,task=…,pid=…,uid=…`.
///
/// The name of a task is its own choice, and may hold commas: what stands before it is read from the
/// front, what stands behind it from the back. Anyone may write to the log, but not as the kernel:
/// its facility is 0, so that its priority is below 8.
fn parse(record: &str) -> Option<Record> {
    let (head, rest) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    let fields = rest.lines().next()?.strip_prefix("oom-kill:")?;
    if priority >= 8 {
        return None;
    }
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

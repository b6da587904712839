//! What a share of a block device is worth.

use std::path::PathBuf;
use std::process::{Child, Command};

use chiton_container::cgroup::{Cgroup, Limits};

use crate::bed::{on_each, shell, skip, until};

/// A loop device over a file, which BFQ divides as long as this lives.
struct Divided {
    node: String,
    file: PathBuf,
}

impl Divided {
    fn new() -> Option<Self> {
        let file = std::env::temp_dir().join(format!("chiton-cgroup-shares-{}", std::process::id()));
        std::fs::write(&file, vec![1; 16 << 20]).ok()?;
        let mut this = Self {
            node: String::new(),
            file,
        };
        // Another test may have taken the free one meanwhile.
        (0..100).find(|_| this.attach() == Some(true))?;
        std::fs::write(this.scheduler(), "bfq").is_ok().then_some(this)
    }

    fn attach(&mut self) -> Option<bool> {
        let free = Command::new("losetup").arg("-f").output().ok()?;
        let node = String::from_utf8(free.stdout).ok()?.trim().to_owned();
        let set = Command::new("losetup").arg(&node).arg(&self.file).output().ok()?;
        let taken = set.status.success();
        if taken {
            self.node = node;
        }
        Some(taken)
    }

    fn scheduler(&self) -> String {
        format!("/sys/block/{}/queue/scheduler", self.node.trim_start_matches("/dev/"))
    }

    /// Several readers that never have enough.
    fn readers(&self, group: &Cgroup) -> Vec<Child> {
        let (node, file) = (&self.node, self.file.display());
        // A test that fails leaves them, and removes the file.
        let reader = format!("while [ -e {file} ]; do dd if={node} of=/dev/null bs=65536 iflag=direct; done");
        (0..4).map(|_| shell(group, &reader)).collect()
    }
}

impl Drop for Divided {
    fn drop(&mut self) {
        if !self.node.is_empty() {
            let _ = std::fs::write(self.scheduler(), "none");
            let _ = Command::new("losetup").args(["-d", &self.node]).status();
        }
        let _ = std::fs::remove_file(&self.file);
    }
}

#[test]
fn who_has_the_larger_share_of_a_disk_reads_more() {
    if std::env::var("CHITON_SLOW").is_ok_and(|slow| slow == "1") {
        println!("left out where the processor is emulated: BFQ is the same there");
        return;
    }
    let Some(disk) = Divided::new() else {
        return skip("no loop device can have the scheduler BFQ");
    };
    on_each(|bed| {
        let weight = |text: &str| Limits {
            io_weight: Some(text.parse().unwrap()),
            ..Limits::default()
        };
        let mut one = bed.group("one", &weight("10"));
        let mut other = bed.group("other", &weight("10000"));
        let mut children = disk.readers(&one);
        children.extend(disk.readers(&other));
        let read = |group: &Cgroup| -> u64 {
            let io = group.stats().unwrap().io.unwrap();
            io.iter().map(|device| device.rbytes).sum()
        };
        // A busy machine may keep those from reading who could: then another look.
        let reads_twice_as_much = |more: &Cgroup, less: &Cgroup| {
            let mut before = (read(more), read(less));
            until("the larger share", || {
                let now = (read(more), read(less));
                let (more, less) = (now.0 - before.0, now.1 - before.1);
                let is_enough = more + less > 16 << 20;
                if is_enough {
                    before = now;
                }
                is_enough && more > 2 * less
            });
        };
        reads_twice_as_much(&other, &one);
        one.update(&weight("10000")).unwrap();
        other.update(&weight("10")).unwrap();
        reads_twice_as_much(&one, &other);
        one.remove().unwrap();
        other.remove().unwrap();
        for child in &mut children {
            child.wait().unwrap();
        }
    });
}

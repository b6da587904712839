//! What a share of a block device is worth.

use std::process::Child;

use chiton_container::cgroup::{Cgroup, Limits};

use crate::bed::{on_each, shell, skip, until};
use crate::loop_device::LoopDevice;

/// A device that BFQ divides as long as this lives.
struct Divided(LoopDevice);

impl Divided {
    fn new() -> Option<Self> {
        let this = Self(LoopDevice::new(16 << 20)?);
        std::fs::write(this.scheduler(), "bfq").is_ok().then_some(this)
    }

    fn scheduler(&self) -> String {
        format!("/sys/block/{}/queue/scheduler", self.0.node.trim_start_matches("/dev/"))
    }

    /// Several readers that never have enough.
    fn readers(&self, group: &Cgroup) -> Vec<Child> {
        let (node, file) = (&self.0.node, self.0.file.display());
        // A test that fails leaves them, and removes the file.
        let reader = format!("while [ -e {file} ]; do dd if={node} of=/dev/null bs=65536 iflag=direct; done");
        (0..4).map(|_| shell(group, &reader)).collect()
    }
}

impl Drop for Divided {
    fn drop(&mut self) {
        let _ = std::fs::write(self.scheduler(), "none");
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

//! Who divides block devices by weight. A weight is a number in a file, and the file is there wherever the kernel could
//! divide, whether anything does so or not.
//!
//! | who | for which device | file of a cgroup |
//! |---|---|---|
//! | io.cost, v2 only | one with `enable=1` in the root's `io.cost.qos` (cgroup-v2.rst, "IO Interface Files") | `io.weight` |
//! | BFQ | one with `[bfq]` in `/sys/block/DISK/queue/scheduler` (block/bfq-iosched.rst) | `io.bfq.weight`, `blkio.bfq.weight` |

use std::fs;
use std::path::Path;

use super::controller::Version;
use super::error::{Error, Result};
use super::file;

/// Where the kernel lists block devices.
const DEVICES: &str = "/sys/block";

/// Refuses a weight that nobody would look at.
///
/// From within a cgroup namespace the root's files cannot be seen; then io.cost, which the kernel has, may be enabled.
pub(super) fn check(version: Version, top: &Path, directory: &Path) -> Result<()> {
    let cost = version == Version::V2 && directory.join("io.weight").exists() && costs(top)?;
    if cost || schedules(Path::new(DEVICES)) {
        return Ok(());
    }
    Err(Error::NoDivider(match version {
        Version::V1 => "",
        Version::V2 => ", or enable io.cost for one (`echo 'MAJOR:MINOR enable=1' > io.cost.qos` in the root cgroup)",
    }))
}

/// Whether io.cost divides a device, or may do so.
fn costs(top: &Path) -> Result<bool> {
    let qos = file::read_optional(&top.join("io.cost.qos"))?;
    Ok(qos.is_none_or(|qos| qos.lines().any(|line| file::nested(line, "enable") == Some(1))))
}

/// Whether BFQ divides a device.
fn schedules(devices: &Path) -> bool {
    let mut devices = fs::read_dir(devices).into_iter().flatten().flatten();
    devices.any(|device| {
        let scheduler = fs::read_to_string(device.path().join("queue/scheduler"));
        scheduler.is_ok_and(|schedulers| schedulers.contains("[bfq]"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::file::fixture;

    #[test]
    fn a_device_is_divided_if_one_says_so() {
        let top = |text: &str| fixture("divider", &[("io.cost.qos", text)]);
        assert!(costs(&top("8:0 enable=0 ctrl=auto\n8:16 enable=1 ctrl=user\n")).unwrap());
        assert!(!costs(&top("8:0 enable=0 ctrl=auto\n")).unwrap());
        assert!(!costs(&top("")).unwrap());
        assert!(costs(Path::new("/nonexistent")).unwrap(), "it cannot be seen");
    }

    #[test]
    fn a_scheduler_divides_only_if_it_is_chosen() {
        for (text, divides) in [("none mq-deadline [bfq]\n", true), ("[none] mq-deadline bfq\n", false)] {
            let devices = fixture("schedulers", &[]);
            fs::create_dir_all(devices.join("vda/queue")).unwrap();
            fs::write(devices.join("vda/queue/scheduler"), text).unwrap();
            assert_eq!(schedules(&devices), divides, "{text}");
        }
    }
}

//! Rates of block devices.

use std::fmt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::BadLimit;
use super::size::bytes;

/// A block device, by its number or its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// Its major and minor number.
    Number(u32, u32),
    /// Its node, such as `/dev/vda`.
    Node(PathBuf),
}

impl Device {
    /// Its major and minor number; a node is looked at now.
    pub fn number(&self) -> Result<(u32, u32), BadLimit> {
        let (major, minor) = match self {
            Self::Number(major, minor) => (*major, *minor),
            Self::Node(path) => {
                let bad = |why: &str| BadLimit(format!("{} cannot be limited: {why}", path.display()));
                let metadata = std::fs::metadata(path).map_err(|error| bad(&error.to_string()))?;
                if !metadata.file_type().is_block_device() {
                    return Err(bad("it is not a block device; see `lsblk`"));
                }
                let device = metadata.rdev();
                (libc::major(device), libc::minor(device))
            }
        };
        if Path::new(&format!("/sys/dev/block/{major}:{minor}/partition")).exists() {
            return Err(BadLimit(format!(
                "{self} cannot be limited: it is a partition, and the kernel limits whole disks; see `lsblk`"
            )));
        }
        Ok((major, minor))
    }
}

impl FromStr for Device {
    type Err = BadLimit;

    fn from_str(text: &str) -> Result<Self, BadLimit> {
        if text.starts_with('/') {
            return Ok(Self::Node(text.into()));
        }
        text.split_once(':')
            .and_then(|(major, minor)| Some(Self::Number(major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| {
                BadLimit(format!(
                    "`{text}` is not a block device: write /dev/NAME or MAJOR:MINOR"
                ))
            })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(major, minor) => write!(f, "{major}:{minor}"),
            Self::Node(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What a device may do in a second for a cgroup; what is none is left as it is, and `u64::MAX` is
/// no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoMax {
    /// The device.
    pub device: Device,
    /// Bytes read.
    pub rbps: Option<u64>,
    /// Bytes written.
    pub wbps: Option<u64>,
    /// Reads.
    pub riops: Option<u64>,
    /// Writes.
    pub wiops: Option<u64>,
}

impl IoMax {
    /// The rates with the names they have in `io.max`.
    pub(in super::super) fn rates(&self) -> [(&'static str, Option<u64>); 4] {
        [
            ("rbps", self.rbps),
            ("wbps", self.wbps),
            ("riops", self.riops),
            ("wiops", self.wiops),
        ]
    }
}

/// `/dev/vda:rbps=10M,wiops=100` or `254:0:wbps=max`.
impl FromStr for IoMax {
    type Err = BadLimit;

    fn from_str(text: &str) -> Result<Self, BadLimit> {
        let bad = |why: &str| {
            BadLimit(format!(
                "`{text}` is not a limit of a device: {why}; write DEV:rbps=10M,wbps=10M,riops=100,wiops=100"
            ))
        };
        let (device, rates) = text.rsplit_once(':').ok_or_else(|| bad("it has no `:`"))?;
        let mut limit = Self {
            device: device.parse()?,
            rbps: None,
            wbps: None,
            riops: None,
            wiops: None,
        };
        for rate in rates.split(',') {
            let (key, value) = rate.split_once('=').ok_or_else(|| bad("a rate has no `=`"))?;
            let (slot, plain) = match key {
                "rbps" => (&mut limit.rbps, false),
                "wbps" => (&mut limit.wbps, false),
                "riops" => (&mut limit.riops, true),
                "wiops" => (&mut limit.wiops, true),
                _ => return Err(bad(&format!("`{key}` is not a rate"))),
            };
            let value = match value {
                "max" => u64::MAX,
                // The kernel keeps operations a second in 32 bits.
                value if plain => u64::from(
                    value
                        .parse::<u32>()
                        .map_err(|_| bad(&format!("`{value}` is not a number")))?,
                ),
                value => bytes(value)?,
            };
            if value == 0 {
                return Err(bad("a rate of 0 would never end"));
            }
            if slot.replace(value).is_some() {
                return Err(bad(&format!("{key} is there twice")));
            }
        }
        Ok(limit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_of_a_device_are_read() {
        let limit: IoMax = "/dev/vda:rbps=10M,wiops=100".parse().unwrap();
        assert_eq!(limit.device, Device::Node("/dev/vda".into()));
        assert_eq!((limit.rbps, limit.wiops, limit.wbps), (Some(10 << 20), Some(100), None));
        let limit: IoMax = "254:0:wbps=max".parse().unwrap();
        assert_eq!((limit.device, limit.wbps), (Device::Number(254, 0), Some(u64::MAX)));
    }

    #[test]
    fn what_is_no_limit_of_a_device_is_refused() {
        for text in [
            "",
            "/dev/vda",
            "/dev/vda:",
            "/dev/vda:rbps",
            "/dev/vda:rbps=0",
            "/dev/vda:bps=1",
            "vda:rbps=1",
            "/dev/vda:rbps=1,rbps=2",
            "/dev/vda:riops=1M",
            "8:x:rbps=1",
            "/dev/vda:rbps=-1",
        ] {
            assert!(text.parse::<IoMax>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_block_device_has_rates() {
        let error = Device::Node("/dev/null".into()).number().unwrap_err().to_string();
        assert!(
            error.contains("/dev/null cannot be limited: it is not a block device"),
            "{error}"
        );
        let error = Device::Node("/dev/none".into()).number().unwrap_err().to_string();
        assert!(error.contains("/dev/none cannot be limited"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_limit_or_refused(text in ".{0,30}", rates in "[rwbiops=,0-9MGx]{0,30}") {
            let _ = text.parse::<IoMax>();
            let _ = format!("/dev/vda:{rates}").parse::<IoMax>();
        }
    }
}

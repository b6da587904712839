//! `chiton update`, `stats`, `stop`, `pause` and `resume`.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chiton_container::instance::RestartPolicy;
use chiton_kvm::Limits;
use chiton_kvm::control::protocol::ConsoleSize;
use clap::Args;

use super::{disk, duration, size};
use crate::jailed::options::LimitOptions;

/// A running guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// By the path of its control socket.
    Socket(PathBuf),
    /// An instance, by what its user calls it.
    Instance(String),
}

/// What is written like a path, or is a socket, is a socket.
impl FromStr for Target {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let is_socket = || fs::metadata(text).is_ok_and(|found| found.file_type().is_socket());
        Ok(if text.contains('/') || text.ends_with(".sock") || is_socket() {
            Self::Socket(text.into())
        } else {
            Self::Instance(text.to_owned())
        })
    }
}

/// Running guests.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// The guests: names or IDs of instances, beginnings of IDs, or paths of control sockets.
    #[arg(value_name = "TARGET", required = true)]
    pub(crate) targets: Vec<Target>,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateOptions {
    /// The guest: the name or ID of an instance, the beginning of an ID, or the path of a control socket.
    #[arg(value_name = "TARGET")]
    pub(crate) target: Target,

    #[command(flatten)]
    pub(crate) devices: DeviceOptions,

    /// The size of the console, instead of its terminal's.
    #[arg(long, value_name = "COLUMNSxROWS", value_parser = console)]
    pub(crate) console: Option<ConsoleSize>,

    /// Of an instance: whether it is started again when it ends.
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<RestartPolicy>,

    #[command(flatten)]
    pub(crate) limits: LimitOptions,
}

/// What can be changed of the devices of a running guest.
#[derive(Debug, Args)]
pub(crate) struct DeviceOptions {
    /// Rate limits of disk N, from 0 on: ops=RATE and bytes=RATE, as with `run --disk`. They take
    /// the place of those it had: with N:none, or what is not named, is not limited any more.
    #[arg(short, long, value_name = "N:LIMITS", value_parser = limits)]
    pub(crate) disk: Vec<LimitsOption>,

    /// Rate limits of network interface N, in the same way.
    #[arg(short, long, value_name = "N:LIMITS", value_parser = limits)]
    pub(crate) net: Vec<LimitsOption>,

    /// How much memory the host would like to have in the balloon.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) balloon: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotOptions {
    /// The guest: the name or ID of an instance, the beginning of an ID, or the path of a control socket.
    #[arg(value_name = "TARGET")]
    pub(crate) target: Target,

    /// Where to write it. A snapshot that is there is replaced when the new one is whole.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Write only the memory that has changed since this snapshot, the last one that was taken of the guest, with --track
    /// or in the same way. It is needed from then on.
    #[arg(long, value_name = "PARENT")]
    pub(crate) incremental: Option<PathBuf>,

    /// Note from now on which memory changes, for an incremental one: the guest's first write to each page takes longer.
    #[arg(long)]
    pub(crate) track: bool,

    /// End the guest then: it goes on from the snapshot alone. So its disks are as it knows them.
    #[arg(long)]
    pub(crate) stop: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatsOptions {
    /// The guests: names or IDs of instances, beginnings of IDs; all instances that run if there is none. Or
    /// the path of one control socket.
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<Target>,

    /// As JSON, one line for each, for programs.
    #[arg(long)]
    pub(crate) json: bool,

    /// Once, instead of each second for as long as there is a terminal.
    #[arg(long)]
    pub(crate) no_stream: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StopOptions {
    #[command(flatten)]
    pub(crate) targets: Targets,

    #[command(flatten)]
    pub(crate) timeout: StopTimeout,
}

/// How patient a stop is.
#[derive(Debug, Args)]
pub(crate) struct StopTimeout {
    /// End the guest after this long if it has not done so by itself: 10 seconds for an instance unless
    /// given, never for a control socket.
    #[arg(short, long, value_name = "TIME", value_parser = patience)]
    pub(crate) timeout: Option<Duration>,
}

impl StopTimeout {
    /// That of an instance.
    pub(crate) fn limit(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(10))
    }
}

/// A time, which may be none at all.
fn patience(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        _ => duration(text),
    }
}

/// New limits of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LimitsOption {
    pub(crate) number: usize,
    pub(crate) limits: Limits,
}

/// `N:ops=RATE,bytes=RATE`, or `N:none`.
fn limits(text: &str) -> Result<LimitsOption, String> {
    let wrong = || format!("`{text}` is not N:LIMITS: write 0:ops=1000,bytes=10M, or 0:none");
    let (number, words) = text.split_once(':').ok_or_else(wrong)?;
    let number = number.parse().map_err(|_| wrong())?;
    let mut limits = Limits::default();
    if words == "none" {
        return Ok(LimitsOption { number, limits });
    }
    for word in words.split(',') {
        let (place, rate) = match word.split_once('=') {
            Some(("ops", rate)) => (&mut limits.ops, rate),
            Some(("bytes", rate)) => (&mut limits.bytes, rate),
            _ => return Err(wrong()),
        };
        if place.replace(disk::rate(rate)?).is_some() {
            return Err(format!("`{text}` has the same limit twice"));
        }
    }
    Ok(LimitsOption { number, limits })
}

/// `COLUMNSxROWS`.
fn console(text: &str) -> Result<ConsoleSize, String> {
    let size = text.split_once('x').and_then(|(columns, rows)| {
        Some(ConsoleSize {
            columns: columns.parse().ok()?,
            rows: rows.parse().ok()?,
        })
    });
    size.filter(|size| size.columns > 0 && size.rows > 0)
        .ok_or_else(|| format!("`{text}` is not a size of a console: write 80x25"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiton_kvm::Rate;

    #[test]
    fn limits_are_read_as_those_of_a_disk_are() {
        let read = |text, number, ops, bytes| {
            let limits = Limits { ops, bytes };
            assert_eq!(limits_of(text), Ok(LimitsOption { number, limits }), "{text}");
        };
        read(
            "0:ops=1000/2000,bytes=10M",
            0,
            Rate::new(1000, 2000),
            Rate::per_second(10 << 20),
        );
        read("12:bytes=1K/4K", 12, None, Rate::new(1024, 4096));
        read("3:none", 3, None, None);
        for text in [
            "",
            "0",
            "0:",
            ":ops=1",
            "x:ops=1",
            "-1:ops=1",
            "0:ops",
            "0:ops=0",
            "0:ops=1,",
            "0:ops=1,ops=2",
            "0:none,ops=1",
            "0:fast=1",
        ] {
            assert!(limits_of(text).is_err(), "{text}");
        }
    }

    fn limits_of(text: &str) -> Result<LimitsOption, String> {
        limits(text)
    }

    #[test]
    fn sizes_of_consoles() {
        let size = |columns, rows| Ok(ConsoleSize { columns, rows });
        assert_eq!(console("80x25"), size(80, 25));
        for text in [
            "", "80", "80x", "x25", "0x25", "80x0", "80x25x3", "-1x2", "80X25", "70000x1",
        ] {
            assert!(console(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_target_that_is_written_like_a_path_is_one() {
        let target = |text: &str| text.parse::<Target>().expect("never fails");
        for path in ["./c", "c.sock", "/run/c", "a/b"] {
            assert_eq!(target(path), Target::Socket(path.into()));
        }
        for name in ["c", "web.1", "0123abc"] {
            assert_eq!(target(name), Target::Instance(name.into()));
        }
    }

    #[test]
    fn a_stop_may_have_no_patience() {
        assert_eq!(patience("0"), Ok(Duration::ZERO));
        assert_eq!(patience("1500ms"), Ok(Duration::from_millis(1500)));
        assert!(patience("soon").is_err());
    }
}

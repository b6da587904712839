//! `chiton update`, `stats`, `stop`, `pause` and `resume`.

use std::path::PathBuf;
use std::time::Duration;

use chiton_kvm::Limits;
use chiton_kvm::control::protocol::ConsoleSize;
use clap::Args;

use super::{disk, duration, size};

/// A running guest.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The guest: the path of its control socket.
    #[arg(value_name = "TARGET")]
    target: String,
}

impl Target {
    /// The control socket of the guest that is meant.
    pub(crate) fn socket(&self) -> Result<PathBuf, String> {
        if self.target.contains('/') || self.target.ends_with(".sock") {
            Ok(PathBuf::from(&self.target))
        } else {
            Err(format!(
                "`{target}` is not the path of a control socket: write ./{target}, or give the socket a name that \
                 ends in .sock",
                target = self.target
            ))
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct UpdateOptions {
    #[command(flatten)]
    pub(crate) target: Target,

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

    /// The size of the console, instead of its terminal's.
    #[arg(long, value_name = "COLUMNSxROWS", value_parser = console)]
    pub(crate) console: Option<ConsoleSize>,
}

#[derive(Debug, Args)]
pub(crate) struct StatsOptions {
    #[command(flatten)]
    pub(crate) target: Target,

    /// As JSON, one line, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StopOptions {
    #[command(flatten)]
    pub(crate) target: Target,

    /// End the guest after this long if it has not done so by itself.
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
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
    fn a_target_is_a_path() {
        let socket = |target: &str| Target { target: target.into() }.socket();
        assert_eq!(socket("./c"), Ok("./c".into()));
        assert_eq!(socket("c.sock"), Ok("c.sock".into()));
        assert!(socket("c").unwrap_err().contains("write ./c"));
    }
}

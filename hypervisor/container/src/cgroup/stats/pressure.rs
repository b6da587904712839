//! Pressure stall information: time lost by waiting (Documentation/accounting/psi.rst).

use std::path::Path;

use crate::cgroup::error::Result;
use crate::cgroup::file::read_optional;

/// Whose waiting it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The cgroup's own, from its `*.pressure` files, which v2 and hybrid hosts have.
    Cgroup,
    /// That of the whole host, from `/proc/pressure`: all there is on v1.
    Host,
}

/// Time lost by waiting for each resource; none where the kernel does not count it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Pressures {
    /// Whose.
    pub scope: Scope,
    /// For a processor.
    pub cpu: Option<Pressure>,
    /// For memory.
    pub memory: Option<Pressure>,
    /// For block devices.
    pub io: Option<Pressure>,
}

/// Time lost by waiting for one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Pressure {
    /// While some task waited.
    pub some: Stall,
    /// While all tasks that had something to do waited; not counted for the whole host's processors.
    pub full: Option<Stall>,
}

/// A share of time, and a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Stall {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last 5 minutes.
    pub avg300: f64,
    /// Microseconds in all.
    pub total: u64,
}

impl Pressures {
    /// Those of a v2 directory, or of the host.
    pub(super) fn read(directory: Option<&Path>) -> Result<Self> {
        let file = |name: &str| -> Result<Option<Pressure>> {
            let path = match directory {
                Some(directory) => directory.join(format!("{name}.pressure")),
                None => Path::new("/proc/pressure").join(name),
            };
            Ok(read_optional(&path)?.as_deref().and_then(Pressure::parse))
        };
        Ok(Self {
            scope: if directory.is_some() {
                Scope::Cgroup
            } else {
                Scope::Host
            },
            cpu: file("cpu")?,
            memory: file("memory")?,
            io: file("io")?,
        })
    }
}

impl Pressure {
    /// Lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and `full …`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let line = |kind: &str| text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
        Some(Self {
            some: Stall::parse(line("some")?)?,
            full: line("full").and_then(Stall::parse),
        })
    }
}

impl Stall {
    fn parse(line: &str) -> Option<Self> {
        let value = |key: &str| {
            line.split(' ')
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
        };
        Some(Self {
            avg10: value("avg10")?.parse().ok()?,
            avg60: value("avg60")?.parse().ok()?,
            avg300: value("avg300")?.parse().ok()?,
            total: value("total")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=5.23 avg60=3.14 avg300=1.87 total=123456\n\
                    full avg10=2.10 avg60=1.50 avg300=0.80 total=45678\n";
        let pressure = Pressure::parse(text).unwrap();
        assert_eq!(
            (pressure.some.avg10, pressure.some.avg300, pressure.some.total),
            (5.23, 1.87, 123_456)
        );
        assert_eq!(pressure.full.unwrap().avg60, 1.5);
    }

    #[test]
    fn older_kernels_have_no_full_line_for_the_processor() {
        let pressure = Pressure::parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n").unwrap();
        assert_eq!((pressure.some.total, pressure.full), (7, None));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_without_a_panic(text in "[ a-z0-9=.\n]{0,120}") {
            let _ = Pressure::parse(&text);
        }
    }
}

//! How many fit.

use std::{fs, str::FromStr};

use chiton_bench::{
    host::Memory,
    trial::{Result, TrialError},
};
use chiton_container::jail::{RangeError, Ranges};

/// How many instances are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// So many.
    Exactly(usize),
    /// As many as fit.
    Max,
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let number = text.parse().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("`{text}` is no number of instances: write 1 or more, or max"));
        number.map(Self::Exactly)
    }
}

/// No instance takes less than this, in bytes: its supervisor, its guest's process, its guest's pages, its
/// namespaces.
const LEAST: u64 = 1 << 20;

/// Threads of an instance: its supervisor, processor, devices, the kernel's for KVM.
const THREADS: u64 = 4;

/// Numbers of processes that stay free for others.
const FREE_NUMBERS: u64 = 2000;

/// What instances may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// What stays free, in bytes.
    keep_free: u64,
    /// More do not fit.
    most: u64,
    /// In bytes.
    available: u64,
    /// How many more threads there can be.
    numbers: u64,
    /// How many ranges of ids nobody has; `None` for ordinary users, whose jails have none of these.
    ranges: Option<u64>,
    /// What they would be short of first.
    short_of: &'static str,
}

impl Room {
    pub(super) fn new(memory: &Memory, keep_free: Option<u64>) -> Result<Self> {
        let read = |path| fs::read_to_string(path).map_err(TrialError::file("read", path));
        let limits = [read("/proc/sys/kernel/pid_max")?, read("/proc/sys/kernel/threads-max")?];
        let numbers = limits.iter().filter_map(|text| text.trim().parse().ok()).min();
        Ok(Self::of(
            memory,
            keep_free.unwrap_or(memory.total / 4),
            numbers.unwrap_or(u64::MAX),
            ranges().map_err(|error| TrialError::Refused(error.to_string()))?,
        ))
    }

    fn of(memory: &Memory, keep_free: u64, numbers: u64, ranges: Option<u64>) -> Self {
        let numbers = numbers.saturating_sub(FREE_NUMBERS);
        let limits = [
            (memory.available.saturating_sub(keep_free) / LEAST, "MiB of memory"),
            (
                numbers / THREADS,
                "numbers of threads (kernel.pid_max, kernel.threads-max)",
            ),
            (ranges.unwrap_or(u64::MAX), "ranges of ids for jails of root"),
        ];
        let (most, short_of) = limits.into_iter().min().unwrap_or_default();
        Self {
            keep_free,
            most,
            available: memory.available,
            numbers,
            ranges,
            short_of,
        }
    }

    /// How many are to be started.
    ///
    /// # Errors
    ///
    /// If they cannot all be.
    pub(super) fn check(&self, count: Count) -> Result<usize> {
        let most = usize::try_from(self.most).unwrap_or(usize::MAX);
        match count {
            Count::Exactly(count) if count <= most => Ok(count),
            Count::Max if most > 0 => Ok(most),
            Count::Exactly(count) => Err(TrialError::Refused(format!(
                "{count} instances do not fit: {} MiB are available, of which {} stay free (--keep-free), each takes \
                 at least {} MiB and {THREADS} of {} numbers of threads{}; {most} may fit",
                self.available >> 20,
                self.keep_free >> 20,
                LEAST >> 20,
                self.numbers,
                self.ranges(),
            ))),
            Count::Max => Err(TrialError::Refused(format!(
                "not one instance fits: beyond what stays free (--keep-free) there are {} MiB of memory and {} numbers \
                 of threads{}",
                self.available.saturating_sub(self.keep_free) >> 20,
                self.numbers,
                self.ranges(),
            ))),
        }
    }

    /// What is to be said of ranges.
    fn ranges(&self) -> String {
        self.ranges.map_or(String::new(), |ranges| {
            format!(", and {ranges} ranges of ids are free (CHITON_IDS)")
        })
    }

    /// Whether there is room for another.
    pub(super) fn has_some(&self, now: &Memory) -> bool {
        now.available > self.keep_free
    }

    /// Why there is none when memory has run out.
    pub(super) fn no_memory(&self, now: &Memory) -> String {
        format!(
            "{} MiB of memory are available, and {} stay free (--keep-free)",
            now.available >> 20,
            self.keep_free >> 20
        )
    }

    /// Why there are no more than there can be at most.
    pub(super) fn no_more(&self) -> String {
        format!("there are no more {}", self.short_of)
    }

    /// Why there were fewer than were asked for.
    pub(super) fn full(&self, count: usize, asked: usize, before: &Memory, now: &Memory) -> TrialError {
        let each = before.available.saturating_sub(now.available) / count.max(1) as u64;
        TrialError::Refused(format!(
            "{asked} instances do not fit: with {count}, of about {} KiB each, {}",
            each >> 10,
            self.no_memory(now)
        ))
    }
}

/// How many ranges of ids jails can have yet, if they have any.
fn ranges() -> std::result::Result<Option<u64>, RangeError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let text = std::env::var("CHITON_IDS").ok();
    let ranges = Ranges::configured(text.as_deref())?;
    Ok(Some(ranges.count().saturating_sub(ranges.in_use()?).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(available: u64) -> Memory {
        Memory {
            total: available,
            available,
            ..Memory::default()
        }
    }

    #[test]
    fn a_count_is_a_number_or_max() {
        assert_eq!("7".parse(), Ok(Count::Exactly(7)));
        assert_eq!("max".parse(), Ok(Count::Max));
        for text in ["", "0", "-1", "x", "99999999999999999999"] {
            let said = text.parse::<Count>().unwrap_err();
            assert!(said.starts_with(&format!("`{text}` is no number")), "{said}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_in_one_sentence() {
        let room = Room::of(&memory(100 << 20), 60 << 20, 1_000_000, None);
        assert_eq!(room.check(Count::Exactly(40)).unwrap(), 40);
        assert_eq!(room.check(Count::Max).unwrap(), 40);
        let said = room.check(Count::Exactly(41)).unwrap_err().to_string();
        assert!(
            said.starts_with("41 instances do not fit: 100 MiB are available, of which 60 stay free"),
            "{said}"
        );
        assert!(said.ends_with("40 may fit"), "{said}");
        let none = Room::of(&memory(50 << 20), 60 << 20, 1_000_000, None);
        assert!(
            none.check(Count::Max)
                .unwrap_err()
                .to_string()
                .starts_with("not one instance fits")
        );
    }

    #[test]
    fn numbers_of_threads_and_ranges_of_ids_are_limits_too() {
        assert_eq!(Room::of(&memory(1 << 50), 0, 2400, Some(4095)).most, 100);
        assert_eq!(Room::of(&memory(1 << 50), 0, u64::MAX, Some(7)).most, 7);
        let none = Room::of(&memory(1 << 50), 0, u64::MAX, Some(0)).check(Count::Max);
        let said = none.unwrap_err().to_string();
        assert!(said.ends_with("and 0 ranges of ids are free (CHITON_IDS)"), "{said}");
        assert_eq!(Room::of(&memory(1 << 50), 0, 10, Some(4095)).most, 0);
        let said = Room::of(&memory(1 << 50), 0, u64::MAX, Some(4095)).no_more();
        assert_eq!(said, "there are no more ranges of ids for jails of root");
        assert_eq!(
            Room::of(&memory(1 << 20), 0, u64::MAX, Some(4095)).no_more(),
            "there are no more MiB of memory"
        );
    }

    #[test]
    fn there_is_room_while_more_is_free_than_must_be() {
        let room = Room::of(&memory(100 << 20), 60 << 20, 1_000_000, None);
        assert!(room.has_some(&memory(61 << 20)) && !room.has_some(&memory(60 << 20)));
        let said = room.full(10, 40, &memory(100 << 20), &memory(60 << 20)).to_string();
        assert!(
            said.contains("with 10, of about 4096 KiB each, 60 MiB of memory are available"),
            "{said}"
        );
    }
}

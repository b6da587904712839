//! Counting exits by cause.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why the guest needed the host.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Cause {
            $($(#[$doc])* $name,)*
        }

        impl Cause {
            /// Every cause, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What the table calls it.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

causes! {
    /// Doorbell: new buffers in a queue, when no other thread listens for it.
    Kick = "doorbell kick",
    /// Doorbell: sleep until there is news.
    Wait = "doorbell wait",
    /// Doorbell: a log line.
    Log = "doorbell log",
    /// Doorbell: nothing, the cost of an exit.
    Nop = "doorbell nop",
    /// Doorbell: another processor begins.
    Start = "doorbell start",
    /// Doorbell: a processor has nothing more to do.
    Park = "doorbell park",
    /// Doorbell: another processor ends its wait.
    Wake = "doorbell wake",
    /// Doorbell: a call's reply, and the wait for the next.
    Call = "doorbell call",
    /// Doorbell: the end.
    End = "doorbell exit",
    /// Doorbell: a panic.
    Panic = "doorbell panic",
    /// Doorbell: an exception, from a trap stub.
    Trap = "doorbell trap",
    /// A read of a device register.
    MmioRead = "MMIO read",
    /// A write to a device register.
    MmioWrite = "MMIO write",
    /// `in` from a port that is no doorbell.
    PortIn = "port in",
    /// `out` to a port that is no doorbell.
    PortOut = "port out",
    /// `hlt`.
    Halt = "hlt",
    /// A triple fault.
    Shutdown = "triple fault",
    /// The host interrupted the guest.
    Interrupted = "interrupted",
    /// Anything the backend could not deal with.
    Failure = "failure",
}

/// One line of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many exits.
    pub exits: u64,
    /// Time the host took to handle them, in nanoseconds; 0 if nobody measured.
    pub total_ns: u64,
    /// The longest of them, in nanoseconds.
    pub max_ns: u64,
}

/// Exits by cause, with the time the host spent on them.
#[derive(Clone, Debug)]
pub struct ExitTable {
    counts: [Count; Cause::ALL.len()],
    /// Time spent in the guest and in the kernel below, in nanoseconds; 0 if nobody measured.
    pub guest_ns: u64,
}

impl ExitTable {
    /// A table with nothing in it.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            counts: [Count {
                exits: 0,
                total_ns: 0,
                max_ns: 0,
            }; Cause::ALL.len()],
            guest_ns: 0,
        }
    }

    /// Adds another processor's exits.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            count.exits += more.exits;
            count.total_ns += more.total_ns;
            count.max_ns = count.max_ns.max(more.max_ns);
        }
        self.guest_ns += other.guest_ns;
    }

    /// The line of one cause.
    #[must_use]
    pub const fn get(&self, cause: Cause) -> Count {
        self.counts[cause as usize]
    }

    /// All exits together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|c| c.exits).sum()
    }
}

/// The exits of one processor while it runs: counted by the thread that runs it, and read by
/// whoever asks.
#[derive(Debug, Default)]
pub struct ExitCounter {
    counts: [AtomicCount; Cause::ALL.len()],
    guest_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct AtomicCount {
    exits: AtomicU64,
    total_ns: AtomicU64,
    max_ns: AtomicU64,
}

/// Adds to what one thread alone writes, at the price of a plain addition.
#[inline]
fn add(to: &AtomicU64, more: u64) {
    to.store(to.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

impl ExitCounter {
    /// Counts an exit. Only the thread that runs the processor may, or counts are lost.
    #[inline]
    pub fn count(&self, cause: Cause) {
        add(&self.counts[cause as usize].exits, 1);
    }

    /// Adds the time the host took for an exit that was [counted](Self::count); same thread.
    pub fn add_time(&self, cause: Cause, ns: u64) {
        let count = &self.counts[cause as usize];
        add(&count.total_ns, ns);
        count.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// Adds time in the guest; same thread.
    pub fn add_guest_time(&self, ns: u64) {
        add(&self.guest_ns, ns);
    }

    /// What has been counted so far. Of exits that occur meanwhile, some may be in it.
    #[must_use]
    pub fn table(&self) -> ExitTable {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        ExitTable {
            counts: self.counts.each_ref().map(|count| Count {
                exits: read(&count.exits),
                total_ns: read(&count.total_ns),
                max_ns: read(&count.max_ns),
            }),
            guest_ns: read(&self.guest_ns),
        }
    }
}

impl Default for ExitTable {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for ExitTable {
    /// The table as people read it: causes that occurred, most frequent first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16} {:>9} {:>12} {:>10} {:>10}",
            "exit to host", "count", "total", "mean", "max"
        )?;
        let mut order: alloc::vec::Vec<_> = Cause::ALL.iter().map(|c| (*c, self.get(*c))).collect();
        order.retain(|(_, count)| count.exits > 0);
        order.sort_by_key(|(_, count)| core::cmp::Reverse(count.exits));
        for (cause, count) in order {
            let mean = count.total_ns / count.exits;
            writeln!(
                f,
                "{:<16} {:>9} {:>12} {:>10} {:>10}",
                cause.label(),
                count.exits,
                Micros(count.total_ns),
                Micros(mean),
                Micros(count.max_ns)
            )?;
        }
        write!(f, "{:<16} {:>9}", "all", self.total())
    }
}

/// Nanoseconds, shown as microseconds with one decimal.
#[derive(Clone, Copy, Debug)]
pub struct Micros(pub u64);

impl From<Duration> for Micros {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0 / 100;
        f.pad_integral(true, "", &alloc::format!("{}.{} µs", tenths / 10, tenths % 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_what_occurred_most_frequent_first() {
        let counter = ExitCounter::default();
        counter.count(Cause::End);
        for ns in [1_000, 3_000] {
            counter.count(Cause::Wait);
            counter.add_time(Cause::Wait, ns);
        }
        let text = counter.table().to_string();
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[1].starts_with("doorbell wait") && lines[1].ends_with("4.0 µs    2.0 µs    3.0 µs"),
            "{text}"
        );
        assert!(lines[2].starts_with("doorbell exit"));
        assert!(lines[3].starts_with("all") && lines[3].ends_with('3'));
        assert_eq!(lines.len(), 4);
    }
}

use std::{fs, ops::AddAssign};

use super::kilobytes;
use crate::trial::{Result, TrialError};

/// Memory of processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Pages that are mapped.
    pub rss: u64,
    /// The same, each divided by how many processes have it: of many instances, these add up to what they take.
    pub pss: u64,
    /// Pages that nobody else has.
    pub private: u64,
}

impl Footprint {
    /// Of one process, now.
    ///
    /// # Errors
    ///
    /// If it has ended, or is another user's.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(TrialError::file("read", &path))?;
        Self::parse(&text).ok_or_else(|| TrialError::Found(format!("{path} does not say what is mapped")))
    }

    fn parse(text: &str) -> Option<Self> {
        let of = |name| kilobytes(text, name);
        Some(Self {
            rss: of("Rss")?,
            pss: of("Pss")?,
            private: of("Private_Clean")?.checked_add(of("Private_Dirty")?)?,
        })
    }

    /// Pages that others have too.
    #[must_use]
    pub fn shared(&self) -> u64 {
        self.rss.saturating_sub(self.private)
    }
}

impl AddAssign for Footprint {
    fn add_assign(&mut self, other: Self) {
        self.rss += other.rss;
        self.pss += other.pss;
        self.private += other.private;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_is_private_or_shared() {
        let text = "5613e-7ffc1 ---p 0 [rollup]\nRss: 1604 kB\nPss: 200 kB\nPss_Dirty: 112 kB\nPrivate_Clean: 36 kB\nPrivate_Dirty: 112 kB\n";
        let footprint = Footprint::parse(text).unwrap();
        assert_eq!((footprint.pss, footprint.private), (200 << 10, 148 << 10));
        assert_eq!(footprint.shared(), 1456 << 10);
        assert_eq!(Footprint::parse("Rss: 1 kB\n"), None);
        let own = Footprint::of(std::process::id()).unwrap();
        assert!(own.private > 0 && own.private <= own.rss && own.pss <= own.rss);
    }
}

//! The balloon: memory that the guest gives back.
//!
//! A guest's memory is one block of the machine's, in which the devices find their way by addition. So a page that
//! was given back serves nobody else meanwhile. It loses what it held, goes out of the tables of each of the
//! guest's processors, and is mapped again when the guest touches it.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use chiton_core::devices::{Pages, PagesError};
use chiton_core::physical::{GuestRam, PAGE_SIZE};
use chiton_core::space::GivenBack;
use chiton_shared::memory::Window;
use chiton_shared::virtio::balloon::{PAGE, Statistics};
use spin::Mutex;

/// The balloon of one guest.
pub(super) struct MemoryBalloon {
    memory: GuestRam,
    given_back: Arc<GivenBack>,
    /// How many pages the host would like to have.
    target: u32,
    seen: Arc<Mutex<Seen>>,
    /// Statistics are out of date.
    stale: bool,
}

/// What was seen of a balloon.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// How many bytes the host would like to have.
    target: u64,
    /// How many are in it, as the guest says.
    held: u64,
    /// How many came back in all, and in how many pieces.
    came_back: u64,
    pieces: u64,
    statistics: Option<Statistics>,
}

impl MemoryBalloon {
    /// An empty balloon of this memory, of which the host would like to have so many bytes.
    pub(super) fn new(memory: GuestRam, given_back: Arc<GivenBack>, target: u64) -> Self {
        let seen = Seen {
            target,
            ..Seen::default()
        };
        Self {
            memory,
            given_back,
            target: u32::try_from(target / PAGE).unwrap_or(u32::MAX),
            seen: Arc::new(Mutex::new(seen)),
            stale: false,
        }
    }

    /// What was seen of it, for others to look at too.
    pub(super) fn seen(&self) -> Arc<Mutex<Seen>> {
        Arc::clone(&self.seen)
    }
}

impl Pages for MemoryBalloon {
    fn release(&mut self, pages: Window<'_>) -> Result<(), PagesError> {
        let start = self.memory.address(&pages).ok_or(PagesError)?;
        for offset in (0..pages.len()).step_by(PAGE_SIZE) {
            pages.write(offset, &[0; PAGE_SIZE]);
        }
        let bytes = pages.len() as u64;
        self.given_back.give(&(start..start + bytes));
        let mut seen = self.seen.lock();
        seen.came_back += bytes;
        seen.pieces += 1;
        Ok(())
    }

    fn target(&self) -> u32 {
        self.target
    }

    fn held(&mut self, pages: u32) {
        self.seen.lock().held = u64::from(pages) * PAGE;
        self.stale = true;
    }

    fn wants_statistics(&mut self) -> bool {
        core::mem::take(&mut self.stale)
    }

    fn statistics(&mut self, statistics: &Statistics) {
        self.seen.lock().statistics = Some(*statistics);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (held, target) = (self.held >> 10, self.target >> 10);
        let (came_back, pieces) = (self.came_back >> 10, self.pieces);
        write!(
            f,
            "the balloon holds {held} KiB of {target} KiB wanted; {came_back} KiB came back in {pieces} pieces, were zeroed and unmapped"
        )?;
        let Some(statistics) = &self.statistics else {
            return Ok(());
        };
        let words = [
            ("in all", statistics.total),
            ("free", statistics.free),
            ("available", statistics.available),
        ];
        let words = words.into_iter().filter_map(|(name, bytes)| Some((name, bytes?)));
        let words: String = words
            .map(|(name, bytes)| format!(" {} KiB {name},", bytes >> 10))
            .collect();
        write!(
            f,
            "\nthe balloon's guest says of its memory:{}",
            words.trim_end_matches(',')
        )
    }
}

//! Explanations, for people: what a guest did wrong, where it hangs, what it is made of.
//!
//! ```text
//!   World ─┐               ┌─ fault(frame)      what happened, at which address, who called
//!   Symbols├─▶ View ───────┼─ place(registers)  where it spins
//!   memory ┘               └─ walk(address)     what the page tables say, level by level
//! ```
//!
//! The guest's memory and registers are hostile here too: every chain that is followed has a
//! bound, and every address goes through the guest's page tables before it is read.

mod backtrace;
mod diagnosis;
mod ended;
mod exception;
mod fault;
mod inspect;
mod location;
mod place;
#[cfg(test)]
mod tests;
mod walk;

use chiton_shared::map;
use chiton_shared::memory::GuestMemory;

use crate::boot::World;
use crate::loader::Symbols;

pub use backtrace::{Backtrace, Frame};
pub use diagnosis::{Action, Diagnosis};
pub use ended::{Backend, Ended, met_a_fault, out_of_time, panicked, requests_failed};
pub use exception::{ErrorCode, Exception};
pub use fault::Fault;
pub use inspect::Inspect;
pub use location::{Location, Size};
pub use place::Whereabouts;
pub use walk::{Step, Walk, WalkEnd, walk};

/// A guest that has stopped, to be looked at.
#[derive(Clone, Copy)]
pub struct View<'v> {
    world: &'v World<'v>,
    symbols: &'v Symbols<'v>,
    memory: &'v dyn GuestMemory,
}

impl core::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("View")
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}

impl<'v> View<'v> {
    /// The guest of this world, with its memory as it is now.
    #[must_use]
    pub const fn new(world: &'v World<'v>, symbols: &'v Symbols<'v>, memory: &'v dyn GuestMemory) -> Self {
        Self { world, symbols, memory }
    }

    /// What the page tables that the guest started with say of an address.
    #[must_use]
    pub fn walk(&self, address: u64) -> Walk {
        walk(self.memory, self.world.system.cr3, address)
    }

    /// Which function an address is in.
    #[must_use]
    pub fn locate(&self, address: u64) -> Location<'v> {
        Location::new(self.symbols, address)
    }

    /// Reads bytes as ring 0 of the guest would, until the first that it could not; tells how many.
    fn read(&self, address: u64, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let here = address.wrapping_add(done as u64);
            let in_page = (map::PAGE - here % map::PAGE) as usize;
            let part = in_page.min(bytes.len() - done);
            let window = self
                .walk(here)
                .physical()
                .and_then(|physical| self.memory.window(physical, part));
            let Some(window) = window else { break };
            window.read(0, &mut bytes[done..done + part]);
            done += part;
        }
        done
    }

    fn read_u64(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (self.read(address, &mut bytes) == 8).then(|| u64::from_le_bytes(bytes))
    }
}

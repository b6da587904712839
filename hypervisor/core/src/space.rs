//! What a guest on bare metal can reach: its memory, mapped when it is first touched, and the way
//! from its linear addresses to the bytes.

mod given_back;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;

use chiton_shared::map::PAGE;
use chiton_shared::memory::{GuestMemory, Window};

use crate::explain::{WalkEnd, walk};
use crate::paging::{self, Format, MemoryType, Mtrrs, Page, Rights, Size, Table};
use crate::physical::{GuestRam, Physical};

pub use given_back::GivenBack;

/// The memory of one guest, in the format of this processor's second-level tables.
pub struct Space<F: Format> {
    /// The memory.
    pub ram: GuestRam,
    /// What of it is mapped so far.
    pub table: Table<'static, F>,
    largest: Size,
    types: Option<Mtrrs>,
    /// What the guest gives back, and which of its processors has these tables.
    given_back: Option<(Arc<GivenBack>, u32)>,
}

/// What the guest has touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Memory that was not mapped yet, and is now.
    Mapped,
    /// Memory that is mapped: the processor remembered an older entry, or lacked a right.
    Already,
    /// No memory is there.
    Nowhere,
}

/// Why a linear address leads nowhere, as a page fault tells it (SDM volume 3A, section 5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// The address.
    pub address: u64,
    /// The error code.
    pub code: u32,
}

/// The page was present; what lacked was a right.
const PRESENT: u32 = 1 << 0;
/// The access was a write.
const WRITE: u32 = 1 << 1;
/// It was one of ring 3.
const USER: u32 = 1 << 2;

/// Who accesses linear addresses: the guest's page tables and ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accessor {
    /// CR3.
    pub cr3: u64,
    /// The ring.
    pub ring: u8,
}

impl<F: Format> Space<F> {
    /// Memory of which nothing is mapped yet; it will be in pages of `largest` at most.
    ///
    /// # Errors
    ///
    /// When there is no page for a table.
    pub fn new(
        physical: &'static dyn Physical,
        format: F,
        ram: GuestRam,
        largest: Size,
    ) -> Result<Self, paging::Error> {
        let table = Table::new(physical, format)?;
        Ok(Self {
            ram,
            table,
            largest,
            types: None,
            given_back: None,
        })
    }

    /// With the memory types that the host's MTRRs say: for tables where the processor does not look
    /// at them itself. Without, all memory is write-back.
    #[must_use]
    pub fn with_types(mut self, mtrrs: Mtrrs) -> Self {
        self.types = Some(mtrrs);
        self
    }

    /// With memory that the guest can give back, and the number of its processor that has these tables.
    #[must_use]
    pub fn with_given_back(mut self, given_back: Option<(Arc<GivenBack>, u32)>) -> Self {
        self.given_back = given_back;
        self
    }

    /// Takes out of the tables what the guest has given back since the last time: it is mapped again when it is
    /// touched. `forget` makes the processor forget what it remembers of the tables, where that is needed.
    ///
    /// A piece of a large page stays when there is no page for the table that would map the rest. The guest cannot
    /// tell: it finds zeros either way.
    pub fn take_out(&mut self, mut forget: impl FnMut(u64)) {
        let Some((given_back, processor)) = &self.given_back else {
            return;
        };
        for range in given_back.take(*processor) {
            let change = self.table.unmap(range.start, range.end - range.start);
            let _ = change.settle(&mut forget);
        }
    }

    /// Where a guest-physical address lies in the host's memory, if it is memory.
    #[must_use]
    pub fn host(&self, guest: u64) -> Option<u64> {
        let piece = self.ram.piece(guest)?;
        Some(guest - piece.guest + piece.physical)
    }

    /// The memory type of a host-physical address.
    #[must_use]
    pub fn memory_type(&self, host: u64) -> MemoryType {
        let mtrrs = self.types.as_ref();
        mtrrs.map_or(MemoryType::WriteBack, |mtrrs| mtrrs.memory_type(host))
    }

    /// The guest has touched a guest-physical address that is not mapped: maps the largest page
    /// round it that lies in memory as a whole, and in memory of one type. `forget` makes the
    /// processors forget what they remember of the tables, if that is needed.
    ///
    /// # Errors
    ///
    /// When there is no page for a table.
    pub fn demand(&mut self, address: u64, forget: impl FnOnce(u64)) -> Result<Demand, paging::Error> {
        let Some(piece) = self.ram.piece(address) else {
            return Ok(Demand::Nowhere);
        };
        if self.table.translate(address).is_some() {
            return Ok(Demand::Already);
        }
        let host = address - piece.guest + piece.physical;
        let all = piece.physical..piece.physical + piece.bytes;
        let of_one_type = match &self.types {
            Some(mtrrs) => mtrrs.runs(all).find(|(run, _)| run.contains(&host)),
            None => Some((all, MemoryType::WriteBack)),
        };
        let Some((run, memory_type)) = of_one_type else {
            return Ok(Demand::Nowhere);
        };
        let guest = |host| host - piece.physical + piece.guest;
        let page = Page {
            host: run.start,
            size: self.largest,
            rights: Rights::ALL,
            memory_type,
        };
        let region = guest(run.start)..guest(run.end);
        self.table.populate(address, region, page).settle(forget)?;
        Ok(Demand::Mapped)
    }

    /// Reads at a linear address, as far as it is mapped to memory, whatever its rights: how many
    /// bytes there are. Without page tables, of which CR3 has the root, it is a physical one.
    pub fn fetch(&self, cr3: Option<u64>, address: u64, data: &mut [u8]) -> usize {
        let mut done = 0;
        while done < data.len() {
            let at = address.wrapping_add(done as u64);
            let len = in_page(at, data.len() - done);
            let physical = match cr3 {
                Some(cr3) => walk(&self.ram, cr3, at).physical(),
                None => Some(at),
            };
            let window = physical.and_then(|p| self.ram.window(p, len));
            let Some(window) = window else { break };
            window.read(0, &mut data[done..done + len]);
            done += len;
        }
        done
    }

    /// Reads at a linear address for the guest.
    ///
    /// # Errors
    ///
    /// The fault that the guest meets there.
    pub fn read(&self, by: Accessor, address: u64, data: &mut [u8]) -> Result<(), PageFault> {
        self.each_page(by, address, data.len(), false, |window, done, len| {
            window.read(0, &mut data[done..done + len]);
        })
    }

    /// Writes at a linear address for the guest: all of it, or nothing.
    ///
    /// # Errors
    ///
    /// The fault that the guest meets there.
    pub fn write(&self, by: Accessor, address: u64, data: &[u8]) -> Result<(), PageFault> {
        self.each_page(by, address, data.len(), true, |_, _, _| ())?;
        self.each_page(by, address, data.len(), true, |window, done, len| {
            window.write(0, &data[done..done + len]);
        })
    }

    fn each_page(
        &self,
        by: Accessor,
        address: u64,
        len: usize,
        write: bool,
        mut each: impl FnMut(Window<'_>, usize, usize),
    ) -> Result<(), PageFault> {
        let is_user = by.ring == 3;
        let access = if write { WRITE } else { 0 } | if is_user { USER } else { 0 };
        let mut done = 0;
        while done < len {
            let at = address.wrapping_add(done as u64);
            let fault = |present: u32| PageFault {
                address: at,
                code: access | present,
            };
            let physical = match walk(&self.ram, by.cr3, at).end {
                WalkEnd::Mapped {
                    physical,
                    write: writable,
                    user,
                    ..
                } if (writable || !write) && (user || !is_user) => physical,
                WalkEnd::Mapped { .. } => return Err(fault(PRESENT)),
                _ => return Err(fault(0)),
            };
            let part = in_page(at, len - done);
            let window = self.ram.window(physical, part).ok_or(fault(0))?;
            each(window, done, part);
            done += part;
        }
        Ok(())
    }
}

/// How many of so many bytes lie in the page of an address.
fn in_page(address: u64, len: usize) -> usize {
    let room = PAGE - address % PAGE;
    len.min(room as usize)
}

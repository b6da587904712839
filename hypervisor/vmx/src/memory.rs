//! Guest memory: EPT, made on demand, and the way from a linear address to the bytes.

use chiton_core::explain::{WalkEnd, walk};
use chiton_core::paging::{Change, Ept, Page, Rights, Size, Table};
use chiton_core::physical::{GuestRam, Physical};
use chiton_core::vmx::Capabilities;
use chiton_shared::memory::GuestMemory;

use crate::enable::Processor;
use crate::{Error, Options, invalidate};

/// The memory of one guest.
pub(crate) struct Memory {
    pub(crate) ram: GuestRam,
    pub(crate) table: Table<'static, Ept>,
    largest: Size,
}

/// What a violation was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Memory that was not mapped yet, and is now.
    Mapped,
    /// Memory that is mapped.
    Already,
    /// No memory is there.
    Nowhere,
}

/// Why a linear address leads nowhere: the error code of the page fault (SDM volume 3A, figure
/// 5-12), without the bits about the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) address: u64,
    pub(crate) code: u32,
}

/// A write, in a page fault's error code.
const WRITE: u32 = 1 << 1;
/// An access of ring 3, there.
const USER: u32 = 1 << 2;

impl Memory {
    /// Memory of which nothing is mapped yet.
    pub(crate) fn new(
        physical: &'static dyn Physical,
        capabilities: &Capabilities,
        ram: GuestRam,
        options: &Options,
    ) -> Result<Self, Error> {
        let bits = capabilities.processor.physical_bits;
        let mut format = Ept::new(capabilities.ept_vpid.0, bits.into())?;
        if options.virtualization_exceptions.is_some() {
            format = format.suppressing_ve();
        }
        let table = Table::new(physical, format)?;
        // What an earlier root at the same address has left is remembered under the same EPTP.
        invalidate::ept(capabilities, table.pointer())?;
        Ok(Self {
            ram,
            table,
            largest: options.largest_page,
        })
    }

    /// The guest has touched a guest-physical address that is not mapped, or without the right that
    /// it took: maps the largest page round it that lies in memory as a whole, and in memory of one
    /// type.
    pub(crate) fn demand(&mut self, processor: &Processor, address: u64) -> Result<Demand, Error> {
        let Some(piece) = self.ram.piece(address) else {
            return Ok(Demand::Nowhere);
        };
        if self.table.translate(address).is_some() {
            return Ok(Demand::Already);
        }
        let host = address - piece.guest + piece.physical;
        let mut runs = processor.mtrrs.runs(piece.physical..piece.physical + piece.bytes);
        let Some((run, memory_type)) = runs.find(|(run, _)| run.contains(&host)) else {
            return Ok(Demand::Nowhere);
        };
        let guest = |host| host - piece.physical + piece.guest;
        let region = guest(run.start)..guest(run.end);
        let page = Page {
            host: run.start,
            size: self.largest,
            rights: Rights::ALL,
            memory_type,
        };
        let change = self.table.populate(address, region, page);
        settle(change, processor).map(|()| Demand::Mapped)
    }

    /// Where a guest-physical address lies in the machine's memory, if it is memory.
    pub(crate) fn host(&self, address: u64) -> Option<u64> {
        let piece = self.ram.piece(address)?;
        Some(address - piece.guest + piece.physical)
    }

    /// Maps a page in the place of whatever is mapped there.
    pub(crate) fn put(&mut self, processor: &Processor, address: u64, page: Page) -> Result<(), Error> {
        settle(self.table.remap(address, page.size.bytes(), page), processor)
    }

    /// From now on violations in a range are the guest's own.
    pub(crate) fn give_violations_to_guest(
        &mut self,
        processor: &Processor,
        address: u64,
        len: u64,
    ) -> Result<(), Error> {
        settle(self.table.unmap(address, len), processor)?;
        settle(self.table.convert(address, len, true), processor)
    }

    /// Reads bytes at a guest-physical address; what is no memory reads as before.
    pub(crate) fn read_bytes(&self, address: u64, data: &mut [u8]) {
        if let Some(window) = self.ram.window(address, data.len()) {
            window.read(0, data);
        }
    }

    /// Reads at a linear address, as far as it is mapped to memory: how many bytes there are.
    pub(crate) fn fetch(&self, cr3: u64, address: u64, data: &mut [u8]) -> usize {
        let mut done = 0;
        while done < data.len() {
            let at = address.wrapping_add(done as u64);
            let Some(physical) = walk(&self.ram, cr3, at).physical() else {
                break;
            };
            let len = in_page(at, data.len() - done);
            let Some(window) = self.ram.window(physical, len) else {
                break;
            };
            window.read(0, &mut data[done..done + len]);
            done += len;
        }
        done
    }

    /// Reads 8 bytes at a guest-physical address.
    pub(crate) fn read_physical(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.ram.window(address, 8)?.read(0, &mut bytes);
        Some(u64::from_le_bytes(bytes))
    }

    /// Reads at a linear address for the guest, which is in this ring.
    pub(crate) fn read(&self, cr3: u64, ring: u8, address: u64, data: &mut [u8]) -> Result<(), Fault> {
        let user = ring == 3;
        self.each_page(cr3, address, data.len(), user, false, |window, done, len| {
            window.read(0, &mut data[done..done + len]);
        })
    }

    /// Writes at a linear address for the guest, which is in this ring.
    pub(crate) fn write(&self, cr3: u64, ring: u8, address: u64, data: &[u8]) -> Result<(), Fault> {
        let user = ring == 3;
        // Nothing is written unless all can be.
        self.each_page(cr3, address, data.len(), user, true, |_, _, _| ())?;
        self.each_page(cr3, address, data.len(), user, true, |window, done, len| {
            window.write(0, &data[done..done + len]);
        })
    }

    fn each_page(
        &self,
        cr3: u64,
        address: u64,
        len: usize,
        user: bool,
        write: bool,
        mut each: impl FnMut(chiton_shared::memory::Window<'_>, usize, usize),
    ) -> Result<(), Fault> {
        let mut done = 0;
        while done < len {
            let at = address.wrapping_add(done as u64);
            let access = if write { WRITE } else { 0 } | if user { USER } else { 0 };
            let fault = |present: u32| Fault {
                address: at,
                code: access | present,
            };
            let physical = match walk(&self.ram, cr3, at).end {
                WalkEnd::Mapped {
                    physical,
                    write: writable,
                    user: users,
                    ..
                } if (writable || !write) && (users || !user) => physical,
                WalkEnd::Mapped { .. } => return Err(fault(1)),
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

/// Ends a change of EPT: has this processor forget what the change asks to forget.
fn settle(change: Change<'_, '_, Ept>, processor: &Processor) -> Result<(), Error> {
    let mut outcome = Ok(());
    change.settle(|eptp| outcome = invalidate::ept(&processor.capabilities, eptp))?;
    outcome
}

/// How many of so many bytes lie in the page of an address.
fn in_page(address: u64, len: usize) -> usize {
    let room = 4096 - (address & 4095);
    len.min(room as usize)
}

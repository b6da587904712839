//! A page that runs otherwise than it reads.
//!
//! Its EPT entry either lets the guest fetch, from a copy that the hypervisor has made, or read and
//! write what the guest itself put there. Each violation turns it to the other side. Code that reads
//! the page it runs in would turn it for ever; a whole debugger steps over such an instruction by the
//! monitor trap flag.

use chiton_core::paging::{self, Ept, Rights};
use chiton_core::physical::{PAGE_SIZE, Pages};
use chiton_core::space::Space;
use chiton_shared::memory::GuestMemory;

use crate::enable::Processor;
use crate::{Error, memory};

/// A page with two sides.
pub(crate) struct Hook {
    /// Guest-physical address of the page.
    guest: u64,
    /// What runs.
    code: Pages,
}

impl Hook {
    /// The page at this guest-physical address runs as it is now, but for `patch` at its beginning.
    pub(crate) fn new(processor: &Processor, space: &Space<Ept>, guest: u64, patch: &[u8]) -> Result<Self, Error> {
        let code = Pages::one(processor.physical, "the code of a hook")?;
        let mut bytes = [0; PAGE_SIZE];
        if let Some(window) = space.ram.window(guest, PAGE_SIZE) {
            window.read(0, &mut bytes);
        }
        let len = patch.len().min(PAGE_SIZE);
        bytes[..len].copy_from_slice(&patch[..len]);
        for (word, bytes) in bytes.as_chunks().0.iter().enumerate() {
            code.write_u64(word * 8, u64::from_le_bytes(*bytes));
        }
        Ok(Self { guest, code })
    }

    /// Whether a guest-physical address is in the page.
    pub(crate) const fn holds(&self, address: u64) -> bool {
        address & !0xfff == self.guest
    }

    /// Turns the page to the side that runs, or to the other.
    pub(crate) fn turn(&self, space: &mut Space<Ept>, processor: &Processor, to_run: bool) -> Result<(), Error> {
        let (host, rights) = if to_run {
            (Some(self.code.address()), Rights::EXECUTE)
        } else {
            (space.host(self.guest), Rights::READ_WRITE)
        };
        let Some(host) = host else {
            return Ok(());
        };
        let size = paging::Size::Small;
        let memory_type = space.memory_type(host);
        let page = paging::Page {
            host,
            size,
            rights,
            memory_type,
        };
        memory::settle(space.table.remap(self.guest, size.bytes(), page), processor)
    }
}

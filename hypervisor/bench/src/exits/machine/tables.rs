//! The region for page walks: memory behind the guest's own, which its page tables have three times, by pages of
//! 4 KiB, 2 MiB and 1 GiB; and the registers of the local APIC.
//!
//! ```text
//!   guest-physical   0 … MEMORY          the guest's world, as ever
//!                    region              64 MiB
//!                    tables              one PDPT each, page directories, page tables
//!   guest-virtual    1 << 39             the region by 4 KiB
//!                    2 << 39             the region by 2 MiB
//!                    3 << 39 + region    the region by 1 GiB: all from 0 on
//!                    4 << 39             the local APIC, and a page behind it that nobody may write
//! ```

use chiton_kvm::Ram;
use chiton_shared::map::{LARGE_PAGE, PAGE};
use chiton_shared::memory::GuestMemory;

/// Size of the region, in bytes: beyond the reach of any translation buffer that maps by 4 KiB.
const REGION: u64 = 64 << 20;
/// Bytes that an entry of the top table maps.
const TOP: u64 = 1 << 39;
/// Where the local APIC is (SDM volume 3A, section 12.4.1).
const APIC: u64 = 0xfee0_0000;

/// Where the page is that nobody may write: at an address of no memory and no device.
pub(super) const READ_ONLY: u64 = 0xe000_0000;

/// Present, writable, for ring 3 too, accessed and dirty (SDM volume 3A, table 5-20).
const ENTRY: u64 = 0b110_0111;
/// A large page.
const LARGE: u64 = 1 << 7;
/// Not cached.
const UNCACHED: u64 = 1 << 4 | 1 << 3;
/// Nothing is executed there.
const NO_EXECUTE: u64 = 1 << 63;
/// Entries of a table.
const ENTRIES: u64 = 512;

/// Where it all lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walks {
    region: u64,
}

impl Walks {
    /// Behind a guest's memory of so many bytes.
    pub(super) const fn behind(memory: u64) -> Self {
        Self {
            region: memory.next_multiple_of(LARGE_PAGE),
        }
    }

    const fn tables(self) -> u64 {
        self.region + REGION
    }

    /// The end of memory.
    pub(super) const fn end(self) -> u64 {
        // A PDPT each, three page directories, the page tables of the region, and one of the APIC.
        self.tables() + PAGE * (4 + 3 + REGION / LARGE_PAGE + 1)
    }

    /// Where the guest finds the local APIC.
    pub(super) const fn apic(self) -> u64 {
        4 * TOP
    }

    /// Where it finds the page that nobody may write.
    pub(super) const fn read_only(self) -> u64 {
        4 * TOP + PAGE
    }

    /// What tells the guest; of pages of 1 GiB only if there are `huge` ones.
    pub(super) fn arguments(self, huge: bool) -> Vec<String> {
        let mut arguments = vec![
            format!("walk4k={TOP}"),
            format!("walk2m={}", 2 * TOP),
            format!("walklen={REGION}"),
        ];
        arguments.extend(huge.then(|| format!("walk1g={}", 3 * TOP + self.region)));
        arguments
    }

    /// Writes tables behind the region, and leads the top table at `cr3` to them. With `large`, the host is asked for
    /// large pages for the region, else for small ones.
    pub(super) fn write_to(self, ram: &Ram, cr3: u64, large: bool) {
        if let Some(window) = ram.window(self.region, REGION as usize) {
            let advice = if large {
                libc::MADV_HUGEPAGE
            } else {
                libc::MADV_NOHUGEPAGE
            };
            // SAFETY: memory of this process, of which no byte changes. Where the kernel cannot, it stays as it is.
            let _ = unsafe { libc::madvise(window.as_ptr().cast(), window.len(), advice) };
        }
        let mut next = self.tables();
        let mut table = || {
            next += PAGE;
            next - PAGE
        };
        let put = |table: u64, index: u64, entry: u64| {
            if let Some(window) = ram.window(table + index * 8, 8) {
                window.write(0, &entry.to_le_bytes());
            }
        };
        let [small, medium, huge, apic] = [(); 4].map(|()| table());
        for (index, pdpt) in [(1, small), (2, medium), (3, huge), (4, apic)] {
            put(cr3, index, pdpt | ENTRY);
        }
        // By 4 KiB.
        let directory = table();
        put(small, 0, directory | ENTRY);
        for index in 0..REGION / LARGE_PAGE {
            let pages = table();
            put(directory, index, pages | ENTRY);
            for page in 0..ENTRIES {
                let at = self.region + index * LARGE_PAGE + page * PAGE;
                put(pages, page, at | ENTRY | NO_EXECUTE);
            }
        }
        // By 2 MiB.
        let directory = table();
        put(medium, 0, directory | ENTRY);
        for index in 0..REGION / LARGE_PAGE {
            put(
                directory,
                index,
                (self.region + index * LARGE_PAGE) | ENTRY | LARGE | NO_EXECUTE,
            );
        }
        // By 1 GiB, from 0 on.
        put(huge, 0, ENTRY | LARGE | NO_EXECUTE);
        // The local APIC.
        let (directory, pages) = (table(), table());
        put(apic, 0, directory | ENTRY);
        put(directory, 0, pages | ENTRY);
        put(pages, 0, APIC | ENTRY | UNCACHED | NO_EXECUTE);
        put(pages, 1, READ_ONLY | ENTRY | NO_EXECUTE);
        debug_assert!(next <= self.end());
    }
}

#[cfg(test)]
mod tests {
    use chiton_core::explain::walk;

    use super::*;

    #[test]
    fn each_way_to_the_region_ends_at_the_same_page() {
        let memory = 4 << 20;
        let walks = Walks::behind(memory);
        let ram = Ram::new(walks.end()).unwrap();
        let cr3 = 0x1000;
        walks.write_to(&ram, cr3, false);
        for offset in [0, PAGE * 3, REGION - PAGE] {
            for start in [TOP, 2 * TOP, 3 * TOP + memory] {
                let walk = walk(&ram, cr3, start + offset).to_string();
                let page = format!("{:x}", memory + offset);
                assert!(walk.contains(&page), "{start:x}+{offset:x} to {page}: {walk}");
            }
        }
        assert!(walk(&ram, cr3, walks.apic()).to_string().contains("fee00"));
    }
}

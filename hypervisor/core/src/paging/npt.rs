//! The format of NPT entries: those of a host's own tables in long mode (APM volume 2, sections
//! 15.25.5 and 5.4.1).

use super::format::{ADDRESS, maps_page};
use super::table::LEVELS;
use super::{Broken, Format, MemoryType, Page, Pat, Rights, Size};

/// The entry is present; what is present can be read.
const PRESENT: u64 = 1 << 0;
/// Writes are allowed.
const WRITE: u64 = 1 << 1;
/// User accesses are allowed. To nested tables every access of a guest is one of a user (APM
/// volume 2, section 15.25.5), so this is set in every entry.
const USER: u64 = 1 << 2;
/// Bit 0 of the number of the PAT's entry.
const WRITE_THROUGH: u64 = 1 << 3;
/// Bit 1 of it.
const CACHE_DISABLE: u64 = 1 << 4;
/// Bit 2 of it in an entry of a page table, where bit 7 has no other use.
const PAT_SMALL: u64 = 1 << 7;
/// Bit 2 of it in an entry of a larger page.
const PAT_LARGE: u64 = 1 << 12;
/// Fetches are not allowed. Needs EFER.NXE in the host.
const NO_EXECUTE: u64 = 1 << 63;

/// NPT as a processor offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Npt {
    pages_1g: bool,
    address_bits: u32,
    pat: Pat,
}

impl Npt {
    /// NPT of a processor that has 1 GiB pages or not (CPUID 80000001H:EDX\[26\]), physical
    /// addresses of so many bits (CPUID 80000008H:EAX\[7:0\]), and this in the *host's* PAT: a
    /// nested entry selects from it as an entry of the host does (APM volume 2, section 15.25.8).
    #[must_use]
    pub const fn new(pages_1g: bool, address_bits: u32, pat: Pat) -> Self {
        Self {
            pages_1g,
            address_bits: if address_bits < 52 { address_bits } else { 52 },
            pat,
        }
    }

    const fn pat_bit(size: Size) -> u64 {
        match size {
            Size::Small => PAT_SMALL,
            Size::Large | Size::Huge => PAT_LARGE,
        }
    }

    /// A nested entry always allows reads.
    const fn bits(rights: Rights) -> Option<u64> {
        if !rights.read {
            return None;
        }
        let write = if rights.write { WRITE } else { 0 };
        let execute = if rights.execute { 0 } else { NO_EXECUTE };
        Some(PRESENT | USER | write | execute)
    }
}

impl Format for Npt {
    const NAME: &'static str = "NPT";
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;

    fn table(&self, address: u64) -> u64 {
        address | PRESENT | WRITE | USER
    }

    fn page(&self, page: Page) -> Option<u64> {
        let number = self.pat.find(page.memory_type)?;
        let mut entry = page.host | Self::bits(page.rights)?;
        for (bit, flag) in [WRITE_THROUGH, CACHE_DISABLE, Self::pat_bit(page.size)]
            .into_iter()
            .enumerate()
        {
            if number >> bit & 1 != 0 {
                entry |= flag;
            }
        }
        if page.size != Size::Small {
            entry |= Self::LARGE;
        }
        Some(entry)
    }

    fn with_rights(&self, entry: u64, rights: Rights) -> Option<u64> {
        Some(entry & !(PRESENT | WRITE | USER | NO_EXECUTE) | Self::bits(rights)?)
    }

    fn rights(&self, entry: u64) -> Rights {
        let allowed = entry & PRESENT != 0 && entry & USER != 0;
        Rights::new(
            allowed,
            allowed && entry & WRITE != 0,
            allowed && entry & NO_EXECUTE == 0,
        )
    }

    fn memory_type(&self, entry: u64, size: Size) -> Option<MemoryType> {
        let number = [WRITE_THROUGH, CACHE_DISABLE, Self::pat_bit(size)]
            .into_iter()
            .enumerate()
            .map(|(bit, flag)| usize::from(entry & flag != 0) << bit)
            .sum();
        self.pat.get(number)
    }

    fn piece(&self, entry: u64, size: Size, host: u64) -> u64 {
        // The address of a 2 MiB page leaves bit 12 to the PAT; that of a 4 KiB page does not.
        let pat = entry & PAT_LARGE;
        let flags = entry & !ADDRESS;
        match size {
            Size::Huge => flags | pat | host,
            Size::Small | Size::Large => {
                let pat = if pat == 0 { 0 } else { PAT_SMALL };
                flags & !Self::LARGE | pat | host
            }
        }
    }

    fn broken(&self, level: u8, entry: u64) -> Option<Broken> {
        if entry & PRESENT == 0 {
            return None;
        }
        let page = maps_page::<Self>(entry, level);
        let rule = match Size::of_level(level).filter(|_| page) {
            None if level == LEVELS && page => (Self::LARGE, "bit 7 of a PML4 entry must be zero"),
            Some(size) if !self.offers(size) => (Self::LARGE, "this processor has no pages of that size"),
            // Bit 12 belongs to the PAT.
            Some(size @ (Size::Large | Size::Huge)) => (
                ADDRESS & (size.bytes() - 1) & !PAT_LARGE,
                "the address of a large page is not a multiple of its size",
            ),
            _ => (0, ""),
        };
        let beyond = ADDRESS & !((1 << self.address_bits) - 1);
        let rules = [
            (
                beyond,
                "the address has bits that this processor's physical addresses do not have",
            ),
            rule,
        ];
        let broken = rules.into_iter().find(|(bits, _)| entry & bits != 0);
        broken.map(|(bits, why)| Broken { bits, why })
    }

    fn offers(&self, size: Size) -> bool {
        size != Size::Huge || self.pages_1g
    }

    fn address_bits(&self) -> u32 {
        self.address_bits
    }

    /// nCR3: the root alone (APM volume 2, section 15.25.3).
    fn pointer(&self, root: u64) -> u64 {
        root
    }
}

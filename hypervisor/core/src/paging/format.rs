//! What EPT and NPT have in common, and what each has its own way.

use super::{MemoryType, Rights, Size};

/// Bits of an entry that hold an address, in both formats, on a processor whose physical
/// addresses have all of the 52 bits that the architecture has room for.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A page, as an entry describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Host-physical address of its first byte.
    pub host: u64,
    /// Its size.
    pub size: Size,
    /// What the guest may do there.
    pub rights: Rights,
    /// How the processor caches it.
    pub memory_type: MemoryType,
}

/// What is wrong with an entry: the processor refuses to use it. With EPT that is a
/// misconfiguration (SDM volume 3C, section 30.3.3.1); with NPT it is a nested page fault with the
/// reserved bit (RSV) in its error code (APM volume 2, section 15.25.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The bits that should be otherwise.
    pub bits: u64,
    /// Why, as the end of a sentence.
    pub why: &'static str,
}

/// A format of second-level page tables: four levels of 512 entries of 8 bytes.
///
/// Its value knows what the processor offers, so that a table never has an entry that the
/// processor refuses.
pub trait Format: Copy {
    /// Name of the format.
    const NAME: &'static str;
    /// Set by the processor when it uses an entry.
    const ACCESSED: u64;
    /// Set by the processor when it writes to the page that the entry maps.
    const DIRTY: u64;
    /// Tells, in an entry above the page table, a page from a table.
    const LARGE: u64 = 1 << 7;

    /// An entry that leads nowhere. A new table is full of them.
    fn absent(&self) -> u64 {
        0
    }

    /// An entry that leads to the table at this address, and that leaves all rights to the page.
    fn table(&self, address: u64) -> u64;

    /// An entry that maps a page; `None` if the format has no entry with such rights or such a
    /// memory type.
    fn page(&self, page: Page) -> Option<u64>;

    /// The same entry with other rights; `None` if the format has no entry with such rights.
    fn with_rights(&self, entry: u64, rights: Rights) -> Option<u64>;

    /// What an entry allows. An entry that allows nothing is not present.
    fn rights(&self, entry: u64) -> Rights;

    /// The memory type that an entry which maps a page has; `None` if it is one of the reserved.
    fn memory_type(&self, entry: u64, size: Size) -> Option<MemoryType>;

    /// What a large page's entry becomes when the page is split: the entry of one of the 512
    /// smaller pages, the one at `host`. `size` is that of the page that is split.
    fn piece(&self, entry: u64, size: Size, host: u64) -> u64;

    /// What is wrong with an entry of a table of this level, if something is.
    fn broken(&self, level: u8, entry: u64) -> Option<Broken>;

    /// Whether the processor sets accessed and dirty flags in the entries.
    fn keeps_marks(&self) -> bool {
        true
    }

    /// Whether each use of one of the guest's own tables counts as a write to it: where accessed
    /// and dirty flags are kept (SDM volume 3C, section 30.3.3.2), and with NPT always (APM volume
    /// 2, section 15.25.5).
    fn walks_write(&self) -> bool {
        self.keeps_marks()
    }

    /// Whether the processor maps pages of this size.
    fn offers(&self, size: Size) -> bool;

    /// How many bits a physical address has.
    fn address_bits(&self) -> u32;

    /// What points the processor to the root: the EPTP, or nCR3.
    fn pointer(&self, root: u64) -> u64;
}

/// Whether an entry of a level maps a page.
pub(super) fn maps_page<F: Format>(entry: u64, level: u8) -> bool {
    level == 1 || entry & F::LARGE != 0
}

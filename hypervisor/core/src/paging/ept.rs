//! The format of EPT entries (SDM volume 3C, section 30.3.2, tables 30-1 to 30-7).

use super::format::ADDRESS;
use super::{Format, MemoryType, Page, Rights, Size};

/// Reads are allowed.
pub(super) const READ: u64 = 1 << 0;
/// Writes are allowed.
pub(super) const WRITE: u64 = 1 << 1;
/// Fetches are allowed; with mode-based execute control, those of supervisor-mode addresses.
pub(super) const EXECUTE: u64 = 1 << 2;
/// Where the memory type of a page begins, three bits wide.
pub(super) const MEMORY_TYPE: u32 = 3;
/// The guest's PAT has no say in the memory type.
pub(super) const IGNORE_PAT: u64 = 1 << 6;
/// Violations at this entry go to the hypervisor, even if the control "EPT-violation #VE" is 1
/// (SDM volume 3C, section 26.5.7.1).
const SUPPRESS_VE: u64 = 1 << 63;

/// Bits of IA32_VMX_EPT_VPID_CAP (SDM volume 3D, appendix A.10).
mod capability {
    pub(super) const EXECUTE_ONLY: u64 = 1 << 0;
    pub(super) const FOUR_LEVELS: u64 = 1 << 6;
    pub(super) const TABLES_UNCACHEABLE: u64 = 1 << 8;
    pub(super) const TABLES_WRITE_BACK: u64 = 1 << 14;
    pub(super) const PAGES_2M: u64 = 1 << 16;
    pub(super) const PAGES_1G: u64 = 1 << 17;
    pub(super) const INVEPT: u64 = 1 << 20;
    pub(super) const ACCESSED_DIRTY: u64 = 1 << 21;
    pub(super) const INVEPT_SINGLE: u64 = 1 << 25;
}

/// Why a processor's EPT cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EptError {
    /// Neither of the memory types that tables may lie in.
    #[error("IA32_VMX_EPT_VPID_CAP = {0:#x} offers no memory type for EPT tables: neither bit 8 (UC) nor bit 14 (WB)")]
    NoTableType(u64),
    /// No tables of four levels.
    #[error("IA32_VMX_EPT_VPID_CAP = {0:#x} offers no EPT page walk of four levels: bit 6 is 0")]
    NoFourLevels(u64),
    /// No way to make the processor forget.
    #[error("IA32_VMX_EPT_VPID_CAP = {0:#x} offers no single-context INVEPT: bits 20 and 25 are not both 1")]
    NoInvept(u64),
}

/// EPT as a processor offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ept {
    capability: u64,
    address_bits: u32,
    accessed_dirty: bool,
    ignore_pat: bool,
    suppress_ve: bool,
}

impl Ept {
    /// EPT of a processor with this IA32_VMX_EPT_VPID_CAP, and with physical addresses of so many
    /// bits (CPUID 80000008H:EAX\[7:0\]). Accessed and dirty flags are used where the processor
    /// has them.
    ///
    /// # Errors
    ///
    /// When something is missing that every processor since 2010 has.
    pub const fn new(capability: u64, address_bits: u32) -> Result<Self, EptError> {
        if capability & (capability::TABLES_WRITE_BACK | capability::TABLES_UNCACHEABLE) == 0 {
            return Err(EptError::NoTableType(capability));
        }
        if capability & capability::FOUR_LEVELS == 0 {
            return Err(EptError::NoFourLevels(capability));
        }
        let invept = capability::INVEPT | capability::INVEPT_SINGLE;
        if capability & invept != invept {
            return Err(EptError::NoInvept(capability));
        }
        Ok(Self {
            capability,
            address_bits: if address_bits < 52 { address_bits } else { 52 },
            accessed_dirty: capability & capability::ACCESSED_DIRTY != 0,
            ignore_pat: false,
            suppress_ve: false,
        })
    }

    /// The same without accessed and dirty flags.
    #[must_use]
    pub const fn without_accessed_dirty(mut self) -> Self {
        self.accessed_dirty = false;
        self
    }

    /// The same, with the guest's PAT shut out of the memory types.
    #[must_use]
    pub const fn ignoring_pat(mut self) -> Self {
        self.ignore_pat = true;
        self
    }

    /// The same, with bit 63 ("suppress #VE") set in every entry, also in those that are not
    /// present: where "EPT-violation #VE" is used, all violations are exits but those at the
    /// entries where [`Table::convert`](super::Table::convert) has cleared it.
    #[must_use]
    pub const fn suppressing_ve(mut self) -> Self {
        self.suppress_ve = true;
        self
    }

    /// Whether the processor keeps accessed and dirty flags in these tables.
    #[must_use]
    pub const fn accessed_dirty(&self) -> bool {
        self.accessed_dirty
    }

    /// Whether the processor has pages that can be executed and not read.
    #[must_use]
    pub const fn execute_only(&self) -> bool {
        self.capability & capability::EXECUTE_ONLY != 0
    }

    const fn suppress(&self) -> u64 {
        if self.suppress_ve { SUPPRESS_VE } else { 0 }
    }

    /// The bits of rights. A write without a read is a misconfiguration; so is a fetch without a
    /// read where the processor has no execute-only pages (SDM volume 3C, section 30.3.3.1).
    const fn bits(&self, rights: Rights) -> Option<u64> {
        let Rights { read, write, execute } = rights;
        if !read && (write || !execute || !self.execute_only()) {
            return None;
        }
        Some(read as u64 | (write as u64) << 1 | (execute as u64) << 2)
    }
}

impl Format for Ept {
    const NAME: &'static str = "EPT";
    const ACCESSED: u64 = 1 << 8;
    const DIRTY: u64 = 1 << 9;

    fn absent(&self) -> u64 {
        self.suppress()
    }

    fn table(&self, address: u64) -> u64 {
        address | READ | WRITE | EXECUTE
    }

    fn page(&self, page: Page) -> Option<u64> {
        if page.memory_type == MemoryType::UncacheableMinus {
            return None;
        }
        let mut entry = page.host | self.bits(page.rights)? | self.suppress();
        entry |= u64::from(page.memory_type as u8) << MEMORY_TYPE;
        if self.ignore_pat {
            entry |= IGNORE_PAT;
        }
        if page.size != Size::Small {
            entry |= Self::LARGE;
        }
        Some(entry)
    }

    fn with_rights(&self, entry: u64, rights: Rights) -> Option<u64> {
        Some(entry & !(READ | WRITE | EXECUTE) | self.bits(rights)?)
    }

    fn rights(&self, entry: u64) -> Rights {
        Rights::new(entry & READ != 0, entry & WRITE != 0, entry & EXECUTE != 0)
    }

    fn memory_type(&self, entry: u64, _: Size) -> Option<MemoryType> {
        match MemoryType::of((entry >> MEMORY_TYPE & 7) as u8) {
            Some(MemoryType::UncacheableMinus) => None,
            known => known,
        }
    }

    fn piece(&self, entry: u64, size: Size, host: u64) -> u64 {
        let kept = if size == Size::Large {
            !ADDRESS & !Self::LARGE
        } else {
            !ADDRESS
        };
        entry & kept | host
    }

    fn offers(&self, size: Size) -> bool {
        match size {
            Size::Small => true,
            Size::Large => self.capability & capability::PAGES_2M != 0,
            Size::Huge => self.capability & capability::PAGES_1G != 0,
        }
    }

    fn address_bits(&self) -> u32 {
        self.address_bits
    }

    /// The EPTP (SDM volume 3C, table 26-9): memory type of the tables in bits 2:0, levels less
    /// one in bits 5:3, accessed and dirty flags in bit 6, and the root.
    fn pointer(&self, root: u64) -> u64 {
        let write_back = self.capability & capability::TABLES_WRITE_BACK != 0;
        let memory_type = if write_back {
            MemoryType::WriteBack
        } else {
            MemoryType::Uncacheable
        };
        root | u64::from(self.accessed_dirty) << 6 | 3 << 3 | memory_type as u64
    }
}

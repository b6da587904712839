//! The format of EPT entries (SDM volume 3C, section 30.3.2, tables 30-1 to 30-7).

use super::edit::Bit;
use super::format::{ADDRESS, maps_page};
use super::table::LEVELS;
use super::{Broken, Change, Format, MemoryType, Page, Rights, Size, Table};
use crate::vmx::capability::EptVpid;

/// Reads are allowed.
const READ: u64 = 1 << 0;
/// Writes are allowed.
const WRITE: u64 = 1 << 1;
/// Fetches are allowed; with mode-based execute control, those of supervisor-mode addresses.
const EXECUTE: u64 = 1 << 2;
/// Where the memory type of a page begins, three bits wide.
const MEMORY_TYPE: u32 = 3;
/// The guest's PAT has no say in the memory type.
const IGNORE_PAT: u64 = 1 << 6;
/// Violations at this entry go to the hypervisor, even if the control "EPT-violation #VE" is 1
/// (SDM volume 3C, section 27.5.7.1).
const SUPPRESS_VE: u64 = 1 << 63;

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
    capability: EptVpid,
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
        let offers = EptVpid(capability);
        if !offers.write_back() && !offers.uncacheable() {
            return Err(EptError::NoTableType(capability));
        }
        if !offers.walk_of_4() {
            return Err(EptError::NoFourLevels(capability));
        }
        if !offers.invept() || !offers.invept_single() {
            return Err(EptError::NoInvept(capability));
        }
        Ok(Self {
            capability: offers,
            address_bits: if address_bits < 52 { address_bits } else { 52 },
            accessed_dirty: offers.accessed_dirty(),
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
    /// entries where [`Table::convert`] has cleared it.
    #[must_use]
    pub const fn suppressing_ve(mut self) -> Self {
        self.suppress_ve = true;
        self
    }

    /// Whether the processor has pages that can be executed and not read.
    #[must_use]
    pub const fn execute_only(&self) -> bool {
        self.capability.execute_only()
    }

    /// The bits that a physical address may have.
    const fn addresses(&self) -> u64 {
        (1 << self.address_bits) - 1
    }

    const fn suppress(&self) -> u64 {
        if self.suppress_ve { SUPPRESS_VE } else { 0 }
    }

    /// Rights that cannot be.
    fn rights_broken(&self, entry: u64) -> Option<Broken> {
        let rights = self.rights(entry);
        let why = match (rights.read, rights.write, rights.execute) {
            (false, true, _) => "writes are allowed (bit 1) and reads are not (bit 0)",
            (false, false, true) if !self.execute_only() => {
                "fetches are allowed (bit 2) and reads are not (bit 0), which this processor does not offer \
                 (IA32_VMX_EPT_VPID_CAP bit 0 is 0)"
            }
            _ => return None,
        };
        Some(Broken {
            bits: READ | WRITE | EXECUTE,
            why,
        })
    }

    /// Reserved bits that are set (SDM volume 3C, tables 30-2 to 30-7).
    fn reserved(&self, level: u8, entry: u64) -> Option<Broken> {
        let beyond = ADDRESS & !self.addresses();
        let page = maps_page::<Self>(entry, level);
        let size = Size::of_level(level).filter(|_| page);
        let rules = [
            (
                beyond,
                "the address has bits that this processor's physical addresses do not have",
            ),
            match size {
                None if level == LEVELS => (0xf8, "bits 7:3 of a PML4 entry are reserved"),
                None => (0x78, "bits 6:3 of an entry that leads to a table are reserved"),
                Some(size) if !self.offers(size) => (Self::LARGE, "this processor has no pages of that size"),
                Some(Size::Small) => (0, ""),
                Some(size) => (
                    ADDRESS & (size.bytes() - 1),
                    "the address of a large page is not a multiple of its size",
                ),
            },
        ];
        let broken = rules.into_iter().find(|(bits, _)| entry & bits != 0);
        broken.map(|(bits, why)| Broken { bits, why })
    }

    /// A memory type that is none.
    fn type_broken(&self, level: u8, entry: u64) -> Option<Broken> {
        let size = Size::of_level(level).filter(|_| maps_page::<Self>(entry, level))?;
        let known = self.memory_type(entry, size).is_some();
        (!known).then_some(Broken {
            bits: 7 << MEMORY_TYPE,
            why: "the memory type is one of the reserved: 2, 3 and 7",
        })
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

impl<'p> Table<'p, Ept> {
    /// Lets the violations in a range come to the guest as #VE, or to the hypervisor as exits:
    /// clears or sets bit 63 in the entries that map the range and in those that are not present
    /// there. It matters where the control "EPT-violation #VE" is 1. What is mapped or unmapped
    /// later has the bit as [`Ept::suppressing_ve`] says.
    pub fn convert(&mut self, guest: u64, len: u64, to_guest: bool) -> Change<'_, 'p, Ept> {
        let bit = SUPPRESS_VE;
        self.change(guest, len, &mut Bit { bit, set: !to_guest })
    }

    /// Takes the right to read away from the pages that a range is mapped by, and leaves that to write: an entry that
    /// no processor takes (SDM volume 3C, section 30.3.3.1), so that the next access is an exit. Or gives it back,
    /// which asks for no invalidation: a processor remembers nothing of such an entry (section 30.4.3.4).
    pub fn misconfigure(&mut self, guest: u64, len: u64, yes: bool) -> Change<'_, 'p, Ept> {
        self.change(guest, len, &mut Bit { bit: READ, set: !yes })
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

    fn broken(&self, level: u8, entry: u64) -> Option<Broken> {
        if entry & (READ | WRITE | EXECUTE) == 0 {
            return None;
        }
        self.rights_broken(entry)
            .or_else(|| self.reserved(level, entry))
            .or_else(|| self.type_broken(level, entry))
    }

    fn keeps_marks(&self) -> bool {
        self.accessed_dirty
    }

    fn offers(&self, size: Size) -> bool {
        match size {
            Size::Small => true,
            Size::Large => self.capability.pages_of_2_mib(),
            Size::Huge => self.capability.pages_of_1_gib(),
        }
    }

    fn address_bits(&self) -> u32 {
        self.address_bits
    }

    /// The EPTP (SDM volume 3C, table 26-9): memory type of the tables in bits 2:0, levels less
    /// one in bits 5:3, accessed and dirty flags in bit 6, and the root.
    fn pointer(&self, root: u64) -> u64 {
        let memory_type = if self.capability.write_back() {
            MemoryType::WriteBack
        } else {
            MemoryType::Uncacheable
        };
        root | u64::from(self.accessed_dirty) << 6 | 3 << 3 | memory_type as u64
    }
}

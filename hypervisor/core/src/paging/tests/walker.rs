//! A second walk of second-level tables, written from the manuals alone: it shares no code and no
//! constant with what builds the tables.

use crate::physical::Physical;

/// What an address comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) host: u64,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) execute: bool,
    /// The number of the memory type, as MTRRs and PAT have it.
    pub(super) memory_type: u8,
    /// The lowest bits that are the page's own offset: 12, 21 or 30.
    pub(super) page_bits: u32,
}

fn load(pages: &dyn Physical, address: u64) -> u64 {
    assert_eq!(address % 8, 0);
    let page = pages.pointer(address / 4096 * 4096);
    // SAFETY: the fake machine's pages are 4 KiB long, and nothing else runs.
    unsafe { page.add((address % 4096) as usize).cast::<u64>().read() }
}

fn bits(value: u64, high: u32, low: u32) -> u64 {
    (value >> low) & ((1 << (high - low + 1)) - 1)
}

/// SDM volume 3C, section 30.3.2: "EPT Translation Mechanism". Panics at a misconfiguration
/// (section 30.3.3.1), because no change may lead to one; `None` is a violation for any access.
pub(super) fn ept(pages: &dyn Physical, eptp: u64, physical_bits: u32, address: u64) -> Option<Found> {
    assert_eq!(bits(eptp, 5, 3), 3, "a page walk of four");
    let (mut read, mut write, mut execute) = (true, true, true);
    // "An EPT PML4 table ... bits 51:12 are from the EPTP. Bits 11:3 are bits 47:39 of the
    // guest-physical address."
    let mut table = bits(eptp, 51, 12) << 12;
    for (high, low) in [(47, 39), (38, 30), (29, 21), (20, 12)] {
        let entry = load(pages, table | bits(address, high, low) << 3);
        if bits(entry, 2, 0) == 0 {
            return None;
        }
        assert_ne!(bits(entry, 1, 0), 0b10, "writable and not readable");
        assert_eq!(
            bits(entry, 51, 12) << 12 >> physical_bits,
            0,
            "beyond the physical-address width"
        );
        read &= bits(entry, 0, 0) == 1;
        write &= bits(entry, 1, 1) == 1;
        execute &= bits(entry, 2, 2) == 1;
        let last = low == 12 || bits(entry, 7, 7) == 1;
        if last {
            assert_ne!(low, 39, "bit 7 of a PML4E is reserved");
            let memory_type = bits(entry, 5, 3) as u8;
            assert!([0, 1, 4, 5, 6].contains(&memory_type), "memory type {memory_type}");
            let base = bits(entry, 51, low) << low;
            assert_eq!(base, bits(entry, 51, 12) << 12, "reserved bits of a large page");
            return Some(Found {
                host: base | bits(address, low - 1, 0),
                read,
                write,
                execute,
                memory_type,
                page_bits: low,
            });
        }
        assert_eq!(
            bits(entry, 6, 3),
            0,
            "reserved bits of an entry that references a table"
        );
        table = bits(entry, 51, 12) << 12;
    }
    unreachable!("the page table is the last")
}

/// APM volume 2, section 15.25.5 (nested tables are a host's tables in long mode) with sections
/// 5.3.3 to 5.3.5 (their format), for accesses of a guest: those of a user. Panics at a reserved
/// bit that is set.
pub(super) fn npt(pages: &dyn Physical, ncr3: u64, physical_bits: u32, pat: u64, address: u64) -> Option<Found> {
    let (mut write, mut execute) = (true, true);
    let mut table = bits(ncr3, 51, 12) << 12;
    for (high, low) in [(47, 39), (38, 30), (29, 21), (20, 12)] {
        let entry = load(pages, table | bits(address, high, low) << 3);
        if bits(entry, 0, 0) == 0 {
            return None;
        }
        assert_eq!(bits(entry, 2, 2), 1, "for a user");
        assert_eq!(
            bits(entry, 51, 12) << 12 >> physical_bits,
            0,
            "beyond the physical-address width"
        );
        write &= bits(entry, 1, 1) == 1;
        execute &= bits(entry, 63, 63) == 0;
        let large = low != 12 && bits(entry, 7, 7) == 1;
        if low == 12 || large {
            assert_ne!(low, 39, "bit 7 of a PML4E must be zero");
            let pat_bit = if large { bits(entry, 12, 12) } else { bits(entry, 7, 7) };
            let number = pat_bit << 2 | bits(entry, 4, 3);
            let base = bits(entry, 51, low) << low;
            let offset = if large { bits(entry, low - 1, 13) } else { 0 };
            assert_eq!(offset, 0, "address bits of a large page that must be zero");
            return Some(Found {
                host: base | bits(address, low - 1, 0),
                read: true,
                write,
                execute,
                memory_type: bits(pat, 8 * number as u32 + 2, 8 * number as u32) as u8,
                page_bits: low,
            });
        }
        assert_eq!(bits(entry, 4, 3), 0, "tables are write-back memory");
        table = bits(entry, 51, 12) << 12;
    }
    unreachable!("the page table is the last")
}

//! A second walk of second-level tables, written from the manuals alone: it shares no code and no
//! constant with what builds the tables.

use chiton_shared::memory::GuestMemory;

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
    if bits(address, 51, 48) != 0 {
        return None; // more than a page walk of four translates
    }
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

/// What a guest does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) write: bool,
    pub(super) execute: bool,
    pub(super) user: bool,
}

/// Where a two-dimensional walk does not come to a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    PageFault,
    /// At this guest-physical address.
    Violation(u64),
    /// A table lies where the second level maps something that the test has no memory for.
    OutsideOfMemory,
}

/// The linear address through both: host-physical address, what a TLB entry covers, and how many
/// entries were loaded. SDM volume 3A, section 5.5.4 ("Linear-Address Translation with 4-Level
/// Paging") and 5.6.1 ("Determination of Access Rights") with volume 3C, section 30.3.2: "the
/// processor uses EPT to translate each of those guest-physical addresses". Accessed and dirty
/// flags for EPT are on, so that a use of a guest's table is a write (section 30.3.3.2).
pub(super) fn nested(
    pages: &dyn Physical,
    eptp: u64,
    physical_bits: u32,
    memory: &dyn GuestMemory,
    cr3: u64,
    linear: u64,
    access: Access,
) -> Result<(u64, u64, usize), Stop> {
    let mut loads = 0;
    let mut translate = |guest: u64, read: bool, write: bool, execute: bool| {
        let found = ept(pages, eptp, physical_bits, guest).ok_or(Stop::Violation(guest))?;
        if read && !found.read || write && !found.write || execute && !found.execute {
            return Err(Stop::Violation(guest));
        }
        // A page of 12 bits takes four loads, one of 21 three, one of 30 two.
        loads += match found.page_bits {
            12 => 4,
            21 => 3,
            _ => 2,
        };
        Ok(found)
    };
    let (mut writable, mut for_user, mut executable) = (true, true, true);
    let mut table = bits(cr3, 51, 12) << 12;
    let mut entries = 0;
    for (high, low) in [(47, 39), (38, 30), (29, 21), (20, 12)] {
        let at = table + 8 * bits(linear, high, low);
        translate(at, true, true, false)?;
        let window = memory.window(at, 8).ok_or(Stop::OutsideOfMemory)?;
        let entry = window.read_u64(0);
        entries += 1;
        if bits(entry, 0, 0) == 0 {
            return Err(Stop::PageFault);
        }
        writable &= bits(entry, 1, 1) == 1;
        for_user &= bits(entry, 2, 2) == 1;
        executable &= bits(entry, 63, 63) == 0;
        let large = bits(entry, 7, 7) == 1 && low != 12;
        if !large && low != 12 {
            table = bits(entry, 51, 12) << 12;
            continue;
        }
        if low == 39 || large && bits(entry, low - 1, 13) != 0 {
            return Err(Stop::PageFault); // a reserved bit
        }
        let forbidden = access.write && !writable || access.user && !for_user || access.execute && !executable;
        if forbidden {
            return Err(Stop::PageFault);
        }
        let guest = bits(entry, 51, low) << low | bits(linear, low - 1, 0);
        let read = !access.write && !access.execute;
        let found = translate(guest, read, access.write, access.execute)?;
        return Ok((found.host, 1 << low.min(found.page_bits), loads + entries));
    }
    unreachable!("the page table is the last")
}

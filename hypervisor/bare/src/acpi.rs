//! The machine's processors, as the firmware lists them (ACPI 6.5, chapter 5).
//!
//! ```text
//!   RSDP ─▶ RSDT or XSDT ─▶ MADT: a local APIC for each processor, by its identity
//! ```
//!
//! The tables are the firmware's, and a firmware can be wrong: every length is checked against what
//! is there, every table against its checksum, and a table is copied before anybody looks at it.

use alloc::vec;
use alloc::vec::Vec;

/// The longest table that is looked at, in bytes.
const MAX_TABLE: u32 = 64 << 10;
/// The most processors that are looked for.
pub const MAX_PROCESSORS: usize = 256;

/// Length of the RSDP of ACPI 1.0, and of what its checksum is about (section 5.2.5.3).
const RSDP_1: usize = 20;
/// Length of the RSDP since ACPI 2.0.
const RSDP_2: usize = 36;
/// Length of the header that every other table has (section 5.2.6).
const HEADER: usize = 36;
/// Length of the header of the MADT: the address of the local APIC and flags behind the usual one
/// (section 5.2.12).
const MADT_HEADER: usize = HEADER + 8;

/// Types of entries in the MADT (section 5.2.12, table 5.20).
mod entry {
    /// A local APIC, whose identity has 8 bits.
    pub(super) const LOCAL_APIC: u8 = 0;
    /// One whose identity has 32 bits.
    pub(super) const LOCAL_X2APIC: u8 = 9;
}

/// Of the flags of a local APIC: the processor is ready for use. (Bit 1 is about processors that may
/// be plugged in later.)
const ENABLED: u32 = 1 << 0;

/// Why the list of processors is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcpiError {
    /// There is no memory.
    #[error("the firmware's {what} is at {address:#x}, where no memory is")]
    Nowhere {
        /// Which table.
        what: Table,
        /// Its physical address.
        address: u64,
    },
    /// It begins otherwise.
    #[error("what is at {address:#x} is no {what}: it begins otherwise")]
    Signature {
        /// Which table was expected.
        what: Table,
        /// Its physical address.
        address: u64,
    },
    /// Its length makes no sense.
    #[error("the firmware's {what} has {length} bytes, which it cannot have")]
    Length {
        /// Which table.
        what: Table,
        /// The length it names.
        length: u32,
    },
    /// Its bytes do not add up to zero.
    #[error("the checksum of the firmware's {0} is wrong")]
    Checksum(Table),
    /// None of the tables is a MADT.
    #[error("the firmware has no table of processors (MADT)")]
    NoMadt,
    /// An entry of the MADT is shorter than it has to be, or reaches beyond the table.
    #[error("the firmware's MADT has an entry of {length} bytes at offset {offset}, which cannot be")]
    Entry {
        /// Where it begins.
        offset: usize,
        /// The length it names.
        length: u8,
    },
    /// There are too many.
    #[error("the firmware lists more than {MAX_PROCESSORS} processors")]
    TooMany,
}

/// A table, by its usual name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The root system description pointer.
    Rsdp,
    /// The root table, of addresses of 32 bits.
    Rsdt,
    /// The root table, of addresses of 64 bits.
    Xsdt,
    /// The table of interrupt controllers, hence of processors.
    Madt,
}

impl core::fmt::Display for Table {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Rsdp => "RSDP",
            Self::Rsdt => "RSDT",
            Self::Xsdt => "XSDT",
            Self::Madt => "MADT",
        })
    }
}

/// Physical memory: fills the bytes with what is at the address, or says that no memory is there.
pub trait Read {
    /// Whether there was so much to read.
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool;
}

impl<F: Fn(u64, &mut [u8]) -> bool> Read for F {
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        self(address, bytes)
    }
}

/// The identities of the local APICs of all processors that are ready for use, in the order of the
/// table, each once. `rsdp` is where the firmware's tables begin.
///
/// # Errors
///
/// [`AcpiError`].
pub fn processors(rsdp: u64, memory: &impl Read) -> Result<Vec<u32>, AcpiError> {
    let (root, what) = root(rsdp, memory)?;
    let width = if what == Table::Xsdt { 8 } else { 4 };
    let root = table(root, what, memory)?;
    for address in root[HEADER..].chunks_exact(width).map(number) {
        let mut signature = [0; 4];
        if memory.read(address, &mut signature) && signature == *b"APIC" {
            return local_apics(&table(address, Table::Madt, memory)?);
        }
    }
    Err(AcpiError::NoMadt)
}

/// Where the root table is, and which of the two.
fn root(rsdp: u64, memory: &impl Read) -> Result<(u64, Table), AcpiError> {
    let nowhere = AcpiError::Nowhere {
        what: Table::Rsdp,
        address: rsdp,
    };
    let mut bytes = [0; RSDP_2];
    if !memory.read(rsdp, &mut bytes[..RSDP_1]) {
        return Err(nowhere);
    }
    if bytes[..8] != *b"RSD PTR " {
        return Err(AcpiError::Signature {
            what: Table::Rsdp,
            address: rsdp,
        });
    }
    if !adds_up(&bytes[..RSDP_1]) {
        return Err(AcpiError::Checksum(Table::Rsdp));
    }
    let revision = bytes[15];
    if revision >= 2 {
        if !memory.read(rsdp, &mut bytes) {
            return Err(nowhere);
        }
        if !adds_up(&bytes) {
            return Err(AcpiError::Checksum(Table::Rsdp));
        }
        let xsdt = number(&bytes[24..32]);
        if xsdt != 0 {
            return Ok((xsdt, Table::Xsdt));
        }
    }
    Ok((number(&bytes[16..20]), Table::Rsdt))
}

/// A copy of a table, checked.
fn table(address: u64, what: Table, memory: &impl Read) -> Result<Vec<u8>, AcpiError> {
    let nowhere = AcpiError::Nowhere { what, address };
    let mut header = [0; HEADER];
    if !memory.read(address, &mut header) {
        return Err(nowhere);
    }
    let (signature, least): (&[u8; 4], _) = match what {
        Table::Xsdt => (b"XSDT", HEADER),
        Table::Madt => (b"APIC", MADT_HEADER),
        _ => (b"RSDT", HEADER),
    };
    if header[..4] != *signature {
        return Err(AcpiError::Signature { what, address });
    }
    let length = number(&header[4..8]) as u32;
    if length < least as u32 || length > MAX_TABLE {
        return Err(AcpiError::Length { what, length });
    }
    let mut bytes = vec![0; length as usize];
    if !memory.read(address, &mut bytes) {
        return Err(nowhere);
    }
    if !adds_up(&bytes) {
        return Err(AcpiError::Checksum(what));
    }
    Ok(bytes)
}

/// The local APICs of a MADT.
fn local_apics(madt: &[u8]) -> Result<Vec<u32>, AcpiError> {
    let mut found = Vec::new();
    let mut offset = MADT_HEADER;
    while let Some(&[kind, length]) = madt.get(offset..offset + 2) {
        let wrong = AcpiError::Entry { offset, length };
        let least = match kind {
            entry::LOCAL_APIC => 8,
            entry::LOCAL_X2APIC => 16,
            _ => 2,
        };
        let bytes = madt.get(offset..offset + usize::from(length)).ok_or(wrong)?;
        if bytes.len() < least {
            return Err(wrong);
        }
        let (identity, flags) = match kind {
            entry::LOCAL_APIC => (bytes[3].into(), number(&bytes[4..8])),
            entry::LOCAL_X2APIC => (number(&bytes[4..8]) as u32, number(&bytes[8..12])),
            _ => (0, 0),
        };
        if flags as u32 & ENABLED != 0 && !found.contains(&identity) {
            if found.len() == MAX_PROCESSORS {
                return Err(AcpiError::TooMany);
            }
            found.push(identity);
        }
        offset += bytes.len();
    }
    Ok(found)
}

/// Whether the sum of the bytes is zero, as that of every table is.
fn adds_up(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

/// A little-endian number of 8 bytes or less.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Memory that is this, from address 0 on.
    fn memory(bytes: &[u8]) -> impl Fn(u64, &mut [u8]) -> bool {
        move |address, to| {
            let from = usize::try_from(address).ok().and_then(|address| bytes.get(address..));
            let from = from.and_then(|bytes| bytes.get(..to.len()));
            from.inspect(|from| to.copy_from_slice(from)).is_some()
        }
    }

    /// Makes the bytes add up, by the byte at `at`.
    fn sum(bytes: &mut [u8], at: usize) {
        bytes[at] = 0;
        bytes[at] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    }

    fn table_of(signature: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes.extend(content);
        bytes[..4].copy_from_slice(signature);
        let length = bytes.len() as u32;
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        sum(&mut bytes, 9);
        bytes
    }

    const ROOT: usize = 0x100;
    const MADT: usize = 0x200;

    /// A machine's memory with a MADT of these entries; ACPI 1.0, or later.
    fn machine(entries: &[&[u8]], later: bool) -> Vec<u8> {
        let mut rsdp = vec![0; RSDP_2];
        rsdp[..8].copy_from_slice(b"RSD PTR ");
        rsdp[15] = if later { 2 } else { 0 };
        let pointer = if later { 24 } else { 16 };
        rsdp[pointer..pointer + 4].copy_from_slice(&(ROOT as u32).to_le_bytes());
        rsdp[20] = RSDP_2 as u8;
        sum(&mut rsdp[..RSDP_1], 8);
        sum(&mut rsdp, 32);
        let other = (ROOT as u64 + 0x80).to_le_bytes();
        let madt = (MADT as u64).to_le_bytes();
        let root = if later {
            table_of(b"XSDT", &[other, madt].concat())
        } else {
            table_of(b"RSDT", &[&other[..4], &madt[..4]].concat())
        };
        let mut content = vec![0; 8];
        content.extend(entries.concat());
        let madt = table_of(b"APIC", &content);
        let mut all = vec![0; MADT + madt.len()];
        all[..rsdp.len()].copy_from_slice(&rsdp);
        all[ROOT..ROOT + root.len()].copy_from_slice(&root);
        all[MADT..].copy_from_slice(&madt);
        all
    }

    fn local(identity: u8, flags: u8) -> [u8; 8] {
        [entry::LOCAL_APIC, 8, 0, identity, flags, 0, 0, 0]
    }

    const X2: [u8; 16] = [9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    const IO_APIC: [u8; 12] = [1, 12, 2, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0];

    fn found(bytes: &[u8]) -> Result<Vec<u32>, AcpiError> {
        processors(0, &memory(bytes))
    }

    #[test]
    fn processors_are_found_by_either_root_table_in_their_order_and_once() {
        let entries: [&[u8]; 6] = [&local(4, 1), &IO_APIC, &local(2, 1), &local(3, 0), &X2, &local(4, 1)];
        for later in [false, true] {
            assert_eq!(found(&machine(&entries, later)), Ok(vec![4, 2, 0x100]));
        }
    }

    #[test]
    fn a_table_that_was_changed_is_not_believed() {
        let good = machine(&[&local(0, 1)], true);
        for (at, what) in [
            (17, Table::Rsdp),
            (33, Table::Rsdp),
            (ROOT + 8, Table::Xsdt),
            (MADT + 40, Table::Madt),
        ] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(found(&bad), Err(AcpiError::Checksum(what)), "{at}");
        }
        let mut bad = good.clone();
        bad[0] = b'X';
        assert!(matches!(
            found(&bad),
            Err(AcpiError::Signature { what: Table::Rsdp, .. })
        ));
    }

    #[test]
    fn a_table_that_is_not_there_or_has_no_length_is_refused_with_words() {
        assert!(
            found(&[])
                .unwrap_err()
                .to_string()
                .contains("RSDP is at 0x0, where no memory is")
        );
        let good = machine(&[&local(0, 1)], true);
        for length in [35, 43, u32::MAX, MAX_TABLE + 1] {
            let mut bad = good.clone();
            bad[MADT + 4..MADT + 8].copy_from_slice(&length.to_le_bytes());
            let what = Table::Madt;
            assert_eq!(found(&bad), Err(AcpiError::Length { what, length }));
        }
        let cut = &good[..good.len() - 1];
        assert!(matches!(found(cut), Err(AcpiError::Nowhere { what: Table::Madt, .. })));
        let mut none = good.clone();
        none[MADT] = b'B';
        assert_eq!(found(&none), Err(AcpiError::NoMadt));
    }

    #[test]
    fn an_entry_that_is_too_short_or_reaches_beyond_the_table_is_refused() {
        for (entry, length) in [
            (&[0, 7, 0, 0, 1, 0, 0][..], 7),
            (&[9, 8, 0, 0, 0, 0, 0, 0], 8),
            (&[5, 0, 0], 0),
            (&[5, 1, 0], 1),
            (&[0, 8, 0, 0, 1], 8),
            (&[3, 255, 0], 255),
        ] {
            let offset = MADT_HEADER;
            assert_eq!(
                found(&machine(&[entry], true)),
                Err(AcpiError::Entry { offset, length })
            );
        }
        assert_eq!(
            found(&machine(&[&local(7, 1), &[0]], true)),
            Ok(vec![7]),
            "a byte is no entry"
        );
    }

    #[test]
    fn more_processors_than_anybody_has_are_refused() {
        let entries: Vec<[u8; 16]> = (0..=MAX_PROCESSORS as u32)
            .map(|identity| {
                let mut entry = X2;
                entry[4..8].copy_from_slice(&identity.to_le_bytes());
                entry
            })
            .collect();
        let slices: Vec<&[u8]> = entries.iter().map(|entry| &entry[..]).collect();
        assert_eq!(found(&machine(&slices, true)), Err(AcpiError::TooMany));
        assert_eq!(
            found(&machine(&slices[1..], true)).map(|found| found.len()),
            Ok(MAX_PROCESSORS)
        );
    }

    proptest! {
        #[test]
        fn whatever_the_entries_are_they_are_answered(
            content in proptest::collection::vec(any::<u8>(), 0..200),
            later in any::<bool>(),
        ) {
            let entries: &[u8] = &content;
            let answer = found(&machine(&[entries], later));
            prop_assert!(matches!(answer, Ok(_) | Err(AcpiError::Entry { .. })), "{:?}", answer);
        }

        #[test]
        fn whatever_memory_holds_is_answered(
            at in 0_usize..MADT + 60, byte in any::<u8>(), rsdp in 0_u64..0x300,
        ) {
            let mut bytes = machine(&[&local(0, 1), &X2], true);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = processors(rsdp, &memory(&bytes));
        }
    }
}

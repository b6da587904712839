//! Relocations of a static PIE: addresses to which the bias has to be added.
//!
//! A static PIE needs one type only, `R_X86_64_RELATIVE`: store bias plus addend (System V x86_64
//! ABI, section 4.4). Linkers write them as `DT_RELA`, with 24 bytes for each, or packed as
//! `DT_RELR` (gABI 4.3, chapter 5), where the addend stands in the memory to be changed.

use goblin::elf::ProgramHeader;
use goblin::elf::dynamic::{
    DT_JMPREL, DT_NEEDED, DT_NULL, DT_PLTREL, DT_PLTRELSZ, DT_REL, DT_RELA, DT_RELAENT, DT_RELASZ,
};
use goblin::elf::header::EM_X86_64;
use goblin::elf::program_header::PT_DYNAMIC;
use goblin::elf::reloc::{R_X86_64_NONE, R_X86_64_RELATIVE, RelocSection, r_to_str};

use super::file::{File, quad};
use super::{Access, LoadError, Segment, header};

/// Size of all `DT_RELR` entries (gABI 4.3, chapter 5).
const DT_RELRSZ: u64 = 35;
/// Address of the `DT_RELR` entries.
const DT_RELR: u64 = 36;
/// Size of one `DT_RELR` entry.
const DT_RELRENT: u64 = 37;

/// Size of a `DT_RELA` entry, in bytes.
const RELA_SIZE: u64 = 24;
/// Size of a `DT_RELR` entry, in bytes.
const RELR_SIZE: u64 = 8;

/// A value to be stored in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Where, as loaded; not always aligned.
    pub address: u64,
    /// What.
    pub value: u64,
}

/// Checked relocation tables: each entry is relative and changes a writable segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relocations<'a> {
    rela: &'a [u8],
    jmprel: &'a [u8],
    relr: &'a [u8],
}

impl<'a> Relocations<'a> {
    /// Finds and checks the tables. The segments still have the addresses of the file.
    pub(super) fn find(
        file: File<'a>,
        programs: &[ProgramHeader],
        segments: &[Segment<'a>],
    ) -> Result<Self, LoadError> {
        let Some(dynamic) = programs.iter().find(|p| p.p_type == PT_DYNAMIC) else {
            return Ok(Self::default());
        };
        let bytes = file.range("dynamic section", dynamic.p_offset, dynamic.p_filesz)?;
        let tags = Tags::read(bytes)?;
        let table = |tag, address, size| table(tag, address, size, segments);
        let found = Self {
            rela: table("DT_RELA", tags.rela, tags.rela_size)?,
            jmprel: table("DT_JMPREL", tags.jmprel, tags.jmprel_size)?,
            relr: table("DT_RELR", tags.relr, tags.relr_size)?,
        };
        found.check(segments)?;
        Ok(found)
    }

    fn check(&self, segments: &[Segment<'a>]) -> Result<(), LoadError> {
        let mut target = Target { segments, last: None };
        for rela in rela(self.rela).chain(rela(self.jmprel)) {
            match rela.r_type {
                R_X86_64_NONE => {}
                R_X86_64_RELATIVE => target.check(rela.r_offset)?,
                number => {
                    return Err(LoadError::Relocation {
                        name: r_to_str(number, EM_X86_64),
                        number,
                    });
                }
            }
        }
        relr(self.relr).try_for_each(|address| target.check(address))
    }

    /// Every relocation of an image loaded with this bias, whose segments are these.
    pub(super) fn iter(self, bias: u64, segments: &'a [Segment<'a>]) -> impl Iterator<Item = Relocation> + 'a {
        let relative = |r: &goblin::elf::Reloc| r.r_type == R_X86_64_RELATIVE;
        let explicit = rela(self.rela)
            .chain(rela(self.jmprel))
            .filter(relative)
            .map(move |r| Relocation {
                address: r.r_offset.wrapping_add(bias),
                value: bias.wrapping_add_signed(r.r_addend.unwrap_or(0)),
            });
        let packed = relr(self.relr).map(move |address| {
            let address = address.wrapping_add(bias);
            Relocation {
                address,
                value: bias.wrapping_add(initial(address, segments)),
            }
        });
        explicit.chain(packed)
    }
}

/// The part of the dynamic section that speaks of relocations.
#[derive(Default)]
struct Tags {
    rela: u64,
    rela_size: u64,
    jmprel: u64,
    jmprel_size: u64,
    relr: u64,
    relr_size: u64,
}

impl Tags {
    fn read(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut tags = Self::default();
        for entry in bytes.chunks_exact(16) {
            let (Some(tag), Some(value)) = (quad(entry, 0), quad(entry, 8)) else {
                break;
            };
            match tag {
                DT_NULL => break,
                DT_NEEDED => return Err(LoadError::NeedsLibraries),
                DT_REL => return Err(LoadError::RelocationTable("DT_REL")),
                DT_PLTREL if value != DT_RELA => {
                    return Err(LoadError::RelocationTable("a DT_PLTREL other than DT_RELA"));
                }
                DT_RELAENT if value != RELA_SIZE => {
                    return Err(LoadError::RelocationTable("a DT_RELAENT other than 24"));
                }
                DT_RELRENT if value != RELR_SIZE => {
                    return Err(LoadError::RelocationTable("a DT_RELRENT other than 8"));
                }
                DT_RELA => tags.rela = value,
                DT_RELASZ => tags.rela_size = value,
                DT_JMPREL => tags.jmprel = value,
                DT_PLTRELSZ => tags.jmprel_size = value,
                DT_RELR => tags.relr = value,
                DT_RELRSZ => tags.relr_size = value,
                _ => {}
            }
        }
        Ok(tags)
    }
}

/// The bytes of a table, which stands in a segment.
fn table<'a>(tag: &'static str, address: u64, size: u64, segments: &[Segment<'a>]) -> Result<&'a [u8], LoadError> {
    if size == 0 {
        return Ok(&[]);
    }
    segments
        .iter()
        .find_map(|s| s.file_bytes(address, size))
        .ok_or(LoadError::RelocationTableAddress { tag, address, size })
}

/// Checks that relocations change writable segments. Tables are sorted, so that most of them
/// change the segment that the one before changed.
struct Target<'s, 'a> {
    segments: &'s [Segment<'a>],
    last: Option<&'s Segment<'a>>,
}

impl Target<'_, '_> {
    fn check(&mut self, address: u64) -> Result<(), LoadError> {
        if !self.last.is_some_and(|s| s.contains(address, 8)) {
            let holds = |s: &&Segment<'_>| s.access == Access::Write && s.contains(address, 8);
            self.last = Some(
                self.segments
                    .iter()
                    .find(holds)
                    .ok_or(LoadError::RelocationTarget(address))?,
            );
        }
        Ok(())
    }
}

/// The entries of a `DT_RELA` table.
fn rela(bytes: &[u8]) -> impl Iterator<Item = goblin::elf::Reloc> + '_ {
    let section = RelocSection::parse(bytes, 0, bytes.len(), true, header::CONTEXT);
    section.into_iter().flat_map(|section| section.iter())
}

/// The addresses of a `DT_RELR` table: an even entry is an address, an odd one a map of which of
/// the 63 words behind the last address are meant too.
fn relr(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let mut next = 0_u64;
    bytes
        .chunks_exact(8)
        .filter_map(|entry| quad(entry, 0))
        .flat_map(move |entry| {
            let (base, bits) = if entry & 1 == 0 { (entry, 1) } else { (next, entry >> 1) };
            next = base.wrapping_add(if entry & 1 == 0 { 8 } else { 63 * 8 });
            (0..63)
                .filter(move |bit| bits >> bit & 1 == 1)
                .map(move |bit| base.wrapping_add(8 * bit))
        })
}

/// What the file puts at an address, zero where it has nothing.
fn initial(address: u64, segments: &[Segment<'_>]) -> u64 {
    let Some(segment) = segments.iter().find(|s| s.contains(address, 8)) else {
        return 0;
    };
    let mut bytes = [0; 8];
    let start = usize::try_from(address - segment.address).unwrap_or(usize::MAX);
    let there = segment.bytes.get(start..).unwrap_or_default();
    let len = there.len().min(8);
    bytes[..len].copy_from_slice(&there[..len]);
    u64::from_le_bytes(bytes)
}

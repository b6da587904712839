//! The loadable segments: what goes where, with which permissions.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use chiton_shared::manifest::Manifest;
use chiton_shared::map;
use goblin::elf::header::ET_EXEC;
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_GNU_RELRO, PT_LOAD};
use goblin::elf::{Header, ProgramHeader};

use super::file::File;
use super::{Image, LoadError, Relocations};

/// The greatest number of loadable segments; a linker makes four to six.
pub const MAX_SEGMENTS: usize = 32;

/// End of the addresses a file may use: the lower half of the address space.
const ADDRESS_END: u64 = 1 << 47;

/// Whether a file is linked for one address, or for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ET_EXEC`: loaded where it says.
    Fixed,
    /// `ET_DYN`, a static PIE: loaded at [`map::GUEST`] and relocated.
    PositionIndependent,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fixed => "fixed executable",
            Self::PositionIndependent => "static PIE",
        })
    }
}

/// What code may do with a page. There is no value for writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Read and write.
    Write,
    /// Read and execute.
    Execute,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "r--",
            Self::Write => "rw-",
            Self::Execute => "r-x",
        })
    }
}

/// A piece of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Where it is loaded.
    pub address: u64,
    /// Size in memory, in bytes; not zero. What `bytes` does not cover is zero.
    pub size: u64,
    /// What the file has of it.
    pub bytes: &'a [u8],
    /// What code may do with it.
    pub access: Access,
}

impl<'a> Segment<'a> {
    /// The address after its last byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.address + self.size
    }

    /// Whether all of `len` bytes from `address` on belong to the segment.
    #[must_use]
    pub fn contains(&self, address: u64, len: u64) -> bool {
        address >= self.address && address.checked_add(len).is_some_and(|end| end <= self.end())
    }

    /// `len` bytes from `address` on, if the file has all of them.
    #[must_use]
    pub fn file_bytes(&self, address: u64, len: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(address.checked_sub(self.address)?).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.bytes.get(start..end)
    }

    /// First address of its first page and end of its last page.
    #[must_use]
    pub const fn pages(&self) -> Range<u64> {
        page_down(self.address)..self.end().next_multiple_of(map::PAGE)
    }

    fn read(file: File<'a>, program: &ProgramHeader) -> Result<Self, LoadError> {
        let (address, size) = (program.p_vaddr, program.p_memsz);
        if program.p_filesz > size {
            return Err(LoadError::FileSize {
                address,
                file: program.p_filesz,
                memory: size,
            });
        }
        if address.checked_add(size).is_none_or(|end| end > ADDRESS_END) {
            return Err(LoadError::Address { address, size });
        }
        let align = program.p_align;
        if align > map::LARGE_PAGE || (align != 0 && !align.is_power_of_two()) {
            return Err(LoadError::Alignment { address, align });
        }
        let access = match (
            program.p_flags & PF_R != 0,
            program.p_flags & PF_W != 0,
            program.p_flags & PF_X != 0,
        ) {
            (_, true, true) => return Err(LoadError::WritableCode(address)),
            (false, ..) => return Err(LoadError::Unreadable(address)),
            (true, true, false) => Access::Write,
            (true, false, true) => Access::Execute,
            (true, false, false) => Access::Read,
        };
        let bytes = file.range("segment", program.p_offset, program.p_filesz)?;
        Ok(Self {
            address,
            size,
            bytes,
            access,
        })
    }
}

/// Rounds an address down to its page.
const fn page_down(address: u64) -> u64 {
    address & !(map::PAGE - 1)
}

/// The checked segments, with the addresses of the file.
pub(super) struct Layout<'a> {
    kind: Kind,
    bias: u64,
    entry: u64,
    pub(super) segments: Vec<Segment<'a>>,
    relro: Option<Range<u64>>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(file: File<'a>, header: &Header, programs: &[ProgramHeader]) -> Result<Self, LoadError> {
        let load = || programs.iter().filter(|p| p.p_type == PT_LOAD && p.p_memsz > 0);
        let count = load().count();
        if count > MAX_SEGMENTS {
            return Err(LoadError::TooManySegments(count));
        }
        let mut segments = Vec::with_capacity(count);
        for program in load() {
            segments.push(Segment::read(file, program)?);
        }
        segments.sort_unstable_by_key(|s| s.address);
        let lowest = segments.first().ok_or(LoadError::NoSegments)?.address;
        let kind = if header.e_type == ET_EXEC {
            Kind::Fixed
        } else {
            Kind::PositionIndependent
        };
        if kind == Kind::Fixed && lowest < map::GUEST {
            return Err(LoadError::BelowGuest(lowest));
        }
        check_neighbours(&segments)?;
        let entry = header.e_entry;
        if !segments
            .iter()
            .any(|s| s.access == Access::Execute && s.contains(entry, 1))
        {
            return Err(LoadError::Entry(entry));
        }
        let align = load().map(|p| p.p_align).fold(map::PAGE, u64::max);
        let bias = match kind {
            Kind::Fixed => 0,
            Kind::PositionIndependent => map::GUEST.wrapping_sub(lowest & !(align - 1)),
        };
        Ok(Self {
            kind,
            bias,
            entry,
            relro: relro(programs, &segments)?,
            segments,
        })
    }

    /// The image, with the addresses it is loaded at.
    pub(super) fn into_image(self, file: File<'a>, manifest: Manifest, relocations: Relocations<'a>) -> Image<'a> {
        let Self {
            kind,
            bias,
            entry,
            mut segments,
            relro,
        } = self;
        for segment in &mut segments {
            segment.address = segment.address.wrapping_add(bias);
        }
        Image {
            file,
            kind,
            bias,
            entry: entry.wrapping_add(bias),
            manifest,
            segments,
            relro: relro.map(|r| r.start.wrapping_add(bias)..r.end.wrapping_add(bias)),
            relocations,
        }
    }
}

/// Segments in ascending order must not overlap, and share a page only if they share permissions.
fn check_neighbours(segments: &[Segment<'_>]) -> Result<(), LoadError> {
    for pair in segments.windows(2) {
        let [first, second] = pair else { continue };
        if first.end() > second.address {
            return Err(LoadError::Overlap(first.address, second.address));
        }
        if first.pages().end > second.pages().start && first.access != second.access {
            return Err(LoadError::SharedPage(first.address, second.address));
        }
    }
    Ok(())
}

/// The pages in which every writable byte lies in the `PT_GNU_RELRO` range.
///
/// Linkers round the range in different ways, so that it is cut to the writable segments first. A
/// page that holds other writable bytes too stays writable.
fn relro(programs: &[ProgramHeader], segments: &[Segment<'_>]) -> Result<Option<Range<u64>>, LoadError> {
    let mut ranges = programs.iter().filter(|p| p.p_type == PT_GNU_RELRO && p.p_memsz > 0);
    let Some(range) = ranges.next() else { return Ok(None) };
    if ranges.next().is_some() {
        return Err(LoadError::Relro);
    }
    let (start, end) = (range.p_vaddr, range.p_vaddr.saturating_add(range.p_memsz));
    let writable = || segments.iter().filter(|s| s.access == Access::Write);
    let inside = |s: &Segment<'_>| s.address.max(start)..s.end().min(end);
    let Some(first) = writable().find(|s| !inside(s).is_empty()) else {
        return Ok(None);
    };
    let Some(last) = writable().rfind(|s| !inside(s).is_empty()) else {
        return Ok(None);
    };
    let (start, end) = (inside(first).start, inside(last).end);
    // Writable bytes in the first page before the range, or in the last page behind it.
    let before = writable().any(|s| s.address < start && s.end() > page_down(start));
    let behind = writable().any(|s| s.end() > end && s.address < end.next_multiple_of(map::PAGE));
    let start = if before {
        start.next_multiple_of(map::PAGE)
    } else {
        page_down(start)
    };
    let end = if behind {
        page_down(end)
    } else {
        end.next_multiple_of(map::PAGE)
    };
    Ok((start < end).then_some(start..end))
}

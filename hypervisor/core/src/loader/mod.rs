//! The loader: from the bytes of an ELF file to a checked [`Image`].
//!
//! ```text
//!   bytes ─▶ header ─▶ program headers ─┬▶ segments     what goes where, W^X
//!                                       ├▶ notes        the manifest
//!                                       ├▶ dynamic      relocations of a static PIE
//!                                       └▶ RELRO        what is read-only after relocation
//! ```
//!
//! The file is hostile. Every size and address is checked before use, memory use is bounded by
//! the size of the file, and each refusal is a [`LoadError`] with a sentence. [`Image::parse`]
//! writes nothing and allocates two small lists; the segments' bytes stay in the file.
//!
//! A file that was cut off anywhere is refused: the section header table, which linkers put last,
//! must lie in the file although only [`Symbols`] read it. (A file whose header names no section
//! table may lose what lies behind the last byte that is needed, and nobody can tell.)

mod error;
mod file;
mod header;
mod notes;
mod relocations;
mod segments;
mod symbols;
#[cfg(test)]
pub(crate) mod tests;

use alloc::vec::Vec;
use core::ops::Range;

use chiton_shared::manifest::Manifest;
use chiton_shared::map;

pub use error::LoadError;
pub use relocations::{Relocation, Relocations};
pub use segments::{Access, Kind, MAX_SEGMENTS, Segment};
pub use symbols::{Symbol, Symbols};

use file::File;
use segments::Layout;

/// A guest program that passed every check that needs nothing but the file.
///
/// # Example
///
/// ```
/// use chiton_core::loader::{Image, LoadError};
///
/// let refused = Image::parse(b"#!/bin/sh\n").unwrap_err();
/// assert_eq!(refused, LoadError::NotElf);
/// assert_eq!(refused.to_string(), "not an ELF file: build the guest for a target such as x86_64-unknown-none");
/// ```
#[derive(Clone, Debug)]
pub struct Image<'a> {
    file: File<'a>,
    kind: Kind,
    bias: u64,
    entry: u64,
    manifest: Manifest,
    segments: Vec<Segment<'a>>,
    relro: Option<Range<u64>>,
    relocations: Relocations<'a>,
}

/// What a guest states about itself, without a look at the rest of its file.
///
/// # Errors
///
/// [`LoadError`], as far as headers and notes give reason.
pub fn manifest(bytes: &[u8]) -> Result<Manifest, LoadError> {
    let header = header::check(bytes)?;
    let file = File(bytes);
    notes::manifest(file, &header::program_headers(file, &header)?)
}

impl<'a> Image<'a> {
    /// Checks an ELF file.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: each variant is one reason why the file cannot be a guest.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, LoadError> {
        let header = header::check(bytes)?;
        let file = File(bytes);
        let programs = header::program_headers(file, &header)?;
        header::check_sections(file, &header)?;
        header::refuse_foreign(&programs, file)?;
        let manifest = notes::manifest(file, &programs)?;
        let layout = Layout::new(file, &header, &programs)?;
        let relocations = Relocations::find(file, &programs, &layout.segments)?;
        Ok(layout.into_image(file, manifest, relocations))
    }

    /// Whether the file is linked for one address, or for any.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// What is added to the addresses in the file, modulo 2⁶⁴; zero for a fixed image.
    #[must_use]
    pub const fn bias(&self) -> u64 {
        self.bias
    }

    /// Address of the first instruction, as loaded.
    #[must_use]
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// What the guest states about itself. Its ring exists and its required features are known.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The segments in ascending order, with the addresses they are loaded at.
    #[must_use]
    pub fn segments(&self) -> &[Segment<'a>] {
        &self.segments
    }

    /// Whole pages that become read-only once the relocations are applied, as loaded.
    #[must_use]
    pub fn relro(&self) -> Option<Range<u64>> {
        self.relro.clone()
    }

    /// The relocations: values to store in memory once the segments are there.
    pub fn relocations(&self) -> impl Iterator<Item = Relocation> + '_ {
        self.relocations.iter(self.bias, &self.segments)
    }

    /// The function symbols, for people; none if the file is stripped.
    #[must_use]
    pub fn symbols(&self) -> Symbols<'a> {
        Symbols::read(self.file, self.bias)
    }

    /// First address of the first page and end of the last page of the image.
    #[must_use]
    pub fn pages(&self) -> Range<u64> {
        let start = self.segments.first().map_or(map::GUEST, |s| s.address);
        let end = self.segments.last().map_or(map::GUEST, Segment::end);
        start & !(map::PAGE - 1)..end.next_multiple_of(map::PAGE)
    }
}

//! The manifest, in a note.

use chiton_shared::manifest::{Manifest, NOTE_TYPE, OWNER};
use goblin::elf::ProgramHeader;
use goblin::elf::note::NoteDataIterator;
use goblin::elf::program_header::PT_NOTE;

use super::file::File;
use super::{LoadError, header};

/// More than this no machine has, and sums of two cannot overflow.
const ABSURD: u64 = 1 << 46;

/// Finds the manifest and checks what can be checked of it.
pub(super) fn manifest(file: File<'_>, programs: &[ProgramHeader]) -> Result<Manifest, LoadError> {
    let mut found = None;
    for program in programs.iter().filter(|p| p.p_type == PT_NOTE) {
        let data = file.range("note segment", program.p_offset, program.p_filesz)?;
        // goblin knows the two alignments that notes have; anything else means the usual one.
        let align = if program.p_align == 8 { 8 } else { 4 };
        for note in (NoteDataIterator {
            data,
            size: data.len(),
            offset: 0,
            ctx: (align, header::CONTEXT),
        }) {
            let note = note.map_err(|_| LoadError::Notes(program.p_offset))?;
            if note.name == OWNER && note.n_type == NOTE_TYPE && found.replace(note.desc).is_some() {
                return Err(LoadError::TwoManifests);
            }
        }
    }
    check(Manifest::from_bytes(found.ok_or(LoadError::NoManifest)?)?)
}

fn check(manifest: Manifest) -> Result<Manifest, LoadError> {
    manifest.ring().ok_or(LoadError::Ring(manifest.ring))?;
    let unknown = manifest.required.unknown();
    if unknown.0 != 0 {
        return Err(LoadError::UnknownFeatures(unknown));
    }
    for (what, size) in [("stack", manifest.stack), ("heap", manifest.heap)] {
        if size > ABSURD {
            return Err(LoadError::AbsurdNeed { what, size });
        }
    }
    Ok(manifest)
}

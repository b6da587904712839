//! Why a file cannot be a guest.

use alloc::string::String;
use core::fmt;

use chiton_shared::manifest::{Feature, ManifestError, SECTION};
use chiton_shared::map;
use thiserror::Error;

use super::MAX_SEGMENTS;

/// Why a file cannot be a guest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The file does not begin with the ELF magic number.
    #[error("not an ELF file: build the guest for a target such as x86_64-unknown-none")]
    NotElf,
    /// The file ends before something that its headers promise.
    #[error("the file ends too early, at byte {has}: its {what} should reach to byte {needs}; copy or build it again")]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Where it would end.
        needs: u64,
        /// Length of the file.
        has: u64,
    },
    /// A 32-bit file.
    #[error("a 32-bit ELF file: build the guest for 64-bit x86, for example x86_64-unknown-none")]
    Bits32,
    /// The class byte is none of the two there are.
    #[error("the ELF header is damaged: {field} is {value}, which does not exist")]
    Header {
        /// The field, as the ELF specification names it.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A big-endian file.
    #[error("a big-endian ELF file: build the guest for x86_64, which is little-endian")]
    BigEndian,
    /// A file for another processor.
    #[error("built for the processor {name} (e_machine {number}), not for x86_64: choose another --target")]
    Machine {
        /// The processor as `elf.h` names it.
        name: &'static str,
        /// Its number.
        number: u16,
    },
    /// Neither an executable nor a static PIE.
    #[error("{0}, not a program: link it as an executable or as a static position-independent one")]
    Type(FileType),
    /// The file wants a dynamic linker.
    #[error("needs the dynamic linker {0:?}, which a guest does not have: link it statically (-static-pie)")]
    Interpreter(String),
    /// The file wants shared libraries.
    #[error("needs shared libraries (DT_NEEDED), which a guest does not have: link it statically (-static-pie)")]
    NeedsLibraries,
    /// The file has thread-local variables, for which nobody would set the FS base.
    #[error("has thread-local variables (a PT_TLS segment), which a guest cannot have: use statics or locks instead")]
    ThreadLocal,
    /// Nothing to load.
    #[error("has no loadable segment: link it as an executable")]
    NoSegments,
    /// Too many segments.
    #[error("has {0} loadable segments, more than the {MAX_SEGMENTS} that are possible: use fewer sections")]
    TooManySegments(usize),
    /// More bytes in the file than in memory.
    #[error("the segment at {address:#x} has {file} bytes in the file but only {memory} in memory")]
    FileSize {
        /// Address in the file.
        address: u64,
        /// Bytes in the file.
        file: u64,
        /// Bytes in memory.
        memory: u64,
    },
    /// A segment that reaches beyond every address there is.
    #[error("the segment at {address:#x} of {size:#x} bytes reaches beyond the address space")]
    Address {
        /// Address in the file.
        address: u64,
        /// Bytes in memory.
        size: u64,
    },
    /// An alignment that the loader cannot keep.
    #[error("the segment at {address:#x} wants alignment {align:#x}; possible are powers of two up to {max:#x}", max = map::LARGE_PAGE)]
    Alignment {
        /// Address in the file.
        address: u64,
        /// `p_align`.
        align: u64,
    },
    /// A segment that nobody may read: x86 pages cannot be that.
    #[error("the segment at {0:#x} is not readable, which x86 page tables cannot express: give it the R flag")]
    Unreadable(u64),
    /// A segment both writable and executable.
    #[error("the segment at {0:#x} is both writable and executable: separate code from data (-z separate-code)")]
    WritableCode(u64),
    /// A fixed image that wants the addresses of the world the host builds.
    #[error("the segment at {0:#x} lies below {guest:#x}, where a guest's memory begins: link it higher or as a PIE", guest = map::GUEST)]
    BelowGuest(u64),
    /// Two segments claim the same bytes.
    #[error("the segments at {0:#x} and {1:#x} overlap")]
    Overlap(u64, u64),
    /// Two segments with different permissions lie in one page.
    #[error("the segments at {0:#x} and {1:#x} share a page but not their permissions: align them (-z separate-code)")]
    SharedPage(u64, u64),
    /// The first instruction is not in code.
    #[error("the entry point {0:#x} is not in an executable segment: does the guest define its entry (entry!)?")]
    Entry(u64),
    /// More than one RELRO range.
    #[error("has more than one PT_GNU_RELRO range: link it with one")]
    Relro,
    /// A note that cannot be read.
    #[error("the notes at file offset {0:#x} are damaged")]
    Notes(u64),
    /// No manifest.
    #[error(
        "no manifest: the file has no {SECTION} note, so it is no Chiton guest; use the entry macro of the guest library"
    )]
    NoManifest,
    /// More than one manifest.
    #[error("more than one manifest: the entry macro may stand in a program only once")]
    TwoManifests,
    /// A manifest of another version or length.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A ring that is neither 0 nor 3.
    #[error("the manifest asks for ring {0}: there are only ring 3 and ring 0")]
    Ring(u32),
    /// Features that this hypervisor does not have.
    #[error("the guest requires {}, which this hypervisor does not know: use a newer one", Bits(.0))]
    UnknownFeatures(Feature),
    /// A stack or heap that no memory can hold.
    #[error("the manifest asks for a {what} of {size:#x} bytes, more than any memory has")]
    AbsurdNeed {
        /// Stack or heap.
        what: &'static str,
        /// How much, in bytes.
        size: u64,
    },
    /// A relocation of another kind than relative.
    #[error("has a relocation of type {name} ({number}): only R_X86_64_RELATIVE is possible; link it as a static PIE")]
    Relocation {
        /// The type as the x86_64 ABI names it.
        name: &'static str,
        /// Its number.
        number: u32,
    },
    /// A relocation table of a form that x86_64 does not use.
    #[error("the dynamic section has {0}, which is not what an x86_64 linker makes")]
    RelocationTable(&'static str),
    /// A relocation table outside the image.
    #[error("the relocation table {tag} at {address:#x} of {size:#x} bytes is not in a segment's file bytes")]
    RelocationTableAddress {
        /// The tag in the dynamic section.
        tag: &'static str,
        /// Address in the file.
        address: u64,
        /// Size in bytes.
        size: u64,
    },
    /// A relocation of memory that is not a writable segment.
    #[error("a relocation changes {0:#x}, which is not in a writable segment: compile as position-independent code")]
    RelocationTarget(u64),
}

/// What an ELF file is, other than a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileType(pub u16);

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            goblin::elf::header::ET_REL => f.write_str("an object file"),
            goblin::elf::header::ET_CORE => f.write_str("a core dump"),
            other => write!(f, "an ELF file of type {other}"),
        }
    }
}

/// Feature bits by number.
struct Bits<'a>(&'a Feature);

impl fmt::Display for Bits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.0;
        f.write_str(if bits.count_ones() == 1 {
            "feature bit"
        } else {
            "feature bits"
        })?;
        let mut separator = " ";
        for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
            write!(f, "{separator}{bit}")?;
            separator = ", ";
        }
        Ok(())
    }
}

//! The ELF header and the two tables it names.

use alloc::string::String;
use alloc::vec::Vec;

use goblin::container::{Container, Ctx};
use goblin::elf::header::{
    EI_CLASS, EI_DATA, ELFCLASS32, ELFCLASS64, ELFDATA2LSB, ELFDATA2MSB, ELFMAG, EM_X86_64, ET_DYN, ET_EXEC,
    header64::SIZEOF_EHDR, machine_to_str,
};
use goblin::elf::program_header::{PT_INTERP, PT_TLS};
use goblin::elf::{Elf, Header, ProgramHeader};

use super::LoadError;
use super::error::FileType;
use super::file::{File, quad};

/// How goblin is to read: 64 bits, little-endian.
pub(super) const CONTEXT: Ctx = Ctx {
    container: Container::Big,
    le: goblin::container::Endian::Little,
};

/// Size of a program header, in bytes.
const PROGRAM_HEADER: u64 = 56;
/// Size of a section header, in bytes.
const SECTION_HEADER: u64 = 64;

/// Checks the ELF header, in the order in which the answers help most.
pub(super) fn check(bytes: &[u8]) -> Result<Header, LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    let magic = bytes.len().min(ELFMAG.len());
    if bytes[..magic] != ELFMAG[..magic] {
        return Err(LoadError::NotElf);
    }
    match bytes.get(EI_CLASS) {
        Some(&ELFCLASS32) => return Err(LoadError::Bits32),
        Some(&ELFCLASS64) | None => {}
        Some(&other) => {
            return Err(LoadError::Header {
                field: "EI_CLASS",
                value: other.into(),
            });
        }
    }
    match bytes.get(EI_DATA) {
        Some(&ELFDATA2MSB) => return Err(LoadError::BigEndian),
        Some(&ELFDATA2LSB) | None => {}
        Some(&other) => {
            return Err(LoadError::Header {
                field: "EI_DATA",
                value: other.into(),
            });
        }
    }
    let truncated = LoadError::Truncated {
        what: "ELF header",
        needs: SIZEOF_EHDR as u64,
        has: bytes.len() as u64,
    };
    if bytes.len() < SIZEOF_EHDR {
        return Err(truncated);
    }
    let header = Elf::parse_header(bytes).map_err(|_| truncated)?;
    if header.e_machine != EM_X86_64 {
        return Err(LoadError::Machine {
            name: machine_to_str(header.e_machine),
            number: header.e_machine,
        });
    }
    if header.e_type != ET_EXEC && header.e_type != ET_DYN {
        return Err(LoadError::Type(FileType(header.e_type)));
    }
    if header.e_version != 1 {
        return Err(LoadError::Header {
            field: "e_version",
            value: header.e_version.into(),
        });
    }
    Ok(header)
}

/// Reads the program headers.
pub(super) fn program_headers(file: File<'_>, header: &Header) -> Result<Vec<ProgramHeader>, LoadError> {
    if header.e_phnum == 0 {
        return Err(LoadError::NoSegments);
    }
    if u64::from(header.e_phentsize) != PROGRAM_HEADER {
        return Err(LoadError::Header {
            field: "e_phentsize",
            value: header.e_phentsize.into(),
        });
    }
    let size = u64::from(header.e_phnum) * PROGRAM_HEADER;
    let table = file.range("program header table", header.e_phoff, size)?;
    ProgramHeader::parse(table, 0, header.e_phnum.into(), CONTEXT).map_err(|_| LoadError::Header {
        field: "e_phnum",
        value: header.e_phnum.into(),
    })
}

/// Checks that the section header table lies in the file, to notice one that was cut off.
pub(super) fn check_sections(file: File<'_>, header: &Header) -> Result<(), LoadError> {
    section_table(file, header).map(drop)
}

/// The bytes of the section header table; none if the file has no such table.
pub(super) fn section_table<'a>(file: File<'a>, header: &Header) -> Result<&'a [u8], LoadError> {
    const WHAT: &str = "section header table";
    if header.e_shoff == 0 {
        return Ok(&[]);
    }
    if u64::from(header.e_shentsize) != SECTION_HEADER {
        return Err(LoadError::Header {
            field: "e_shentsize",
            value: header.e_shentsize.into(),
        });
    }
    let first = file.range(WHAT, header.e_shoff, SECTION_HEADER)?;
    // A count that does not fit stands in `sh_size` of the first header (gABI, chapter 4).
    let count = match header.e_shnum {
        0 => quad(first, 32).unwrap_or(0),
        count => count.into(),
    };
    file.range(WHAT, header.e_shoff, count.saturating_mul(SECTION_HEADER))
}

/// Refuses what only a dynamic linker or a thread library could run.
pub(super) fn refuse_foreign(programs: &[ProgramHeader], file: File<'_>) -> Result<(), LoadError> {
    for program in programs {
        match program.p_type {
            PT_INTERP => {
                let path = file.range("interpreter's name", program.p_offset, program.p_filesz.min(256))?;
                let path = path.split(|b| *b == 0).next().unwrap_or_default();
                return Err(LoadError::Interpreter(String::from_utf8_lossy(path).into_owned()));
            }
            PT_TLS if program.p_memsz > 0 => return Err(LoadError::ThreadLocal),
            _ => {}
        }
    }
    Ok(())
}

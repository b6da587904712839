//! A maker of small ELF files: a good one, to be spoiled in one way at a time.

use chiton_shared::manifest::{Manifest, NOTE_TYPE, OWNER, Ring};
use goblin::elf::header::{EM_X86_64, ET_DYN, ET_EXEC};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_DYNAMIC, PT_GNU_RELRO, PT_LOAD, PT_NOTE};

/// A loadable segment.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) flags: u32,
    pub(crate) align: u64,
}

impl Load {
    pub(crate) fn new(address: u64, flags: u32, bytes: &[u8]) -> Self {
        Self {
            address,
            size: bytes.len() as u64,
            bytes: bytes.to_vec(),
            flags,
            align: 0x1000,
        }
    }

    pub(crate) fn sized(self, size: u64) -> Self {
        Self { size, ..self }
    }
}

/// An ELF file to be.
#[derive(Clone, Debug)]
pub(crate) struct Elf {
    pub(crate) file_type: u16,
    pub(crate) machine: u16,
    pub(crate) entry: u64,
    pub(crate) loads: Vec<Load>,
    /// Owner, type, descriptor.
    pub(crate) notes: Vec<(String, u32, Vec<u8>)>,
    /// Tags and values; no `PT_DYNAMIC` if there are none.
    pub(crate) dynamic: Vec<(u64, u64)>,
    /// `PT_GNU_RELRO`: address and size.
    pub(crate) relro: Vec<(u64, u64)>,
    /// Further program headers: type, bytes in the file, size in memory.
    pub(crate) others: Vec<(u32, Vec<u8>, u64)>,
    /// Functions: name, address, size.
    pub(crate) symbols: Vec<(String, u64, u64)>,
    pub(crate) section_headers: bool,
}

/// Where the parts of [`Elf::good`] are in the file's address space.
pub(crate) const RODATA: u64 = 0;
pub(crate) const TEXT: u64 = 0x1000;
pub(crate) const RELRO: u64 = 0x2000;
pub(crate) const DATA: u64 = 0x3000;
/// Bytes of `DATA` in memory: 16 from the file, then zeros.
pub(crate) const DATA_SIZE: u64 = 0x2345;

/// A relocation that stores the bias plus `addend` at `address`.
pub(crate) fn rela(address: u64, kind: u64, addend: u64) -> Vec<u8> {
    [address, kind, addend]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

impl Elf {
    /// A static PIE with all that a good one has, as small as can be.
    pub(crate) fn good() -> Self {
        let mut rodata = b"read-only".to_vec();
        rodata.resize(16, 0);
        rodata.extend(rela(RELRO + 8, 8, TEXT + 1));
        rodata.extend(rela(DATA, 8, DATA + 8));
        rodata.extend((RELRO + 16).to_le_bytes());
        Self {
            file_type: ET_DYN,
            machine: EM_X86_64,
            entry: TEXT,
            loads: vec![
                Load::new(RODATA, PF_R, &rodata),
                Load::new(TEXT, PF_R | PF_X, &[0x90; 32]),
                Load::new(RELRO, PF_R | PF_W, &[0x77; 24]),
                Load::new(DATA, PF_R | PF_W, &[0x55; 16]).sized(DATA_SIZE),
            ],
            notes: vec![(
                OWNER.to_string(),
                NOTE_TYPE,
                Manifest::new(Ring::User).stack(0x3000).heap(0x4000).to_bytes().to_vec(),
            )],
            dynamic: vec![(7, 16), (8, 48), (9, 24), (36, 64), (35, 8), (37, 8), (0, 0)],
            relro: vec![(RELRO, 0x1000)],
            others: vec![],
            symbols: vec![
                ("_ZN5guest4main17h0123456789abcdefE".to_string(), TEXT, 16),
                ("_ZN5guest4helpE".to_string(), TEXT + 16, 16),
            ],
            section_headers: true,
        }
    }

    /// The same at a fixed address, without relocations.
    pub(crate) fn fixed(address: u64) -> Self {
        let mut elf = Self::good();
        elf.file_type = ET_EXEC;
        elf.entry += address;
        elf.dynamic.clear();
        elf.loads.iter_mut().for_each(|load| load.address += address);
        elf.relro.iter_mut().for_each(|relro| relro.0 += address);
        elf.symbols.iter_mut().for_each(|symbol| symbol.1 += address);
        elf
    }

    /// With this manifest.
    pub(crate) fn manifest(mut self, manifest: Manifest) -> Self {
        self.notes[0].2 = manifest.to_bytes().to_vec();
        self
    }

    /// The bytes of the file.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut parts: Vec<(Program, Vec<u8>)> = vec![];
        for load in &self.loads {
            let program = Program {
                kind: PT_LOAD,
                flags: load.flags,
                address: load.address,
                size: load.size,
                align: load.align,
            };
            parts.push((program, load.bytes.clone()));
        }
        let other = |kind, size| Program {
            kind,
            flags: PF_R,
            address: 0,
            size,
            align: 4,
        };
        let notes: Vec<u8> = self
            .notes
            .iter()
            .flat_map(|(owner, kind, desc)| note(owner, *kind, desc))
            .collect();
        parts.push((other(PT_NOTE, notes.len() as u64), notes));
        if !self.dynamic.is_empty() {
            let words = self.dynamic.iter().flat_map(|(tag, value)| [*tag, *value]);
            let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
            parts.push((other(PT_DYNAMIC, bytes.len() as u64), bytes));
        }
        for (address, size) in &self.relro {
            parts.push((
                Program {
                    address: *address,
                    ..other(PT_GNU_RELRO, *size)
                },
                vec![],
            ));
        }
        for (kind, bytes, size) in &self.others {
            parts.push((other(*kind, *size), bytes.clone()));
        }
        self.assemble(&parts)
    }

    fn assemble(&self, parts: &[(Program, Vec<u8>)]) -> Vec<u8> {
        let mut body: Vec<u8> = vec![];
        let mut programs = vec![];
        let body_start = 64 + 56 * parts.len() as u64;
        for (program, bytes) in parts {
            programs.extend(program.header(body_start + body.len() as u64, bytes.len() as u64));
            body.extend(bytes);
        }
        let (mut names, mut symbols) = (vec![0_u8], vec![0_u8; 24]);
        for (name, address, size) in &self.symbols {
            symbols.extend((names.len() as u32).to_le_bytes());
            symbols.extend([0x12, 0, 1, 0]);
            symbols.extend(address.to_le_bytes());
            symbols.extend(size.to_le_bytes());
            names.extend(name.as_bytes());
            names.push(0);
        }
        let names_start = body_start + body.len() as u64;
        let symbols_start = names_start + names.len() as u64;
        let sections_start = symbols_start + symbols.len() as u64;
        let mut file = self.header(sections_start, parts.len() as u16);
        file.extend(programs);
        file.extend(body);
        file.extend(&names);
        file.extend(&symbols);
        if self.section_headers {
            file.extend(section(0, 0, 0, 0));
            file.extend(section(2, symbols_start, symbols.len() as u64, 2));
            file.extend(section(3, names_start, names.len() as u64, 0));
        }
        file
    }

    fn header(&self, sections: u64, programs: u16) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        header.extend(self.file_type.to_le_bytes());
        header.extend(self.machine.to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        header.extend(self.entry.to_le_bytes());
        header.extend(64_u64.to_le_bytes());
        header.extend(if self.section_headers { sections } else { 0 }.to_le_bytes());
        header.extend(0_u32.to_le_bytes());
        let sections = if self.section_headers { 3 } else { 0 };
        for half in [64, 56, programs, 64, sections, 0] {
            header.extend(half.to_le_bytes());
        }
        header
    }
}

struct Program {
    kind: u32,
    flags: u32,
    address: u64,
    size: u64,
    align: u64,
}

impl Program {
    fn header(&self, offset: u64, file_size: u64) -> Vec<u8> {
        let mut header = vec![];
        header.extend(self.kind.to_le_bytes());
        header.extend(self.flags.to_le_bytes());
        for word in [offset, self.address, self.address, file_size, self.size, self.align] {
            header.extend(word.to_le_bytes());
        }
        header
    }
}

fn section(kind: u32, offset: u64, size: u64, link: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend(kind.to_le_bytes());
    for word in [0, 0, offset, size] {
        header.extend(u64::to_le_bytes(word));
    }
    header.extend(link.to_le_bytes());
    header.resize(64, 0);
    header
}

fn note(owner: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut note = vec![];
    for word in [owner.len() as u32 + 1, desc.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
    note.extend(owner.as_bytes());
    note.push(0);
    note.resize(note.len().next_multiple_of(4), 0);
    note.extend(desc);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

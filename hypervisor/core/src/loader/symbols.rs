//! Function symbols, for people.

use alloc::vec::Vec;

use goblin::elf::section_header::{SHT_SYMTAB, SectionHeader};
use goblin::elf::sym::{STT_FUNC, Symtab, st_type};

use super::file::File;
use super::header::{self, CONTEXT};

/// Where longer names are cut, so that a table of hostile names costs no more than its size.
const LONGEST_NAME: usize = 1024;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Where it is loaded.
    pub address: u64,
    /// Size in bytes; zero if the file does not say.
    pub size: u64,
    /// Its mangled name.
    pub name: &'a str,
}

/// The functions of an image by address.
#[derive(Clone, Debug, Default)]
pub struct Symbols<'a>(Vec<Symbol<'a>>);

impl<'a> Symbols<'a> {
    /// No symbols.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Reads the symbol table; what is damaged of it is left out.
    pub(super) fn read(file: File<'a>, bias: u64) -> Self {
        let mut symbols = Self::collect(file, bias).unwrap_or_default();
        symbols.sort_unstable_by_key(|s| s.address);
        Self(symbols)
    }

    fn collect(file: File<'a>, bias: u64) -> Option<Vec<Symbol<'a>>> {
        let header = header::check(file.0).ok()?;
        let table = header::section_table(file, &header).ok()?;
        let sections = SectionHeader::parse_from(table, 0, table.len() / 64, CONTEXT).ok()?;
        let symtab = sections.iter().find(|s| s.sh_type == SHT_SYMTAB)?;
        let names = sections.get(usize::try_from(symtab.sh_link).ok()?)?;
        let names = file.range("symbol names", names.sh_offset, names.sh_size).ok()?;
        let bytes = file.range("symbol table", symtab.sh_offset, symtab.sh_size).ok()?;
        let symtab = Symtab::parse(bytes, 0, bytes.len() / 24, CONTEXT).ok()?;
        let functions = symtab
            .iter()
            .filter(|s| st_type(s.st_info) == STT_FUNC && s.st_shndx != 0);
        let named = functions.filter_map(|s| {
            let name = names.get(s.st_name..)?;
            let name = name[..name.len().min(LONGEST_NAME)].split(|b| *b == 0).next()?;
            let name = core::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
            Some(Symbol {
                address: s.st_value.wrapping_add(bias),
                size: s.st_size,
                name,
            })
        });
        Some(named.collect())
    }

    /// The function that an address lies in.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<Symbol<'a>> {
        let after = self.0.partition_point(|s| s.address <= address);
        let symbol = self.0.get(after.checked_sub(1)?)?;
        let offset = address - symbol.address;
        (offset < symbol.size.max(1) || symbol.size == 0).then_some(*symbol)
    }

    /// All of them, by address.
    #[must_use]
    pub fn as_slice(&self) -> &[Symbol<'a>] {
        &self.0
    }
}

//! From the value to guest memory.

use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};

use super::{BootError, Place, Processor, World, descriptors, traps};
use crate::loader::Segment;

/// Bytes that belong at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'w> {
    /// Where.
    pub address: u64,
    /// What to put there.
    pub bytes: &'w [u8],
    /// What it is.
    pub place: Place,
}

impl World<'_> {
    /// Everything that is to be written but relocations, each piece where it lies: in the file,
    /// in the program, in this value. Memory that no piece covers has to be zero.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let interrupts = self.interrupts.as_ref();
        let fixed = [
            (map::BOOT_PAGE, self.boot_page.as_bytes().as_slice(), Place::BootPage),
            (map::BOOT_STRINGS, &self.strings.bytes, Place::Strings),
            (map::GDT, &descriptors::GDT, Place::Gdt),
            (map::TSS, &descriptors::TSS, Place::Tss),
            (map::IDT, interrupts.map_or(&descriptors::IDT, |i| &i.idt), Place::Idt),
            (map::TRAP_STUBS, &traps::STUBS, Place::TrapStubs),
        ];
        let tables = self
            .tables
            .pieces()
            .map(|(address, bytes)| (address, bytes, Place::PageTables));
        let segments = self
            .image
            .segments()
            .iter()
            .map(|s| (s.address, s.bytes, self.describe(s.address)));
        fixed
            .into_iter()
            .chain(interrupts.map(|i| (map::INTERRUPT_STUBS, i.stubs.as_slice(), Place::InterruptStubs)))
            .chain(tables)
            .chain(segments)
            .chain(self.processors.iter().flat_map(Processor::pieces))
            .filter(|(_, bytes, _)| !bytes.is_empty())
            .map(|(address, bytes, place)| Piece { address, bytes, place })
    }

    /// Writes the world into guest memory, which must be fresh: what is not written, for example
    /// a segment's zero-filled end, is taken to be zero, so that it costs nothing.
    ///
    /// # Errors
    ///
    /// [`BootError::NoMemory`] if `memory` is not what [`Options`](super::Options) said.
    pub fn write_to(&self, memory: &impl GuestMemory) -> Result<(), BootError> {
        for piece in self.pieces() {
            window(memory, piece.address, piece.bytes.len())?.write(0, piece.bytes);
        }
        self.relocate(memory)
    }

    fn relocate(&self, memory: &impl GuestMemory) -> Result<(), BootError> {
        let mut last: Option<(&Segment<'_>, Window<'_>)> = None;
        for relocation in self.image.relocations() {
            let (segment, window) = match last {
                Some(last) if last.0.contains(relocation.address, 8) => last,
                _ => {
                    let mut segments = self.image.segments().iter();
                    let segment = segments.find(|s| s.contains(relocation.address, 8));
                    let segment = segment.ok_or(BootError::NoMemory {
                        address: relocation.address,
                        len: 8,
                    })?;
                    let size = usize::try_from(segment.size).unwrap_or(usize::MAX);
                    *last.insert((segment, window(memory, segment.address, size)?))
                }
            };
            let offset = (relocation.address - segment.address) as usize;
            window.write(offset, &relocation.value.to_le_bytes());
        }
        Ok(())
    }
}

fn window<M: GuestMemory>(memory: &M, address: u64, len: usize) -> Result<Window<'_>, BootError> {
    memory.window(address, len).ok_or(BootError::NoMemory { address, len })
}

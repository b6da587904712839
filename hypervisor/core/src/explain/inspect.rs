//! What a guest states, and the world the host builds for it.

use core::fmt;

use chiton_shared::manifest::Feature;

use super::{Location, Size};
use crate::boot::World;
use crate::loader::Symbols;

/// Manifest, segments and page-table map of a guest, for people.
#[derive(Clone, Copy, Debug)]
pub struct Inspect<'w> {
    world: &'w World<'w>,
    symbols: &'w Symbols<'w>,
}

impl<'w> Inspect<'w> {
    /// A look at this world.
    #[must_use]
    pub const fn new(world: &'w World<'w>, symbols: &'w Symbols<'w>) -> Self {
        Self { world, symbols }
    }
}

/// The names of a set of features.
struct Names(Feature);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for bit in (0..64).filter(|bit| self.0.0 >> bit & 1 == 1) {
            match Feature::NAMES.get(bit) {
                Some(name) => write!(f, "{separator}{name}")?,
                None => write!(f, "{separator}bit {bit}")?,
            }
            separator = ", ";
        }
        if self.0 == Feature::NONE {
            f.write_str("nothing")
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Inspect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.program(f)?;
        self.manifest(f)?;
        self.segments(f)?;
        self.map(f)
    }
}

impl Inspect<'_> {
    fn program(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = self.world.image();
        let entry = Location::new(self.symbols, image.entry());
        writeln!(f, "program   {}, entry {:#x} ({entry})", image.kind(), image.entry())?;
        let relocations = image.relocations().count();
        let functions = self.symbols.as_slice().len();
        writeln!(f, "          {relocations} relocations, {functions} function symbols\n")
    }

    fn manifest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = self.world.image().manifest();
        let (stack, heap) = (Size(manifest.stack), Size(manifest.heap));
        let least = Size(World::minimum_memory(self.world.image()).next_multiple_of(1 << 20));
        writeln!(f, "manifest  ABI version {}, ring {}", manifest.abi, manifest.ring)?;
        writeln!(
            f,
            "          requires {}; can use {}",
            Names(manifest.required),
            Names(manifest.optional)
        )?;
        writeln!(
            f,
            "          stack {stack}, heap at least {heap}: runs in {least} of memory or more\n"
        )
    }

    fn segments(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "segments       start          end     memory       file access")?;
        for segment in self.world.image().segments() {
            let (start, end, size) = (segment.address, segment.end(), segment.size);
            writeln!(
                f,
                "        {start:>12x} {end:>12x} {size:>10} {:>10} {}",
                segment.bytes.len(),
                segment.access
            )?;
        }
        writeln!(f)
    }

    fn map(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.world;
        let (memory, ring, tables) = (Size(world.layout().memory), world.ring().number(), world.table_count());
        writeln!(
            f,
            "map of {memory} in ring {ring}, in {tables} page tables; what is not listed is not mapped"
        )?;
        write!(f, "               start          end  pages size access")?;
        world
            .mappings()
            .iter()
            .try_for_each(|mapping| write!(f, "\n        {mapping}"))
    }
}

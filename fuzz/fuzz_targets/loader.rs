//! Any file as a guest.
#![no_main]

use std::cell::Cell;

use chiton_core::boot::{Options, World};
use chiton_core::loader::{Access, Image};
use chiton_fuzz::memory::Memory;
use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};
use libfuzzer_sys::fuzz_target;

/// Memory of the guest, in bytes.
const MEMORY: u64 = 16 << 20;
/// How much of it is really there: what lies beyond is written to one piece of scratch.
const REAL: usize = 4 << 20;

/// Memory that counts what is asked of it.
struct Ram {
    real: Memory,
    written: Cell<usize>,
}

impl GuestMemory for Ram {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        assert!(
            address.checked_add(len as u64).is_some_and(|end| end <= MEMORY),
            "{len} bytes at {address:#x}"
        );
        assert!(address >= map::NULL_END, "the null page is written");
        self.written.set(self.written.get() + 1);
        self.real.window(address, len)
    }
}

thread_local! {
    static RAM: Ram = Ram { real: Memory::new(REAL), written: Cell::new(0) };
}

fuzz_target!(|data: &[u8]| {
    let Ok(image) = Image::parse(data) else { return };
    for symbol in image.symbols().as_slice().iter().take(64) {
        let _ = image.symbols().find(symbol.address);
    }
    let _ = World::minimum_memory(&image);
    let options = Options {
        processors: 1 + u32::from(data[data.len() - 1]) % 4,
        ..Options::new(MEMORY)
    };
    let Ok(world) = World::build(&image, &options) else {
        return;
    };
    let mut end = 0;
    for mapping in world.mappings() {
        let _ = mapping.to_string();
        assert!(
            end <= mapping.start && mapping.start < mapping.end,
            "mappings overlap or are out of order"
        );
        end = mapping.end;
    }
    let entry = world
        .mappings()
        .iter()
        .find(|m| m.contains(world.registers.rip))
        .expect("the entry is mapped");
    assert!(entry.access == Access::Execute, "the entry is not executable");
    for address in [0, map::GUEST, world.layout().stack.start, world.registers.rip] {
        let _ = world.describe(address);
    }
    RAM.with(|ram| {
        let _ = world.write_to(ram);
    });
});

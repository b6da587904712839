//! The block device against a driver that breaks every rule, on a disk that does things at once or
//! ends them late and in another order.
#![no_main]

use std::ptr::NonNull;

use chiton_core::devices::block::IN_FLIGHT;
use chiton_core::devices::{Begun, Block, Disk, DiskError, Operation};
use chiton_fuzz::guest::Guest;
use chiton_fuzz::script::Script;
use chiton_shared::memory::Window;
use chiton_shared::virtio::block::{ID_BYTES, SECTOR};
use libfuzzer_sys::fuzz_target;

const SECTORS: u64 = 32;

/// A disk that fails now and then, and checks what it is asked for.
struct Picky {
    read_only: bool,
    calls: u32,
    fails_every: u32,
    /// It begins operations and ends them later; and this chooses which.
    late: Option<u32>,
    under_way: Vec<Late>,
}

/// An operation that was begun.
struct Late {
    tag: u16,
    operation: Operation,
    windows: Vec<(Place, usize)>,
}

/// Where a window begins.
struct Place(NonNull<u8>);

// SAFETY: only used as a window, which allows access from any thread.
unsafe impl Send for Place {}

impl Picky {
    fn answer(&mut self, offset: u64, windows: &[Window<'_>]) -> Result<(), DiskError> {
        let len: u64 = windows.iter().map(|w| w.len() as u64).sum();
        assert!(offset + len <= SECTORS * SECTOR, "{len} bytes at {offset}");
        assert!(windows.len() <= 64);
        self.calls += 1;
        if self.calls.is_multiple_of(self.fails_every) {
            Err(DiskError)
        } else {
            Ok(())
        }
    }
}

impl Picky {
    /// Ends one of those under way, whichever.
    fn end(&mut self) -> Option<(u16, Result<(), DiskError>)> {
        let random = self.late.as_mut()?;
        *random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let index = *random as usize % self.under_way.len().max(1);
        if index >= self.under_way.len() {
            return None;
        }
        let late = self.under_way.swap_remove(index);
        let windows = late.windows.iter().map(|(start, len)| {
            // SAFETY: the guest keeps its memory longer than its device.
            unsafe { Window::new(start.0, *len) }
        });
        let windows: Vec<Window<'_>> = windows.collect();
        let result = match late.operation {
            Operation::Read(offset) => self.read_at(offset, &windows),
            Operation::Write(offset) => self.write_at(offset, &windows),
            Operation::Flush => self.flush(),
        };
        Some((late.tag, result))
    }
}

impl Disk for Picky {
    fn sectors(&self) -> u64 {
        SECTORS
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn name(&self) -> [u8; ID_BYTES] {
        [b'n'; ID_BYTES]
    }

    fn read_at(&mut self, offset: u64, to: &[Window<'_>]) -> Result<(), DiskError> {
        for window in to {
            window.write(0, &[0xD1]);
        }
        self.answer(offset, to)
    }

    fn write_at(&mut self, offset: u64, from: &[Window<'_>]) -> Result<(), DiskError> {
        assert!(!self.read_only);
        self.answer(offset, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.answer(0, &[])
    }

    fn begin(&mut self, tag: u16, operation: Operation, windows: &[Window<'_>]) -> Begun {
        if self.late.is_none() {
            return Begun::Done(match operation {
                Operation::Read(offset) => self.read_at(offset, windows),
                Operation::Write(offset) => self.write_at(offset, windows),
                Operation::Flush => self.flush(),
            });
        }
        assert!(tag < IN_FLIGHT && self.under_way.iter().all(|late| late.tag != tag));
        let place = |window: &Window<'_>| {
            let start = NonNull::new(window.as_ptr()).expect("a window is somewhere");
            (Place(start), window.len())
        };
        self.under_way.push(Late {
            tag,
            operation,
            windows: windows.iter().map(place).collect(),
        });
        Begun::UnderWay
    }

    fn complete(&mut self) -> Option<(u16, Result<(), DiskError>)> {
        // Some calls find nothing, and so things stay under way over a reset.
        self.calls += 1;
        if self.calls.is_multiple_of(3) { self.end() } else { None }
    }

    fn wait(&mut self) {
        assert!(!self.under_way.is_empty(), "the device waits for nothing");
        self.calls = self.calls.next_multiple_of(3) + 2;
    }

    fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        assert!(!self.read_only && len > 0 && offset + len <= SECTORS * SECTOR);
        self.answer(offset, &[])
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, _unmap: bool) -> Result<(), DiskError> {
        self.discard(offset, len)
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let choice = script.u8();
    let disk = Picky {
        read_only: choice & 1 != 0,
        calls: 0,
        fails_every: 1 + u32::from(choice >> 3),
        late: (choice & 2 != 0).then(|| script.u32()),
        under_way: Vec::new(),
    };
    let queues = if choice & 4 != 0 { 2 } else { 1 };
    let guest = Guest::new(Block::new(disk).queues(queues), image);
    guest.play(script);
});

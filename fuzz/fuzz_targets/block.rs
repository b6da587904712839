//! The block device against a driver that breaks every rule.
#![no_main]

use chiton_core::devices::{Block, Disk, DiskError};
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
}

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
        fails_every: 1 + u32::from(choice >> 1),
    };
    let guest = Guest::new(Block::new(disk), image);
    guest.play(script);
});

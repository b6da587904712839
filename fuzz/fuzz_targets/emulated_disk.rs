//! The emulated disk against a driver that breaks every rule, on a disk of any moods.
#![no_main]

use chiton_core::devices::emulated::Disk;
use chiton_core::devices::{self, DiskError, Emulated};
use chiton_fuzz::emulated::play;
use chiton_fuzz::script::Script;
use chiton_shared::emulated::disk::{control, register, status};
use chiton_shared::memory::Window;
use chiton_shared::virtio::block::{ID_BYTES, SECTOR};
use libfuzzer_sys::fuzz_target;

const SECTORS: u64 = 1000;

/// A disk whose answers follow from a number, and that sees that nothing is beyond its end.
struct Moody {
    mood: u64,
    read_only: bool,
}

impl Moody {
    fn answer(&mut self, offset: u64, windows: &[Window<'_>]) -> Result<(), DiskError> {
        let len: usize = windows.iter().map(Window::len).sum();
        assert!(len > 0 && offset + len as u64 <= SECTORS * SECTOR);
        self.mood = self.mood.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if (self.mood >> 40).is_multiple_of(8) {
            return Err(DiskError);
        }
        Ok(())
    }
}

impl devices::Disk for Moody {
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
            window.write(0, &[0x5A]);
        }
        self.answer(offset, to)
    }

    fn write_at(&mut self, offset: u64, from: &[Window<'_>]) -> Result<(), DiskError> {
        assert!(!self.read_only);
        self.answer(offset, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn discard(&mut self, _: u64, _: u64) -> Result<(), DiskError> {
        unreachable!("there is no command for that")
    }

    fn write_zeroes(&mut self, _: u64, _: u64, _: bool) -> Result<(), DiskError> {
        unreachable!("there is no command for that")
    }
}

const KNOWN: [u64; 12] = [
    register::DATA,
    register::ERROR,
    register::COUNT,
    register::LBA_LOW,
    register::LBA_MID,
    register::LBA_HIGH,
    register::DEVICE,
    register::STATUS,
    register::CONTROL,
    register::MASTER_COMMAND,
    register::MASTER_STATUS,
    register::MASTER_TABLE,
];

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let mood = script.u16();
    let mut disk = Disk::new(Moody {
        mood: mood.into(),
        read_only: mood & 1 != 0,
    });
    play(&mut disk, script, image, &KNOWN);
    // Whatever happened, a reset brings it back.
    let ram = chiton_fuzz::guest::Ram::new(&[]);
    disk.write(register::CONTROL, &[control::SRST], &ram);
    disk.write(register::CONTROL, &[0], &ram);
    let mut now = [0];
    disk.read(register::STATUS, &mut now);
    assert_eq!(now[0], status::DRDY | status::DSC);
});

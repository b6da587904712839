use std::vec::Vec;

use chiton_shared::emulated::disk::{Region, command, control, device, error, identify, master, register, status};
use proptest::prelude::*;

use super::super::{Disk, Emulated};
use super::{Rig, script};
use crate::devices::block::fake::{FakeDisk, NAME};
use crate::devices::testing::{BUFFERS, Memory, WORLD, config};

const SECTORS: usize = 300;
const READY: u8 = status::DRDY | status::DSC;

fn rig<'m>(memory: &'m Memory, disk: &FakeDisk) -> Rig<'m, Disk<FakeDisk>> {
    let device = Disk::new(disk.clone());
    Rig { memory, device }
}

impl Rig<'_, Disk<FakeDisk>> {
    fn start(&mut self, command: u8, sector: u32, count: u8) {
        let [low, mid, high, top] = sector.to_le_bytes();
        self.write8(register::DEVICE, device::LBA | top);
        self.write8(register::COUNT, count);
        self.write8(register::LBA_LOW, low);
        self.write8(register::LBA_MID, mid);
        self.write8(register::LBA_HIGH, high);
        self.write8(register::STATUS, command);
    }

    fn status(&mut self) -> u8 {
        self.read8(register::STATUS)
    }

    /// Takes a sector, which must be there.
    fn take(&mut self) -> Vec<u8> {
        assert_eq!(self.status(), READY | status::DRQ);
        (0..256)
            .flat_map(|_| self.read16(register::DATA).to_le_bytes())
            .collect()
    }

    fn assert_failed(&mut self, error: u8) {
        assert_eq!(self.status(), READY | status::ERR);
        assert_eq!(self.read8(register::ERROR), error);
    }

    fn list(&mut self, regions: &[(u32, u16)]) {
        for (i, (address, len)) in regions.iter().enumerate() {
            let region = Region {
                address: *address,
                len: *len,
                last: i + 1 == regions.len(),
            };
            self.memory
                .write(BUFFERS + (i * Region::SIZE) as u64, &region.to_bytes());
        }
        self.write32(register::MASTER_TABLE, BUFFERS as u32);
    }
}

#[test]
fn sectors_pass_the_data_register_word_by_word() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
    let mut rig = rig(&memory, &disk);
    rig.start(command::READ, 7, 3);
    for sector in 7..10 {
        assert!(rig.device.interrupt(), "a sector is there");
        assert_eq!(rig.take(), [sector + 1; 512]);
    }
    assert_eq!(rig.status(), READY);
    assert_eq!(rig.read16(register::DATA), u16::MAX, "nothing is left");

    rig.start(command::WRITE, 20, 2);
    for _ in 0..2 {
        assert_eq!(rig.status(), READY | status::DRQ);
        (0..256).for_each(|i| rig.write16(register::DATA, i));
    }
    assert!(rig.device.interrupt());
    assert_eq!(rig.status(), READY);
    let words: Vec<u8> = (0..256_u16).flat_map(u16::to_le_bytes).collect();
    assert_eq!(disk.state().bytes[20 * 512..22 * 512], [&words[..], &words].concat());
}

#[test]
#[cfg_attr(miri, ignore = "65536 words take Miri minutes; others read the same way")]
fn a_count_of_zero_is_256() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
    let mut rig = rig(&memory, &disk);
    rig.start(command::READ, 44, 0);
    for sector in 44..300_u32 {
        assert_eq!(rig.take(), [(sector as u8).wrapping_add(1); 512]);
    }
    assert_eq!(rig.status(), READY);
    rig.start(command::READ, 45, 0);
    rig.assert_failed(error::IDNF);
}

#[test]
#[cfg_attr(miri, ignore = "fills a disk of 35 MB")]
fn it_says_what_it_is() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(65_536 + 4464));
    let mut rig = rig(&memory, &disk);
    rig.start(command::IDENTIFY, 0, 0);
    let answer = rig.take();
    let word = |at: usize| u16::from_le_bytes([answer[2 * at], answer[2 * at + 1]]);
    assert_eq!((word(identify::SECTORS), word(identify::SECTORS + 1)), (4464, 1));
    let text: Vec<u8> = (identify::SERIAL..identify::SERIAL + 10)
        .flat_map(|at| word(at).to_be_bytes())
        .collect();
    assert_eq!(text[..16], NAME[..16]);
    assert_eq!(text[16..], [b' '; 4]);
}

#[test]
fn the_bus_master_moves_all_at_once() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
    let mut rig = rig(&memory, &disk);
    let data = BUFFERS as u32 + 0x1000;
    // In pieces that cut sectors, and more room than is needed.
    rig.list(&[(data, 100), (data + 0x800, 924), (data + 0x1000, 0)]);
    rig.write8(register::MASTER_COMMAND, master::TO_MEMORY);
    rig.start(command::READ_DMA, 4, 3);
    assert_eq!(disk.state().reads, 0, "not before it is told to");
    rig.write8(register::MASTER_COMMAND, master::TO_MEMORY | master::START);
    assert!(rig.device.interrupt());
    assert_eq!(rig.read8(register::MASTER_STATUS), master::INTERRUPT);
    rig.write8(register::MASTER_STATUS, master::INTERRUPT);
    assert_eq!((rig.read8(register::MASTER_STATUS), rig.status()), (0, READY));
    assert!(!rig.device.interrupt(), "reading the status takes it back");
    assert_eq!(memory.read(data.into(), 101), [&[5; 100][..], &[0]].concat());
    let rest = memory.read(u64::from(data) + 0x800, 924);
    assert_eq!(rest, [&[5; 412][..], &[6; 512]].concat());
    assert_eq!(
        memory.read(u64::from(data) + 0x1000, 513),
        [&[7; 512][..], &[0]].concat()
    );

    // The other way, and with the bus master told first.
    memory.write(data.into(), &[0xEE; 512]);
    rig.list(&[(data, 512)]);
    rig.write8(register::MASTER_COMMAND, 0);
    rig.write8(register::MASTER_COMMAND, master::START);
    rig.start(command::WRITE_DMA, 9, 1);
    assert_eq!(rig.status(), READY);
    assert_eq!(disk.state().bytes[9 * 512..10 * 512], [0xEE; 512]);
}

#[test]
fn a_table_that_cannot_be_used_fails_the_command() {
    let data = BUFFERS as u32 + 0x1000;
    type Case<'a> = (&'a str, &'a [(u32, u16)], u8);
    let cases: [Case<'_>; 6] = [
        ("too short", &[(data, 510)], master::TO_MEMORY),
        ("beyond memory", &[(0xFFFF_0000, 512)], master::TO_MEMORY),
        ("the host's world", &[(WORLD as u32, 512)], master::TO_MEMORY),
        ("half of it", &[(data, 256), (WORLD as u32, 256)], master::TO_MEMORY),
        ("the other direction", &[(data, 512)], 0),
        ("no end", &[(data, 2); 64], master::TO_MEMORY),
    ];
    for (name, regions, direction) in cases {
        let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
        let mut rig = rig(&memory, &disk);
        rig.list(regions);
        rig.start(command::READ_DMA, 0, 1);
        rig.write8(register::MASTER_COMMAND, direction | master::START);
        let said = rig.read8(register::MASTER_STATUS);
        assert_eq!(said, master::FAILED | master::INTERRUPT, "{name}");
        rig.assert_failed(error::ABRT);
        assert_eq!(memory.read(WORLD, 4096), [0; 4096], "{name}");
        assert_eq!(rig.device.failures(), 1);
    }
    // A table that is itself nowhere.
    let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
    let mut rig = rig(&memory, &disk);
    rig.write32(register::MASTER_TABLE, u32::MAX);
    rig.write8(register::MASTER_COMMAND, master::TO_MEMORY | master::START);
    rig.start(command::READ_DMA, 0, 1);
    rig.assert_failed(error::ABRT);
}

#[test]
fn what_cannot_be_done_is_refused() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
    let mut rig = rig(&memory, &disk);
    rig.start(command::READ, 299, 2);
    rig.assert_failed(error::IDNF);
    rig.start(command::WRITE_DMA, 0x0FFF_FFFF, 0);
    rig.assert_failed(error::IDNF);
    rig.start(0x91, 0, 0);
    rig.assert_failed(error::ABRT);
    rig.write8(register::DEVICE, 0);
    rig.write8(register::STATUS, command::READ);
    rig.assert_failed(error::ABRT);
    disk.state().read_only = true;
    for command in [command::WRITE, command::WRITE_DMA] {
        rig.start(command, 0, 1);
        rig.assert_failed(error::ABRT);
    }
    let state = disk.state();
    assert_eq!((state.writes, state.reads), (0, 0));
}

#[test]
fn a_disk_that_fails_is_an_error_of_the_command() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
    let mut rig = rig(&memory, &disk);
    disk.state().fails = true;
    for command in [command::READ, command::FLUSH] {
        rig.start(command, 0, 1);
        rig.assert_failed(error::UNC);
    }
    rig.start(command::WRITE, 0, 2);
    (0..256).for_each(|i| rig.write16(register::DATA, i));
    rig.assert_failed(error::UNC);
    rig.list(&[(BUFFERS as u32 + 0x1000, 512)]);
    for (command, direction) in [(command::READ_DMA, master::TO_MEMORY), (command::WRITE_DMA, 0)] {
        rig.start(command, 0, 1);
        rig.write8(register::MASTER_COMMAND, direction | master::START);
        assert_eq!(
            rig.read8(register::MASTER_STATUS) & master::FAILED,
            0,
            "memory was all right"
        );
        rig.write8(register::MASTER_COMMAND, 0);
        rig.assert_failed(error::UNC);
    }
    disk.state().fails = false;
    rig.start(command::FLUSH, 0, 0);
    assert_eq!((rig.status(), disk.state().flushes), (READY, 2));
    rig.start(command::READ, 1, 1);
    assert_eq!(rig.take()[0], 2);
}

#[test]
fn a_bus_master_whose_command_fails_is_told_by_the_interrupt() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
    let mut rig = rig(&memory, &disk);
    rig.start(command::READ_DMA, 300, 1);
    rig.write8(register::MASTER_COMMAND, master::TO_MEMORY | master::START);
    let said = rig.read8(register::MASTER_STATUS);
    assert_eq!(
        said,
        master::ACTIVE | master::INTERRUPT,
        "it waits for what never comes"
    );
    rig.write8(register::MASTER_COMMAND, 0);
    assert_eq!(rig.read8(register::MASTER_STATUS), master::INTERRUPT);
    rig.assert_failed(error::IDNF);
}

#[test]
fn there_is_no_second_device() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
    let mut rig = rig(&memory, &disk);
    rig.write8(register::DEVICE, device::LBA | device::SECOND);
    rig.write8(register::STATUS, command::IDENTIFY);
    assert_eq!((rig.status(), rig.read8(register::ERROR)), (0, 0));
    rig.write8(register::DEVICE, device::LBA);
    assert_eq!(rig.status(), READY);
}

#[test]
fn who_wants_no_interrupts_gets_none() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
    let mut rig = rig(&memory, &disk);
    rig.write8(register::CONTROL, control::NIEN);
    rig.start(command::READ, 0, 1);
    assert!(!rig.device.interrupt());
    assert_eq!(rig.read8(register::MASTER_STATUS), 0);
    rig.write8(register::CONTROL, 0);
    assert!(rig.device.interrupt());
}

#[test]
fn accesses_that_no_register_has_do_nothing() {
    let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
    let mut rig = rig(&memory, &disk);
    rig.start(command::READ, 0, 1);
    let offsets = [register::DATA, register::ERROR, register::MASTER_TABLE, 0x800];
    for (offset, len) in offsets.into_iter().zip([1, 2, 8, 4]) {
        let mut data = [0; 8];
        rig.device.read(offset, &mut data[..len]);
        assert_eq!(data[..len], [0xFF; 8][..len], "{offset:#x}");
        rig.device.write(offset, &[0; 8][..len], &memory);
    }
    assert_eq!(
        rig.take(),
        [1; 512],
        "the sector is still there, from its first word on"
    );
}

/// Registers, some twice so that commands and their data meet.
const KNOWN: &[u64] = &[
    register::DATA,
    register::COUNT,
    register::LBA_LOW,
    register::LBA_MID,
    register::DEVICE,
    register::STATUS,
    register::STATUS,
    register::CONTROL,
    register::MASTER_COMMAND,
    register::MASTER_STATUS,
    register::MASTER_TABLE,
];

proptest! {
    #![proptest_config(config())]

    /// Whatever a driver does, a reset brings the disk back.
    #[test]
    fn any_registers_in_any_order(script in script(KNOWN)) {
        let (memory, disk) = (Memory::new(), FakeDisk::new(SECTORS));
        disk.state().read_only = true;
        let mut rig = rig(&memory, &disk);
        rig.play(&script);
        rig.write8(register::CONTROL, control::SRST);
        rig.write8(register::CONTROL, 0);
        prop_assert_eq!(rig.status(), READY);
        rig.start(command::READ, 3, 1);
        prop_assert_eq!(rig.take(), [4; 512]);
        prop_assert_eq!(disk.state().writes, 0);
    }
}

//! Drivers that keep to the registers' rules, and some that do not.

use std::vec::Vec;

use proptest::prelude::*;

use super::Emulated;
use crate::devices::testing::{BUFFERS, Memory, WORLD};

mod disk;
mod nic;

/// A device and memory, and the accesses of a driver.
struct Rig<'m, D> {
    memory: &'m Memory,
    device: D,
}

impl<D: Emulated> Rig<'_, D> {
    fn read8(&mut self, offset: u64) -> u8 {
        let mut byte = [0];
        self.device.read(offset, &mut byte);
        byte[0]
    }

    fn read16(&mut self, offset: u64) -> u16 {
        let mut bytes = [0; 2];
        self.device.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    fn read32(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.device.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write8(&mut self, offset: u64, value: u8) {
        self.device.write(offset, &[value], self.memory);
    }

    fn write16(&mut self, offset: u64, value: u16) {
        self.device.write(offset, &value.to_le_bytes(), self.memory);
    }

    fn write32(&mut self, offset: u64, value: u32) {
        self.device.write(offset, &value.to_le_bytes(), self.memory);
    }

    /// Does what a script says, and sees that the host's world stays as it is.
    fn play(&mut self, script: &[Step]) {
        self.memory.write(WORLD, &[0xA5; 4096]);
        for step in script {
            match step {
                Step::Read(offset, len) => self.device.read(*offset, &mut [0; 16][..*len]),
                Step::Write(offset, len, value) => {
                    self.device.write(*offset, &value.to_le_bytes()[..*len], self.memory);
                }
                Step::Memory(offset, value) => self.memory.write(BUFFERS + offset, &value.to_le_bytes()),
                Step::Work => self.device.work(self.memory),
            }
            let _ = (self.device.interrupt(), self.device.wants_input());
        }
        assert!(self.memory.read(WORLD, 4096).iter().all(|byte| *byte == 0xA5));
    }
}

/// One thing that a driver, or the host, does.
#[derive(Clone, Debug)]
enum Step {
    Read(u64, usize),
    Write(u64, usize, u64),
    Memory(u64, u64),
    Work,
}

/// Any accesses: mostly to the registers in `known`, with values that mean something there.
fn script(known: &'static [u64]) -> impl Strategy<Value = Vec<Step>> {
    let offset = prop_oneof![4 => prop::sample::select(known), 1 => 0_u64..4096];
    let width = prop_oneof![3 => prop::sample::select(&[1_usize, 2, 4][..]), 1 => 0_usize..9];
    let value = prop_oneof![
        any::<u64>(),
        0_u64..256,
        prop::sample::select(&[BUFFERS, BUFFERS + 0x100, WORLD, 0x20, 0x30, 0xC8, 0xCA, 0xEC, 0x40, 9][..]),
    ];
    let step = prop_oneof![
        2 => (offset.clone(), 0_usize..9).prop_map(|(offset, len)| Step::Read(offset, len)),
        6 => (offset, width, value.clone()).prop_map(|(offset, len, value)| Step::Write(offset, len, value)),
        2 => (0_u64..64, value).prop_map(|(place, value)| Step::Memory(place * 8, value)),
        1 => Just(Step::Work),
    ];
    prop::collection::vec(step, 0..if cfg!(miri) { 4 } else { 200 })
}

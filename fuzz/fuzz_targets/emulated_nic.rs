//! The emulated network interface against a driver that breaks every rule, on a link of any moods.
#![no_main]

use chiton_core::devices::emulated::Nic;
use chiton_core::devices::net::Status;
use chiton_core::devices::{Emulated, Link, Received, Sent};
use chiton_fuzz::emulated::play;
use chiton_fuzz::script::Script;
use chiton_shared::emulated::nic::{BUFFER, CTRL_RST, register};
use chiton_shared::memory::Window;
use chiton_shared::virtio::net::Header;
use libfuzzer_sys::fuzz_target;

/// A link whose answers follow from a number.
struct Moody(u64);

impl Moody {
    fn mood(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0 >> 40
    }
}

impl Link for Moody {
    fn mac(&self) -> [u8; 6] {
        [2; 6]
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn offloads(&self) -> u64 {
        u64::MAX
    }

    fn set_offloads(&mut self, features: u64) {
        assert_eq!(features, 0);
    }

    fn status(&mut self) -> Status {
        Status::Up
    }

    fn receive(&mut self, _: usize, _: &mut [u8; Header::SIZE], to: &[Window<'_>]) -> Received {
        assert!(to.len() == 1 && to[0].len() == BUFFER);
        to[0].write(0, b"x");
        match self.mood() % 8 {
            0..3 => Received::Empty,
            3 => Received::TooLong,
            4 if self.mood().is_multiple_of(8) => Received::Gone,
            _ => Received::Frame(self.mood() as usize % (BUFFER + 1)),
        }
    }

    fn send(&mut self, _: usize, header: &[u8; Header::SIZE], frame: &[Window<'_>]) -> Sent {
        assert!(*header == [0; Header::SIZE] && frame.len() == 1);
        assert!((14..=1518).contains(&frame[0].len()));
        match self.mood() % 16 {
            0 => Sent::Dropped,
            1 if self.mood().is_multiple_of(8) => Sent::Gone,
            _ => Sent::Done,
        }
    }
}

const KNOWN: [u64; 20] = [
    register::ICR,
    register::CTRL,
    register::STATUS,
    register::RAL,
    register::RAH,
    register::ICS,
    register::IMS,
    register::IMC,
    register::RCTL,
    register::RDBAL,
    register::RDBAH,
    register::RDLEN,
    register::RDH,
    register::RDT,
    register::TCTL,
    register::TDBAL,
    register::TDLEN,
    register::TDH,
    register::TDT,
    register::TDBAH,
];

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let mut nic = Nic::new(Moody(script.u16().into()));
    play(&mut nic, script, image, &KNOWN);
    let ram = chiton_fuzz::guest::Ram::new(&[]);
    nic.write(register::CTRL, &CTRL_RST.to_le_bytes(), &ram);
    assert!(!nic.interrupt() && !nic.wants_input());
});

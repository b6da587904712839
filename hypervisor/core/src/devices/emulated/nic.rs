//! A network interface as an Intel 8254x: rings of descriptors in guest memory, and registers for
//! all that is said about them. The registers are in [`chiton_shared::emulated::nic`].
//!
//! ```text
//!  TDT written ─▶ descriptors TDH to TDT ─▶ Link::send, DD ─▶ TXDW
//!  input       ─▶ descriptors RDH to RDT ◀─ Link::receive, DD ─▶ RXT0 ─▶ interrupt ─▶ ICR read
//! ```

use chiton_shared::emulated::id;
use chiton_shared::emulated::nic::{
    AV, BUFFER, CTRL_RST, Descriptor, MAX_RING, RCTL_EN, STATUS_FD, STATUS_LU, TCTL_EN, cause, register,
};
use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::net::{ETHERNET, Header};

use super::{Emulated, window};
use crate::devices::net::{Link, Received, Sent};

/// The longest frame, in bytes: no offload makes it longer than the MTU.
const LONGEST: usize = 1518;

/// A ring of descriptors, as the driver has set its registers.
#[derive(Clone, Copy, Debug, Default)]
struct Ring {
    base: u64,
    len: u32,
    head: u32,
    tail: u32,
}

impl Ring {
    /// How many descriptors it has. The driver may change that at any time, and must not make the
    /// device go beyond them.
    fn size(&self) -> u32 {
        (self.len / Descriptor::SIZE as u32).min(MAX_RING as u32)
    }

    /// The address of the next descriptor, unless there is none.
    fn next(&self) -> Option<u64> {
        let usable = self.head != self.tail && self.head < self.size() && self.tail < self.size();
        usable.then(|| self.base.checked_add(u64::from(self.head) * Descriptor::SIZE as u64))?
    }

    fn advance(&mut self) {
        self.head = (self.head + 1) % self.size().max(1);
    }

    /// The register of this ring at this distance from the first.
    const fn read(&self, offset: u64) -> Option<u32> {
        Some(match offset {
            0x00 => self.base as u32,
            0x04 => (self.base >> 32) as u32,
            0x08 => self.len,
            0x10 => self.head,
            0x18 => self.tail,
            _ => return None,
        })
    }

    const fn write(&mut self, offset: u64, value: u32) {
        match offset {
            // A multiple of 16 bytes; the length one of 128 (sections 13.4.25 and 13.4.27).
            0x00 => self.base = self.base >> 32 << 32 | (value & !0xF) as u64,
            0x04 => self.base = self.base & 0xFFFF_FFFF | (value as u64) << 32,
            0x08 => self.len = value & 0xF_FF80,
            0x10 => self.head = value & 0xFFFF,
            0x18 => self.tail = value & 0xFFFF,
            _ => {}
        }
    }
}

/// The network interface.
pub struct Nic<L> {
    link: L,
    receive: Ring,
    transmit: Ring,
    rctl: u32,
    tctl: u32,
    causes: u32,
    mask: u32,
    up: bool,
    failures: u64,
}

impl<L: Link> Nic<L> {
    /// An interface on this link, which is up.
    #[must_use]
    pub fn new(mut link: L) -> Self {
        link.set_offloads(0);
        Self {
            link,
            receive: Ring::default(),
            transmit: Ring::default(),
            rctl: 0,
            tctl: 0,
            causes: 0,
            mask: 0,
            up: true,
            failures: 0,
        }
    }

    fn reset(&mut self) {
        (self.receive, self.transmit) = (Ring::default(), Ring::default());
        (self.rctl, self.tctl, self.causes, self.mask) = (0, 0, 0, 0);
    }

    fn down(&mut self) {
        self.causes |= if self.up { cause::LSC } else { 0 };
        self.up = false;
    }

    /// Sends what the driver has given; at most a ring of it.
    fn send_all(&mut self, memory: &dyn GuestMemory) {
        for _ in 0..MAX_RING {
            if self.tctl & TCTL_EN == 0 {
                return;
            }
            let Some(entry) = self.transmit.next() else { return };
            let Some(place) = window(memory, entry, Descriptor::SIZE, true) else {
                self.give_up();
                return;
            };
            let mut bytes = [0; Descriptor::SIZE];
            place.read(0, &mut bytes);
            let descriptor = Descriptor::from_bytes(bytes);
            match self.send(&descriptor, memory) {
                Sent::Done => {}
                Sent::Dropped => self.failures += 1,
                Sent::Gone => self.down(),
            }
            self.transmit.advance();
            if descriptor.command & Descriptor::RS != 0 {
                place.write(Descriptor::STATUS_AT, &[Descriptor::DD]);
                self.causes |= cause::TXDW;
            }
        }
    }

    fn send(&mut self, descriptor: &Descriptor, memory: &dyn GuestMemory) -> Sent {
        let len = usize::from(descriptor.len);
        if descriptor.command & Descriptor::EOP == 0 || !(ETHERNET..=LONGEST).contains(&len) {
            return Sent::Dropped;
        }
        let Some(frame) = window(memory, descriptor.address, len, false) else {
            return Sent::Dropped;
        };
        if !self.up {
            return Sent::Done;
        }
        self.link.send(0, &[0; Header::SIZE], &[frame])
    }

    /// A ring that is not memory: nothing more is done before a reset.
    const fn give_up(&mut self) {
        self.failures += 1;
        (self.rctl, self.tctl) = (0, 0);
    }

    fn read_register(&mut self, offset: u64) -> u32 {
        let [a, b, c, d, e, f] = self.link.mac().map(u32::from);
        match offset {
            register::CTRL => 0,
            register::STATUS => STATUS_FD | if self.up { STATUS_LU } else { 0 },
            register::RAL => d << 24 | c << 16 | b << 8 | a,
            register::RAH => AV | f << 8 | e,
            register::ICR => core::mem::take(&mut self.causes),
            register::IMS => self.mask,
            register::RCTL => self.rctl,
            register::TCTL => self.tctl,
            register::RDBAL..=register::RDT => self.receive.read(offset - register::RDBAL).unwrap_or(u32::MAX),
            register::TDBAL..=register::TDT => self.transmit.read(offset - register::TDBAL).unwrap_or(u32::MAX),
            _ => u32::MAX,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32, memory: &dyn GuestMemory) {
        match offset {
            register::CTRL if value & CTRL_RST != 0 => self.reset(),
            register::ICR => self.causes &= !value,
            register::ICS => self.causes |= value & cause::ALL,
            register::IMS => self.mask |= value & cause::ALL,
            register::IMC => self.mask &= !value,
            register::RCTL => self.rctl = value,
            register::TCTL => self.tctl = value,
            register::RDBAL..=register::RDT => self.receive.write(offset - register::RDBAL, value),
            register::TDBAL..=register::TDT => self.transmit.write(offset - register::TDBAL, value),
            _ => {}
        }
        if offset == register::TDT {
            self.send_all(memory);
        }
    }
}

impl<L: Link> Emulated for Nic<L> {
    fn id(&self) -> u32 {
        id::NIC
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match data {
            [_, _, _, _] => data.copy_from_slice(&self.read_register(offset).to_le_bytes()),
            data => data.fill(u8::MAX),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8], memory: &dyn GuestMemory) {
        if let [a, b, c, d] = *data {
            self.write_register(offset, u32::from_le_bytes([a, b, c, d]), memory);
        }
    }

    /// Takes in frames while there are descriptors for them; at most a ring of them.
    fn work(&mut self, memory: &dyn GuestMemory) {
        for _ in 0..MAX_RING {
            if !self.wants_input() {
                return;
            }
            let Some(entry) = self.receive.next() else { return };
            let place = window(memory, entry, Descriptor::SIZE, true);
            let buffer = place.and_then(|place| {
                let mut bytes = [0; Descriptor::SIZE];
                place.read(0, &mut bytes);
                let address = Descriptor::from_bytes(bytes).address;
                Some((place, window(memory, address, BUFFER, true)?))
            });
            let Some((place, buffer)) = buffer else {
                self.give_up();
                return;
            };
            let mut header = [0; Header::SIZE];
            match self.link.receive(0, &mut header, &[buffer]) {
                Received::Frame(len) => {
                    let len = len.min(BUFFER) as u16;
                    place.write(Descriptor::LEN_AT, &len.to_le_bytes());
                    // The status comes last: from then on the driver may look at the rest.
                    core::sync::atomic::fence(core::sync::atomic::Ordering::Release);
                    place.write(Descriptor::STATUS_AT, &[Descriptor::DD | Descriptor::RECEIVED_EOP]);
                    self.receive.advance();
                    self.causes |= cause::RXT0;
                    if self.receive.next().is_none() {
                        self.causes |= cause::RXDMT0;
                    }
                }
                Received::TooLong => self.failures += 1,
                Received::Empty => return,
                Received::Gone => self.down(),
            }
        }
    }

    fn interrupt(&self) -> bool {
        self.causes & self.mask != 0
    }

    fn wants_input(&self) -> bool {
        self.up && self.rctl & RCTL_EN != 0 && self.receive.next().is_some()
    }

    fn failures(&self) -> u64 {
        self.failures
    }
}

//! The driver of the emulated network interface. It touches registers as Linux's driver of the real
//! one does (`drivers/net/ethernet/intel/e1000/e1000_main.c`): a tail for each frame that is sent;
//! for each interrupt the cause, the mask off, the tail of what was taken in, the mask on, and a
//! read behind either change of the mask. It is never interrupted for what was sent, which spares
//! exits that the real driver has.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering, fence};

use alloc::vec;

use chiton_shared::emulated::id;
use chiton_shared::emulated::nic::{BUFFER, CTRL_RST, Descriptor, RCTL_EN, TCTL_EN, cause, register};
use chiton_shared::memory::Window;
use chiton_shared::virtio::net::ETHERNET;

use super::{Error, Registers};
use crate::time;

/// Descriptors of either ring.
const RING: usize = 128;

/// The longest frame, in bytes.
const LONGEST: usize = 1518;

/// A ring of descriptors and a buffer for each.
#[derive(Debug)]
struct Ring {
    descriptors: Window<'static>,
    buffers: Window<'static>,
    /// The next descriptor to use.
    next: usize,
}

/// Memory for ever, aligned as the device wants it.
fn leak(len: usize) -> Window<'static> {
    #[repr(align(128))]
    #[derive(Clone, Copy)]
    struct Line {
        _bytes: [u8; 128],
    }
    let memory = NonNull::from(vec![Line { _bytes: [0; 128] }; len.div_ceil(128)].leak());
    // SAFETY: leaked memory, reached through this window and by the device only.
    unsafe { Window::new(memory.cast(), len) }
}

impl Ring {
    fn new() -> Self {
        Self {
            descriptors: leak(RING * Descriptor::SIZE),
            buffers: leak(RING * BUFFER),
            next: 0,
        }
    }

    fn base(&self) -> u64 {
        self.descriptors.as_ptr().expose_provenance() as u64
    }

    fn descriptor(&self, index: usize) -> Descriptor {
        Descriptor::from_bytes(self.descriptors.read_array(index * Descriptor::SIZE))
    }

    fn set(&self, index: usize, len: u16, command: u8) {
        let address = self.buffers.as_ptr().expose_provenance() + index * BUFFER;
        let descriptor = Descriptor {
            address: address as u64,
            len,
            command,
            status: 0,
        };
        self.descriptors.write(index * Descriptor::SIZE, &descriptor.to_bytes());
    }

    fn is_done(&self, index: usize) -> bool {
        let done = self.descriptor(index).status & Descriptor::DD != 0;
        fence(Ordering::Acquire);
        done
    }
}

/// The emulated network interface.
#[derive(Debug)]
pub struct Nic {
    registers: Registers,
    receive: Ring,
    transmit: Ring,
    /// How many frames were sent: the first have free descriptors.
    sent: u64,
    /// Descriptors taken and not given back to the device.
    taken: usize,
    mac: [u8; 6],
}

static OPENED: AtomicBool = AtomicBool::new(false);

impl Nic {
    /// Opens the emulated network interface, once.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::Opened`].
    pub fn open() -> Result<Self, Error> {
        let registers = Registers::open(id::NIC, "net", &OPENED)?;
        registers.write(register::CTRL, CTRL_RST);
        let [a, b, c, d] = registers.read::<u32>(register::RAL).to_le_bytes();
        let [e, f, ..] = registers.read::<u32>(register::RAH).to_le_bytes();
        let nic = Self {
            registers,
            receive: Ring::new(),
            transmit: Ring::new(),
            sent: 0,
            taken: 0,
            mac: [a, b, c, d, e, f],
        };
        for index in 0..RING {
            nic.receive.set(index, 0, 0);
        }
        let len = (RING * Descriptor::SIZE) as u32;
        for (ring, low, high, length) in [
            (&nic.receive, register::RDBAL, register::RDBAH, register::RDLEN),
            (&nic.transmit, register::TDBAL, register::TDBAH, register::TDLEN),
        ] {
            nic.registers.write(low, ring.base() as u32);
            nic.registers.write(high, (ring.base() >> 32) as u32);
            nic.registers.write(length, len);
        }
        nic.registers.write(register::RCTL, RCTL_EN);
        nic.registers.write(register::TCTL, TCTL_EN);
        nic.registers.write(register::RDT, RING as u32 - 1);
        nic.mask(true);
        Ok(nic)
    }

    /// The Ethernet address.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Sends a frame, which is out when the call returns.
    ///
    /// # Errors
    ///
    /// [`Error::Frame`].
    pub fn send(&mut self, frame: &[u8]) -> Result<(), Error> {
        if !(ETHERNET..=LONGEST).contains(&frame.len()) {
            return Err(Error::Frame(frame.len()));
        }
        let index = self.transmit.next;
        // The device sends within the write to its tail; a descriptor that it has not given back
        // is one that it never will.
        if self.sent >= RING as u64 && !self.transmit.is_done(index) {
            return Err(Error::Frame(frame.len()));
        }
        self.transmit.buffers.write(index * BUFFER, frame);
        self.transmit
            .set(index, frame.len() as u16, Descriptor::EOP | Descriptor::RS);
        self.transmit.next = (index + 1) % RING;
        self.sent += 1;
        self.registers.write(register::TDT, self.transmit.next as u32);
        Ok(())
    }

    /// Takes the next frame, if one has come, and returns its length.
    ///
    /// # Errors
    ///
    /// [`Error::Received`] if the device lies about its length.
    pub fn receive(&mut self, frame: &mut [u8; BUFFER]) -> Result<Option<usize>, Error> {
        let index = self.receive.next;
        if !self.receive.is_done(index) {
            self.give_back();
            return Ok(None);
        }
        let len = self.receive.descriptor(index).len;
        let to = frame.get_mut(..len.into()).ok_or(Error::Received(len))?;
        self.receive.buffers.read(index * BUFFER, to);
        self.receive.set(index, 0, 0);
        self.receive.next = (index + 1) % RING;
        self.taken += 1;
        // As often as Linux's driver does (E1000_RX_BUFFER_WRITE).
        if self.taken >= 16 {
            self.give_back();
        }
        Ok(Some(len.into()))
    }

    /// Sleeps until a frame has come. The interrupt handler and what follows it: call
    /// [`receive`](Self::receive) until there is nothing more, then this.
    pub fn wait(&mut self) {
        if self.receive.is_done(self.receive.next) {
            return;
        }
        self.mask(true);
        if self.receive.is_done(self.receive.next) {
            return;
        }
        time::wait(None);
        let _: u32 = self.registers.read(register::ICR);
        self.mask(false);
    }

    /// Gives the device the descriptors that were taken.
    fn give_back(&mut self) {
        if self.taken > 0 {
            self.taken = 0;
            let last = (self.receive.next + RING - 1) % RING;
            self.registers.write(register::RDT, last as u32);
        }
    }

    /// Turns the interrupt on or off; the read makes sure that the device has it.
    fn mask(&self, on: bool) {
        let (register, causes) = if on {
            (register::IMS, cause::RXT0 | cause::LSC)
        } else {
            (register::IMC, u32::MAX)
        };
        self.registers.write(register, causes);
        let _: u32 = self.registers.read(register::STATUS);
    }
}

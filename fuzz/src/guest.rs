//! A guest that may do anything.

use chiton_core::devices::{Device, Transport, preset_all, preset_all_in};
use chiton_shared::boot::QueueEntry;
use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};
use chiton_shared::virtio::mmio::Register;
use chiton_shared::virtio::ring::Format;
use chiton_shared::virtio::status;

use crate::memory::Memory;
use crate::script::Script;

/// How many processors the guest has.
const PROCESSORS: u32 = 3;
/// How much memory there is from [`map::QUEUES`] on, in bytes.
const QUEUES: usize = 0x10000;
/// What the host built, which no device may write.
const WORLD: u64 = map::BOOT_PAGE;
const WORLD_BYTES: usize = 0x1000;
const UNTOUCHED: u8 = 0xA5;

/// A page of the host's world, and memory from the queues on.
pub struct Ram {
    world: Memory,
    queues: Memory,
}

impl Ram {
    /// Memory that holds `image` from the queues on.
    pub fn new(image: &[u8]) -> Self {
        let ram = Self {
            world: Memory::filled(&[UNTOUCHED; WORLD_BYTES]),
            queues: Memory::new(QUEUES),
        };
        ram.queues.all().write(0, &image[..image.len().min(QUEUES)]);
        ram
    }

    /// Writes somewhere from the queues on, as a guest does.
    pub fn poke(&self, script: &mut Script<'_>) {
        let at = usize::from(script.u16()) % (QUEUES - 8);
        let value = script.u64().to_le_bytes();
        self.queues.all().write(at, &value[..1 + at % 8]);
    }

    /// Sees that no device wrote what the host built.
    pub fn check(&self) {
        let world = self.world.bytes(0, WORLD_BYTES);
        assert!(
            world.iter().all(|byte| *byte == UNTOUCHED),
            "the host's world was written"
        );
    }
}

impl GuestMemory for Ram {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let (memory, start) = if address < map::QUEUES {
            (&self.world, WORLD)
        } else {
            (&self.queues, map::QUEUES)
        };
        memory.window(address.checked_sub(start)?, len)
    }
}

/// A device and the guest it faces.
pub struct Guest {
    ram: Ram,
    transport: Transport,
    /// The queues as the boot page has them.
    table: Vec<QueueEntry>,
    /// In packed queues, the next descriptor of each and the round that it is of; nothing if they are split.
    next: Vec<(u16, bool)>,
}

/// Flags of a descriptor in a packed queue, of which one says that it is available in its round (virtio 1.3 section 2.8.1).
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

impl Guest {
    /// A device made ready by the host, and memory that then holds `image` from the queues on.
    pub fn new(device: impl Device + 'static, image: &[u8]) -> Self {
        let mut transports = [Transport::new(Box::new(device))];
        let table = preset_all(&mut transports).expect("one device fits").queues;
        let [mut transport] = transports;
        transport.interrupts(PROCESSORS);
        let ram = Ram {
            world: Memory::filled(&[UNTOUCHED; WORLD_BYTES]),
            queues: Memory::new(QUEUES),
        };
        ram.queues.all().write(0, &image[..image.len().min(QUEUES)]);
        Self {
            ram,
            transport,
            table,
            next: Vec::new(),
        }
    }

    /// Does all that the script says.
    pub fn play(mut self, mut script: Script<'_>) {
        if script.packed() {
            let preset = preset_all_in(Format::Packed, std::slice::from_mut(&mut self.transport));
            self.table = preset.expect("one device fits").queues;
            self.next = vec![(0, true); self.table.len()];
        }
        while !script.is_empty() {
            self.step(&mut script);
        }
        self.ram.check();
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.u8() % 8 {
            0 => self.ram.poke(script),
            1 => {
                let register = Register::ALL[usize::from(script.u8()) % Register::ALL.len()];
                self.write(register as u64, &script.u32().to_le_bytes());
            }
            2 => {
                let (offset, len) = (u64::from(script.u16()) % 0x200, usize::from(script.u8()) % 16);
                self.write(offset, &script.u64().to_le_bytes()[..len.min(8)]);
                self.transport.read(offset, &mut [0; 16][..len]);
            }
            3 => self.add(script),
            4 => {
                let _ = self.transport.config_changed();
                let _ = self.transport.look_at_backend();
            }
            5 => {
                let _ = self.transport.process_queue(usize::from(script.u8() % 8), &self.ram);
            }
            _ => self.process(),
        }
        self.check();
    }

    /// Writes to the register block.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let _ = self.transport.write(offset, data);
    }

    /// Makes a chain available where the boot page says, as a driver does; its descriptors are
    /// the script's.
    fn add(&mut self, script: &mut Script<'_>) {
        let number = usize::from(script.u8()) % self.table.len();
        let queue = self.table[number];
        let size = queue.size as u16;
        let count = script.u8() % 5;
        let head = u16::from(script.u8()) % size;
        for i in 0..u16::from(count) {
            let (address, len, flags) = Self::buffer(script);
            if let Some(next) = self.next.get_mut(number) {
                let flags = flags & 0x7f | if next.1 { AVAIL } else { USED };
                let mut descriptor = [0; 16];
                descriptor[..8].copy_from_slice(&address.to_le_bytes());
                descriptor[8..12].copy_from_slice(&len.to_le_bytes());
                descriptor[12..14].copy_from_slice(&head.to_le_bytes());
                descriptor[14..].copy_from_slice(&flags.to_le_bytes());
                let slot = next.0;
                *next = if slot + 1 == size {
                    (0, !next.1)
                } else {
                    (slot + 1, next.1)
                };
                self.put(queue.descriptors + 16 * u64::from(slot), &descriptor);
                continue;
            }
            let index = (head + i) % size;
            let mut descriptor = [0; 16];
            descriptor[..8].copy_from_slice(&address.to_le_bytes());
            descriptor[8..12].copy_from_slice(&len.to_le_bytes());
            descriptor[12..14].copy_from_slice(&(flags & 0xFF).to_le_bytes());
            descriptor[14..].copy_from_slice(&((index + 1) % size).to_le_bytes());
            self.put(queue.descriptors + 16 * u64::from(index), &descriptor);
        }
        if !self.next.is_empty() {
            return;
        }
        let mut index = [0; 2];
        if let Some(window) = self.ram.window(queue.driver + 2, 2) {
            window.read(0, &mut index);
        }
        let index = u16::from_le_bytes(index);
        self.put(queue.driver + 4 + 2 * u64::from(index % size), &head.to_le_bytes());
        self.put(queue.driver + 2, &index.wrapping_add(1).to_le_bytes());
    }

    /// Address, length and flags of a descriptor.
    fn buffer(script: &mut Script<'_>) -> (u64, u32, u16) {
        let address = match script.u8() {
            kind @ 0..200 => map::QUEUES + u64::from(kind % 64) * 0x100,
            200..220 => WORLD,
            220..230 => u64::MAX - 8,
            _ => script.u64(),
        };
        let (len, flags) = (script.u32(), script.u16());
        let len = if flags & 0x8000 == 0 { len % 0x1000 } else { len };
        (address, len, flags)
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.ram
            .window(address, bytes.len())
            .expect("the queues are in memory")
            .write(0, bytes);
    }

    /// Has the device work until it says that there is no more, which it must in the end: the
    /// memory does not change under it.
    fn process(&mut self) {
        for _ in 0..100_000 {
            if !self.transport.process(&self.ram).more {
                return;
            }
        }
        panic!("the device never comes to an end");
    }

    /// What holds whatever the guest did.
    fn check(&self) {
        let read = |register| {
            let mut value = [0; 4];
            self.transport.read(register as u64, &mut value);
            u32::from_le_bytes(value)
        };
        let now = read(Register::Status);
        assert!((0..self.table.len()).all(|queue| self.transport.processor_of(queue) < PROCESSORS));
        assert_eq!(self.transport.broken().is_some(), now & status::DEVICE_NEEDS_RESET != 0);
        assert!(now & status::DRIVER_OK == 0 || now & status::FEATURES_OK != 0);
        assert!(!self.transport.is_live() || now & status::DRIVER_OK != 0);
        if !self.transport.is_live() {
            let interest = self.transport.interest();
            assert!(!interest.readable && !interest.writable && !interest.under_way);
        }
        assert_eq!(read(Register::InterruptStatus) != 0, self.transport.interrupt_pending());
        assert_eq!(read(Register::MagicValue), chiton_shared::virtio::mmio::MAGIC);
    }
}

//! Attacks through descriptor chains.

use core::time::Duration;

use chiton_guest::boot;
use chiton_guest::shared::boot::DeviceEntry;
use chiton_guest::shared::map;
use chiton_guest::shared::virtio::mmio::Register;
use chiton_guest::shared::virtio::ring::{QueueConfig, layout};
use chiton_guest::shared::virtio::{feature, id, status};
use chiton_guest::time::Instant;

use crate::Attack;
use crate::memory::{devices, kick, read_u16, write_u16};
use crate::registers::{read, write};

use layout::{F_INDIRECT, F_NEXT, F_WRITE};

/// A descriptor: address, length, flags, next.
type Descriptor = (u64, u32, u16, u16);

/// How long a device may take to stop.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A queue of this guest's own making, so that each attack starts from a device that works.
pub struct Victim<'a> {
    pub device: &'a DeviceEntry,
    pub index: u32,
    pub config: QueueConfig,
}

impl Victim<'_> {
    fn descriptor(&self, at: u64, (address, len, flags, next): Descriptor) {
        put_descriptor(self.config.descriptors + 16 * at, (address, len, flags, next));
    }

    /// Makes `count` more heads available, each `head`, and kicks.
    fn offer(&self, head: u16, count: u16) {
        let idx = read_u16(self.config.driver + 2);
        for i in 0..count {
            let slot = u64::from(idx.wrapping_add(i) % self.config.size);
            write_u16(self.config.driver + 4 + 2 * slot, head);
        }
        write_u16(self.config.driver + 2, idx.wrapping_add(count));
        kick(self.device, self.index);
    }

    /// Whether the device has stopped, if need be after a while: kicks may take one.
    pub fn is_broken(&self) -> bool {
        let start = Instant::now();
        while read(self.device.registers, Register::Status) & status::DEVICE_NEEDS_RESET == 0 {
            if start.elapsed() > PATIENCE {
                return false;
            }
        }
        true
    }

    /// Makes the chain of these descriptors available.
    pub fn send(&self, chain: &[Descriptor]) {
        for (at, descriptor) in chain.iter().enumerate() {
            self.descriptor(at as u64, *descriptor);
        }
        self.offer(0, 1);
    }
}

fn put_descriptor(at: u64, (address, len, flags, next): Descriptor) {
    let words = [address, u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48];
    for (i, word) in words.into_iter().enumerate() {
        // SAFETY: within the memory of the queues, which is mapped and holds no Rust object.
        unsafe { (at as *mut u64).add(i).write_unaligned(word) };
    }
}

/// Where tables and buffers are: behind the queues, in memory that is theirs too.
pub const SCRATCH: u64 = map::QUEUES_END - 0x1_0000;

/// Does something to every queue of every device, each freshly set up.
fn each_queue(mut attack: impl FnMut(&Victim<'_>)) {
    for device in devices() {
        for index in 0..u32::from(device.queue_count) {
            attack(&set_up(device, index));
        }
    }
}

/// A device with one split queue, which is what one gets without asking.
pub fn set_up(device: &DeviceEntry, index: u32) -> Victim<'_> {
    set_up_with(device, index, 0)
}

fn set_up_with(device: &DeviceEntry, index: u32, more: u64) -> Victim<'_> {
    use Register as R;
    let block = device.registers;
    write(block, R::Status, 0);
    write(block, R::Status, status::ACKNOWLEDGE);
    write(block, R::Status, status::ACKNOWLEDGE | status::DRIVER);
    let asked = !(feature::RING_PACKED | feature::IN_ORDER | feature::NOTIFICATION_DATA | feature::RING_RESET) | more;
    for half in 0..2 {
        write(block, R::DeviceFeaturesSel, half);
        write(block, R::DriverFeaturesSel, half);
        let asked = (asked >> (32 * half)) as u32;
        write(block, R::DriverFeatures, read(block, R::DeviceFeatures) & asked);
    }
    write(block, R::Status, 11);
    write(block, R::QueueSel, index);
    let size = read(block, R::QueueSizeMax) as u16;
    let (config, end) = QueueConfig::packed_at(map::QUEUES, size);
    for word in (map::QUEUES..end).step_by(8) {
        // SAFETY: the memory of the queues is mapped and holds no Rust object.
        unsafe { (word as *mut u64).write_volatile(0) };
    }
    write(block, R::QueueSize, size.into());
    for (register, value) in [
        (R::QueueDescLow, config.descriptors),
        (R::QueueDriverLow, config.driver),
        (R::QueueDeviceLow, config.device),
    ] {
        write(block, register, value as u32);
    }
    write(block, R::QueueReady, 1);
    write(block, R::Status, 15);
    Victim { device, index, config }
}

impl Victim<'_> {
    /// Whether the device looks at what is in the queue without anything else that has happened: it looks at what a
    /// port is told when there is something to tell, and at a port when somebody is there.
    fn is_read(&self) -> bool {
        self.device.id != id::CONSOLE || self.index < 2
    }

    fn must_have_broken(&self, what: &str) {
        assert!(
            !self.is_read() || self.is_broken(),
            "device {} queue {}: {what} was accepted",
            self.device.id,
            self.index
        );
    }
}

/// Insists that the device has stopped: otherwise it took nonsense for a request.
fn must_break(what: &str, chain: &[Descriptor]) {
    each_queue(|victim| {
        victim.send(chain);
        victim.must_have_broken(what);
    });
}

/// A descriptor of a packed queue: address, length, flags, buffer ID.
fn put_packed(victim: &Victim<'_>, slot: u16, (address, len, flags, buffer): Descriptor) {
    // The buffer ID stands before the flags, the last field of all.
    put_descriptor(
        victim.config.descriptors + 16 * u64::from(slot),
        (address, len, buffer, flags),
    );
}

/// Made available in the first round of a packed queue (virtio 1.3 section 2.8.1).
const AVAIL: u16 = 1 << 7;

pub fn packed(attack: &mut Attack) {
    let each = |attack: &mut dyn FnMut(&Victim<'_>)| {
        for device in devices() {
            for index in 0..u32::from(device.queue_count) {
                attack(&set_up_with(device, index, feature::RING_PACKED));
            }
        }
    };
    let chain = |what: &str, descriptors: &[Descriptor]| {
        each(&mut |victim| {
            for (slot, (address, len, flags, buffer)) in (0..).zip(descriptors) {
                put_packed(victim, slot, (*address, *len, flags | AVAIL, *buffer));
            }
            kick(victim.device, victim.index);
            victim.must_have_broken(what);
        });
    };
    for _ in 0..attack.rounds {
        chain(
            "a writable buffer before a readable one",
            &[(SCRATCH, 16, F_NEXT | F_WRITE, 0), (SCRATCH, 16, 0, 0)],
        );
        chain(
            "a table in a chain",
            &[(SCRATCH, 16, F_NEXT, 0), (SCRATCH, 16, F_INDIRECT, 0)],
        );
        chain("a table outside memory", &[(u64::MAX - 15, 16, F_INDIRECT, 0)]);
        chain("a table of no length", &[(SCRATCH, 0, F_INDIRECT, 0)]);
        each(&mut |victim| {
            for slot in 0..victim.config.size {
                put_packed(victim, slot, (SCRATCH, 16, F_NEXT | F_WRITE | AVAIL, 0));
            }
            kick(victim.device, victim.index);
            victim.must_have_broken("a chain round the whole ring");
        });
        // The same buffer ID for every descriptor, all of them the ring itself; and anything at all.
        each(&mut |victim| {
            for slot in 0..victim.config.size {
                put_packed(victim, slot, (victim.config.descriptors, 64, F_WRITE | AVAIL, 7));
            }
            kick(victim.device, victim.index);
        });
        each(&mut |victim| {
            for _ in 0..200 {
                let slot = attack.random.below(victim.config.size.into()) as u16;
                let words = [
                    attack.random.next_u64(),
                    attack.random.next_u64() >> attack.random.below(64),
                ];
                let place = if words[0].is_multiple_of(2) { SCRATCH } else { words[1] };
                put_packed(
                    victim,
                    slot,
                    (
                        place,
                        words[0] as u32 % 9000,
                        (words[1] >> 3) as u16,
                        words[0] as u16 % 70,
                    ),
                );
                kick(victim.device, victim.index);
            }
        });
    }
}

pub fn loops(attack: &mut Attack) {
    for _ in 0..attack.rounds {
        must_break(
            "a descriptor that follows itself",
            &[(SCRATCH, 16, F_NEXT | F_WRITE, 0)],
        );
        must_break(
            "a circle of three",
            &[
                (SCRATCH, 16, F_NEXT, 1),
                (SCRATCH, 16, F_NEXT, 2),
                (SCRATCH, 16, F_NEXT, 0),
            ],
        );
        put_descriptor(SCRATCH, (SCRATCH, 16, F_NEXT | F_WRITE, 0));
        must_break("a table that follows itself", &[(SCRATCH, 16, F_INDIRECT, 0)]);
        put_descriptor(SCRATCH, (SCRATCH, 16, F_INDIRECT, 0));
        must_break("a table within itself", &[(SCRATCH, 16, F_INDIRECT, 0)]);
        // A circle behind an available index that has gone all the way round.
        each_queue(|victim| {
            victim.descriptor(0, (SCRATCH, 16, F_NEXT | F_WRITE, 0));
            victim.offer(0, victim.config.size);
        });
    }
}

pub fn range(attack: &mut Attack) {
    let memory = boot::page().memory;
    for _ in 0..attack.rounds {
        for address in [
            u64::MAX,
            u64::MAX - 15,
            1 << 63,
            map::DEVICES,
            memory,
            memory - 1,
            map::LOW_MEMORY_END - 8,
            map::HIGH_MEMORY,
            attack.random.next_u64(),
        ] {
            for len in [16, 4096, u32::MAX] {
                // Readable ones may be thrown away unread, so only writable ones must break.
                each_queue(|victim| victim.send(&[(address, len, 0, 0)]));
                each_queue(|victim| {
                    victim.send(&[(SCRATCH, 16, F_NEXT, 1), (address, len, F_WRITE, 0)]);
                });
            }
        }
        // The host's own world is memory, but not for devices to write.
        for page in [map::BOOT_PAGE, map::GDT, map::IDT, map::TRAP_STUBS, map::PAGE_TABLES] {
            // SAFETY: the boot page is readable; the others are checked by the host's tests.
            let before = (page == map::BOOT_PAGE).then(|| unsafe { (page as *const u64).read_volatile() });
            each_queue(|victim| victim.send(&[(page, 512, F_WRITE, 0)]));
            each_queue(|victim| victim.send(&[(SCRATCH, 16, F_NEXT, 1), (page, 513, F_WRITE, 0)]));
            // SAFETY: as above.
            let after = (page == map::BOOT_PAGE).then(|| unsafe { (page as *const u64).read_volatile() });
            assert_eq!(before, after, "a device wrote to the boot page");
        }
        // No buffer at all, and very many bytes.
        each_queue(|victim| victim.send(&[(0, 0, 0, 0)]));
        each_queue(|victim| victim.send(&[(0, 0, F_WRITE, 0)]));
        each_queue(|victim| {
            for at in 0..victim.config.size {
                let flags = if at + 1 < victim.config.size { F_NEXT } else { 0 };
                victim.descriptor(at.into(), (SCRATCH, u32::MAX, flags | F_WRITE, at + 1));
            }
            victim.offer(0, 1);
        });
    }
}

pub fn tables(attack: &mut Attack) {
    for _ in 0..attack.rounds {
        put_descriptor(SCRATCH, (SCRATCH + 64, 16, F_INDIRECT, 0));
        must_break("a table within a table", &[(SCRATCH, 16, F_INDIRECT, 0)]);
        for len in [0, 1, 15, 17, u32::MAX, u32::MAX - 15] {
            must_break("a table of a length that cannot be", &[(SCRATCH, len, F_INDIRECT, 0)]);
        }
        for address in [u64::MAX, 1 << 40, map::DEVICES, boot::page().memory - 8] {
            must_break("a table outside memory", &[(address, 16, F_INDIRECT, 0)]);
        }
        must_break(
            "a table with a successor",
            &[(SCRATCH, 16, F_INDIRECT | F_NEXT, 1), (SCRATCH, 16, 0, 0)],
        );
        put_descriptor(SCRATCH, (SCRATCH, 16, F_NEXT, 9));
        must_break("a successor beyond the table", &[(SCRATCH, 32, F_INDIRECT, 0)]);
        // The queue itself as a table, and as a buffer.
        each_queue(|victim| victim.send(&[(victim.config.descriptors, 256, F_INDIRECT, 0)]));
        each_queue(|victim| victim.send(&[(victim.config.descriptors, 256, F_WRITE, 0)]));
        each_queue(|victim| victim.send(&[(victim.config.device, 64, F_WRITE, 0)]));
    }
}

pub fn indices(attack: &mut Attack) {
    for _ in 0..attack.rounds {
        each_queue(|victim| {
            victim.offer(victim.config.size, 1);
            victim.must_have_broken("a head beyond the table");
        });
        each_queue(|victim| {
            victim.descriptor(0, (SCRATCH, 16, F_NEXT, u16::MAX));
            victim.offer(0, 1);
            victim.must_have_broken("a successor beyond the table");
        });
        each_queue(|victim| {
            write_u16(victim.config.driver + 2, victim.config.size + 1);
            kick(victim.device, victim.index);
            victim.must_have_broken("more than the queue holds");
        });
        each_queue(|victim| {
            let idx = attack.random.next_u64() as u16;
            write_u16(victim.config.driver + 2, idx);
            kick(victim.device, victim.index);
        });
        // The same chain many times over.
        each_queue(|victim| {
            victim.descriptor(0, (SCRATCH, 16, F_WRITE, 0));
            victim.offer(0, victim.config.size);
            victim.offer(0, victim.config.size);
        });
    }
}

pub fn requests(attack: &mut Attack) {
    for _ in 0..attack.rounds {
        each_queue(|victim| {
            // A header of random bytes with a small number where the kind is, random sectors.
            for word in 0..8 {
                let value = if word == 0 {
                    attack.random.below(16)
                } else {
                    attack.random.next_u64() >> attack.random.below(64)
                };
                // SAFETY: within the memory of the queues, which is mapped and holds no Rust object.
                unsafe { ((SCRATCH + 8 * word) as *mut u64).write_volatile(value) };
            }
            let mut len = || [0, 1, 15, 16, 17, 512, 4096, 65536][attack.random.below(8) as usize];
            victim.send(&[
                (SCRATCH, len(), F_NEXT, 1),
                (SCRATCH + 0x1000, len(), F_NEXT, 2),
                (map::GUEST - 0x8000, len().min(4096), F_NEXT | F_WRITE, 3),
                (map::GUEST - 0x6000, len().min(4096), F_WRITE, 0),
            ]);
        });
    }
}

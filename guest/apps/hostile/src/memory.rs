//! Attacks through memory the host reads.

use core::slice;

use chiton_guest::boot;
use chiton_guest::host;
use chiton_guest::shared::boot::DeviceEntry;
use chiton_guest::shared::doorbell::{self, MAILBOX_TEXT, Mailbox};
use chiton_guest::shared::map;

use crate::Attack;

/// The devices the host says there are.
pub fn devices() -> slice::Iter<'static, DeviceEntry> {
    boot::page().devices().iter()
}

/// Writes two bytes of shared memory.
pub fn write_u16(address: u64, value: u16) {
    // SAFETY: callers pass addresses within the queues, which are mapped and hold no Rust object.
    unsafe { (address as *mut u16).write_unaligned(value) };
}

/// Reads two bytes of shared memory.
pub fn read_u16(address: u64) -> u16 {
    // SAFETY: as in `write_u16`.
    unsafe { (address as *const u16).read_volatile() }
}

/// Kicks a queue of a device.
pub fn kick(device: &DeviceEntry, queue: u32) {
    host::ring(device.kick, queue);
}

/// Bytes that a ring may be made to hold: small numbers, bounds and anything.
fn value(attack: &mut Attack) -> u16 {
    match attack.random.below(4) {
        0 => attack.random.below(8) as u16,
        1 => [0x7fff, 0x8000, 0xffff, 64, 128, 256][attack.random.below(6) as usize],
        _ => attack.random.next_u64() as u16,
    }
}

pub fn rings(attack: &mut Attack) {
    for _ in 0..attack.rounds {
        for device in devices() {
            for (index, queue) in boot::page().queues_of(device).iter().enumerate() {
                let size = u64::from(queue.size);
                let parts = [
                    (queue.descriptors, 16 * size),
                    (queue.driver, 6 + 2 * size),
                    (queue.device, 6 + 8 * size),
                ];
                for (start, len) in parts {
                    let at = attack.random.below(len / 2) * 2;
                    let value = value(attack);
                    write_u16(start + at, value);
                }
                // The indices decide most, so they change most.
                write_u16(queue.driver + 2, value(attack));
                if attack.random.below(16) == 0 {
                    kick(device, index as u32);
                }
            }
        }
    }
}

pub fn mailbox(attack: &mut Attack) {
    let mailbox = map::MAILBOX as *mut Mailbox;
    for _ in 0..attack.rounds {
        let text: *mut u64 = (map::MAILBOX + 24) as *mut u64;
        for i in 0..MAILBOX_TEXT / 8 {
            // SAFETY: within the mailbox, which is mapped and only reached through raw pointers.
            unsafe { text.add(i).write_volatile(attack.random.next_u64()) };
        }
        let len = [0, 1, MAILBOX_TEXT as u32, MAILBOX_TEXT as u32 + 1, u32::MAX][attack.random.below(5) as usize];
        // SAFETY: as above.
        unsafe {
            (&raw mut (*mailbox).len).write_volatile(len);
            (&raw mut (*mailbox).detail).write_volatile(attack.random.below(8) as u32);
        }
        host::ring(doorbell::LOG, attack.random.next_u64() as u32);
    }
}

pub fn waits(attack: &mut Attack) {
    let mailbox = map::MAILBOX as *mut Mailbox;
    for _ in 0..attack.rounds {
        // SAFETY: the mailbox is mapped and only reached through raw pointers.
        unsafe { (&raw mut (*mailbox).wait_ns).write_volatile(attack.random.below(2)) };
        host::ring(doorbell::WAIT, attack.random.next_u64() as u32);
    }
}

pub fn trap(attack: &mut Attack) {
    let frames = [
        0,
        map::PAGE_TABLES as u32,
        map::DEVICES as u32,
        u32::MAX,
        (boot::page().memory - 8) as u32,
    ];
    host::ring(doorbell::TRAP, frames[attack.random.below(5) as usize]);
}

pub fn panic(_attack: &mut Attack) {
    let mailbox = map::MAILBOX as *mut Mailbox;
    // SAFETY: the mailbox is mapped and only reached through raw pointers.
    unsafe {
        (&raw mut (*mailbox).len).write_volatile(u32::MAX);
        (&raw mut (*mailbox).detail).write_volatile(u32::MAX);
        (&raw mut (*mailbox).text).write_volatile([0xFE; MAILBOX_TEXT]);
    }
    host::ring(doorbell::PANIC, 0);
}

/// Needs more than one processor: what cannot be started is not, and the others sleep on.
pub fn processors(attack: &mut Attack) {
    let count = u64::from(chiton_guest::processors::count());
    for _ in 0..attack.rounds {
        let any = attack.random.next_u64() as u32;
        let near = attack.random.below(count + 2) as u32;
        host::ring(doorbell::WAKE, any);
        host::ring(doorbell::WAKE, near);
        // Beyond the last, and the first; those between would run on without end.
        host::ring(doorbell::START, 0);
        host::ring(doorbell::START, count as u32 + near);
        host::ring(doorbell::START, any.saturating_add(count as u32));
    }
}

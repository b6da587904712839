//! Attacks through registers and ports.

use core::arch::asm;

use chiton_guest::host;
use chiton_guest::shared::virtio::mmio::Register;
use chiton_guest::shared::{doorbell, map};

use crate::Attack;
use crate::memory::devices;

/// Writes a register.
pub fn write(block: u64, register: Register, value: u32) {
    // SAFETY: the block is mapped, with no memory behind it.
    unsafe { ((block + register as u64) as *mut u32).write_volatile(value) };
}

/// Reads a register.
pub fn read(block: u64, register: Register) -> u32 {
    // SAFETY: as in `write`.
    unsafe { ((block + register as u64) as *const u32).read_volatile() }
}

pub fn kicks(attack: &mut Attack) {
    for round in 0..attack.rounds {
        for device in 0..map::DEVICE_MAX {
            let value = if round < 8 {
                round as u32
            } else {
                attack.random.next_u64() as u32
            };
            host::ring(doorbell::kick(device), value);
        }
        for device in devices() {
            // From the middle on, no queue is ready.
            if round == attack.rounds / 2 {
                write(device.registers, Register::Status, 0);
            }
            write(device.registers, Register::QueueNotify, attack.random.next_u64() as u32);
            write(device.registers, Register::QueueNotify, attack.random.below(4) as u32);
        }
    }
}

pub fn scribble(attack: &mut Attack) {
    let blocks = (map::DEVICE_MAX as u64) * map::DEVICE_STRIDE;
    for _ in 0..attack.rounds {
        // Most of it where there is something.
        let near = attack.random.below(devices().len() as u64 + 1) * map::DEVICE_STRIDE + attack.random.below(0x120);
        let anywhere = attack.random.below(blocks - 8);
        let address = map::DEVICES + if attack.random.below(4) == 0 { anywhere } else { near };
        let value = match attack.random.below(3) {
            0 => attack.random.below(16),
            1 => u64::MAX,
            _ => attack.random.next_u64(),
        };
        access(address, value, attack.random.below(8));
    }
}

/// One access of a width that `kind` says, aligned or not: so in assembly.
fn access(address: u64, value: u64, kind: u64) {
    // SAFETY: every address up to 8 bytes behind is mapped, with no memory behind it.
    unsafe {
        match kind {
            0 => asm!("mov [{a}], {v}", a = in(reg) address, v = in(reg_byte) value as u8),
            1 => asm!("mov [{a}], {v:x}", a = in(reg) address, v = in(reg) value),
            2 | 3 => asm!("mov [{a}], {v:e}", a = in(reg) address, v = in(reg) value),
            4 => asm!("mov [{a}], {v}", a = in(reg) address, v = in(reg) value),
            5 => asm!("movzx {v:e}, byte ptr [{a}]", a = in(reg) address, v = out(reg) _),
            6 => asm!("mov {v:e}, [{a}]", a = in(reg) address, v = out(reg) _),
            _ => asm!("mov {v}, [{a}]", a = in(reg) address, v = out(reg) _),
        }
    }
}

pub fn setup(attack: &mut Attack) {
    use Register as R;
    const ADDRESSES: [R; 6] = [
        R::QueueDescLow,
        R::QueueDescHigh,
        R::QueueDriverLow,
        R::QueueDriverHigh,
        R::QueueDeviceLow,
        R::QueueDeviceHigh,
    ];
    for _ in 0..attack.rounds {
        for device in devices() {
            let block = device.registers;
            write(block, R::Status, 0);
            for status in [1, 3] {
                write(block, R::Status, status);
            }
            write(block, R::DriverFeaturesSel, 1);
            write(block, R::DriverFeatures, 1);
            write(block, R::Status, 11);
            for queue in 0..3 {
                write(block, R::QueueSel, queue);
                let sizes = [0, 1, 3, 8, 64, 256, 32768, u32::MAX];
                write(block, R::QueueSize, sizes[attack.random.below(8) as usize]);
                for register in ADDRESSES {
                    let high = matches!(register, R::QueueDescHigh | R::QueueDriverHigh | R::QueueDeviceHigh);
                    let value =
                        match attack.random.below(4) {
                            _ if high => u32::MAX * u32::from(attack.random.below(8) == 0),
                            0 => 0,
                            1 => (map::QUEUES + attack.random.below(0x1000) * 16) as u32,
                            2 => [map::GDT, map::PAGE_TABLES, map::DEVICES, map::BOOT_PAGE]
                                [attack.random.below(4) as usize] as u32,
                            // Not where this guest's own memory is: it means to see the end.
                            _ => attack.random.next_u64() as u32 | 0x4000_0000,
                        };
                    write(block, register, value);
                }
                write(block, R::QueueReady, 1);
            }
            write(block, R::Status, 15);
            for queue in 0..3 {
                write(block, R::QueueNotify, queue);
                host::ring(device.kick, queue);
            }
        }
    }
}

pub fn ports(attack: &mut Attack) {
    // The doorbells that neither end nor stop the guest, and the bytes within them.
    let end = doorbell::kick(map::DEVICE_MAX - 1);
    for _ in 0..attack.rounds {
        let port = doorbell::NOP + attack.random.below(u64::from(end - doorbell::NOP)) as u16;
        if !stops(port) {
            port_access(port, attack.random.next_u64() as u32, attack.random.below(6));
        }
    }
}

/// Whether an access begins or stops a processor, or asks to be called, which ends a guest that nobody calls: these
/// doorbells, and the bytes before that reach them.
fn stops(port: u16) -> bool {
    (doorbell::START - 3..doorbell::PARK + 4).contains(&port)
        || (doorbell::CALL - 3..doorbell::CALL + 4).contains(&port)
}

pub fn foreign_ports(attack: &mut Attack) {
    for _ in 0..attack.rounds {
        let port = attack.random.next_u64() as u16;
        if !(doorbell::EXIT - 4..doorbell::NOP).contains(&port) && !stops(port) {
            port_access(port, attack.random.next_u64() as u32, attack.random.below(6));
        }
    }
}

/// One access of a direction and width that `kind` says.
fn port_access(port: u16, value: u32, kind: u64) {
    // SAFETY: callers leave out the doorbells that change memory; no other port does.
    unsafe {
        match kind {
            0 => asm!("out dx, al", in("dx") port, in("al") value as u8),
            1 => asm!("out dx, ax", in("dx") port, in("ax") value as u16),
            2 => asm!("out dx, eax", in("dx") port, in("eax") value),
            3 => asm!("in al, dx", in("dx") port, out("al") _),
            4 => asm!("in ax, dx", in("dx") port, out("ax") _),
            _ => asm!("in eax, dx", in("dx") port, out("eax") _),
        }
    }
}

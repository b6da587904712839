//! Ports and device registers: what is answered by the host's program, by the kernel below it, or not at all.

use core::arch::asm;
use core::sync::atomic::{Ordering, compiler_fence};

use chiton_guest::shared::measure::place::{self, Stamps};
use chiton_guest::shared::{doorbell, map};
use chiton_guest::{host, time};
use vmexit_cases::{Clock, Done, Meter};

use super::Case;

/// The PM timer of QEMU's machines, which vmexit.c reads.
const PM_TIMER: u16 = 0xb008;
/// A port where no machine has anything, which vmexit.c reads.
const NOTHING: u16 = 0x1234;
/// The edge/level control register of the interrupt controller in the kernel.
const ELCR: u16 = 0x4d0;
/// How much a string instruction moves, in bytes.
const STRING: usize = 64;

pub fn all<C: Clock>() -> [Case; 34] {
    [
        // Any ring: doorbells are open to ring 3.
        Case::any("outb", |m, _| m.each::<C>(|| outb(doorbell::NOP, 0))),
        Case::any("outw", |m, _| m.each::<C>(|| outw(doorbell::NOP, 0))),
        Case::any("outl", |m, _| m.each::<C>(|| host::ring(doorbell::NOP, 0))),
        Case::any("inb", |m, _| m.each::<C>(|| inb(doorbell::NOP))),
        Case::any("inw", |m, _| m.each::<C>(|| inw(doorbell::NOP))),
        Case::any("inl", |m, _| m.each::<C>(|| inl(doorbell::NOP))),
        Case::any("rep_outsb", |m, _| rep_outsb::<C>(m)),
        Case::any("rep_insb", |m, _| rep_insb::<C>(m)),
        Case::any("mmio_read_1", |m, _| read::<C, u8>(m)),
        Case::any("mmio_read_2", |m, _| read::<C, u16>(m)),
        Case::any("mmio_read_4", |m, _| read::<C, u32>(m)),
        Case::any("mmio_read_8", |m, _| read::<C, u64>(m)),
        Case::any("mmio_write_1", |m, _| write::<C, u8>(m, place::NONE, 0)),
        Case::any("mmio_write_2", |m, _| write::<C, u16>(m, place::NONE, 0)),
        Case::any("mmio_write_4", |m, _| write::<C, u32>(m, place::NONE, 0)),
        Case::any("mmio_write_8", |m, _| write::<C, u64>(m, place::NONE, 0)),
        Case::any("pci-mem-none", |m, _| write::<C, u32>(m, place::NONE, 0)),
        Case::any("pci-mem-wildcard", |m, o| {
            o.has_places()?;
            write::<C, u32>(m, place::WILDCARD, 0)
        }),
        Case::any("pci-mem-datamatch", |m, o| {
            o.has_places()?;
            write::<C, u32>(m, place::DATAMATCH, place::DATA)
        }),
        Case::any("pci-io-none", |m, _| out::<C>(m, place::NONE, 0)),
        Case::any("pci-io-wildcard", |m, o| {
            o.has_places()?;
            out::<C>(m, place::WILDCARD, 0)
        }),
        Case::any("pci-io-datamatch", |m, o| {
            o.has_places()?;
            out::<C>(m, place::DATAMATCH, place::DATA)
        }),
        Case::any("coalesced_mmio", |m, o| {
            o.has_places()?;
            write::<C, u32>(m, place::COALESCED, 0)
        }),
        Case::any("coalesced_pio", |m, o| {
            o.has_places()?;
            out::<C>(m, place::COALESCED, 0)
        }),
        Case::any("phase_to_kernel", |m, _| {
            kernel_phase::<C>(m, |p| p.host.exited.wrapping_sub(p.before))
        }),
        Case::any("phase_to_program", |m, _| {
            kernel_phase::<C>(m, |p| p.host.left.wrapping_sub(p.host.exited))
        }),
        Case::any("phase_out", |m, _| {
            phase::<C>(m, |p| p.host.left.wrapping_sub(p.before))
        }),
        Case::any("phase_dispatch", |m, _| {
            phase::<C>(m, |p| p.host.entered.wrapping_sub(p.host.left))
        }),
        Case::any("phase_back", |m, _| {
            phase::<C>(m, |p| p.after.wrapping_sub(p.host.entered))
        }),
        Case::any("ioeventfd_kick", |m, o| {
            o.has_places()?;
            ioeventfd_kick::<C>(m)
        }),
        Case::ring0("inl_from_pmtimer", |m, _| m.each::<C>(|| inl(PM_TIMER))),
        Case::ring0("inl_from_qemu", |m, _| m.each::<C>(|| inl(NOTHING))),
        Case::ring0("inl_from_kernel", |m, o| {
            o.has_interrupt_controller()?;
            m.each::<C>(|| inb(ELCR))
        }),
        Case::ring0("outl_to_kernel", |m, o| {
            o.has_interrupt_controller()?;
            m.each::<C>(|| outb(ELCR, 0))
        }),
    ]
}

fn out<C: Clock>(meter: &mut Meter<'_>, place: usize, value: u32) -> Done {
    meter.each::<C>(|| host::ring(place::port(place), value))
}

fn write<C: Clock, T: Copy>(meter: &mut Meter<'_>, place: usize, value: T) -> Done {
    let register = place::address(place) as *mut T;
    // SAFETY: no memory is there; the page is mapped by the contract.
    meter.each::<C>(|| unsafe { register.write_volatile(value) })
}

fn read<C: Clock, T: Copy>(meter: &mut Meter<'_>) -> Done {
    let register = place::address(place::NONE) as *const T;
    meter.each::<C>(|| {
        // SAFETY: as above.
        core::hint::black_box(unsafe { register.read_volatile() });
    })
}

fn rep_outsb<C: Clock>(meter: &mut Meter<'_>) -> Done {
    let text = [0_u8; STRING];
    meter.each::<C>(|| {
        // SAFETY: the array is as long as what is read of it; the port has no effect.
        unsafe {
            asm!("rep outsb", in("dx") doorbell::NOP, inout("rcx") STRING => _, inout("rsi") text.as_ptr() => _,
                 options(nostack, readonly));
        }
    })
}

fn rep_insb<C: Clock>(meter: &mut Meter<'_>) -> Done {
    let mut text = [0_u8; STRING];
    meter.each::<C>(|| {
        // SAFETY: the array is as long as what is written to it.
        unsafe {
            asm!("rep insb", in("dx") doorbell::NOP, inout("rcx") STRING => _, inout("rdi") text.as_mut_ptr() => _,
                 options(nostack));
        }
    })
}

/// The four moments of one exit.
struct Phases {
    before: u64,
    host: Stamps,
    after: u64,
}

/// One of the parts of an exit to the host's program, on a host that traces its kernel.
fn kernel_phase<C: Clock>(meter: &mut Meter<'_>, part: fn(&Phases) -> u64) -> Done {
    checked_phase::<C>(meter, |phases| {
        let Phases { before, host, .. } = phases;
        if host.exited == 0 {
            return Err("the host of this machine leaves no time-stamps of its kernel");
        }
        if !(*before <= host.exited && host.exited <= host.left) {
            return Err("the time-stamp counters of guest and kernel are not the same");
        }
        Ok(part(phases))
    })
}

/// One of the parts of an exit to the host's program.
fn phase<C: Clock>(meter: &mut Meter<'_>, part: fn(&Phases) -> u64) -> Done {
    checked_phase::<C>(meter, |phases| Ok(part(phases)))
}

/// The same, of what may not be a part.
fn checked_phase<C: Clock>(meter: &mut Meter<'_>, part: impl Fn(&Phases) -> Result<u64, &'static str>) -> Done {
    const NO_STAMPS: &str = "the host of this machine leaves no time-stamps of its own";
    const OTHER_CLOCK: &str = "the time-stamp counters of guest and host are not the same";
    let stamps = (map::MAILBOX + doorbell::MAILBOX_TEXT_OFFSET as u64) as *mut Stamps;
    // SAFETY: the mailbox is mapped by the contract, and no line is in it now.
    unsafe { stamps.write_volatile(Stamps::default()) };
    meter.record::<C>(|| {
        let before = C::now();
        host::ring(place::port(place::STAMPS), 0);
        let after = C::now();
        // SAFETY: as above.
        let host = unsafe { stamps.read_volatile() };
        if host.left == 0 {
            return Err(NO_STAMPS);
        }
        if !(before <= host.left && host.left <= host.entered && host.entered <= after) {
            return Err(OTHER_CLOCK);
        }
        part(&Phases { before, host, after })
    })
}

/// From a kick to the moment when this processor sees that a thread of the host has heard it.
fn ioeventfd_kick<C: Clock>(meter: &mut Meter<'_>) -> Done {
    const DEAF: &str = "no thread of the host listens on this machine";
    let stamps = (map::MAILBOX + doorbell::MAILBOX_TEXT_OFFSET as u64) as *mut Stamps;
    // SAFETY: the mailbox is mapped by the contract; the host writes to it at any time, so it is volatile.
    let rung = || unsafe { (&raw const (*stamps).rung).read_volatile() };
    meter.at_most(1000, 20);
    meter.record::<C>(|| {
        let until = rung().wrapping_add(1);
        let begin = C::now();
        let limit = begin.wrapping_add(seconds(1));
        host::ring(place::port(place::LISTENER), 0);
        while rung() != until {
            compiler_fence(Ordering::SeqCst);
            if time::ticks() > limit {
                return Err(DEAF);
            }
        }
        Ok(C::now().wrapping_sub(begin))
    })
}

/// So many seconds, in ticks.
pub fn seconds(count: u64) -> u64 {
    chiton_guest::boot::page().tsc_khz.max(1) * 1000 * count
}

/// An instruction that writes a port.
macro_rules! write_port {
    ($name:ident, $width:ty, $register:tt) => {
        fn $name(port: u16, value: $width) {
            // SAFETY: nothing is at the ports that cases use, or what is there takes it.
            unsafe { asm!(concat!("out dx, ", $register), in("dx") port, in($register) value, options(nostack, preserves_flags)) };
        }
    };
}

/// An instruction that reads a port.
macro_rules! read_port {
    ($name:ident, $width:ty, $register:tt) => {
        fn $name(port: u16) {
            let value: $width;
            // SAFETY: reading the ports that cases use has no effect.
            unsafe { asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value, options(nostack, preserves_flags)) };
            core::hint::black_box(value);
        }
    };
}

write_port!(outb, u8, "al");
write_port!(outw, u16, "ax");
read_port!(inb, u8, "al");
read_port!(inw, u16, "ax");
read_port!(inl, u32, "eax");

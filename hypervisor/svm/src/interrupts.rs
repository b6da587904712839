//! Interrupts of the machine, which are on for an instant only: when one has ended the guest's turn.
//!
//! SVM has no timer of its own. So the local APIC's interrupts, with a vector that this crate puts
//! into the IDT: a copy of the one it finds, since that is not its own.

use core::arch::{asm, naked_asm};

use chiton_core::physical::{PAGE_SIZE, Pages, Physical};
use x86_64::VirtAddr;
use x86_64::instructions::port::Port;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::instructions::tables::{lidt, sidt};
use x86_64::structures::DescriptorTablePointer;

use crate::Error;

/// The vector of the timer.
pub(crate) const TIMER: u8 = 0xf0;
/// The vector of an interrupt that the APIC takes back (APM volume 2, section 16.4.7).
pub(crate) const SPURIOUS: u8 = 0xff;

/// Size of a gate in 64-bit mode.
const GATE: usize = 16;

/// The IDT in use, and the one before it.
pub(crate) struct Idt {
    _page: Pages,
    before: DescriptorTablePointer,
}

impl Idt {
    /// Copies the IDT that is in use, and has the two vectors lead to a handler of this crate.
    pub(crate) fn take_over(physical: &'static dyn Physical) -> Result<Self, Error> {
        let page = Pages::one(physical, "an interrupt descriptor table")?;
        let before = sidt();
        let len = PAGE_SIZE.min(usize::from(before.limit) + 1);
        let handler = ignored as *const () as u64;
        let (low, high) = gate(handler, CS::get_reg().0);
        // SAFETY: the table in use is mapped and of this length; the page is this function's own.
        // The gates of both vectors lie in it, as a page has 256.
        unsafe {
            page.pointer().copy_from_nonoverlapping(before.base.as_ptr(), len);
            for vector in [TIMER, SPURIOUS] {
                page.at::<u64>(usize::from(vector) * GATE).write(low);
                page.at::<u64>(usize::from(vector) * GATE + 8).write(high);
            }
        }
        let table = DescriptorTablePointer {
            limit: (PAGE_SIZE - 1) as u16,
            base: VirtAddr::from_ptr(page.pointer()),
        };
        // SAFETY: LIDT (APM volume 3) has each interrupt go where this table says: it has every gate that the one
        // before it has, and two more (volume 2, section 4.8.4), whose handler returns.
        unsafe { lidt(&table) };
        mask_legacy();
        Ok(Self { _page: page, before })
    }
}

impl Drop for Idt {
    fn drop(&mut self) {
        // SAFETY: LIDT (APM volume 3): the table was in use before, and whoever made it has kept it.
        unsafe { lidt(&self.before) }
    }
}

/// Takes the interrupt that is pending.
pub(crate) fn take() {
    // SAFETY: the vector leads to a handler that returns: that of this crate, or one of those that
    // the IDT had before. STI (APM volume 3) takes effect behind the next instruction.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) }
}

/// The handler: that the interrupt came is all there is to it. The APIC is told later, where Rust
/// can do it.
#[unsafe(naked)]
extern "C" fn ignored() {
    naked_asm!("iretq")
}

/// An interrupt gate of ring 0 (APM volume 2, section 4.8.4).
const fn gate(handler: u64, code: u16) -> (u64, u64) {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
    let low = handler & 0xffff | (code as u64) << 16 | PRESENT_INTERRUPT_GATE | (handler >> 16 & 0xffff) << 48;
    (low, handler >> 32)
}

/// Masks the legacy interrupt controllers: the firmware has left them on, with vectors among those
/// of exceptions.
fn mask_legacy() {
    for data in [0x21, 0xa1] {
        // SAFETY: OUT (APM volume 3) touches no memory, and these are the mask registers on every PC; nobody here waits
        // for their interrupts.
        unsafe { Port::<u8>::new(data).write(0xff) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_holds_the_handler_in_three_pieces() {
        let (low, high) = gate(0x1122_3344_5566_7788, 0x08);
        assert_eq!((low, high), (0x5566_8e00_0008_7788, 0x1122_3344));
    }
}

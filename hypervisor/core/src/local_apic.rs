//! The local APIC of the processor that runs this, on bare metal: its timer, and interrupts for other
//! processors (SDM volume 3A, chapter 12; APM volume 2, chapter 16).
//!
//! Its registers are a page of memory (*xAPIC*), or model-specific ones where the processor can have
//! them so (*x2APIC*).

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use x86_64::registers::model_specific::Msr;

use crate::physical::Physical;

/// Where the APIC is, and in which mode (SDM volume 3A, section 12.4.4).
const APIC_BASE: u32 = 0x1b;
/// It is on.
const ENABLED: u64 = 1 << 11;
/// Its registers are model-specific ones.
const X2APIC: u64 = 1 << 10;
/// CPUID leaf 1 ECX: x2APIC.
const CPUID_X2APIC: u32 = 1 << 21;
/// The bits that are the address of its page.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The first register of x2APIC mode; the others are 16 bytes apart as memory, one apart here.
const FIRST_X2APIC: u32 = 0x800;

/// The registers, by their offset in the page (SDM volume 3A, table 12-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Register {
    /// The identity, in its top byte; all of it in x2APIC mode.
    Identity = 0x20,
    /// Written when an interrupt has been dealt with.
    EndOfInterrupt = 0xb0,
    /// The vector of an interrupt that the APIC takes back; bit 8 switches the APIC on.
    SpuriousVector = 0xf0,
    /// The low half of the interrupt command register: whoever writes it sends.
    Command = 0x300,
    /// The timer's entry of the local vector table.
    Timer = 0x320,
    /// The timer counts down from here.
    InitialCount = 0x380,
    /// Where it is.
    CurrentCount = 0x390,
    /// How many ticks of its clock are one of the timer.
    Divide = 0x3e0,
}

/// The high half of the interrupt command register, as memory: the destination.
const DESTINATION: usize = 0x310;
/// Of the low half, as memory: the last interrupt has not been sent yet.
const SENDING: u32 = 1 << 12;
/// Of the low half: asserted, as all but one kind of interrupts are.
const ASSERT: u32 = 1 << 14;
/// Of the spurious-vector register: the APIC takes interrupts.
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// How often to look whether the last interrupt has been sent, before that is given up.
const PATIENCE: u32 = 1_000_000;

/// What a processor can send to another (SDM volume 3A, figure 12-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// An interrupt with this vector.
    Interrupt(u8),
    /// An NMI.
    Nmi,
    /// INIT: it stops, and waits for a start-up message.
    Init,
    /// Start-up: it begins in real mode at the page of this number, below 1 MiB.
    StartUp(u8),
}

impl Message {
    /// The low half of the interrupt command register.
    const fn command(self) -> u32 {
        match self {
            Self::Interrupt(vector) => ASSERT | vector as u32,
            Self::Nmi => ASSERT | 0b100 << 8,
            Self::Init => ASSERT | 0b101 << 8,
            Self::StartUp(page) => ASSERT | 0b110 << 8 | page as u32,
        }
    }
}

/// The local APIC of the processor that uses this. Where all processors have been switched to the same mode, their
/// registers are at the same place, and one value serves all.
#[derive(Debug)]
pub struct LocalApic(Registers);

// SAFETY: the registers are no memory of this program's: they are read and written as wholes, and each processor
// reaches its own.
unsafe impl Send for LocalApic {}
// SAFETY: as above.
unsafe impl Sync for LocalApic {}

#[derive(Debug)]
enum Registers {
    Memory(*mut u8),
    ModelSpecific,
}

impl LocalApic {
    /// That of the processor that runs this; it is switched on, with this vector for interrupts that
    /// it takes back.
    pub fn switch_on(physical: &dyn Physical, spurious: u8) -> Self {
        // SAFETY: every processor in 64-bit mode has an APIC, and its base register.
        let mut base = unsafe { Msr::new(APIC_BASE).read() };
        let x2apic = if __cpuid(1).ecx & CPUID_X2APIC != 0 { X2APIC } else { 0 };
        // From off to x2APIC is two steps (SDM volume 3A, section 12.12.5).
        for step in [ENABLED, x2apic] {
            if base & step != step {
                base |= step;
                // SAFETY: a mode that the processor has, and nobody else uses the APIC.
                unsafe { Msr::new(APIC_BASE).write(base) }
            }
        }
        let apic = Self(if base & X2APIC != 0 {
            Registers::ModelSpecific
        } else {
            Registers::Memory(physical.pointer(base & ADDRESS))
        });
        apic.write(Register::SpuriousVector, SOFTWARE_ENABLE | u32::from(spurious));
        apic
    }

    /// Its identity, by which others reach it.
    #[must_use]
    pub fn identity(&self) -> u32 {
        let value = self.read(Register::Identity);
        match self.0 {
            Registers::Memory(_) => value >> 24,
            Registers::ModelSpecific => value,
        }
    }

    /// The interrupt that was taken has been dealt with.
    pub fn end_of_interrupt(&self) {
        self.write(Register::EndOfInterrupt, 0);
    }

    /// Sends something to the processor of this identity. Whether it was sent: the last identity means
    /// all processors, the sender too, and is nobody's; without x2APIC it is 255; and a broken APIC never
    /// says that it is done.
    ///
    /// # Safety
    ///
    /// The other processor can take it: it has a handler for the interrupt, or may stop, or the page
    /// is code to begin with.
    #[must_use]
    pub unsafe fn send(&self, to: u32, message: Message) -> bool {
        let command = message.command();
        match self.0 {
            Registers::ModelSpecific => {
                if to == u32::MAX {
                    return false;
                }
                let value = u64::from(to) << 32 | u64::from(command);
                // Unlike others, this WRMSR may be done before what was written to memory is seen, and the other would
                // find nothing where it is told to look (SDM volume 3A, section 12.12.3). A write to the page waits.
                // SAFETY: MFENCE and LFENCE (SDM volumes 2B and 2A; APM volume 3) wait, and change nothing.
                unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) };
                // SAFETY: x2APIC is on, so the register exists; what it does is the caller's promise.
                unsafe { Msr::new(FIRST_X2APIC + Register::Command as u32 / 16).write(value) };
                true
            }
            Registers::Memory(page) => {
                if to > 254 {
                    return false;
                }
                // SAFETY: the APIC's page is mapped with all of physical memory; the destination alone
                // does nothing.
                unsafe { page.add(DESTINATION).cast::<u32>().write_volatile(to << 24) };
                self.write(Register::Command, command);
                (0..PATIENCE).any(|_| self.read(Register::Command) & SENDING == 0)
            }
        }
    }

    /// Reads a register.
    #[must_use]
    pub fn read(&self, register: Register) -> u32 {
        match self.0 {
            // SAFETY: as for `send`; registers are read 32 bits wide.
            Registers::Memory(page) => unsafe { page.add(register as usize).cast::<u32>().read_volatile() },
            // SAFETY: x2APIC is on, so the register exists.
            Registers::ModelSpecific => unsafe { Msr::new(FIRST_X2APIC + register as u32 / 16).read() as u32 },
        }
    }

    /// Writes a register. (What [`Register::Command`] sends is for [`send`](Self::send).)
    pub fn write(&self, register: Register, value: u32) {
        match self.0 {
            // SAFETY: as for `read`. None of the registers reaches memory.
            Registers::Memory(page) => unsafe { page.add(register as usize).cast::<u32>().write_volatile(value) },
            // SAFETY: as above.
            Registers::ModelSpecific => unsafe {
                Msr::new(FIRST_X2APIC + register as u32 / 16).write(value.into());
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_manual_has_them() {
        // SDM volume 3A, section 10.4.4.1 has these words in its example.
        assert_eq!(Message::Init.command() | 0xc_0000, 0x000c_4500);
        assert_eq!(Message::StartUp(0x9a).command() | 0xc_0000, 0x000c_469a);
        assert_eq!(Message::Interrupt(0xf1).command(), 0x40f1);
        assert_eq!(Message::Nmi.command(), 0x4400);
    }
}

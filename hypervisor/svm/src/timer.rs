//! Time slices: the local APIC's timer interrupts the guest (APM volume 2, section 16.4.1).

use core::arch::x86_64::_rdtsc;

use chiton_core::physical::Physical;
use x86_64::registers::model_specific::Msr;

use crate::Error;
use crate::interrupts::{SPURIOUS, TIMER};

/// Where the APIC is, and in which mode (APM volume 2, section 16.3.1).
const APIC_BASE: u32 = 0x1b;
/// It is on.
const ENABLED: u64 = 1 << 11;
/// Its registers are model-specific ones.
const X2APIC: u64 = 1 << 10;
/// The first of these; the others are 16 bytes apart as memory, one apart here.
const FIRST_X2APIC: u32 = 0x800;

/// Offsets of registers (APM volume 2, table 16-2).
const END_OF_INTERRUPT: u32 = 0xb0;
const SPURIOUS_VECTOR: u32 = 0xf0;
const TIMER_ENTRY: u32 = 0x320;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

/// Of an entry of the local vector table: no interrupt.
const MASKED: u32 = 1 << 16;
/// Of the spurious-vector register: the APIC takes interrupts.
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// The timer counts each tick of its clock.
const DIVIDE_BY_ONE: u32 = 0b1011;

/// For how many ticks of the TSC the two clocks are compared.
const COMPARED: u64 = 1 << 20;

/// The timer of this processor.
pub(crate) struct Timer {
    apic: Apic,
    /// Ticks of the timer in [`COMPARED`] ticks of the TSC.
    rate: u64,
}

impl Timer {
    /// Switches the APIC on, and finds out how fast its timer counts.
    pub(crate) fn new(physical: &dyn Physical) -> Result<Self, Error> {
        let apic = Apic::of_this_processor(physical);
        apic.write(SPURIOUS_VECTOR, SOFTWARE_ENABLE | u32::from(SPURIOUS));
        apic.write(DIVIDE, DIVIDE_BY_ONE);
        apic.write(TIMER_ENTRY, MASKED | u32::from(TIMER));
        apic.write(INITIAL_COUNT, u32::MAX);
        let start = now();
        while now().wrapping_sub(start) < COMPARED {
            core::hint::spin_loop();
        }
        let rate = u64::from(u32::MAX - apic.read(CURRENT_COUNT));
        apic.write(INITIAL_COUNT, 0);
        if rate == 0 {
            return Err(Error::NoTimer);
        }
        Ok(Self { apic, rate })
    }

    /// Has an interrupt come after so many ticks of the TSC, once.
    pub(crate) fn arm(&self, ticks: u64) {
        let count = u128::from(ticks) * u128::from(self.rate) / u128::from(COMPARED);
        self.apic.write(TIMER_ENTRY, TIMER.into());
        // Zero would stop it.
        self.apic.write(INITIAL_COUNT, count.clamp(1, u32::MAX.into()) as u32);
    }

    /// The interrupt was taken.
    pub(crate) fn acknowledge(&self) {
        self.apic.write(END_OF_INTERRUPT, 0);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.apic.write(TIMER_ENTRY, MASKED | u32::from(TIMER));
        self.apic.write(INITIAL_COUNT, 0);
    }
}

/// The local APIC, by either way to its registers.
enum Apic {
    /// A page of memory.
    Memory(*mut u8),
    /// Model-specific registers.
    Registers,
}

impl Apic {
    fn of_this_processor(physical: &dyn Physical) -> Self {
        // SAFETY: every processor in 64-bit mode has an APIC, and its base register.
        let base = unsafe { Msr::new(APIC_BASE).read() };
        if base & ENABLED == 0 {
            // SAFETY: it is off, and is switched on where it is.
            unsafe { Msr::new(APIC_BASE).write(base | ENABLED) }
        }
        if base & X2APIC != 0 {
            return Self::Registers;
        }
        Self::Memory(physical.pointer(base & 0x000f_ffff_ffff_f000))
    }

    fn read(&self, register: u32) -> u32 {
        match self {
            // SAFETY: the APIC's page is mapped with all of physical memory; its registers are
            // read 32 bits wide.
            Self::Memory(page) => unsafe { page.add(register as usize).cast::<u32>().read_volatile() },
            // SAFETY: x2APIC is on, so the register exists.
            Self::Registers => unsafe { Msr::new(FIRST_X2APIC + register / 16).read() as u32 },
        }
    }

    fn write(&self, register: u32, value: u32) {
        match self {
            // SAFETY: as for `read`. None of the registers written here reaches memory, or another
            // processor.
            Self::Memory(page) => unsafe { page.add(register as usize).cast::<u32>().write_volatile(value) },
            // SAFETY: as above.
            Self::Registers => unsafe { Msr::new(FIRST_X2APIC + register / 16).write(value.into()) },
        }
    }
}

fn now() -> u64 {
    // SAFETY: every processor in 64-bit mode has a time-stamp counter.
    unsafe { _rdtsc() }
}

//! Time slices: the local APIC's timer interrupts the guest (APM volume 2, section 16.4.1).

use core::arch::x86_64::_rdtsc;
use core::cell::Cell;

use chiton_core::local_apic::{LocalApic, Register};
use chiton_core::physical::Physical;

use crate::Error;
use crate::interrupts::{SPURIOUS, TIMER};

/// Of an entry of the local vector table: no interrupt.
const MASKED: u32 = 1 << 16;
/// The timer counts each tick of its clock.
const DIVIDE_BY_ONE: u32 = 0b1011;

/// For how many ticks of the TSC the two clocks are compared.
const COMPARED: u64 = 1 << 20;

/// The timer of this processor.
pub(crate) struct Timer {
    apic: LocalApic,
    /// Ticks of the timer in [`COMPARED`] ticks of the TSC.
    rate: u64,
    /// When it comes, in ticks of the TSC; 0 if it is not under way.
    comes: Cell<u64>,
}

impl Timer {
    /// Switches the APIC on, and finds out how fast its timer counts.
    pub(crate) fn new(physical: &dyn Physical) -> Result<Self, Error> {
        let apic = LocalApic::switch_on(physical, SPURIOUS);
        apic.write(Register::Divide, DIVIDE_BY_ONE);
        apic.write(Register::Timer, MASKED | u32::from(TIMER));
        apic.write(Register::InitialCount, u32::MAX);
        let start = now();
        while now().wrapping_sub(start) < COMPARED {
            core::hint::spin_loop();
        }
        let rate = u64::from(u32::MAX - apic.read(Register::CurrentCount));
        apic.write(Register::InitialCount, 0);
        if rate == 0 {
            return Err(Error::NoTimer);
        }
        Ok(Self {
            apic,
            rate,
            comes: Cell::new(0),
        })
    }

    /// Begins a slice of so many ticks of the TSC, unless one is under way. (One whose end has come
    /// without the guest has been taken by somebody else, while no guest ran.)
    pub(crate) fn begin_slice(&self, ticks: u64) {
        let now = now();
        if self.comes.get() <= now {
            self.arm(now.saturating_add(ticks));
        }
    }

    /// Ends the slice at this time at the latest.
    pub(crate) fn end_by(&self, time: u64) {
        if time < self.comes.get() {
            self.arm(time);
        }
    }

    /// Has an interrupt come then, once.
    fn arm(&self, time: u64) {
        let ticks = time.saturating_sub(now());
        let count = u128::from(ticks) * u128::from(self.rate) / u128::from(COMPARED);
        self.apic.write(Register::Timer, TIMER.into());
        // Zero would stop it.
        self.apic
            .write(Register::InitialCount, count.clamp(1, u32::MAX.into()) as u32);
        self.comes.set(time);
    }

    /// An interrupt was taken: that of the timer, or of another processor, after which a slice begins
    /// as well.
    pub(crate) fn acknowledge(&self) {
        self.apic.end_of_interrupt();
        self.comes.set(0);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.apic.write(Register::Timer, MASKED | u32::from(TIMER));
        self.apic.write(Register::InitialCount, 0);
    }
}

fn now() -> u64 {
    // SAFETY: RDTSC (APM volume 3) changes two registers alone, and every processor in 64-bit mode has the counter.
    unsafe { _rdtsc() }
}

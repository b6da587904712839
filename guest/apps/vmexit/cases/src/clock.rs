//! The time-stamp counter, read so that what is measured is between the readings.

use core::arch::x86_64::{_mm_lfence, _rdtsc};

/// A way to read the time-stamp counter.
pub trait Clock {
    /// The counter, in ticks.
    fn now() -> u64;
}

/// Fenced on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Fenced;

impl Clock for Fenced {
    #[inline(always)]
    fn now() -> u64 {
        // SAFETY: every processor of 64 bits has these instructions, and nothing forbids them to rings 0 and 3.
        unsafe {
            _mm_lfence();
            let ticks = _rdtsc();
            _mm_lfence();
            ticks
        }
    }
}

/// Not fenced: for a ring whose instructions are interpreted one by one, which knows no `lfence`.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Clock for Plain {
    #[inline(always)]
    fn now() -> u64 {
        // SAFETY: as above.
        unsafe { _rdtsc() }
    }
}

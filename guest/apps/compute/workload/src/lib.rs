//! Floating-point work that checks its own results: the same bits on any x86-64 processor with
//! SSE2, inside a guest or outside.
//!
//! One [`Workload::run`] moves planets, counts points of the Mandelbrot set and multiplies
//! matrices. `examples/native.rs` times it on the host, the guest `compute` in a guest.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod mandelbrot;
mod matrix;
mod nbody;

use core::fmt;

/// Why the results are wrong. Then something is wrong with the machine: most likely somebody does
/// not save floating-point registers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wrong {
    what: &'static str,
    found: f64,
    expected: f64,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} instead of {}", self.what, self.found, self.expected)
    }
}

/// The work, with the memory it needs.
pub struct Workload {
    matrices: matrix::Matrices,
}

impl Workload {
    /// Takes about 400 KiB of heap.
    #[must_use]
    pub fn new() -> Self {
        Self {
            matrices: matrix::Matrices::new(),
        }
    }

    /// Works once, which takes a few hundredths of a second, and returns a checksum over the bits
    /// of all results: always the same.
    ///
    /// # Errors
    ///
    /// [`Wrong`], if a result is not what it must be.
    pub fn run(&mut self) -> Result<u64, Wrong> {
        let energy = nbody::run()?;
        let points = mandelbrot::run()?;
        let product = self.matrices.run()?;
        let mix = |sum: u64, bits: u64| (sum ^ bits).wrapping_mul(0x0100_0000_01B3);
        Ok([energy.to_bits(), points.into(), product]
            .into_iter()
            .fold(0xCBF2_9CE4_8422_2325, mix))
    }
}

impl Default for Workload {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_work_gives_the_same_bits() {
        let mut workload = Workload::new();
        let first = workload.run();
        assert!(first.is_ok());
        assert_eq!(workload.run(), first);
    }
}

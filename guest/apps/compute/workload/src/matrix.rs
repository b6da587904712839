//! Multiplies two matrices whose product is known.

use alloc::vec;
use alloc::vec::Vec;

use crate::Wrong;

const N: usize = 128;
const ROUNDS: usize = 4;

/// Two factors and their product.
pub(crate) struct Matrices {
    a: Vec<f64>,
    b: Vec<f64>,
    product: Vec<f64>,
}

impl Matrices {
    pub(crate) fn new() -> Self {
        let cells = (0..N * N).map(|at| (at / N, at % N));
        Self {
            a: cells.clone().map(|(i, k)| (i + k) as f64).collect(),
            b: cells.map(|(k, j)| k as f64 - j as f64).collect(),
            product: vec![0.0; N * N],
        }
    }

    /// Multiplies; a checksum over the bits of the product.
    pub(crate) fn run(&mut self) -> Result<u64, Wrong> {
        for _ in 0..ROUNDS {
            self.product.fill(0.0);
            self.multiply();
        }
        self.check()?;
        Ok(self
            .product
            .iter()
            .fold(0, |sum: u64, cell| sum.rotate_left(7) ^ cell.to_bits()))
    }

    fn multiply(&mut self) {
        for (row, out) in self.a.chunks_exact(N).zip(self.product.chunks_exact_mut(N)) {
            for (factor, other) in row.iter().zip(self.b.chunks_exact(N)) {
                for (cell, value) in out.iter_mut().zip(other) {
                    *cell += factor * value;
                }
            }
        }
    }

    /// Compares each cell with the sum of (i + k)(k - j) over k, which is exact.
    fn check(&self) -> Result<(), Wrong> {
        let n = N as f64;
        let sum = n * (n - 1.0) / 2.0;
        let squares = (n - 1.0) * n * (2.0 * n - 1.0) / 6.0;
        for (at, found) in self.product.iter().enumerate() {
            let (i, j) = ((at / N) as f64, (at % N) as f64);
            let expected = squares + (i - j) * sum - n * i * j;
            if *found != expected {
                return Err(Wrong {
                    what: "a cell of the product",
                    found: *found,
                    expected,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_cell_is_found() {
        let mut matrices = Matrices::new();
        assert!(matrices.run().is_ok());
        matrices.a[N + 1] += 1.0;
        assert!(matrices.run().is_err());
    }
}

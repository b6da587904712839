//! Counts the points of a grid that lie in the Mandelbrot set.

use crate::Wrong;

const SIZE: u32 = 256;
const LIMIT: u32 = 100;

fn is_inside(re: f64, im: f64) -> bool {
    let (mut x, mut y) = (0.0, 0.0);
    for _ in 0..LIMIT {
        let (xx, yy) = (x * x, y * y);
        if xx + yy > 4.0 {
            return false;
        }
        y = 2.0 * x * y + im;
        x = xx - yy + re;
    }
    true
}

fn count(size: u32) -> u32 {
    let scale = 2.0 / f64::from(size);
    let rows = (0..size).map(|row| f64::from(row) * scale - 1.0);
    rows.map(|im| {
        (0..size)
            .filter(|col| is_inside(f64::from(*col) * scale * 1.5 - 2.0, im))
            .count() as u32
    })
    .sum()
}

/// Counts the points; how many.
pub(crate) fn run() -> Result<u32, Wrong> {
    let points = count(core::hint::black_box(SIZE));
    // The set has an area of 1.5066; a hundred steps leave it a little larger, and the grid, 3
    // wide and 2 high, cuts off what is above and below, which is next to nothing.
    let area = f64::from(points) * 6.0 / f64::from(SIZE * SIZE);
    if (area - 1.5066).abs() > 0.05 {
        return Err(Wrong {
            what: "the area of the Mandelbrot set",
            found: area,
            expected: 1.5066,
        });
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_known_to_be_inside_or_outside_are() {
        for (re, im) in [(0.0, 0.0), (-1.0, 0.0), (-2.0, 0.0), (0.25, 0.0), (-0.1, 0.75)] {
            assert!(is_inside(re, im), "{re} {im}");
        }
        for (re, im) in [(0.5, 0.0), (-2.01, 0.0), (0.0, 1.1), (-1.0, 0.5)] {
            assert!(!is_inside(re, im), "{re} {im}");
        }
    }
}

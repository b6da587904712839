//! The four giant planets round the sun, as the n-body program of the Computer Language
//! Benchmarks Game has them.

use crate::Wrong;

const SOLAR_MASS: f64 = 4.0 * core::f64::consts::PI * core::f64::consts::PI;
const DAYS: f64 = 365.24;
const STEP: f64 = 0.01;
const STEPS: usize = 50_000;

#[derive(Clone, Copy)]
struct Body {
    place: [f64; 3],
    speed: [f64; 3],
    mass: f64,
}

const BODIES: [Body; 5] = [
    Body {
        place: [0.0; 3],
        speed: [0.0; 3],
        mass: SOLAR_MASS,
    },
    Body {
        place: [
            4.841_431_442_464_72e0,
            -1.160_320_044_027_428_4e0,
            -1.036_220_444_711_231_1e-1,
        ],
        speed: [
            1.660_076_642_744_037e-3 * DAYS,
            7.699_011_184_197_404e-3 * DAYS,
            -6.904_600_169_720_63e-5 * DAYS,
        ],
        mass: 9.547_919_384_243_266e-4 * SOLAR_MASS,
    },
    Body {
        place: [
            8.343_366_718_244_58e0,
            4.124_798_564_124_305e0,
            -4.035_234_171_143_214e-1,
        ],
        speed: [
            -2.767_425_107_268_624e-3 * DAYS,
            4.998_528_012_349_172e-3 * DAYS,
            2.304_172_975_737_639_3e-5 * DAYS,
        ],
        mass: 2.858_859_806_661_308e-4 * SOLAR_MASS,
    },
    Body {
        place: [
            1.289_436_956_213_913_1e1,
            -1.511_115_140_169_863_1e1,
            -2.233_075_788_926_557_3e-1,
        ],
        speed: [
            2.964_601_375_647_616e-3 * DAYS,
            2.378_471_739_594_809_5e-3 * DAYS,
            -2.965_895_685_402_375_6e-5 * DAYS,
        ],
        mass: 4.366_244_043_351_563e-5 * SOLAR_MASS,
    },
    Body {
        place: [
            1.537_969_711_485_091_7e1,
            -2.591_931_460_998_796_4e1,
            1.792_587_729_503_711_8e-1,
        ],
        speed: [
            2.680_677_724_903_893_2e-3 * DAYS,
            1.628_241_700_382_423e-3 * DAYS,
            -9.515_922_545_197_159e-5 * DAYS,
        ],
        mass: 5.151_389_020_466_114_5e-5 * SOLAR_MASS,
    },
];

/// `core` has no square root; the processor has.
#[inline]
fn sqrt(x: f64) -> f64 {
    use core::arch::x86_64::{_mm_cvtsd_f64, _mm_set_sd, _mm_sqrt_sd};
    const {
        assert!(
            cfg!(target_feature = "sse2"),
            "this workload is for processors with SSE2"
        )
    };
    // SAFETY: the program is compiled for processors with SSE2.
    unsafe { _mm_cvtsd_f64(_mm_sqrt_sd(_mm_set_sd(x), _mm_set_sd(x))) }
}

fn start() -> [Body; 5] {
    let mut bodies = BODIES;
    // The whole stands still.
    let momentum: [f64; 3] = core::array::from_fn(|i| bodies.iter().map(|body| body.speed[i] * body.mass).sum());
    bodies[0].speed = momentum.map(|p| -p / SOLAR_MASS);
    bodies
}

fn energy(bodies: &[Body; 5]) -> f64 {
    let mut sum = 0.0;
    for (i, a) in bodies.iter().enumerate() {
        sum += 0.5 * a.mass * a.speed.iter().map(|v| v * v).sum::<f64>();
        for b in &bodies[i + 1..] {
            let square: f64 = a.place.iter().zip(&b.place).map(|(a, b)| (a - b) * (a - b)).sum();
            sum -= a.mass * b.mass / sqrt(square);
        }
    }
    sum
}

fn advance(bodies: &mut [Body; 5]) {
    for i in 0..bodies.len() {
        let (before, after) = bodies.split_at_mut(i + 1);
        let a = &mut before[i];
        for b in after {
            let d: [f64; 3] = core::array::from_fn(|k| a.place[k] - b.place[k]);
            let square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
            let pull = STEP / (square * sqrt(square));
            for (k, d) in d.iter().enumerate() {
                a.speed[k] -= d * b.mass * pull;
                b.speed[k] += d * a.mass * pull;
            }
        }
    }
    for body in bodies {
        for k in 0..3 {
            body.place[k] += STEP * body.speed[k];
        }
    }
}

/// Moves the planets; their energy afterwards.
pub(crate) fn run() -> Result<f64, Wrong> {
    let mut bodies = core::hint::black_box(start());
    let before = energy(&bodies);
    for _ in 0..STEPS {
        advance(&mut bodies);
    }
    let after = energy(&bodies);
    // The figures published for the start, and for 50,000 steps.
    for (what, found, expected) in [
        ("the planets' energy at the start", before, -0.169_075_164),
        ("the planets' energy", after, -0.169_078_071),
    ] {
        if (found - expected).abs() > 1e-9 {
            return Err(Wrong { what, found, expected });
        }
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_planets_have_the_energies_published_for_them() {
        let mut bodies = start();
        assert!((energy(&bodies) + 0.169_075_164).abs() < 1e-9);
        for _ in 0..1000 {
            advance(&mut bodies);
        }
        assert!((energy(&bodies) + 0.169_087_605).abs() < 1e-9);
    }
}

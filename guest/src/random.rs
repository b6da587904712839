//! Random numbers for simulations and tests: quick, repeatable, not for keys.

use crate::boot;

/// The xoshiro256** generator of Blackman and Vigna.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
    /// Of which [generation](boot::generation_count) the numbers are; `None` if they are the same for ever.
    generation: Option<u32>,
}

impl Random {
    /// A generator that gives the same numbers for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        // SplitMix64, as the generator's authors advise: its state must not be all zero.
        let mut x = seed;
        let state = core::array::from_fn(|_| {
            x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ z >> 31
        });
        Self {
            state,
            generation: None,
        }
    }

    /// A generator that gives other numbers at each start of the guest, from the seed the host
    /// passed, and other ones again in each guest that goes on from a snapshot of it. It costs no exit.
    #[must_use]
    pub fn new() -> Self {
        let mut random = Self::seeded(fold(0, &boot::page().seed));
        random.generation = Some(0);
        random
    }

    /// Begins anew if the guest has gone on from a snapshot, of which there may be others.
    fn look_around(&mut self) {
        if self.generation.is_some_and(|own| own != boot::generation_count()) {
            let generation = boot::generation();
            let seed = fold(self.state[0], &generation.seed);
            *self = Self {
                generation: Some(generation.count),
                ..Self::seeded(seed)
            };
        }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.look_around();
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `end`, all about equally likely; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((self.next_u64() as u128 * end as u128) >> 64) as u64
    }
}

/// Makes one word of a seed's.
fn fold(seed: u64, bytes: &[u8; 32]) -> u64 {
    let (words, _) = bytes.as_chunks();
    words
        .iter()
        .fold(seed, |seed, word| seed.rotate_left(21) ^ u64::from_le_bytes(*word))
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_those_of_the_published_generator() {
        let mut random = Random {
            state: [1, 2, 3, 4],
            generation: None,
        };
        let numbers: [u64; 4] = core::array::from_fn(|_| random.next_u64());
        assert_eq!(numbers, [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn numbers_stay_below_the_end_and_reach_all_below_it() {
        let mut random = Random::seeded(7);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[random.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(random.below(0), 0);
    }
}

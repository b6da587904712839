//! How long to look for something before sleeping for it.
//!
//! Who sleeps has to be woken, which costs both sides; who looks again and again hears of it at once, and keeps a
//! processor busy. To look for about as long as a sleep costs, and to sleep then, never costs more than twice of what
//! would have been best, and each who looks in vain [rests](Patience::for_how_long) from looking: the next time, then
//! for longer and longer. So where looking does not help, because nobody works meanwhile, or the host has no processor
//! free for it, next to nothing is spent on it.

/// The most times to go without a look, after many that were in vain.
const MOST_RESTS: u16 = 255;

/// Decides for one who waits again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For how long to look.
    ns: u64,
    /// How many times not to look after the next look that is in vain.
    penalty: u16,
    /// How many times not to look now.
    rests: u16,
}

impl Patience {
    /// One who looks for so many nanoseconds at the most; 0 is never.
    #[must_use]
    pub const fn new(ns: u64) -> Self {
        Self {
            ns,
            penalty: 0,
            rests: 0,
        }
    }

    /// For how many nanoseconds to look this time; 0 is not at all.
    pub const fn for_how_long(&mut self) -> u64 {
        if self.rests > 0 {
            self.rests -= 1;
            return 0;
        }
        self.ns
    }

    /// The look has found something.
    pub const fn found(&mut self) {
        self.penalty /= 2;
    }

    /// The look was in vain.
    pub const fn in_vain(&mut self) {
        self.rests = self.penalty;
        self.penalty = self.penalty * 2 + 1;
        if self.penalty > MOST_RESTS {
            self.penalty = MOST_RESTS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: u64 = 50_000;

    /// How many of so many waits look, if each look ends like this.
    fn looks(patience: &mut Patience, waits: u32, finds: bool) -> u32 {
        let mut looks = 0;
        for _ in 0..waits {
            match patience.for_how_long() {
                0 => continue,
                ns => assert_eq!(ns, NS),
            }
            looks += 1;
            if finds {
                patience.found();
            } else {
                patience.in_vain();
            }
        }
        looks
    }

    #[test]
    fn who_finds_looks_each_time() {
        assert_eq!(looks(&mut Patience::new(NS), 1000, true), 1000);
    }

    #[test]
    fn who_does_not_find_hardly_looks_any_more() {
        let mut patience = Patience::new(NS);
        assert_eq!(looks(&mut patience, 2, false), 2, "one miss is no reason to rest");
        assert_eq!(looks(&mut patience, 256, false), 7);
        assert_eq!(looks(&mut patience, 256_000, false), 1000);
    }

    #[test]
    fn it_looks_as_before_soon_after_it_finds_again() {
        let mut patience = Patience::new(NS);
        looks(&mut patience, 10_000, false);
        // At most one rest is left, and each find halves the next.
        assert!(looks(&mut patience, 264, true) >= 9);
        assert_eq!(looks(&mut patience, 100, true), 100);
        assert_eq!(looks(&mut patience, 2, false), 2);
    }

    #[test]
    fn no_time_is_no_look() {
        let mut patience = Patience::new(0);
        assert_eq!(patience.for_how_long(), 0);
        patience.in_vain();
        assert_eq!(patience.for_how_long(), 0);
    }
}

//! Where the samples of one case go.

use crate::Clock;

/// A case was measured; or why it cannot be.
pub type Done = Result<(), &'static str>;

/// Room for samples, and how many there are to be.
#[derive(Debug)]
pub struct Meter<'a> {
    samples: &'a mut [u64],
    taken: usize,
    warm_up: usize,
    operations: u32,
    budget: u64,
}

/// How many samples are taken even if time is up.
const LEAST: usize = 20;

impl<'a> Meter<'a> {
    /// For as many samples as there is room; before the first, so many are thrown away.
    ///
    /// All of the room is written, so that no page of it is touched for the first time later.
    pub fn new(samples: &'a mut [u64], warm_up: usize) -> Self {
        samples.fill(0);
        Self {
            samples,
            taken: 0,
            warm_up,
            operations: 1,
            budget: u64::MAX,
        }
    }

    /// With so much time for all samples, in ticks: when it is up, the number of samples is what it is.
    #[must_use]
    pub fn within(mut self, ticks: u64) -> Self {
        self.budget = ticks;
        self
    }

    /// How many samples there are to be.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.samples.len()
    }

    /// How many samples come first that are thrown away.
    #[must_use]
    pub fn warm_up(&self) -> usize {
        self.warm_up
    }

    /// With fewer samples, for what takes long or can be done only so often.
    pub fn at_most(&mut self, samples: usize, warm_up: usize) {
        let count = self.samples.len().min(samples);
        let all = core::mem::take(&mut self.samples);
        self.samples = &mut all[..count];
        self.warm_up = self.warm_up.min(warm_up);
    }

    /// Each sample is of so many operations.
    pub fn of(&mut self, operations: u32) {
        self.operations = operations;
    }

    /// How many operations a sample has.
    #[must_use]
    pub fn operations(&self) -> u32 {
        self.operations
    }

    /// Measures an operation, again and again.
    ///
    /// # Errors
    ///
    /// None: it is the result of a case.
    #[inline(always)]
    pub fn each<C: Clock>(&mut self, mut operation: impl FnMut()) -> Done {
        self.each_after::<C, ()>(|| (), |()| operation())
    }

    /// Measures an operation, again and again, each time after something that is not measured.
    ///
    /// # Errors
    ///
    /// None, as above.
    #[inline(always)]
    pub fn each_after<C: Clock, T>(&mut self, mut before: impl FnMut() -> T, mut operation: impl FnMut(T)) -> Done {
        self.record::<C>(|| {
            let given = before();
            let begin = C::now();
            operation(given);
            let end = C::now();
            Ok(end.wrapping_sub(begin))
        })
    }

    /// Takes samples that are measured in another way, in ticks.
    ///
    /// # Errors
    ///
    /// The first of a sample.
    #[inline(always)]
    pub fn record<C: Clock>(&mut self, mut sample: impl FnMut() -> Result<u64, &'static str>) -> Done {
        let start = C::now();
        let mut rounds = 0;
        while self.taken < self.samples.len() {
            let ticks = sample()?;
            if rounds >= self.warm_up {
                self.samples[self.taken] = ticks;
                self.taken += 1;
            }
            rounds += 1;
            if C::now().wrapping_sub(start) > self.budget {
                if self.taken >= LEAST {
                    break;
                }
                // What is warm by now has to be warm enough.
                self.warm_up = self.warm_up.min(rounds);
            }
        }
        Ok(())
    }

    /// What was measured, sorted.
    #[must_use]
    pub fn finish(self) -> &'a [u64] {
        let taken = &mut self.samples[..self.taken];
        taken.sort_unstable();
        taken
    }
}

use crate::{
    Result,
    run::{Samples, SamplesBuilder},
};

/// Samples without what the measuring itself costs: `null`, the median of an empty loop that is measured in
/// the same way, is taken from each value. A value below it becomes 0: an operation takes no negative time.
///
/// This assumes that the two add up, which fences on both sides of the operation see to. What an
/// operation overlaps with its neighbours is hidden by them, and is not seen by this method.
///
/// # Errors
///
/// Never for samples that a [`SamplesBuilder`] made.
pub fn subtract_null(samples: &Samples, null: u64) -> Result<Samples> {
    let mut builder = SamplesBuilder::default();
    for (value, times) in &samples.values {
        builder.add(value.saturating_sub(null), *times)?;
    }
    let mut less = builder.build()?;
    less.steal = samples.steal;
    less.migrations = samples.migrations;
    Ok(less)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_loses_the_null_and_none_goes_below_zero() {
        let mut samples = Samples::of([20, 25, 90, 25]).unwrap();
        samples.migrations = Some(1);
        let less = subtract_null(&samples, 24).unwrap();
        assert_eq!(less.values, [(0, 1), (1, 2), (66, 1)]);
        assert_eq!((less.count, less.sum, less.migrations), (4, 68, Some(1)));
    }
}

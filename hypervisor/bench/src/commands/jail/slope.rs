//! Whether something grows by every instance, or only moves as everything on a host does.
//!
//! The host's memory wanders: what it has after some instances is what it had before, and a step up or down. So the steps
//! are looked at, one for so many instances each. Their mean is what an instance adds, and how much they differ says how
//! well that is known.

/// How much is added by an instance, and how far off that may be, either way, in 95 of 100 cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slope {
    pub(super) each: f64,
    pub(super) uncertain: f64,
}

/// Student's t of 95 %, for at least five steps; of more it is less, down to 2.
const T: f64 = 2.6;

impl Slope {
    /// Of figures that were read each time after so many instances more; `None` of too few.
    pub(super) fn of(figures: &[f64], instances: u32) -> Option<Self> {
        let steps: Vec<_> = figures
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) / f64::from(instances))
            .collect();
        if steps.len() < 5 || instances == 0 {
            return None;
        }
        let count = steps.len() as f64;
        let each = steps.iter().sum::<f64>() / count;
        let variance = steps.iter().map(|step| (step - each).powi(2)).sum::<f64>() / (count - 1.0);
        Some(Self {
            each,
            uncertain: T * (variance / count).sqrt(),
        })
    }

    /// What is to be said of it, where less than so much is wanted.
    pub(super) fn verdict(self, goal: f64) -> &'static str {
        match self {
            Self { each, uncertain } if each + uncertain < goal => "met",
            Self { each, uncertain } if each - uncertain >= goal => "missed",
            _ => "the noise hides it: more instances (--instances), or a quieter host",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What wanders by as much as 100, to and fro.
    fn wandering(leak: f64) -> Vec<f64> {
        let noise = [0.0, 70.0, -40.0, 30.0, -90.0, 10.0, 60.0, -30.0, -10.0, 50.0, 0.0];
        let noisy = noise.iter().enumerate();
        noisy
            .map(|(count, noise)| noise + leak * 200.0 * count as f64)
            .collect()
    }

    #[test]
    fn what_only_wanders_leaks_less_than_a_kilobyte() {
        let slope = Slope::of(&wandering(0.0), 200).unwrap();
        assert!(slope.each.abs() < 0.1 && slope.uncertain < 0.9, "{slope:?}");
        assert_eq!(slope.verdict(1.0), "met");
    }

    #[test]
    fn what_grows_by_each_is_found() {
        let slope = Slope::of(&wandering(3.0), 200).unwrap();
        assert!((slope.each - 3.0).abs() < 0.1, "{slope:?}");
        assert_eq!(slope.verdict(1.0), "missed");
    }

    #[test]
    fn what_the_noise_hides_is_no_success() {
        let slope = Slope::of(&wandering(0.0), 10).unwrap();
        assert!(slope.verdict(1.0).starts_with("the noise hides it"), "{slope:?}");
        assert_eq!(Slope::of(&[1.0; 5], 10), None);
    }
}

//! Figures of one kind, and how they are printed.

/// Seconds, rates or counts, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures(Vec<f64>);

impl Figures {
    /// None as yet.
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one.
    pub(super) fn push(&mut self, value: f64) {
        let at = self.0.partition_point(|other| *other < value);
        self.0.insert(at, value);
    }

    /// The value that this part of them does not exceed.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = (part * last as f64).round() as usize;
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }

    /// The middle.
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// One divided by each.
    pub(super) fn inverse(&self) -> Self {
        Self(self.0.iter().rev().map(|value| 1.0 / value).collect())
    }

    /// Median, tenth and ninetieth percentile, in units of which 1 has `factor`.
    pub(super) fn columns(&self, factor: f64) -> String {
        let [middle, low, high] = [0.5, 0.1, 0.9].map(|part| self.quantile(part) * factor);
        format!("{middle:>9.2} {low:>9.2} {high:>9.2}")
    }

    /// The same in one cell of 24 characters; a dash if there is none.
    pub(super) fn cell(&self, factor: f64) -> String {
        if self.0.is_empty() {
            return format!("{:>24}", "–");
        }
        let decimals = match self.median() * factor {
            100.0.. => 0,
            10.0.. => 1,
            1.0.. => 2,
            _ => 3,
        };
        let figure = |part: f64| format!("{:.decimals$}", self.quantile(part) * factor);
        format!("{:>24}", format!("{} ({}-{})", figure(0.5), figure(0.1), figure(0.9)))
    }
}

/// What a figure that was to be reached is followed by.
pub(super) const fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_taken_from_sorted_figures() {
        let mut figures = Figures::default();
        for value in [5.0, 1.0, 4.0, 2.0, 3.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0] {
            figures.push(value);
        }
        assert_eq!(
            [0.0, 0.1, 0.5, 0.9, 1.0].map(|part| figures.quantile(part)),
            [1.0, 2.0, 6.0, 10.0, 11.0]
        );
        assert!(Figures::default().median().is_nan());
        assert_eq!(figures.inverse().median(), 1.0 / 6.0);
        assert_eq!(figures.cell(1.0).trim(), "6.00 (2.00-10.00)");
        assert_eq!(figures.cell(1e-2).trim(), "0.060 (0.020-0.100)");
        assert_eq!(Figures::default().cell(1.0).trim(), "–");
    }
}

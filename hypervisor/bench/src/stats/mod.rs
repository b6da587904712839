//! What follows from samples: percentiles, and how many samples are far from the others.

mod summary;

pub use summary::{Summary, outliers};

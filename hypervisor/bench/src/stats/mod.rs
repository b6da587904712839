//! What follows from samples.
//!
//! | file | what it computes |
//! |---|---|
//! | `summary` | percentiles of all samples; how many are far from the others |
//! | `interval` | what the median is, as far as the repeats can tell |
//! | `null` | samples without what the measuring itself costs |
//! | `compare` | what is different in another run, beyond noise |

mod compare;
mod interval;
mod null;
mod summary;

pub use compare::{Change, Comparison, Difference, Rule, compare, compare_case};
pub use interval::{Interval, Over, median_interval};
pub use null::subtract_null;
pub(crate) use summary::rank;
pub use summary::{Summary, outliers};

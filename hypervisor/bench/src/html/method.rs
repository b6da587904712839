use maud::{Markup, html};

use super::Column;

/// How to read the page, and how its figures came to be.
pub(super) fn section(columns: &[Column<'_>]) -> Markup {
    let subtracted = columns.iter().any(|column| column.run.calibration.is_some());
    html! {
        section.method aria-labelledby="method" {
            h2 id="method" { "How to read this" }
            dl {
                dt { "Distribution" }
                dd {
                    "All samples of a case over a logarithmic axis that its table shares. Heights are square roots of counts, so that what is rare shows. "
                    "The upright line is the median, the bar below it the interval of the median, the short line what 99 of 100 samples do not exceed, the ring the greatest."
                }
                dt { "Percentiles" }
                dd { "By nearest rank over the samples of all repeats, to three digits, rounded up. Least, greatest and mean are exact." }
                dt { "Interval of the median" }
                dd {
                    "Between two order statistics of the medians of the repeats, at least 95 % sure where there are six repeats or more; nothing is assumed of the distribution. "
                    "Of a single repeat it is taken of its samples, which do not know what the next start brings, and is too narrow."
                }
                dt { "Outliers" }
                dd { "Samples more than three interquartile ranges above the third quartile. They are counted, and kept in every figure." }
                @if subtracted {
                    dt { "Empty loop" }
                    dd { "What the measuring itself costs is the median of an empty loop, and is subtracted from each sample of the cases that count ticks." }
                }
                @if columns.len() > 1 {
                    dt { "Change" }
                    dd { "A case costs more or less if the intervals of the two medians do not overlap and the medians differ by a twentieth or more. With fewer than five repeats nothing is said." }
                }
            }
        }
    }
}

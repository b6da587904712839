//! The form that spreadsheets read (RFC 4180): a line a case, figures without units in the unit that a
//! column names, empty where nothing was measured.

use crate::{
    run::{Case, Outcome, Run},
    stats::{Summary, median_interval},
};

/// The first line.
const HEADING: &str = "kind,machine,level,group,case,cause,unit,skipped,repeats,samples,min,p50,p50_low,p50_high,\
                       p50_confidence,p90,p99,p99.9,max,mean,outliers,exits_per_operation,steal_ns,migrations\r\n";

/// All cases of all runs.
#[must_use]
pub fn csv<'a>(runs: impl IntoIterator<Item = &'a Run>) -> String {
    let lines = runs
        .into_iter()
        .flat_map(|run| run.cases.iter().map(|case| line(run, case)));
    std::iter::once(HEADING.to_owned()).chain(lines).collect()
}

fn line(run: &Run, case: &Case) -> String {
    let skipped = match &case.outcome {
        Outcome::Skipped { reason } => reason,
        Outcome::Measured(_) => "",
    };
    let mut cells: Vec<String> = vec![
        run.kind.word().into(),
        run.machine.word().into(),
        run.level.to_string(),
        quoted(&case.group),
        quoted(&case.name),
        quoted(case.cause.as_deref().unwrap_or_default()),
        case.unit.word().into(),
        quoted(skipped),
    ];
    let repeats = case.repeats();
    if let Some((s, interval)) = Summary::of(repeats).zip(median_interval(repeats)) {
        let figures = [repeats.len() as u64, s.count, s.min, s.p50, interval.low, interval.high];
        cells.extend(figures.map(|figure| figure.to_string()));
        cells.push(format!("{:.3}", interval.confidence));
        cells.extend([s.p90, s.p99, s.p999, s.max].map(|figure| figure.to_string()));
        cells.extend([format!("{:.1}", s.mean), s.outliers.to_string()]);
        cells.push(case.exits().map_or_else(String::new, |exits| format!("{exits:.3}")));
        let known = [case.steal(), case.migrations()];
        cells.extend(known.map(|sum| sum.map_or_else(String::new, |sum| sum.to_string())));
    } else {
        cells.resize(HEADING.split(',').count(), String::new());
    }
    cells.join(",") + "\r\n"
}

/// A text as one cell. Spreadsheets compute what begins like a formula: an apostrophe tells them not to.
fn quoted(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Kind, Machine, Samples, Unit};

    #[test]
    fn a_line_a_case_with_as_many_cells_as_the_heading() {
        let mut run = Run::begin(Kind::Exits, Machine::Kvm, 1);
        let mut samples = Samples::of([30, 31, 32, 5_000]).unwrap();
        samples.steal = Some(10);
        let other = samples.clone();
        run.cases
            .push(Case::measured("cpuid", "g", "w", Unit::Ticks, vec![samples, other]));
        run.cases
            .push(Case::skipped("a \"b\", c", "=1+1", "w", Unit::Ticks, "two\nlines"));
        let text = csv([&run]);
        let lines: Vec<_> = text.split("\r\n").collect();
        assert_eq!(
            lines[1],
            "exits,kvm,1,g,cpuid,,ticks,,2,8,30,31,31,31,0.500,5000,5000,5000,5000,1273.2,2,,20,"
        );
        assert_eq!(
            lines[2],
            format!(
                "exits,kvm,1,'=1+1,\"a \"\"b\"\", c\",,ticks,\"two\nlines\"{}",
                ",".repeat(16)
            )
        );
        assert_eq!(lines[1].split(',').count(), HEADING.split(',').count());
        assert_eq!(lines.len(), 4);
    }
}

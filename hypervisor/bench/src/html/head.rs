use maud::{Markup, html};

use super::{Column, mark};
use crate::{
    run::{Case, Fact, Kind, Machine, Outcome, Run, Samples, Unit},
    words::{number, percent, value},
};

/// What the page is about, in a few words.
pub(super) fn title(columns: &[Column<'_>]) -> &'static str {
    let mut kinds = columns.iter().map(|column| column.run.kind);
    let first = kinds.next();
    match first.filter(|first| kinds.all(|kind| kind == *first)) {
        Some(Kind::Exits) => "What exits cost",
        Some(Kind::Start) => "What a start costs",
        Some(Kind::Density) => "What many instances cost",
        Some(Kind::Vs) => "Chiton beside its peers",
        Some(Kind::Calls) => "What pristine calls cost",
        None => "Measurements",
    }
}

/// The head of the page: title, theme, runs, figures.
pub(super) fn head(columns: &[Column<'_>]) -> Markup {
    html! {
        header {
            div.bar {
                p.brand { "Chiton" }
                fieldset.theme {
                    legend { "Colours" }
                    @for (id, name) in [("auto", "System"), ("light", "Light"), ("dark", "Dark")] {
                        label { input type="radio" name="theme" id=(id) checked[id == "auto"]; span { (name) } }
                    }
                }
            }
            h1 { (title(columns)) }
            @for (at, column) in columns.iter().enumerate() { (lead(columns, at, column)) }
            @if let [only] = columns { (figures(only.run)) }
        }
    }
}

/// One line about a run.
fn lead(columns: &[Column<'_>], at: usize, column: &Column<'_>) -> Markup {
    let run = column.run;
    let under = match (run.machine, run.level) {
        (Machine::Kvm, _) => "hosted KVM",
        (Machine::Vmx, _) => "bare VMX",
        (Machine::Svm, _) => "bare SVM",
        (Machine::Native, _) => "no hypervisor",
    };
    html! {
        p.lead {
            (mark(columns, at))
            @if columns.len() > 1 { b { (column.label) } " · " }
            (under) ", level " (run.level)
            " · " (run.environment.cpu)
            " · Chiton " (run.chiton.version)
            @if let Fact::Known(commit) = &run.chiton.commit { " (" (commit) ")" }
            " · " time datetime=(run.started) { (run.started.replace('T', " ").replace('Z', " UTC")) }
        }
    }
}

/// What a run consists of.
fn figures(run: &Run) -> Markup {
    let skipped = run
        .cases
        .iter()
        .filter(|case| matches!(case.outcome, Outcome::Skipped { .. }));
    let skipped = skipped.count();
    let all: Vec<&Samples> = run.cases.iter().flat_map(Case::repeats).collect();
    let sum = |of: fn(&Samples) -> u64| all.iter().fold(0u64, |sum, one| sum.saturating_add(of(one)));
    // What all cases know together; nothing if none does.
    let known = |of: fn(&Case) -> Option<u64>| run.cases.iter().filter_map(of).reduce(u64::saturating_add);
    let (samples, outliers) = (sum(|one| one.count), sum(|one| one.outliers));
    let outliers = percent(outliers as f64 / samples.max(1) as f64);
    let mut figures = vec![
        (number((run.cases.len() - skipped) as u64), "cases measured"),
        (number(skipped as u64), "skipped, with reasons"),
        (number(samples), "samples"),
        (outliers, "of them outliers, kept"),
    ];
    if let Some(steal) = known(Case::steal) {
        figures.push((value(steal, Unit::Nanoseconds), "stolen by the host"));
    }
    if let Some(migrations) = known(Case::migrations) {
        figures.push((number(migrations), "migrations"));
    }
    if let Some(calibration) = run.calibration {
        figures.push((
            format!("{:.3} GHz", calibration.tsc_hz as f64 / 1e9),
            "time stamp counter",
        ));
        figures.push((
            format!("{} ticks", number(calibration.null_ticks)),
            "empty loop, subtracted",
        ));
    }
    html! {
        dl.figures {
            @for (figure, name) in figures {
                div { dt { (name) } dd { (figure) } }
            }
        }
    }
}

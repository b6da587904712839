use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::{Column, mark};
use crate::run::Fact;

/// The machines, side by side; what differs is marked.
pub(super) fn section(columns: &[Column<'_>]) -> Markup {
    let facts: Vec<_> = columns.iter().map(|column| column.run.environment.facts()).collect();
    let names: Vec<&str> = facts
        .first()
        .map_or(Vec::new(), |facts| facts.iter().map(|fact| fact.0).collect());
    html! {
        section aria-labelledby="environment" {
            h2 id="environment" { "Where" }
            div.scroll tabindex="0" role="region" aria-label="The machine" {
                table.facts {
                    (heading(columns))
                    tbody {
                        @for (at, name) in names.iter().enumerate() {
                            (line(name, facts.iter().map(|facts| facts.get(at).map(|fact| fact.1)).collect()))
                        }
                    }
                }
            }
            (folded(columns, "Mitigations", |column| &column.run.environment.mitigations))
            (folded(columns, "Parameters of KVM", |column| &column.run.environment.kvm_parameters))
        }
    }
}

fn heading(columns: &[Column<'_>]) -> Markup {
    html! {
        @if columns.len() > 1 {
            thead { tr {
                td {}
                @for (at, column) in columns.iter().enumerate() { th scope="col" { (mark(columns, at)) (column.label) } }
            } }
        }
    }
}

/// A table that is closed until asked for.
fn folded<'a>(columns: &[Column<'a>], title: &str, of: fn(&Column<'a>) -> &'a BTreeMap<String, Fact>) -> Markup {
    let names: BTreeSet<_> = columns.iter().flat_map(|column| of(column).keys()).collect();
    html! {
        @if !names.is_empty() {
            details {
                summary { (title) }
                div.scroll tabindex="0" role="region" aria-label=(title) {
                    table.facts {
                        (heading(columns))
                        tbody { @for name in names { (line(name, columns.iter().map(|column| of(column).get(name)).collect())) } }
                    }
                }
            }
        }
    }
}

fn line(name: &str, facts: Vec<Option<&Fact>>) -> Markup {
    let differs = facts.windows(2).any(|pair| pair[0] != pair[1]);
    html! {
        tr.differs[differs] {
            th scope="row" { (name) @if differs { " " span.sign title="not the same in all runs" { "≠" } } }
            @for fact in facts {
                td {
                    @match fact {
                        Some(Fact::Known(text)) => { (text) },
                        Some(Fact::Absent(reason)) => { span.absent { "not known: " (reason) } },
                        None => { span.absent { "not recorded" } },
                    }
                }
            }
        }
    }
}

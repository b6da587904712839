use super::Column;
use crate::{
    run::{Case, Unit},
    stats::{Interval, Summary, median_interval},
};

/// Cases that belong together.
pub(super) struct Group<'a> {
    pub(super) name: &'a str,
    pub(super) rows: Vec<Row<'a>>,
}

/// One case in all runs.
pub(super) struct Row<'a> {
    /// The case in the first run that has it.
    pub(super) case: &'a Case,
    /// What was measured, and in which run; in the unit of `case`.
    pub(super) measured: Vec<Measured<'a>>,
}

/// One case in one run.
pub(super) struct Measured<'a> {
    pub(super) column: usize,
    pub(super) case: &'a Case,
    pub(super) summary: Summary,
    pub(super) interval: Interval,
}

/// The cases that any of the runs measured, in the order in which they first appear.
pub(super) fn groups<'a>(columns: &[Column<'a>]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (column, Column { run, .. }) in columns.iter().enumerate() {
        for case in &run.cases {
            let repeats = case.repeats();
            let Some((summary, interval)) = Summary::of(repeats).zip(median_interval(repeats)) else {
                continue;
            };
            let at = groups
                .iter()
                .position(|group| group.name == case.group)
                .unwrap_or(groups.len());
            if at == groups.len() {
                groups.push(Group {
                    name: &case.group,
                    rows: Vec::new(),
                });
            }
            let rows = &mut groups[at].rows;
            let same = |row: &Row<'_>| row.case.name == case.name && row.case.unit == case.unit;
            let at = rows.iter().position(same).unwrap_or(rows.len());
            if at == rows.len() {
                rows.push(Row {
                    case,
                    measured: Vec::new(),
                });
            }
            rows[at].measured.push(Measured {
                column,
                case,
                summary,
                interval,
            });
        }
    }
    groups
}

/// All that was measured in a unit.
pub(super) fn of_unit<'a, 'b>(rows: impl IntoIterator<Item = &'b Row<'a>>, unit: Unit) -> Vec<&'b Measured<'a>>
where
    'a: 'b,
{
    let rows = rows.into_iter().filter(|row| row.case.unit == unit);
    rows.flat_map(|row| &row.measured).collect()
}

/// The units, in the order in which tables show them.
pub(super) const UNITS: [Unit; 4] = [Unit::Nanoseconds, Unit::Ticks, Unit::Bytes, Unit::Count];

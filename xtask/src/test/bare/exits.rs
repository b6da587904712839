//! Exits by cause, of the same guest on three machines, side by side.

use std::fmt::Write;

/// What the first table of exits begins with, after an empty line.
const TABLES: &str = "exit to host ";
/// The machines, and what the rows below are.
const HEAD: [&str; 3] = ["KVM", "VMX", "SVM"];

/// Splits what is told of a guest's end from the tables behind it, which hold times; the rows that count.
pub(super) fn split(told: &str) -> (&str, Vec<(String, u64)>) {
    let Some(at) = told.find(TABLES) else {
        return (told, Vec::new());
    };
    let (words, tables) = told.split_at(at);
    (words.trim_end_matches('\n'), tables.lines().filter_map(row).collect())
}

/// A cause, and how often: two spaces or more stand between them.
fn row(line: &str) -> Option<(String, u64)> {
    let (cause, rest) = line.split_once("  ")?;
    let count = rest.split_whitespace().next()?.parse().ok()?;
    // Each of the tables has a sum.
    (cause != "all").then(|| (cause.to_owned(), count))
}

/// The table: a row for each cause that any of the machines has.
pub(super) fn table(guest: &[&str], columns: [&[(String, u64)]; 3]) -> String {
    let mut causes: Vec<&str> = Vec::new();
    for (cause, _) in columns.into_iter().flatten() {
        if !causes.contains(&cause.as_str()) {
            causes.push(cause);
        }
    }
    let mut text = format!("{:<34}", format!("exits of `{}`", guest.join(" ")));
    for head in HEAD {
        let _ = write!(text, "{head:>10}");
    }
    for cause in causes {
        let _ = write!(text, "\n{cause:<34}");
        for column in columns {
            let count = column.iter().find(|(of, _)| of == cause);
            let count = count.map_or_else(|| "-".into(), |(_, count)| count.to_string());
            let _ = write!(text, "{count:>10}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "x panicked: no\n\nexit to host         count        total\ndoorbell kick            1   6376.1 µs\n\
                        all                      1\n\nVM exit                      count\nI/O instruction                  2\n";

    #[test]
    fn tables_are_taken_from_what_is_told() {
        let (told, rows) = split(TOLD);
        assert_eq!(told, "x panicked: no");
        assert_eq!(rows, [("doorbell kick".into(), 1), ("I/O instruction".into(), 2)]);
        assert_eq!(split("x panicked: no\n"), ("x panicked: no\n", vec![]));
    }

    #[test]
    fn a_cause_that_a_machine_does_not_have_is_a_dash() {
        let (_, rows) = split(TOLD);
        let table = table(&["x"], [&rows[..1], &rows, &[]]);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<_> = table.lines().map(words).collect();
        assert_eq!(lines[1], ["doorbell", "kick", "1", "1", "-"]);
        assert_eq!(lines[2], ["I/O", "instruction", "-", "2", "-"]);
    }
}

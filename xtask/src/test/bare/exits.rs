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

/// What begins the rows of what a guest asks for, which are the same whoever runs it.
const DOORBELLS: &str = "doorbell ";
/// The doorbell that the kernel may answer by itself.
const KICK: &str = "doorbell kick";

/// The rows of doorbells that differ. Of kicks KVM may have fewer, as the kernel can take them without an exit.
pub(super) fn differences(columns: [&[(String, u64)]; 3]) -> Vec<String> {
    let count = |column: &[(String, u64)], cause: &str| {
        let row = column.iter().find(|(of, _)| of == cause);
        row.map_or(0, |(_, count)| *count)
    };
    let mut causes: Vec<_> = columns.into_iter().flatten().map(|(cause, _)| cause.as_str()).collect();
    causes.retain(|cause| cause.starts_with(DOORBELLS));
    causes.sort_unstable();
    causes.dedup();
    if causes.is_empty() {
        return vec!["no doorbells were counted".into()];
    }
    let differs = |cause: &&str| {
        let [kvm, vmx, svm] = columns.map(|column| count(column, cause));
        vmx != svm || kvm > vmx || kvm != vmx && *cause != KICK
    };
    let told = |cause: &str| {
        format!(
            "exits by {cause} on {HEAD:?}: {:?}",
            columns.map(|column| count(column, cause))
        )
    };
    causes.into_iter().filter(differs).map(told).collect()
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
    fn doorbells_are_as_many_everywhere() {
        let rows = |kick: u64, exit: u64| {
            [
                ("doorbell kick".into(), kick),
                ("doorbell exit".into(), exit),
                ("hlt".into(), kick),
            ]
        };
        let found = |kvm: [u64; 2], vmx: [u64; 2], svm: [u64; 2]| {
            let [kvm, vmx, svm] = [kvm, vmx, svm].map(|[kick, exit]| rows(kick, exit));
            differences([&kvm, &vmx, &svm]).len()
        };
        assert_eq!(found([2, 1], [2, 1], [2, 1]), 0);
        assert_eq!(found([0, 1], [2, 1], [2, 1]), 0, "the kernel takes kicks");
        assert_eq!(found([3, 1], [2, 1], [2, 1]), 1);
        assert_eq!(found([2, 1], [2, 1], [1, 1]), 1);
        assert_eq!(found([2, 2], [2, 1], [2, 1]), 1);
        assert_eq!(differences([&[], &[], &[]]).len(), 1);
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

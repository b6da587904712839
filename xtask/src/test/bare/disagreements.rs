//! Where the entry checkers and the emulated processors disagree, and how often: as recorded, so that a reason which
//! occurs no longer, or another number of times, is noticed. The numbers in the book are those of the record.

use std::{collections::BTreeMap, fs};

use crate::{
    error::{Error, Result},
    paths,
};

/// Where they are recorded: a section for each machine, begun with a `#` and its name.
const RECORD: &str = "xtask/src/test/bare/disagreements.txt";
/// With this in the environment they are written down, instead of compared.
const WRITE: &str = "CHITON_WRITE_DISAGREEMENTS";

/// How rows of the table of outcomes begin.
const ROWS: [&str; 7] = [
    "checker ", "error 7 ", "error 8 ", "exit 33 ", "exit 34 ", "entered ", "refused ",
];

/// What counts of the words of a proof.
fn counted(words: &[String]) -> Vec<&str> {
    let of_proof = words.iter().filter_map(|line| line.strip_prefix("prove: "));
    let counts = |line: &&str| {
        let number = line
            .trim_start()
            .chars()
            .next()
            .is_some_and(|first| first.is_ascii_digit());
        number || ROWS.iter().any(|row| line.starts_with(row))
    };
    of_proof.map(str::trim_end).filter(counts).collect()
}

/// The sections of a record, by machine.
fn sections(record: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut sections = BTreeMap::new();
    let mut now = None;
    for line in record.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(name) => now = Some(name),
            None => {
                if let Some(name) = now {
                    sections.entry(name).or_insert_with(Vec::new).push(line);
                }
            }
        }
    }
    sections
}

/// Compares what a proof on this machine has said with the record.
///
/// # Errors
///
/// When it is another, or there is none.
pub(super) fn compare(named: &str, words: &[String]) -> Result<()> {
    let path = paths::root().join(RECORD);
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let mut recorded = sections(&text);
    let now = counted(words);
    let before = recorded.get(named).cloned().unwrap_or_default();
    if now == before {
        return Ok(());
    }
    if std::env::var_os(WRITE).is_none() {
        return Err(Error::Found(format!(
            "{named} disagrees with the entry checker otherwise than {RECORD} has it: if that is right, record it with \
             {WRITE}=1, correct the book, and give the reason in the commit\n{}",
            changed(&before, &now)
        )));
    }
    recorded.insert(named, now);
    let section = |(name, lines): (&str, Vec<&str>)| format!("# {name}\n{}\n", lines.join("\n"));
    let all: Vec<_> = recorded.into_iter().map(section).collect();
    fs::write(&path, all.join("\n")).map_err(Error::file("write", &path))
}

/// The lines that are gone, and those that are new.
fn changed(before: &[&str], now: &[&str]) -> String {
    let gone = before
        .iter()
        .filter(|line| !now.contains(line))
        .map(|line| format!("- {line}"));
    let new = now
        .iter()
        .filter(|line| !before.contains(line))
        .map(|line| format!("+ {line}"));
    gone.chain(new).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("disagreements.txt");

    /// A line of a reason: how often, and which.
    fn reason(line: &str) -> Option<(u32, &str)> {
        let (count, because) = line.split_once(" differ: ")?;
        Some((count.trim().parse().ok()?, because))
    }

    #[test]
    fn of_the_words_of_a_proof_those_with_numbers_count() {
        let words = [
            "prove: a VMCS broken in every way",
            "prove:    5 differ: it is so",
            "prove: 9 cases; 5 disagreements are explained",
            "prove: entered             1",
            "tsc: 7",
            "prove: as the manual says",
        ];
        let words = words.map(str::to_owned);
        assert_eq!(
            counted(&words),
            [
                "   5 differ: it is so",
                "9 cases; 5 disagreements are explained",
                "entered             1"
            ]
        );
        assert_eq!(changed(&["a", "b"], &["b", "c"]), "- a\n+ c");
    }

    #[test]
    fn all_machines_are_recorded_and_each_reason_occurs_on_one() {
        let sections = sections(TEXT);
        assert_eq!(sections.len(), 4);
        let mut most = BTreeMap::new();
        for (count, because) in sections.values().flatten().filter_map(|line| reason(line)) {
            let most: &mut u32 = most.entry(because).or_default();
            *most = count.max(*most);
        }
        assert!(most.len() > 20);
        for (because, count) in most {
            assert!(count > 0, "{because}");
        }
    }

    #[test]
    fn the_book_has_the_numbers_of_the_record() {
        let sections = sections(TEXT);
        let of = |part: &str| {
            let mut found = sections.iter().filter(|(name, _)| name.contains(part));
            found.next().map(|(_, lines)| lines.clone()).unwrap()
        };
        let (skylake, tigerlake) = (of("skylake"), of("tigerlake"));
        let checker = include_str!("../../../../docs/src/entry-checker.md");
        let svm = include_str!("../../../../docs/src/svm.md");
        for (page, lines) in [(checker, &skylake), (svm, &of("SVM"))] {
            for line in lines {
                if let Some((count, because)) = reason(line) {
                    // The emulator's name is in the head of the table.
                    let because = because.trim_start_matches("Bochs 2.7 ").trim_start_matches("QEMU 7.2 ");
                    let row = |row: &str| row.starts_with(&format!("| {count} |")) && row.contains(because);
                    assert!(count == 0 || page.lines().any(row), "{count} of {because:?}");
                } else if ROWS.iter().any(|row| line.starts_with(row)) {
                    assert!(page.lines().any(|row| row == *line), "{line:?}");
                } else if let Some((cases, _)) = line.split_once(" cases; ") {
                    assert!(page.contains(cases), "{line:?}");
                }
            }
        }
        let before: Vec<_> = skylake.iter().filter_map(|line| reason(line)).collect();
        for (count, because) in tigerlake.iter().filter_map(|line| reason(line)) {
            if before.contains(&(count, because)) {
                continue;
            }
            let because = because.trim_start_matches("Bochs 2.7 ");
            let row = |row: &str| row.starts_with(&format!("| {count} (tigerlake) |")) && row.contains(because);
            assert!(checker.lines().any(row), "{count} of {because:?} on tigerlake");
        }
    }
}

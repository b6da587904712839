//! The page of every MUST of virtio 1.3, and the tests that it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// The page, from the root of the repository.
const PAGE: &str = "docs/src/virtio-musts.md";

/// How often the text of virtio 1.3 says MUST in each section that the page is about.
#[rustfmt::skip]
const SECTIONS: &[(&str, u32)] = &[
    ("2.1.1", 3), ("2.1.2", 2),
    ("2.2.1", 7), ("2.2.2", 6),
    ("2.4.1", 2),
    ("2.5.1", 3), ("2.5.2", 1),
    ("2.6.1.1.1", 2), ("2.6.1.1.2", 1), ("2.6.1.2.1", 1), ("2.6.1.2.2", 1),
    ("2.7.1", 1), ("2.7.4.1", 1), ("2.7.4.2", 1), ("2.7.5.1", 2), ("2.7.5.2", 2), ("2.7.5.3.1", 5),
    ("2.7.5.3.2", 2), ("2.7.6.1", 1), ("2.7.7.1", 3), ("2.7.7.2", 4), ("2.7.8.1", 2), ("2.7.8.2", 1),
    ("2.7.10.1", 5), ("2.7.10.2", 3), ("2.7.13.3.1", 1), ("2.7.13.4.1", 1),
    ("2.8.11", 1), ("2.8.12", 2), ("2.8.15", 3), ("2.8.16", 3), ("2.8.17", 6), ("2.8.18", 1), ("2.8.19", 4),
    ("2.8.21.1.1", 1), ("2.8.21.3.1", 1),
    ("3.1.1", 5), ("3.3.1", 2),
    ("4.2.2.1", 12), ("4.2.2.2", 19), ("4.2.3.1.1", 6), ("4.2.3.4.1", 2),
    ("5.1.4.1", 9), ("5.1.4.2", 5), ("5.1.6.2.1", 15), ("5.1.6.2.2", 4), ("5.1.6.3.1", 1), ("5.1.6.3.2", 2),
    ("5.1.6.4.1", 19), ("5.1.6.4.2", 4), ("5.1.6.4.3", 3), ("5.1.6.4.4.4", 2), ("5.1.6.4.4.5", 3),
    ("5.1.6.5.1.1", 2), ("5.1.6.5.1.2", 2), ("5.1.6.5.2.1", 3), ("5.1.6.5.2.2", 2), ("5.1.6.5.3.1", 2),
    ("5.1.6.5.4.1", 1), ("5.1.6.5.4.2", 1), ("5.1.6.5.6", 1), ("5.1.6.5.6.1", 4), ("5.1.6.5.6.2", 3),
    ("5.1.6.5.6.4", 2), ("5.1.6.5.7.2", 5), ("5.1.6.5.7.3", 2), ("5.1.6.5.8.2", 1), ("5.1.6.5.9.5", 4),
    ("5.1.6.5.9.6", 6),
    ("5.2.5.1", 4), ("5.2.5.2", 13), ("5.2.6.1", 20), ("5.2.6.2", 22),
    ("5.3.5.1", 1), ("5.3.6.1", 2), ("5.3.6.2.1", 2), ("5.3.6.2.2", 3),
    ("5.4.6.1", 2), ("5.4.6.2", 1),
    ("5.5.3.1", 1), ("5.5.6.1", 6), ("5.5.6.3.1", 6), ("5.5.6.3.2", 2), ("5.5.6.5.1", 6), ("5.5.6.5.2", 4),
    ("5.5.6.6.1", 3), ("5.5.6.7.1", 3), ("5.5.6.7.2", 1),
    ("5.10.6.1.1", 1), ("5.10.6.1.2", 1), ("5.10.6.3.1", 2), ("5.10.6.3.2", 2), ("5.10.6.4.1", 2),
    ("5.10.6.4.2", 2), ("5.10.6.7.1", 3),
    ("6.1", 6), ("6.2", 3),
];

/// What a row without a test begins with: why there can be none.
const REASONS: &[&str] = &["not applicable", "by ", "the same", "as "];

/// A row: its section, how many MUSTs it is for, and what holds them.
type Row<'t> = (&'t str, u32, &'t str);

/// Checks that the rows of each section are for as many MUSTs as the text has, that each test they
/// name exists, and that each names one or says why not.
///
/// # Errors
///
/// A list of all that is wrong.
pub(crate) fn check(root: &Path) -> Result<()> {
    let page = root.join(PAGE);
    let text = fs::read_to_string(&page).map_err(Error::file("read", &page))?;
    let mut tests = BTreeSet::new();
    for dir in ["shared", "guest/src", "hypervisor", "tests"] {
        tests_below(&root.join(dir), &mut tests)?;
    }
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    let mut wrong = miscounted(&rows, SECTIONS);
    wrong.extend(rows.iter().filter_map(|row| unheld(row, &tests)));
    if wrong.is_empty() {
        Ok(())
    } else {
        let wrong: Vec<_> = wrong.iter().map(|what| format!("{PAGE}: {what}")).collect();
        Err(Error::Found(wrong.join("\n")))
    }
}

/// A row of one of the page's tables.
fn row(line: &str) -> Option<Row<'_>> {
    let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
    let (section, musts, _, held) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
    let musts = if musts == "–" { 0 } else { musts.parse().ok()? };
    section
        .starts_with(|c: char| c.is_ascii_digit())
        .then_some((section, musts, held))
}

/// Sections whose rows do not add up.
fn miscounted(rows: &[Row<'_>], text: &[(&str, u32)]) -> Vec<String> {
    let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for (section, musts) in text {
        counts.entry(section).or_default().0 += musts;
    }
    for (section, musts, _) in rows {
        counts.entry(section).or_default().1 += musts;
    }
    counts
        .iter()
        .filter(|(_, (text, page))| text != page)
        .map(|(section, (text, page))| format!("section {section} says MUST {text} times, its rows are for {page}"))
        .collect()
}

/// What is wrong with what a row says of its tests.
fn unheld(row: &Row<'_>, tests: &BTreeSet<String>) -> Option<String> {
    let (section, _, held) = row;
    // Names of tests are sentences; what has fewer words is a function or a field.
    let named = held
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|name| name.rsplit("::").next())
        .filter(|name| name.matches('_').count() > 1);
    let (known, unknown): (Vec<_>, Vec<_>) = named.partition(|name| tests.contains(*name));
    if let Some(name) = unknown.first() {
        return Some(format!("section {section}: there is no test {name}"));
    }
    let silent = known.is_empty() && !held.contains("fuzz target") && !REASONS.iter().any(|why| held.starts_with(why));
    silent.then(|| format!("section {section}: \"{held}\" names no test, and does not say why"))
}

/// Collects the names of all tests in a folder.
fn tests_below(dir: &Path, tests: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::file("read", dir))? {
        let path: PathBuf = entry.map_err(Error::file("read", dir))?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                tests_below(&path, tests)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
            tests.extend(tests_in(&text));
        }
    }
    Ok(())
}

/// The functions that a `#[test]` stands above.
fn tests_in(source: &str) -> impl Iterator<Item = String> {
    let mut marked = false;
    source.lines().filter_map(move |line| {
        let line = line.trim();
        if line == "#[test]" {
            marked = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            return std::mem::take(&mut marked).then(|| name.to_owned());
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
| § | MUSTs | statement | held by |
|---|---|---|---|
| 2.1 | 2 | this | mmio `a_test_of_it` |
| 2.1 | – | that, too | by type |
| 2.2 | 1 | more | mmio `m::no_such_test` |
| 2.3 | 1 | less | `a_field` |";

    #[test]
    fn rows_add_up_to_what_the_text_says() {
        let rows: Vec<_> = PAGE.lines().filter_map(row).collect();
        assert_eq!(rows[1], ("2.1", 0, "by type"));
        let text = [("2.1", 3), ("2.2", 1), ("2.4", 1)];
        assert_eq!(
            miscounted(&rows, &text),
            [
                "section 2.1 says MUST 3 times, its rows are for 2",
                "section 2.3 says MUST 0 times, its rows are for 1",
                "section 2.4 says MUST 1 times, its rows are for 0",
            ]
        );
    }

    #[test]
    fn a_row_names_a_test_that_exists_or_says_why_there_is_none() {
        let tests = tests_in("#[test]\n#[ignore]\nfn a_test_of_it() {\n}\nfn no_such_test() {}").collect();
        let said: Vec<_> = PAGE
            .lines()
            .filter_map(row)
            .filter_map(|row| unheld(&row, &tests))
            .collect();
        assert_eq!(
            said,
            [
                "section 2.2: there is no test no_such_test",
                "section 2.3: \"`a_field`\" names no test, and does not say why",
            ]
        );
    }
}

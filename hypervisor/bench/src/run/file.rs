use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    path::Path,
};

use serde::Deserialize;

use super::{Case, MAX_CASES, MAX_REPEATS, MAX_TEXT, MAX_VALUES, Outcome, Run, SCHEMA, Samples};
use crate::{Error, Result};

/// How many bytes of a file are read. The largest run of the whole suite is a hundredth of it.
const MAX_FILE: u64 = 64 << 20;

/// What every version of the schema has.
#[derive(Deserialize)]
struct Head {
    schema: String,
}

impl Run {
    /// Reads a run from a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is of another version of the schema, or is not what the schema says.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |source| Error::Read {
            path: path.into(),
            source,
        };
        let mut text = Vec::new();
        let mut file = File::open(path).map_err(failed)?.take(MAX_FILE + 1);
        file.read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_FILE {
            return Err(Error::Large {
                path: path.into(),
                limit: MAX_FILE,
            });
        }
        Self::parse(&text, path)
    }

    /// Reads a run from the text of a file; `path` is for the sentences of errors.
    ///
    /// # Errors
    ///
    /// If it is of another version of the schema, or is not what the schema says.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self> {
        let form = |source| Error::Form {
            path: path.into(),
            source,
        };
        let head: Head = serde_json::from_slice(text).map_err(form)?;
        if head.schema != SCHEMA {
            let mut found = head.schema;
            found.truncate(found.floor_char_boundary(64));
            return Err(Error::Schema {
                path: path.into(),
                found,
                wanted: SCHEMA,
            });
        }
        let run: Self = serde_json::from_slice(text).map_err(form)?;
        run.check().map_err(|what| Error::Contradiction {
            path: path.into(),
            what,
        })?;
        Ok(run)
    }

    /// The text of a file.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Maps with string keys and numbers that are finite: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Writes the run to a file; `-` is standard output.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write(path, &self.to_json())
    }

    /// Whether each part is within its limits and agrees with the others; if not, the first that does not.
    fn check(&self) -> std::result::Result<(), String> {
        if self.cases.len() > MAX_CASES {
            return Err(format!("{} cases, and at most {MAX_CASES} are read", self.cases.len()));
        }
        let mut names = std::collections::BTreeSet::new();
        for case in &self.cases {
            if !names.insert((&case.group, &case.name)) {
                return Err(format!("the case {:?} is there twice", cut(&case.name)));
            }
            check_case(case).map_err(|what| format!("case {:?}: {what}", cut(&case.name)))?;
        }
        Ok(())
    }
}

/// Writes a text to a file; `-` is standard output, whose reader may have seen enough.
///
/// # Errors
///
/// If it cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let done = if path == Path::new("-") {
        match std::io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            done => done,
        }
    } else {
        std::fs::write(path, text)
    };
    done.map_err(|source| Error::Write {
        path: path.into(),
        source,
    })
}

/// Whether there is a place for a file, before it takes minutes to find out what goes into it; `-` is standard output.
///
/// # Errors
///
/// If its folder is not there, or it is a folder itself.
pub fn check_place(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let source = match std::fs::metadata(folder) {
        Err(source) => source,
        Ok(there) if !there.is_dir() => ErrorKind::NotADirectory.into(),
        Ok(_) if path.is_dir() => ErrorKind::IsADirectory.into(),
        Ok(_) => return Ok(()),
    };
    Err(Error::Write {
        path: path.into(),
        source,
    })
}

/// The start of a text, for a sentence.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

fn check_case(case: &Case) -> std::result::Result<(), String> {
    let texts = [&case.name, &case.group, &case.what].into_iter().chain(&case.cause);
    for text in texts {
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(format!("a text of {} bytes, which must be 1 to {MAX_TEXT}", text.len()));
        }
    }
    match &case.outcome {
        Outcome::Skipped { reason } if reason.trim().is_empty() => Err("skipped without a reason".into()),
        Outcome::Skipped { reason } if reason.len() > MAX_TEXT => Err("a reason that is too long".into()),
        Outcome::Skipped { .. } => Ok(()),
        Outcome::Measured(measured) => {
            let repeats = measured.repeats.len();
            if !(1..=MAX_REPEATS).contains(&repeats) {
                return Err(format!("{repeats} repeats, which must be 1 to {MAX_REPEATS}"));
            }
            if measured
                .per_operation_exits
                .is_some_and(|exits| !exits.is_finite() || exits < 0.0)
            {
                return Err("a number of exits that is none".into());
            }
            if measured.notes.len() > 64 || measured.notes.iter().any(|note| note.len() > MAX_TEXT) {
                return Err("notes that are too long".into());
            }
            measured.repeats.iter().try_for_each(check_samples)
        }
    }
}

fn check_samples(samples: &Samples) -> std::result::Result<(), String> {
    let values = &samples.values;
    if !(1..=MAX_VALUES).contains(&values.len()) {
        return Err(format!("{} values, which must be 1 to {MAX_VALUES}", values.len()));
    }
    if !values.is_sorted_by(|one, other| one.0 < other.0) {
        return Err("values that do not rise".into());
    }
    if values.iter().any(|(_, times)| *times == 0) {
        return Err("a value that was never seen".into());
    }
    let count = values.iter().try_fold(0u64, |all, (_, times)| all.checked_add(*times));
    if count != Some(samples.count) {
        return Err(format!("its counts do not add up to {}", samples.count));
    }
    if values.first().map(|first| first.0) != Some(samples.min) || values.last().map(|last| last.0) != Some(samples.max)
    {
        return Err("the least or the greatest value is not that of the values".into());
    }
    // The sum is of exact values, these may be rounded: it lies between what the least and the greatest allow.
    let bounds = [samples.min, samples.max].map(|value| u128::from(value) * u128::from(samples.count));
    if !(bounds[0]..=bounds[1]).contains(&u128::from(samples.sum)) {
        return Err(format!("no such samples add up to {}", samples.sum));
    }
    if samples.outliers > samples.count {
        return Err("more outliers than samples".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        html::{Column, page},
        run::{Kind, Machine, Unit},
    };

    /// A run with a case of each outcome, of what a file may hold at most and least.
    fn run() -> Run {
        let mut run = Run::begin(Kind::Exits, Machine::Svm, 2);
        let repeats = [vec![0], vec![u64::MAX], vec![3, 1, 2]].map(|values| Samples::of(values).unwrap());
        let mut case = Case::measured("all", "group", "what", Unit::Ticks, repeats.into());
        case.cause = Some("VMEXIT_CPUID".into());
        case.note("a note");
        run.cases = vec![case, Case::skipped("none", "group", "what", Unit::Bytes, "a reason")];
        run
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let run = run();
        assert_eq!(Run::parse(run.to_json().as_bytes(), Path::new("x")).unwrap(), run);
    }

    #[test]
    fn another_version_is_told_by_its_name_whatever_else_it_holds() {
        let error = Run::parse(
            br#"{"schema":"chiton-bench/2","cases":7,"new":{}}"#,
            Path::new("x.json"),
        )
        .unwrap_err();
        let expected = "x.json is of schema \"chiton-bench/2\", and this chiton-bench reads \"chiton-bench/1\": \
                        measure again, or read it with the version that wrote it";
        assert_eq!(error.to_string(), expected);
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_refused_or_shown_and_nothing_else(
            damage in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(any::<u8>())), 1..6)
        ) {
            let mut text = run().to_json().into_bytes();
            for (at, byte) in damage {
                let at = at.index(text.len());
                match byte {
                    Some(byte) => text[at] = byte,
                    None => { text.remove(at); }
                }
            }
            if let Ok(run) = Run::parse(&text, Path::new("x")) {
                prop_assert!(page(&[Column::new("x", &run)]).ends_with("</html>"));
            }
        }

        #[test]
        fn a_number_that_is_changed_contradicts_the_others_or_is_shown(digits in "[0-9]{1,20}", at in any::<prop::sample::Index>()) {
            // Every place where a number begins.
            let text = run().to_json();
            let starts: Vec<_> = text.match_indices([':', '[', ',']).map(|(at, _)| at + 1).filter(|at| text.as_bytes()[*at].is_ascii_digit()).collect();
            let start = *at.get(&starts);
            let end = start + text[start..].bytes().take_while(u8::is_ascii_digit).count();
            let changed = format!("{}{digits}{}", &text[..start], &text[end..]);
            if let Ok(run) = Run::parse(changed.as_bytes(), Path::new("x")) {
                prop_assert!(page(&[Column::new("x", &run)]).ends_with("</html>"));
            }
        }
    }
}

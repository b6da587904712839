//! The program `chiton-bench` on files: good ones, bad ones, and those of another time.

// Clippy knows tests by an attribute that what helps them does not have.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use chiton_bench::run::{Case, Kind, Machine, Run, Samples, Unit};

fn bench(arguments: &[&str], folder: &Path) -> Output {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_chiton-bench"));
    bench.args(arguments).current_dir(folder).output().unwrap()
}

/// A file with a run of one case whose repeats have such medians.
fn written(folder: &Path, name: &str, medians: &[u64]) -> PathBuf {
    let repeats = medians
        .iter()
        .map(|median| Samples::of([*median, median + 1, median * 2]).unwrap());
    let mut run = Run::begin(Kind::Exits, Machine::Kvm, 1);
    run.cases = vec![
        Case::measured("cpuid", "instructions", "CPUID", Unit::Nanoseconds, repeats.collect()),
        Case::skipped(
            "wbinvd",
            "instructions",
            "WBINVD",
            Unit::Nanoseconds,
            "interpreted here",
        ),
    ];
    let path = folder.join(name);
    run.write(&path).unwrap();
    path
}

/// That it ends with 125 and one sentence, and writes nothing else.
fn refused(arguments: &[&str], folder: &Path, sentence: &str) {
    let before = fs::read_dir(folder).unwrap().count();
    let output = bench(arguments, folder);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.starts_with("chiton bench: ") && said.contains(sentence), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(fs::read_dir(folder).unwrap().count(), before);
}

#[test]
fn a_file_becomes_a_table_a_page_and_comma_separated_values() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "a.json", &[1000; 6]);
    let output = bench(&["report", "a.json"], folder.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("cpuid") && text.contains("1.00 µs") && text.contains("skipped: interpreted here"),
        "{text}"
    );
    let output = bench(&["report", "a.json", "--html", "a.html", "--csv", "-"], folder.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("kind,") && text.contains("exits,kvm,1,instructions,cpuid,"),
        "{text}"
    );
    let page = fs::read_to_string(folder.path().join("a.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
}

#[test]
fn a_change_fails_only_if_asked_to_and_never_like_an_error() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "a.json", &[1000, 1001, 1002, 1003, 1004, 1005]);
    written(folder.path(), "b.json", &[1500, 1501, 1502, 1503, 1504, 1505]);
    let compare = |arguments: &[&str]| {
        let output = bench(&[&["compare"], arguments].concat(), folder.path());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, text) = compare(&["a.json", "b.json"]);
    assert_eq!(status, Some(0));
    assert!(
        text.contains("cpuid") && text.contains("× 1.50  more") && text.contains("1 more, 0 less"),
        "{text}"
    );
    assert_eq!(compare(&["a.json", "b.json", "--fail-on-change"]).0, Some(1));
    assert_eq!(compare(&["a.json", "a.json", "--fail-on-change"]).0, Some(0));
    assert_eq!(
        compare(&["a.json", "b.json", "--fail-on-change", "--least", "60"]).0,
        Some(0)
    );
    refused(
        &["compare", "a.json", "c.json", "--fail-on-change"],
        folder.path(),
        "cannot read c.json",
    );
}

#[test]
fn a_file_of_another_version_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("new.json"),
        r#"{"schema":"chiton-bench/2","what":"is new"}"#,
    )
    .unwrap();
    let sentence = r#"new.json is of schema "chiton-bench/2", and this chiton-bench reads "chiton-bench/1""#;
    refused(&["report", "new.json", "--html", "x.html"], folder.path(), sentence);
}

#[test]
fn what_is_no_measurement_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = written(folder.path(), "a.json", &[1000; 6]);
    let good = fs::read_to_string(good).unwrap();
    let bad = [
        ("", "EOF"),
        ("[]", "is no measurement"),
        ("\0\0\0", "is no measurement"),
        (&good[..good.len() / 2], "is no measurement"),
        (&good.replace("\"level\":1", "\"level\":-1"), "is no measurement"),
        (
            &good.replace("\"level\":1", "\"level\":1,\"more\":1"),
            "unknown field `more`",
        ),
        (
            &good.replace("\"count\":3", "\"count\":4"),
            "case \"cpuid\": its counts do not add up to 4",
        ),
        (
            &good.replace("\"interpreted here\"", "\" \""),
            "case \"wbinvd\": skipped without a reason",
        ),
        (
            &good.replace("\"wbinvd\"", "\"cpuid\""),
            "the case \"cpuid\" is there twice",
        ),
        (&good.replace("[[1000,1],", "[[1000,0],"), "a value that was never seen"),
        (
            &good.replace("\"sum\":4001", "\"sum\":1"),
            "no such samples add up to 1",
        ),
        (&format!("{{\"schema\":{}", "[".repeat(100_000)), "is no measurement"),
        (
            &good.replace("\"cases\":", &format!("\"cases\":{}", "[".repeat(100_000))),
            "is no measurement",
        ),
    ];
    for (text, sentence) in bad {
        assert_ne!(text, good, "{sentence}");
        fs::write(folder.path().join("bad.json"), text).unwrap();
        refused(&["report", "bad.json"], folder.path(), sentence);
    }
    refused(
        &["report", "/dev/zero"],
        folder.path(),
        "/dev/zero is larger than 67108864 bytes",
    );
    refused(&["report", "."], folder.path(), "cannot read .");
}

#[test]
fn a_page_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "a.json", &[1000; 6]);
    refused(
        &["report", "a.json", "--html", "no/such/folder.html"],
        folder.path(),
        "cannot write no/such/folder.html",
    );
}

#[test]
fn what_could_not_be_written_is_not_measured() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("there")).unwrap();
    for (option, path) in [
        ("--json", "no/such.json"),
        ("--csv", "no/such.csv"),
        ("--html", "there"),
    ] {
        let arguments = ["exits", "cpuid", "--vmexit", "/nonexistent", option, path];
        refused(&arguments, folder.path(), &format!("cannot write {path}"));
    }
    let nested = ["nested", "--vmexit", "/nonexistent", "--native", "no/such.json"];
    refused(&nested, folder.path(), "cannot write no/such.json");
}

#[test]
fn what_is_not_understood_is_an_error_and_help_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let status = |arguments: &[&str]| bench(arguments, folder.path()).status.code();
    assert_eq!(status(&["fly"]), Some(125));
    assert_eq!(status(&["compare", "a.json"]), Some(125));
    assert_eq!(status(&["compare", "a.json", "b.json", "--least", "-1"]), Some(125));
    assert_eq!(status(&["report", "--help"]), Some(0));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "a.json", &[1000; 6]);
    for arguments in [
        &["exits", "--list"][..],
        &["report", "a.json"],
        &["report", "a.json", "--csv", "-"],
        &["compare", "a.json", "a.json"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut bench = Command::new(env!("CARGO_BIN_EXE_chiton-bench"));
        bench.args(arguments).current_dir(folder.path()).stdout(writer);
        let output = bench.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

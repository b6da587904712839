//! `chiton bench` becomes the program `chiton-bench`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use chiton_tests::{Folder, chiton_path};

/// A `chiton` with nothing beside it, asked for a measurement; `path` is where programs are.
fn bench(folder: &Folder, path: &Path) -> Output {
    let mut chiton = folder.path("chiton");
    if !chiton.exists() {
        chiton = folder.program(&chiton_path(), "chiton");
    }
    let mut bench = Command::new(chiton);
    bench
        .args(["bench", "exits", "--json", "-"])
        .env("PATH", path)
        .output()
        .expect("it starts")
}

/// Something that says how it was called, and ends with a status of its own.
fn stand_in(folder: &Folder, file: &str, name: &str) {
    let _ = folder.script(file, &format!("echo {name} \"$@\"\nexit 7"));
}

#[test]
fn without_the_program_it_says_which_is_missing_and_how_to_build_it() {
    let folder = Folder::new();
    let output = bench(&folder, &folder.path("nothing"));
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "chiton: the program chiton-bench is neither beside this chiton nor in PATH; \
                    `cargo build --release --package chiton-bench` builds it\n";
    assert_eq!(said, expected);
}

#[test]
fn the_one_beside_it_comes_before_the_one_in_path() {
    let folder = Folder::new();
    let elsewhere = folder.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    stand_in(&folder, "elsewhere/chiton-bench", "in PATH:");
    let said = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();

    let output = bench(&folder, &elsewhere);
    assert_eq!(
        (output.status.code(), said(&output).as_str()),
        (Some(7), "in PATH: exits --json -\n")
    );

    stand_in(&folder, "chiton-bench", "beside:");
    let output = bench(&folder, &elsewhere);
    assert_eq!(
        (output.status.code(), said(&output).as_str()),
        (Some(7), "beside: exits --json -\n")
    );
}

#[test]
fn one_that_cannot_be_run_is_named() {
    let folder = Folder::new();
    let beside = folder.path("chiton-bench");
    fs::write(&beside, "no program").unwrap();
    let output = bench(&folder, Path::new("/nowhere"));
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = format!(
        "chiton: cannot run {}: Permission denied (os error 13)\n",
        beside.display()
    );
    assert_eq!(said, expected);
}

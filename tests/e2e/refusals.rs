//! What cannot run is refused: one sentence, status 125, nothing left behind.

use std::path::Path;

use chiton_tests::{Chiton, Folder, Run, few, guest_path};

fn run_file(path: &Path) -> Run {
    Chiton::new().args(["run"]).args([path]).run()
}

fn hello() -> Vec<u8> {
    std::fs::read(guest_path("hello")).expect("the guest is built")
}

/// `hello` with some of its bytes replaced.
fn changed(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = hello();
    for (at, new) in changes {
        bytes[*at..at + new.len()].copy_from_slice(new);
    }
    bytes
}

/// Offset in the file of the first program header that satisfies this.
fn program_header(bytes: &[u8], wanted: impl Fn(&[u8]) -> bool) -> usize {
    let table = u64::from_le_bytes(bytes[32..40].try_into().expect("8 bytes")) as usize;
    let count = u16::from_le_bytes(bytes[56..58].try_into().expect("2 bytes")) as usize;
    (0..count)
        .map(|i| table + 56 * i)
        .find(|at| wanted(&bytes[*at..at + 56]))
        .expect("such a header")
}

fn is_load(header: &[u8]) -> bool {
    header[0..4] == [1, 0, 0, 0]
}

fn is_text(header: &[u8]) -> bool {
    is_load(header) && header[4] & 1 != 0
}

#[test]
fn files_that_are_no_guest() {
    let folder = Folder::new();
    let refuse = |name: &str, bytes: &[u8], words: &str| {
        run_file(&folder.file(name, bytes)).assert_refused(words);
    };
    refuse("script", b"#!/bin/sh\nexit 0\n", "not an ELF file");
    refuse("empty", b"", "the file is empty");
    refuse("bits", &changed(&[(4, &[1])]), "32-bit");
    refuse("machine", &changed(&[(18, &[183, 0])]), "AARCH64");
    refuse("type", &changed(&[(16, &[1, 0])]), "an object file");
}

#[test]
fn a_file_that_is_cut_short_is_refused_wherever_it_is_cut() {
    let folder = Folder::new();
    let bytes = hello();
    // Every prefix is tried where that costs no process (chiton-core's own tests); here some.
    for part in few(&[8, 1, 15, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14], 3) {
        let len = bytes.len() * part / 16;
        run_file(&folder.file("cut", &bytes[..len])).assert_refused(&format!("ends too early, at byte {len}"));
    }
    run_file(&folder.file("cut", &bytes[..bytes.len() - 1])).assert_refused("ends too early");
}

#[test]
fn segments_and_entries_that_are_not_safe() {
    let folder = Folder::new();
    let bytes = hello();
    let text = program_header(&bytes, is_text);
    run_file(&folder.file("wx", changed(&[(text + 4, &[7])]))).assert_refused("writable and executable");
    run_file(&folder.file("huge", changed(&[(text + 40, &[0xff; 7])])))
        .assert_refused("reaches beyond the address space");
    run_file(&folder.file("entry", changed(&[(24, &[0; 8])]))).assert_refused("entry");
    run_file(&folder.file("overlap", changed(&[(text + 16, &[0; 8])]))).assert_refused("overlap");
}

#[test]
fn manifests_that_cannot_be_met() {
    let folder = Folder::new();
    let bytes = hello();
    let note = program_header(&bytes, |h| h[0..4] == [4, 0, 0, 0]);
    let at = u64::from_le_bytes(bytes[note + 8..note + 16].try_into().expect("8 bytes")) as usize;
    let descriptor = at + 20;
    let refuse = |name: &str, changes: &[(usize, &[u8])], words: &str| {
        run_file(&folder.file(name, changed(changes))).assert_refused(words);
    };
    refuse("none", &[(at + 12, b"nobody")], "no manifest");
    refuse("abi", &[(descriptor, &[99])], "ABI version 99");
    refuse("ring", &[(descriptor + 4, &[2])], "ring 2");
    refuse("feature", &[(descriptor + 13, &[0x80])], "feature");
    refuse("stack", &[(descriptor + 24 + 6, &[0xff])], "more than any memory has");
    refuse("heap", &[(descriptor + 32 + 3, &[1])], "--memory");
}

#[test]
fn memory_that_is_too_small_or_absurd() {
    let run = |memory: &str| Chiton::new().args(["run", "--memory", memory]).guest("hello").run();
    run("1M").assert_refused("--memory");
    run("4097").assert_refused("--memory");
    run("0").assert_refused("--memory");
    run("900000G").assert_refused("--memory");
    run("x").assert_status(125).assert_says("is not a size");
}

#[test]
fn guests_that_are_not_there_or_no_files() {
    run_file(Path::new("/nonexistent/guest")).assert_refused("cannot read the guest");
    run_file(Path::new("/")).assert_refused("not a regular file");
    run_file(Path::new("/dev/zero")).assert_refused("not a regular file");
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let long = "x".repeat(100_000);
    Chiton::new()
        .args(["run"])
        .guest("hello")
        .args([&long])
        .run()
        .assert_refused("argument");
}

#[test]
fn no_kvm_and_no_permission_on_it_say_what_to_do() {
    let refuse = |path: &str, words: &str| {
        let output = std::process::Command::new(chiton_tests::chiton_path())
            .args(["run", "--kvm", path])
            .arg(guest_path("hello"))
            .output()
            .expect("chiton starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    };
    refuse("/nonexistent/kvm", "modprobe");
    refuse("/dev/null", "cannot be used");
}

#[test]
fn somebody_without_permission_on_kvm_is_told_about_its_group() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let folder = Folder::new();
    let device = folder.file("kvm", b"");
    std::fs::set_permissions(&device, std::fs::Permissions::from_mode(0o000)).expect("own file");
    let copy = |from: std::path::PathBuf, name: &str| folder.program(&from, name);
    let mut command = std::process::Command::new(copy(chiton_tests::chiton_path(), "chiton"));
    command
        .args(["run", "--no-jail", "--kvm"])
        .arg(device)
        .arg(copy(guest_path("hello"), "hello"));
    if chiton_tests::is_root() {
        command.uid(65534).gid(65534);
    }
    let output = command.output().expect("chiton starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(
        said.contains("no permission to open") && said.contains("group"),
        "{said}"
    );
}

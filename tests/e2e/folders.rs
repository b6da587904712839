//! Folders: a guest sees the files it was given, and nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use chiton_tests::{Chiton, Folder, Run, is_root, kvm_works, slow};

/// A folder named `shared` to give to a guest, in one that it must not see.
struct Place {
    outer: Folder,
}

impl Place {
    fn new() -> Self {
        let outer = Folder::new();
        fs::create_dir_all(outer.path("shared/sub/deep")).expect("a folder");
        for (path, text) in [
            ("secret", "the needle outside\n"),
            ("shared/one", "nothing\na needle here\n"),
            ("shared/sub/two", "needle\nneedles"),
            ("shared/sub/deep/three", "no such word\n"),
        ] {
            let _ = outer.file(path, text);
        }
        Self { outer }
    }

    fn run(&self, access: &str, guest: &str, args: &[&str]) -> Run {
        let folder = format!("{}{access}", self.outer.path("shared").display());
        let run = Chiton::new().args(["run", "--folder", &folder]).guest(guest);
        run.args(args).run()
    }

    fn files(&self, args: &[&str]) -> Run {
        self.run(":rw", "files", args)
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.outer.path(path)).expect("a file")
    }
}

#[test]
fn grep_finds_what_there_is() {
    if !kvm_works() {
        return;
    }
    let place = Place::new();
    for args in [&["needle"][..], &["needle", "shared"], &["needle", "/"]] {
        let run = place.run("", "grep", args);
        run.assert_status(0);
        let text = run.stdout_text();
        let mut lines: Vec<_> = text.lines().map(|line| line.trim_start_matches('/')).collect();
        lines.sort_unstable();
        let expected = [
            "shared/one:2:a needle here",
            "shared/sub/two:1:needle",
            "shared/sub/two:2:needles",
        ];
        assert_eq!(lines, expected, "{run}");
    }
    let run = place.run("", "grep", &["needle", "shared/sub/two"]);
    assert_eq!(run.stdout_text().lines().count(), 2, "{run}");
    let run = place.run("", "grep", &["haystack"]);
    run.assert_status(1);
    assert!(run.stdout.is_empty() && run.stderr.is_empty(), "{run}");
    place
        .run("", "grep", &["needle", "shared/none"])
        .assert_status(1)
        .assert_says("shared/none: there is no such file");
    place
        .run("", "grep", &["needle", "secret"])
        .assert_status(1)
        .assert_says("no such folder");
}

#[test]
fn a_guest_writes_moves_and_removes_where_it_may() {
    if !kvm_works() {
        return;
    }
    let place = Place::new();
    place.files(&["write", "shared/new", "some text"]).assert_status(0);
    assert_eq!(place.text("shared/new"), "some text");
    place.files(&["write", "shared/new", "less"]).assert_status(0);
    assert_eq!(place.text("shared/new"), "less");
    let run = place.files(&["read", "shared/new"]);
    assert_eq!(run.assert_status(0).stdout_text(), "less");
    place.files(&["mkdir", "shared/made"]).assert_status(0);
    place
        .files(&["rename", "shared/new", "shared/made/moved"])
        .assert_status(0);
    assert_eq!(place.text("shared/made/moved"), "less");
    let run = place.files(&["remove", "shared/made"]);
    run.assert_status(1)
        .assert_says("shared/made: the directory is not empty");
    place.files(&["remove", "shared/made/moved"]).assert_status(0);
    place.files(&["remove", "shared/made"]).assert_status(0);
    assert!(!place.outer.path("shared/made").exists());
    let run = place.files(&["list", "shared"]);
    assert_eq!(run.stdout_text(), "file one\ndirectory sub\n", "{run}");
}

#[test]
fn a_folder_is_read_only_unless_told_otherwise() {
    if !kvm_works() {
        return;
    }
    let place = Place::new();
    for access in ["", ":ro"] {
        for args in [
            &["write", "shared/new", "x"][..],
            &["write", "shared/one", "x"],
            &["mkdir", "shared/new"],
            &["rename", "shared/one", "shared/new"],
            &["remove", "shared/one"],
        ] {
            place
                .run(access, "files", args)
                .assert_status(1)
                .assert_says("the folder is read-only; start the guest with --folder PATH:rw");
        }
    }
    assert_eq!(place.text("shared/one"), "nothing\na needle here\n");
    assert!(!place.outer.path("shared/new").exists());
}

#[test]
fn nothing_leads_out_of_a_folder() {
    if !kvm_works() {
        return;
    }
    let place = Place::new();
    let link = |target: &Path, name: &str| symlink(target, place.outer.path(name)).expect("a link");
    link(&place.outer.path("secret"), "shared/absolute");
    link(Path::new("../secret"), "shared/relative");
    link(Path::new(".."), "shared/up");
    link(Path::new("one"), "shared/inside");
    link(&place.outer.path("created"), "shared/dangling");
    for name in ["absolute", "relative", "inside", "dangling"] {
        let path = format!("shared/{name}");
        place
            .files(&["read", &path])
            .assert_status(1)
            .assert_says("symbolic link");
        place
            .files(&["write", &path, "x"])
            .assert_status(1)
            .assert_says("symbolic link");
    }
    place.files(&["read", "shared/up/secret"]).assert_status(1);
    place.files(&["write", "shared/up/new", "x"]).assert_status(1);
    place.files(&["mkdir", "shared/up/new"]).assert_status(1);
    place.files(&["rename", "shared/one", "shared/up/new"]).assert_status(1);
    place
        .files(&["read", "shared/../secret"])
        .assert_status(1)
        .assert_says("`..`");
    assert!(!place.outer.path("created").exists() && !place.outer.path("new").exists());
    assert_eq!(place.text("secret"), "the needle outside\n");
    let run = place.files(&["list", "shared"]);
    assert!(run.stdout_text().contains("link absolute\n"), "{run}");
    // A search does not follow them either, and a link can be removed without its target.
    let run = place.run("", "grep", &["outside"]);
    run.assert_status(1);
    place.files(&["remove", "shared/absolute"]).assert_status(0);
    assert_eq!(place.text("secret"), "the needle outside\n");
}

#[test]
fn what_is_no_file_is_seen_and_not_opened() {
    if !kvm_works() {
        return;
    }
    let place = Place::new();
    let fifo = std::ffi::CString::new(place.outer.path("shared/fifo").into_os_string().into_encoded_bytes());
    // SAFETY: a path that ends in zero; nothing else is passed.
    let made = unsafe { libc::mkfifo(fifo.expect("no zero in it").as_ptr(), 0o600) };
    assert_eq!(made, 0, "a FIFO");
    let _socket = std::os::unix::net::UnixListener::bind(place.outer.path("shared/socket")).expect("a socket");
    let mut names = vec!["shared/fifo", "shared/socket"];
    if is_root() {
        let null = std::ffi::CString::new(place.outer.path("shared/null").into_os_string().into_encoded_bytes());
        // SAFETY: as above; the node is that of /dev/null.
        let made = unsafe {
            libc::mknod(
                null.expect("no zero in it").as_ptr(),
                libc::S_IFCHR | 0o666,
                libc::makedev(1, 3),
            )
        };
        assert_eq!(made, 0, "a device node");
        names.push("shared/null");
    }
    for name in names {
        for args in [&["read", name][..], &["write", name, "x"]] {
            place
                .files(args)
                .assert_status(1)
                .assert_says("neither a file nor a directory");
        }
    }
    place
        .files(&["read", "shared/sub"])
        .assert_status(1)
        .assert_says("is a directory");
    place
        .files(&["list", "shared/one"])
        .assert_status(1)
        .assert_says("not a directory");
}

#[test]
fn large_files_and_directories_come_whole() {
    if !kvm_works() {
        return;
    }
    let place = Place::new();
    let bytes = if slow() { 300_000 } else { 20_000_003 };
    let run = place.files(&["fill", "shared/large", &bytes.to_string()]);
    assert_eq!(
        run.assert_status(0).stdout_text(),
        format!("{bytes} bytes, as written\n")
    );
    let written = fs::read(place.outer.path("shared/large")).expect("a file");
    assert!(written.len() == bytes && written.iter().enumerate().all(|(i, byte)| *byte == (i / 16) as u8));
    let count = if slow() { 300 } else { 2000 };
    for i in 0..count {
        let _ = place
            .outer
            .file(&format!("shared/sub/deep/a-file-with-a-long-name-{i}"), "");
    }
    let run = place.files(&["list", "shared/sub/deep"]);
    assert_eq!(run.stdout_text().lines().count(), count + 1, "{}", run.stderr_text());
}

#[test]
fn folders_that_cannot_be_used_are_refused_with_what_to_do() {
    let place = Place::new();
    let refuse = |folders: &[&str], words: &str| {
        let options = folders.iter().flat_map(|folder| ["--folder", folder]);
        let run = Chiton::new().args(["run"]).args(options).guest("hello").run();
        run.assert_refused(words);
    };
    let path = |name: &str| place.outer.path(name).to_str().expect("utf-8").to_owned();
    refuse(&[&path("none")], "does not exist: make it with `mkdir");
    refuse(&[&path("secret")], "is not a folder");
    refuse(&["/proc"], "is in /proc");
    refuse(&[&path("shared"), &path("shared")], "two folders are called shared");
    let long = path(&"x".repeat(40));
    fs::create_dir(&long).expect("a folder");
    refuse(&[&long], "rename it");
}

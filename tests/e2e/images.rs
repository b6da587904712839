//! Images, by the command line.

use std::path::PathBuf;
use std::process::Command;

use chiton_tests::{Chiton, Folder, Run, busybox, guest_path, is_installed};

/// A store of its own.
struct Home(Folder);

impl Home {
    fn new() -> Self {
        Self(Folder::new())
    }

    fn chiton(&self) -> Chiton {
        Chiton::new().env("CHITON_HOME", self.0.path("home"))
    }

    fn image(&self, args: &[&str]) -> Run {
        self.chiton().args(["image"]).args(args).run()
    }

    /// Builds `hello` with a file, and returns the digest.
    fn hello(&self, name: &str) -> String {
        let guest = guest_path("hello").display().to_string();
        let file = self.0.file("greeting", "good morning\n").display().to_string();
        let run = self.image(&[
            "build",
            "-t",
            name,
            "--guest",
            &guest,
            "--file",
            &format!("{file}:/etc/greeting"),
            "--env",
            "A=b",
            "--arg",
            "world",
        ]);
        run.assert_status(0);
        run.stdout_text()
            .trim()
            .rsplit(' ')
            .next()
            .expect("a digest")
            .to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn assert_whole(&self) {
        let run = self.chiton().args(["doctor", "--store"]).run();
        assert!(run.stdout_text().starts_with("ok "), "{run}");
        run.assert_status(0);
    }
}

#[test]
fn an_image_is_built_shown_and_removed() {
    let home = Home::new();
    let digest = home.hello("hello");
    assert_eq!(home.hello("again"), digest, "the same input gives the same image");
    let list = home.image(&["ls"]);
    for words in ["hello:latest", "again:latest", "guest", &digest[7..19]] {
        assert!(list.stdout_text().contains(words), "{list}");
    }
    let shown = home.image(&["inspect", "hello"]).stdout_text();
    for words in [
        "/guest/hello",
        "A=b",
        "world",
        "docker.io/library/hello:latest",
        "org.chiton.guest",
        &digest,
    ] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    assert!(
        home.image(&["history", "hello"])
            .stdout_text()
            .contains("chiton image build")
    );
    let changes = home.image(&["diff", "hello"]).stdout_text();
    assert_eq!(changes, "A /etc\nA /etc/greeting\nA /guest\nA /guest/hello\n");
    home.image(&["rm", "hello"]).assert_status(0);
    // The other name keeps it.
    home.image(&["inspect", &digest[7..15]]).assert_status(0);
    home.assert_whole();
    home.image(&["rm", "again"]).assert_status(0);
    assert_eq!(home.image(&["ls", "-q"]).stdout_text(), "");
    let blobs = std::fs::read_dir(home.path("home/images/blobs/sha256")).expect("the store is there");
    assert_eq!(blobs.count(), 0, "a blob is left");
    home.assert_whole();
}

#[test]
fn an_image_goes_out_and_comes_back() {
    let home = Home::new();
    let digest = home.hello("hello:1");
    let other = Home::new();
    for format in ["oci-archive", "oci", "docker-archive"] {
        let path = home.path(format).display().to_string();
        home.image(&["export", "hello:1", "-o", &path, "-f", format])
            .assert_status(0);
        let back = other.image(&["import", &path, "-t", &format!("back:{format}")]);
        back.assert_status(0);
        // What docker saves has no manifest, so that is written anew.
        assert_eq!(
            back.stdout_text().contains(&digest),
            format != "docker-archive",
            "{back}"
        );
        assert_eq!(
            other
                .image(&["diff", &format!("back:{format}")])
                .stdout_text()
                .lines()
                .count(),
            4
        );
    }
    assert_eq!(
        other.image(&["diff", "back:oci", "back:docker-archive"]).stdout_text(),
        ""
    );
    other.assert_whole();
}

/// Nothing in it says that it is a guest's but the program itself.
#[test]
fn an_image_that_another_tool_has_made_of_a_guest_runs() {
    if !chiton_tests::is_root() || !is_installed("umoci") || !busybox() {
        return;
    }
    let home = Home::new();
    let layout = home.path("layout").display().to_string();
    let umoci = |args: &[&str]| {
        let run = Command::new("umoci").args(args).output().expect("umoci starts");
        assert!(run.status.success(), "{args:?}: {run:?}");
    };
    umoci(&["init", "--layout", &layout]);
    let hello = guest_path("hello").display().to_string();
    for (name, program) in [("guest", hello.as_str()), ("process", "/bin/busybox")] {
        let image = format!("{layout}:{name}");
        umoci(&["new", "--image", &image]);
        let bundle = home.path(name);
        umoci(&["unpack", "--image", &image, &bundle.display().to_string()]);
        std::fs::copy(program, bundle.join("rootfs/it")).expect("a copy");
        umoci(&["repack", "--image", &image, &bundle.display().to_string()]);
        umoci(&["config", "--image", &image, "--config.entrypoint", "/it"]);
    }
    home.image(&["import", &layout]).assert_status(0);
    let jailed = |name: &str| {
        let run = home.chiton().jailed(&home.path("home"));
        run.args(["run", "--rm", &format!("layout:{name}")]).run()
    };
    let ran = jailed("guest");
    ran.assert_status(0);
    assert!(ran.stdout_text().starts_with("Hello from ring"), "{ran}");
    let refused = jailed("process");
    refused.assert_status(125);
    let said = refused.stderr_text();
    assert!(said.contains("layout:process is none of a guest"), "{said}");
    home.assert_whole();
}

#[test]
fn archives_come_compressed_and_by_a_pipe_and_have_names() {
    let home = Home::new();
    let digest = home.hello("hello:1");
    let archive = home.path("archive").display().to_string();
    home.image(&["export", "hello:1", "-o", &archive]).assert_status(0);
    let exported = home.image(&["export", "hello:1", "-o", "-"]);
    exported.assert_status(0);
    let mut archives = vec![exported.stdout.clone()];
    for program in ["gzip", "zstd"] {
        if chiton_tests::is_installed(program) {
            let output = Command::new(program)
                .args(["-c", &archive])
                .output()
                .expect("it starts");
            assert!(output.status.success());
            archives.push(output.stdout);
        }
    }
    for (index, archive) in archives.into_iter().enumerate() {
        let other = Home::new();
        let name = format!("piped:{index}");
        let run = other
            .chiton()
            .args(["image", "import", "-", "-t", &name])
            .stdin(archive)
            .run();
        run.assert_status(0);
        assert_eq!(run.stdout_text(), format!("{name} {digest}\n"));
        other.assert_whole();
    }
    home.image(&["tag", "hello:1", "again"]).assert_status(0);
    home.image(&["tag", "none", "again"]).assert_status(125);
    let listed = home.image(&["ls", "--json"]).stdout_text();
    for words in [
        "again:latest\"",
        "hello:1\"",
        "\"guest\": true",
        "\"layers\": 1",
        digest.as_str(),
    ] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    home.image(&["rm", "hello:1"]).assert_status(0);
    let left = home.image(&["ls", "--quiet"]).stdout_text();
    assert_eq!(left, format!("{digest}\n"));
    home.assert_whole();
}

#[test]
fn what_cannot_be_done_with_images_is_one_sentence() {
    let home = Home::new();
    let text = home.0.file("text", "#!/bin/sh\n").display().to_string();
    let refused = |args: &[&str], words: &str| {
        home.image(args).assert_refused(words);
    };
    refused(&["inspect", "nothing"], "there is no image `nothing`");
    refused(&["rm", "nothing"], "there is no image");
    refused(&["inspect", "Not/A:Name:"], "is no image name");
    refused(&["import", "/nonexistent"], "cannot open /nonexistent");
    refused(&["import", &text], "no tar archive");
    refused(&["build", "-t", "x", "--guest", &text], "not an ELF file");
    refused(&["pull", "127.0.0.1:1/x"], "cannot connect");
    refused(&["push", "127.0.0.1:1/x"], "there is no image");
    for args in [
        &["build", "-t", "A!", "--guest", "x"][..],
        &["nonsense"],
        &["build", "-t", "x", "--guest", "x", "--file", "y"],
    ] {
        home.image(args).assert_status(125);
    }
    home.image(&["--help"]).assert_status(0);
    home.assert_whole();
}

#[test]
fn a_damaged_store_is_found() {
    let home = Home::new();
    home.hello("hello");
    let blobs = home.path("home/images/blobs/sha256");
    let largest = std::fs::read_dir(blobs)
        .expect("the store is there")
        .map(|entry| entry.expect("an entry").path())
        .max_by_key(|path| std::fs::metadata(path).map_or(0, |found| found.len()))
        .expect("a blob");
    let mut bytes = std::fs::read(&largest).expect("a blob");
    bytes[100] ^= 1;
    std::fs::write(&largest, bytes).expect("it can be changed");
    let run = home.chiton().args(["doctor", "--store"]).run();
    run.assert_status(1);
    assert!(run.stdout_text().contains("does not have the digest"), "{run}");
    home.image(&["diff", "hello"])
        .assert_refused("does not have the digest");
    // Made again, it is repaired.
    home.hello("hello");
    home.assert_whole();
}

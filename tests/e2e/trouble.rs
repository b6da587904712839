//! A host in trouble: a disk that is full or cannot be written, no ids left, a name that several want. Each is told in
//! a sentence, and leaves nothing.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use chiton_tests::{Record, guest_path, is_root, kvm_works};

/// A record of its own.
struct Home(Record);

impl Home {
    /// `None`, with the reason said, where jails cannot be made as root makes them.
    fn new() -> Option<Self> {
        Self::with([])
    }

    /// The same, with variables for all commands.
    fn with(environment: impl IntoIterator<Item = (&'static str, String)>) -> Option<Self> {
        if !kvm_works() {
            return None;
        }
        if !is_root() {
            assert!(std::env::var_os("CHITON_STRICT").is_none(), "root is required here");
            println!("SKIPPED: not root");
            return None;
        }
        let home = Self(Record::new(environment));
        fs::create_dir(home.path()).expect("a new folder");
        Some(home)
    }

    fn path(&self) -> PathBuf {
        self.0.home()
    }

    fn output(&self, args: &[&str]) -> Output {
        self.0.output(args)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.0.ok(args)
    }

    /// Has to be refused, in one sentence with these words.
    #[track_caller]
    fn refused(&self, args: &[&str], words: &str) {
        let output = self.output(args);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(125), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(
            said.starts_with("chiton: ") && said.trim_end().lines().count() == 1,
            "{said}"
        );
    }

    /// What is in a folder of the record.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path().join(folder)).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[track_caller]
    fn assert_empty(&self) {
        self.ok(&["prune"]);
        for folder in ["instances", "names", "live", "images/tmp"] {
            assert_eq!(self.names(folder), [""; 0], "{folder}");
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A small disk in memory, which this thread sees, and what it starts.
struct Disk(CString);

impl Disk {
    fn mount(place: &Path, size: &str) -> Self {
        let c = |text: &str| CString::new(text).expect("no NUL");
        let (place, options) = (c(place.to_str().expect("UTF-8")), c(&format!("size={size},mode=755")));
        let null = std::ptr::null();
        // SAFETY: only this thread's view of mounts changes; all strings live until the calls return.
        unsafe {
            assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "root may");
            let private = libc::MS_REC | libc::MS_PRIVATE;
            assert_eq!(libc::mount(null, c"/".as_ptr(), null, private, null.cast()), 0);
            let tmpfs = c"tmpfs".as_ptr();
            assert_eq!(libc::mount(tmpfs, place.as_ptr(), tmpfs, 0, options.as_ptr().cast()), 0);
        }
        Self(place)
    }

    fn read_only(&self) {
        let (null, flags) = (std::ptr::null(), libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY);
        // SAFETY: the string lives as long as this value.
        let mounted = unsafe { libc::mount(null, self.0.as_ptr(), null, flags, null.cast()) };
        assert_eq!(mounted, 0);
    }
}

/// Writes a file until there is no room for a byte more.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a new file");
    for size in [4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// Runs a guest, unless this kernel cannot map owners on a file system in memory.
fn runs(home: &Home, hello: &str) -> bool {
    let output = home.output(&["run", "--rm", hello]);
    let old = said(&output).contains("cannot map owners");
    assert!(output.status.success() || old, "{}", said(&output));
    !old
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let Some(home) = Home::new() else { return };
    let hello = guest_path("hello").display().to_string();
    // Nothing that can be packed.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    let big = home
        .0
        .folder()
        .file("big", noise.take(4 << 20).collect::<Vec<_>>())
        .display()
        .to_string();
    let _disk = Disk::mount(&home.path(), "3m");
    home.refused(
        &[
            "image",
            "build",
            "-t",
            "big",
            "--guest",
            &hello,
            "--file",
            &format!("{big}:/big"),
        ],
        "No space left on device",
    );
    assert_eq!(home.ok(&["image", "ls", "--quiet"]), "");
    assert!(home.ok(&["doctor", "--store"]).starts_with("ok "));
    home.ok(&["image", "prune"]);
    assert_eq!(home.names("images/blobs/sha256"), [""; 0], "half a blob is left");
    let runs = runs(&home, &hello);
    let filler = home.path().join("filler");
    // Whoever cannot run at all does not come to where there is no room.
    let ways = [&["create"][..], &["run"], &["run", "-d"]];
    for args in &ways[..if runs { ways.len() } else { 1 }] {
        fill(&filler);
        home.refused(&[*args, &["--name", "a", &hello]].concat(), "No space left on device");
        fs::remove_file(&filler).expect("its own file");
        assert_eq!(home.ok(&["ps", "--all", "--quiet"]), "", "{args:?}");
    }
    home.assert_empty();
    if runs {
        home.ok(&["run", "--name", "a", &hello]);
        home.ok(&["rm", "a"]);
    }
}

#[test]
fn a_store_that_cannot_be_written_can_be_read() {
    let Some(home) = Home::new() else { return };
    let hello = guest_path("hello").display().to_string();
    let disk = Disk::mount(&home.path(), "16m");
    home.ok(&["image", "build", "-t", "hello", "--guest", &hello]);
    home.ok(&["create", "--name", "a", &hello]);
    let before = home.ok(&["ps", "--all", "--no-trunc"]);
    disk.read_only();
    assert!(home.ok(&["image", "ls"]).contains("hello"));
    assert!(home.ok(&["image", "inspect", "hello"]).contains("org.chiton.guest"));
    assert!(home.ok(&["doctor", "--store"]).starts_with("ok "));
    assert_eq!(
        home.ok(&["ps", "--all", "--no-trunc"]).lines().count(),
        before.lines().count()
    );
    for args in [
        &["run", &hello][..],
        &["run", "-d", &hello],
        &["create", &hello],
        &["image", "build", "-t", "again", "--guest", &hello],
        &["image", "tag", "hello", "other"],
        &["image", "rm", "hello"],
    ] {
        home.refused(args, "Read-only file system");
    }
    for args in [&["start", "a"][..], &["rm", "a"]] {
        let output = home.output(args);
        assert!(
            !output.status.success() && said(&output).contains("Read-only file system"),
            "{}",
            said(&output)
        );
    }
}

#[test]
fn a_name_that_several_want_at_once_is_given_to_one() {
    let Some(home) = Home::new() else { return };
    let hello = guest_path("hello").display().to_string();
    let all: Vec<_> = (0..8)
        .map(|_| {
            let mut command = home.0.command(&["create", "--name", "wanted", &hello]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("chiton starts")
        })
        .collect();
    let ends = all.into_iter().map(|child| child.wait_with_output().expect("it ends"));
    let (given, refused): (Vec<_>, Vec<_>) = ends.partition(|output| output.status.success());
    assert_eq!(given.len(), 1);
    for output in refused {
        assert!(
            said(&output).contains("the name wanted is taken by"),
            "{}",
            said(&output)
        );
    }
    assert_eq!(home.ok(&["ps", "--all", "--quiet"]).lines().count(), 1);
    home.ok(&["rm", "wanted"]);
    home.assert_empty();
}

#[test]
fn ids_are_of_the_host_and_when_all_are_in_use_nobody_shares_any() {
    // Of two records, which do not know each other.
    let span = 0x6000_0000 + (std::process::id() % 1024) * 0x2_0000;
    let two_ranges = [("CHITON_IDS", format!("{span}:{}", 0x2_0000))];
    let (Some(home), Some(other)) = (Home::with(two_ranges.clone()), Home::with(two_ranges)) else {
        return;
    };
    let [hello, live] = ["hello", "live"].map(|name| guest_path(name).display().to_string());
    let mut owners = Vec::new();
    for (home, name) in [(&home, "a"), (&other, "b")] {
        home.ok(&["run", "-d", "--name", name, &live]);
        let pid = home.ok(&["inspect", "--format", "{{.State.pid}}", name]);
        let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("it lives");
        owners.extend(map.split_whitespace().nth(1).and_then(|id| id.parse::<u32>().ok()));
    }
    owners.sort_unstable();
    assert_eq!(owners, [span, span + 0x1_0000]);
    let words =
        format!("all 2 ranges of 65536 ids ({span}:131072) are in use; stop an instance, or give more: CHITON_IDS=");
    for home in [&home, &other] {
        home.refused(&["run", &hello], &words);
        home.refused(&["run", "-d", &hello], &words);
    }
    // One that comes back is enough.
    other.ok(&["rm", "--force", "b"]);
    home.ok(&["run", "--rm", &hello]);
    home.ok(&["rm", "--force", "a"]);
    for wrong in ["5:131072", "1879048192:9", "all"] {
        let command = |args: &[&str]| {
            home.0
                .command(args)
                .env("CHITON_IDS", wrong)
                .output()
                .expect("chiton starts")
        };
        let output = command(&["run", &hello]);
        assert_eq!(output.status.code(), Some(125), "{wrong}: {}", said(&output));
        assert!(said(&output).contains("FIRST:COUNT"), "{wrong}: {}", said(&output));
    }
    home.assert_empty();
    other.assert_empty();
}

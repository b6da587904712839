//! Layers that try to get out, or to take everything: each is refused, and nothing outside changes.

use std::fs;
use std::path::Path;

use chiton_container::image::progress::Quiet;
use chiton_container::image::{Digest, Error, Limits};

use crate::support::{Folder, Layout, Tar, assert_whole, gzip, is_root, listing, names, unpack, until};

/// Unpacks beside a folder that must stay as it is.
fn attack(archive: &[u8], limits: Limits) -> Result<Vec<String>, String> {
    let folder = Folder::new();
    let outside = folder.folder("outside");
    fs::write(outside.join("secret"), "secret").unwrap();
    let top = folder.folder("top");
    let before = listing(&outside);
    // What refers to the outside by its path is told it here.
    let path = outside.to_str().unwrap();
    let archive = with_path(archive, path);
    let result = unpack(&archive, &top, limits);
    assert_eq!(listing(&outside), before, "something outside was changed");
    let mut beside: Vec<_> = fs::read_dir(folder.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    beside.sort();
    assert_eq!(beside, ["outside", "top"]);
    match result {
        Ok(skipped) => {
            let mut files: Vec<_> = listing(&top).keys().map(|path| path.display().to_string()).collect();
            files.push(format!("{} devices, {} attributes", skipped.devices, skipped.xattrs));
            Ok(files)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The mark that stands for the path of the folder outside, as long as a link's name may be.
const OUTSIDE: &[u8] = b"/OUTSIDE";

fn with_path(archive: &[u8], path: &str) -> Vec<u8> {
    let mut archive = archive.to_vec();
    for at in (0..archive.len()).step_by(512) {
        let link = at + 157;
        if archive.get(link..link + OUTSIDE.len()) == Some(OUTSIDE) {
            let rest: Vec<u8> = archive[link + OUTSIDE.len()..]
                .iter()
                .copied()
                .take_while(|byte| *byte != 0)
                .collect();
            let whole = [path.as_bytes(), &rest].concat();
            archive[link..link + 100].fill(0);
            archive[link..link + whole.len()].copy_from_slice(&whole);
            let mut header = tar::Header::from_byte_slice(&archive[at..at + 512]).clone();
            header.set_cksum();
            archive[at..at + 512].copy_from_slice(header.as_bytes());
        }
    }
    archive
}

fn refused(archive: Tar, words: &str) {
    let error = attack(&archive.end(), Limits::default()).unwrap_err();
    assert!(error.contains(words), "{error}");
    assert!(error.contains("layer test") && error.contains("entry `"), "{error}");
}

fn accepted(archive: Tar) -> Vec<String> {
    attack(&archive.end(), Limits::default()).unwrap()
}

#[test]
fn a_path_with_dots_is_refused() {
    for path in ["../x", "a/../../x", "a/..", "/../outside/secret", "./../x"] {
        refused(Tar::new().file(path, b"x"), "`..`");
    }
}

#[test]
fn an_absolute_path_begins_at_the_layer() {
    assert_eq!(
        accepted(Tar::new().file("/a/b", b"x")),
        ["a", "a/b", "0 devices, 0 attributes"]
    );
}

#[test]
fn nothing_goes_through_a_symbolic_link() {
    let linked = || Tar::new().symlink("a", "/OUTSIDE");
    refused(linked().file("a/secret", b"x"), "symbolic link");
    refused(linked().folder("a/new"), "symbolic link");
    refused(linked().file("a/.wh.secret", b""), "symbolic link");
    refused(linked().file("a/.wh..wh..opq", b""), "symbolic link");
    refused(linked().symlink("a/new", "x"), "symbolic link");
    refused(linked().link("h", "a/secret"), "symbolic link");
    refused(
        Tar::new().symlink("a", "..").file("a/outside/secret", b"x"),
        "symbolic link",
    );
    refused(
        Tar::new()
            .folder("a")
            .symlink("a/b", "../../outside")
            .file("a/b/secret", b"x"),
        "symbolic link",
    );
}

#[test]
fn a_link_that_is_replaced_is_replaced_and_not_followed() {
    let files = accepted(Tar::new().symlink("a", "/OUTSIDE/secret").file("a", b"mine"));
    assert_eq!(files[0], "a");
    // A folder of the same name takes its place, too.
    accepted(
        Tar::new()
            .symlink("a", "/OUTSIDE")
            .folder("a")
            .file("a/secret", b"mine"),
    );
    // As does a file in the place of a hard link to a symbolic link.
    accepted(
        Tar::new()
            .symlink("s", "/OUTSIDE/secret")
            .link("h", "s")
            .file("h", b"mine"),
    );
    // A folder that was used last, and is a link now.
    refused(
        Tar::new().file("d/e/x", b"").raw(b'2', b"d", b"/OUTSIDE", b"", |_| ()),
        "not empty",
    );
    refused(
        Tar::new().folder("d").symlink("d", "/OUTSIDE").file("d/secret", b"x"),
        "symbolic link",
    );
}

#[test]
fn a_hard_link_stays_in_its_layer() {
    refused(Tar::new().link("h", "../outside/secret"), "`..`");
    refused(Tar::new().link("h", "/etc/passwd"), "not in this layer");
    refused(Tar::new().link("h", "h"), "to itself");
    refused(Tar::new().folder("d").link("h", "d"), "no file");
    refused(Tar::new().link("h", "/"), "root");
    refused(Tar::new().file(".wh.x", b"").link("h", "x"), "no file");
    assert_eq!(accepted(Tar::new().file("a", b"x").link("h", "/a"))[..2], ["a", "h"]);
}

#[test]
fn a_whiteout_takes_away_names_of_its_own_folder_only() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.."] {
        refused(Tar::new().file(name, b""), "whiteout of");
    }
    refused(Tar::new().file(".wh.a/b", b""), "name of a whiteout");
}

#[test]
fn devices_are_left_out() {
    let archive = Tar::new()
        .raw(b'3', b"null", b"", b"", |_| ())
        .raw(b'4', b"sda", b"", b"", |_| ());
    assert_eq!(accepted(archive), ["2 devices, 0 attributes"]);
}

#[test]
fn overlayfs_is_told_nothing() {
    let archive = Tar::new().pax(&[
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.selinux", b"x"),
    ]);
    assert_eq!(accepted(archive.folder("a")), ["a", "0 devices, 3 attributes"]);
}

#[test]
fn what_cannot_be_is_refused() {
    refused(Tar::new().raw(b'V', b"label", b"", b"", |_| ()), "type 'V'");
    refused(Tar::new().file(".", b"x"), "root of a layer");
    refused(Tar::new().pax(&[("path", b"a\0b")]).file("x", b""), "zero byte");
    refused(Tar::new().pax(&[("uid", b"4294967295")]).file("x", b""), "owner");
    refused(
        Tar::new().pax(&[("uid", b"18446744073709551615")]).file("x", b""),
        "owner",
    );
    refused(
        Tar::new().pax(&[("size", b"18446744073709551615")]).file("x", b""),
        "cannot be",
    );
    refused(Tar::new().pax(&[("mtime", b"yesterday")]).file("x", b""), "mtime");
    refused(
        Tar::new().raw(b'0', b"x", b"", b"", |header| header.set_size(5000)),
        "ends within a file",
    );
    refused(Tar::new().file("d/x", b"").file("d", b""), "not empty");
    refused(Tar::new().symlink("x", ""), "empty or too long");
    refused(Tar::new().file("a", b"").file("a/b", b""), "no folder");
    let long = vec![b'a'; 256];
    refused(Tar::new().pax(&[("path", &long)]).file("x", b""), "255");
    let long = b"a/".repeat(2100);
    refused(Tar::new().pax(&[("path", &long)]).file("x", b""), "4096");
    let huge = vec![b'x'; 2 << 20];
    refused(
        Tar::new().raw(b'x', b"p", b"", &huge, |_| ()).file("x", b""),
        "extended header",
    );
    refused(
        Tar::new().raw(b'L', b"p", b"", &huge, |_| ()).file("x", b""),
        "extended header",
    );
    let mut broken = Tar::new().file("x", b"");
    broken.0[0] = b'y';
    refused(broken, "sum of its header");
}

#[test]
fn sparse_files_whose_maps_lie_are_refused() {
    let sparse = |map: &str, size: &[u8]| {
        let mut content = map.as_bytes().to_vec();
        content.resize(512, 0);
        content.extend([7; 512]);
        Tar::new()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", size),
            ])
            .file("x", &content)
    };
    accepted(sparse("1\n0\n512\n", b"1024"));
    refused(sparse("1\n1000\n512\n", b"1024"), "beyond its end");
    refused(sparse("2\n0\n256\n128\n256\n", b"1024"), "overlap");
    refused(sparse("1\n0\n511\n", b"1024"), "are stored");
    refused(sparse("999999999\n", b"1024"), "too many pieces");
    refused(sparse("x\n", b"1024"), "no numbers");
    refused(sparse("1\n18446744073709551615\n512\n", b"1024"), "beyond its end");
}

#[test]
fn bombs_are_bounded_and_the_limit_is_named() {
    let limits = Limits {
        bytes: 4096,
        entries: 5,
        depth: 3,
        ..Limits::default()
    };
    let error = |archive: Tar| attack(&archive.end(), limits).unwrap_err();
    assert!(error(Tar::new().file("big", &[1; 5000])).contains("`big`: more than 4096 bytes"));
    let many = (0..6).fold(Tar::new(), |tar, number| tar.file(&format!("f{number}"), b""));
    assert!(error(many).contains("`f5`: more than 5 entries"));
    assert!(error(Tar::new().file("a/b/c/d", b"")).contains("`a/b/c/d`: more than 3 folders"));
    let mut map = b"0\n".to_vec();
    map.resize(512, 0);
    let sparse = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"1099511627776"),
        ])
        .file("holes", &map);
    assert!(error(sparse).contains("`holes`: more than 4096 bytes"));
}

#[test]
fn an_archive_that_is_cut_within_an_entry_is_an_error() {
    let archive = Tar::new()
        .folder("d")
        .pax(&[("mtime", b"1.5")])
        .file("d/f", &[1; 700])
        .symlink("d/l", "f")
        .end();
    for length in (0..archive.len()).step_by(32) {
        let result = attack(&archive[..length], Limits::default());
        // Between entries, and behind the first block of zeros, nothing is missing.
        let whole = [0, 512, 1536, 3072, 3584].contains(&length) || length >= 4096;
        assert_eq!(result.is_ok(), whole, "{length}: {result:?}");
    }
}

/// A store, an image of one layer that is stored as these bytes, and what is wrong with it: when it is unpacked, and when
/// the store is verified.
fn unpacked_from(stored: &[u8], diff_id: Digest, limits: Limits) -> (Folder, Result<(), Error>, Vec<String>) {
    let folder = Folder::new();
    let store = folder.store().with_limits(limits);
    let layout = Layout::new(
        folder.path("layout"),
        "docker.io/library/x:1",
        &[(stored.to_vec(), diff_id)],
    );
    let image = layout.import(&store).unwrap().remove(0);
    let problems = store.verify().unwrap().problems;
    let result = store.unpacked(&image, &Quiet).map(|_| ());
    drop(store);
    (folder, result, problems)
}

fn refused_by_store(stored: &[u8], diff_id: Digest, limits: Limits, words: &str) {
    let (folder, result, problems) = unpacked_from(stored, diff_id, limits);
    let error = result.unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
    // It is found before anybody unpacks it, too.
    assert!(problems.len() == 1 && problems[0].contains(words), "{problems:?}");
    let none: [&str; 0] = [];
    assert_eq!(names(&folder.path("store"), "layers"), none);
    let store = folder.store();
    store.untag("x:1").unwrap();
    until("collected", || store.collect(&[]).is_ok());
    drop(store);
    assert_whole(&folder.path("store"));
}

#[test]
fn digests_and_diff_ids_are_checked_while_unpacking() {
    let archive = Tar::new().file("a", b"x").end();
    let (_folder, result, problems) = unpacked_from(&gzip(&archive), Digest::of(&archive), Limits::default());
    result.unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    refused_by_store(
        &gzip(&archive),
        Digest::of(b"other"),
        Limits::default(),
        "unpacked, does not have the digest",
    );
    let mut tail = archive.clone();
    tail.extend([1; 512]);
    refused_by_store(
        &gzip(&tail),
        Digest::of(&archive),
        Limits::default(),
        "unpacked, does not have the digest",
    );
    refused_by_store(b"\x1f\x8bnonsense", Digest::of(b""), Limits::default(), "damaged");
    refused_by_store(
        &[0x28, 0xb5, 0x2f, 0xfd, 0, 0xf0, 1, 0, 0],
        Digest::of(b""),
        Limits::default(),
        "window",
    );
}

#[test]
fn a_blob_that_was_damaged_in_the_store_is_not_used() {
    let folder = Folder::new();
    let store = folder.store();
    let archive = Tar::new().file("a", b"x").end();
    let layout = Layout::of(folder.path("layout"), "docker.io/library/x:1", &[archive]);
    let image = layout.import(&store).unwrap().remove(0);
    let blob = folder.path("store/blobs/sha256").join(layout.layers[0].digest.hex());
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    let error = store.unpacked(&image, &Quiet).unwrap_err().to_string();
    assert!(error.contains(&layout.layers[0].digest.to_string()), "{error}");
    assert!(
        store
            .verify()
            .unwrap()
            .problems
            .iter()
            .any(|problem| problem.contains("digest"))
    );
    // Brought again, it is repaired.
    layout.import(&store).unwrap();
    store.unpacked(&image, &Quiet).unwrap();
    drop(store);
    assert_whole(&folder.path("store"));
}

#[test]
fn a_compressed_bomb_is_stopped_by_its_ratio() {
    let limits = Limits {
        ratio: 100,
        ratio_from: 1 << 20,
        ..Limits::default()
    };
    let archive = Tar::new().file("zeros", &vec![0; 4 << 20]).end();
    refused_by_store(
        &gzip(&archive),
        Digest::of(&archive),
        limits,
        "more than 100 times the bytes",
    );
    let limits = Limits {
        bytes: 1 << 20,
        ..Limits::default()
    };
    // Behind the archive's end, too.
    let tail = [vec![0; 1024], vec![1; 2 << 20]].concat();
    refused_by_store(&gzip(&tail), Digest::of(&tail), limits, "more than 1048576 bytes");
}

#[test]
fn an_archive_of_images_that_is_a_bomb_is_stopped_too() {
    let archive = Tar::new().file("zeros", &vec![0; 4 << 20]).end();
    for (limits, words) in [
        (
            Limits {
                ratio: 100,
                ratio_from: 1 << 20,
                ..Limits::default()
            },
            "more than 100 times the bytes",
        ),
        (
            Limits {
                bytes: 1 << 20,
                ..Limits::default()
            },
            "more than 1048576 bytes",
        ),
    ] {
        let folder = Folder::new();
        let store = folder.store().with_limits(limits);
        let file = folder.path("images.tar.gz");
        fs::write(&file, gzip(&archive)).unwrap();
        let error = chiton_container::image::archive::import(&store, &file, None, &Quiet).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        drop(store);
        assert_whole(&folder.path("store"));
    }
}

#[test]
fn an_image_larger_than_allowed_is_refused_by_its_manifest() {
    let folder = Folder::new();
    let layers = [1, 2].map(|byte| Tar::new().file("a", &[byte; 5000]).end());
    let layout = Layout::of(folder.path("layout"), "docker.io/library/x:1", &layers);
    let packed: u64 = layout.layers.iter().map(|layer| layer.size).sum();
    let limited = |packed| Limits {
        packed,
        ..Limits::default()
    };
    let store = folder.store().with_limits(limited(packed - 1));
    // Nothing of it is copied.
    fs::remove_file(layout.blob(&layout.layers[0])).unwrap();
    let error = layout.import(&store).unwrap_err().to_string();
    assert!(error.contains(&format!("its layers have {packed} bytes")), "{error}");
    assert!(names(&folder.path("store"), "blobs/sha256").is_empty());
    let error = layout
        .import(&store.with_limits(limited(packed)))
        .unwrap_err()
        .to_string();
    assert!(error.contains("is missing"), "{error}");
    assert_whole(&folder.path("store"));
}

#[test]
fn layouts_that_lie_are_refused_and_nothing_stays() {
    let archive = Tar::new().file("a", b"x").end();
    let lie = |change: &dyn Fn(&Layout), words: &str| {
        let folder = Folder::new();
        let store = folder.store();
        let layout = Layout::of(
            folder.path("layout"),
            "docker.io/library/x:1",
            std::slice::from_ref(&archive),
        );
        change(&layout);
        let error = layout.import(&store).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(store.entries().unwrap().is_empty());
        drop(store);
        assert_whole(&folder.path("store"));
    };
    let blob = |layout: &Layout| layout.blob(&layout.layers[0]);
    lie(&|layout| fs::remove_file(blob(layout)).unwrap(), "is missing");
    lie(
        &|layout| fs::write(blob(layout), b"short").unwrap(),
        "5 bytes instead of",
    );
    lie(
        &|layout| {
            let mut bytes = fs::read(blob(layout)).unwrap();
            bytes[20] ^= 1;
            fs::write(blob(layout), bytes).unwrap();
        },
        "does not have the digest",
    );
    lie(
        &|layout| fs::write(layout.path.join("index.json"), b"{").unwrap(),
        "index.json",
    );
    lie(
        &|layout| {
            fs::remove_file(blob(layout)).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", blob(layout)).unwrap();
        },
        "cannot open",
    );
    lie(
        &|layout| {
            fs::remove_file(blob(layout)).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                blob(layout),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .unwrap();
        },
        "no file",
    );
}

#[test]
fn what_is_no_image_is_refused() {
    let folder = Folder::new();
    let store = folder.store();
    let file = folder.path("file");
    for (bytes, words) in [
        (b"no archive at all".to_vec(), "tar archive"),
        (Tar::new().file("a", b"x").end(), "neither index.json"),
        (Tar::new().file("manifest.json", b"[]").end(), "no image"),
        (
            Tar::new()
                .file("manifest.json", br#"[{"Config":"../x","Layers":[]}]"#)
                .end(),
            "../x is missing",
        ),
        (gzip(b"short"), "header"),
    ] {
        fs::write(&file, bytes).unwrap();
        let error = chiton_container::image::archive::import(&store, Path::new(&file), None, &Quiet).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = chiton_container::image::archive::import(&store, &folder.path("gone"), None, &Quiet).unwrap_err();
    assert!(error.to_string().contains("cannot open"), "{error}");
    drop(store);
    assert_whole(&folder.path("store"));
}

#[test]
fn a_set_user_id_program_of_a_layer_is_out_of_other_users_reach() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    drop(folder.store());
    for path in ["store/blobs", "store/layers", "store/tmp"] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder.path(path)).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{path}");
    }
}

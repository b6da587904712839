//! Trees packed and unpacked again are the same trees.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use chiton_container::image::layer::{Owners, Packed, pack};
use chiton_container::image::{Digest, Limits};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::support::{Folder, Tar, comparable, is_root, unpack};

fn packed(top: &Path) -> (Vec<u8>, Packed) {
    let mut bytes = Vec::new();
    let packed = pack(top, &mut bytes, Owners::ours()).unwrap();
    assert_eq!(packed.diff_id, Digest::of(&bytes));
    assert_eq!(packed.bytes, bytes.len() as u64);
    (bytes, packed)
}

/// One thing to make in a tree.
#[derive(Clone, Debug)]
enum Make {
    File(Vec<u8>, u32),
    Holes(u64),
    Folder(u32),
    Opaque,
    Symlink(String),
    Link(String),
    Fifo,
    Gone,
    Attribute(Vec<u8>),
    Time(i64, i64),
    Owner(u32, u32),
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]",
        1 => "[a-c]\\.[a-z]",
        1 => "é{1,3}",
        1 => "[a-z]{101,250}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(name(), 1..4).prop_map(|parts| parts.join("/"))
}

fn make() -> impl Strategy<Value = Make> {
    prop_oneof![
        (proptest::collection::vec(any::<u8>(), 0..2000), 0..0o7777_u32)
            .prop_map(|(bytes, mode)| Make::File(bytes, mode)),
        (0..100_000_u64).prop_map(Make::Holes),
        (0..0o7777_u32).prop_map(Make::Folder),
        Just(Make::Opaque),
        path().prop_map(Make::Symlink),
        path().prop_map(Make::Link),
        Just(Make::Fifo),
        Just(Make::Gone),
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(Make::Attribute),
        (-5_000_000_000..5_000_000_000_i64, 0..1_000_000_000_i64).prop_map(|(seconds, part)| Make::Time(seconds, part)),
        (0..5_000_000_u32, 0..5_000_000_u32).prop_map(|(uid, gid)| Make::Owner(uid, gid)),
    ]
}

/// Makes it if it can be made there.
fn build(top: &Path, path: &str, make: &Make) {
    let full = top.join(path);
    let _ = fs::create_dir_all(full.parent().unwrap());
    let there = fs::symlink_metadata(&full).is_ok();
    match make {
        Make::File(bytes, mode) if !there && fs::write(&full, bytes).is_ok() => {
            fs::set_permissions(&full, fs::Permissions::from_mode(*mode)).unwrap();
        }
        Make::Holes(size) if !there => {
            if let Ok(file) = fs::File::create(&full) {
                file.set_len(*size).unwrap();
            }
        }
        Make::Folder(mode) => {
            let _ = fs::create_dir(&full);
            if full.is_dir() && !full.is_symlink() {
                fs::set_permissions(&full, fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
        Make::Opaque => {
            let _ = fs::create_dir(&full);
            if fs::symlink_metadata(&full).is_ok_and(|found| found.is_dir()) {
                for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
                    let _ = rustix::fs::lsetxattr(&full, name, b"y", XattrFlags::empty());
                }
            }
        }
        Make::Symlink(target) => drop(symlink(target, &full)),
        // To a regular file alone: names of others are not shared by overlayfs either.
        Make::Link(target) if fs::symlink_metadata(top.join(target)).is_ok_and(|found| found.is_file()) => {
            let _ = fs::hard_link(top.join(target), &full);
        }
        Make::Fifo => drop(rustix::fs::mknodat(CWD, &full, FileType::Fifo, Mode::RUSR, 0)),
        Make::Gone => drop(rustix::fs::mknodat(
            CWD,
            &full,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )),
        Make::Attribute(value) => drop(rustix::fs::lsetxattr(&full, "user.a", value, XattrFlags::empty())),
        Make::Time(seconds, part) => {
            let time = Timespec {
                tv_sec: *seconds,
                tv_nsec: *part,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            let _ = rustix::fs::utimensat(CWD, &full, &times, AtFlags::SYMLINK_NOFOLLOW);
        }
        // A whiteout has no owner in an archive, and what is not there has none at all.
        Make::Owner(uid, gid)
            if fs::symlink_metadata(&full)
                .is_ok_and(|found| found.is_file() || found.is_dir() || found.is_symlink()) =>
        {
            std::os::unix::fs::lchown(&full, Some(*uid), Some(*gid)).unwrap();
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_the_same_when_it_was_packed_and_unpacked(
        makes in proptest::collection::vec((path(), make()), 0..30),
    ) {
        if rustix::process::geteuid().is_root() {
            let folder = Folder::new();
            let (before, after) = (folder.folder("before"), folder.folder("after"));
            for (path, make) in &makes {
                build(&before, path, make);
            }
            let (bytes, _) = packed(&before);
            unpack(&bytes, &after, Limits::default()).unwrap();
            prop_assert_eq!(comparable(&before), comparable(&after));
            prop_assert_eq!(packed(&after).0, bytes);
        }
    }

    #[test]
    fn any_bytes_are_a_layer_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..3000), good in 0..4_usize) {
        let mut archive = Tar::new().folder("a").file("a/b", b"x").symlink("c", "a").0;
        archive.truncate(512 * good);
        archive.extend(bytes);
        let folder = Folder::new();
        let _ = unpack(&archive, &folder.folder("top"), Limits::default());
        let beside: Vec<_> = fs::read_dir(folder.path("")).unwrap().collect();
        prop_assert_eq!(beside.len(), 1);
    }
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let folder = Folder::new();
    let (before, after) = (folder.folder("before"), folder.folder("after"));
    fs::write(before.join("a"), "x").unwrap();
    fs::create_dir(before.join("d")).unwrap();
    fs::hard_link(before.join("a"), before.join("d/b")).unwrap();
    unpack(&packed(&before).0, &after, Limits::default()).unwrap();
    let inode = |name: &str| fs::metadata(after.join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("d/b"));
}

#[test]
fn holes_stay_holes() {
    let folder = Folder::new();
    let (before, after) = (folder.folder("before"), folder.folder("after"));
    let file = fs::File::create(before.join("a")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 5 << 20).unwrap();
    file.set_len(10 << 20).unwrap();
    unpack(&packed(&before).0, &after, Limits::default()).unwrap();
    let found = fs::metadata(after.join("a")).unwrap();
    assert_eq!(found.len(), 10 << 20);
    assert!(found.blocks() * 512 <= 1 << 20, "{} blocks", found.blocks());
    assert_eq!(fs::read(before.join("a")).unwrap(), fs::read(after.join("a")).unwrap());
}

#[test]
fn whiteouts_and_opaque_folders_are_converted_both_ways() {
    let archive = Tar::new()
        .folder("d/")
        .file("d/.wh..wh..opq", b"")
        .file("d/new", b"x")
        .file("d/.wh.old", b"")
        .file(".wh.gone", b"")
        .end();
    let folder = Folder::new();
    let top = folder.folder("top");
    unpack(&archive, &top, Limits::default()).unwrap();
    let device = fs::symlink_metadata(top.join("gone")).unwrap();
    assert_eq!((device.mode() & 0o170_000, device.rdev()), (0o020_000, 0));
    let mut value = [0; 2];
    let attribute = if is_root() {
        "trusted.overlay.opaque"
    } else {
        "user.overlay.opaque"
    };
    assert_eq!(rustix::fs::getxattr(top.join("d"), attribute, &mut value[..]), Ok(1));
    assert_eq!(value[0], b'y');
    let (bytes, _) = packed(&top);
    let mut names: Vec<String> = Vec::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string());
    }
    assert_eq!(names, ["d/", "d/.wh..wh..opq", "d/new", "d/.wh.old", ".wh.gone"]);
}

#[test]
fn a_whiteout_hides_what_is_below_the_layer_and_nothing_in_it() {
    let folder = Folder::new();
    let opaque = |path: &Path| {
        let mut value = [0; 2];
        rustix::fs::getxattr(path, "user.overlay.opaque", &mut value[..]).is_ok()
    };
    for (number, archive) in [
        Tar::new().file(".wh.d", b"").folder("d").file("d/x", b"1"),
        Tar::new().folder("d").file("d/x", b"1").file(".wh.d", b""),
    ]
    .into_iter()
    .enumerate()
    {
        let top = folder.folder(&number.to_string());
        unpack(&archive.end(), &top, Limits::default()).unwrap();
        assert!(top.join("d/x").is_file() && opaque(&top.join("d")));
    }
    for (number, archive) in [
        Tar::new().file(".wh.f", b"").file("f", b"1"),
        Tar::new().file("f", b"1").file(".wh.f", b""),
    ]
    .into_iter()
    .enumerate()
    {
        let top = folder.folder(&format!("f{number}"));
        unpack(&archive.end(), &top, Limits::default()).unwrap();
        assert_eq!(fs::read(top.join("f")).unwrap(), b"1");
    }
}

#[test]
fn what_an_archive_cannot_say_is_not_packed() {
    let refused = |prepare: &dyn Fn(&Path), words: &str| {
        let folder = Folder::new();
        let top = folder.folder("top");
        prepare(&top);
        let error = pack(&top, &mut Vec::new(), Owners::ours()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&|top| fs::write(top.join(".wh.x"), "").unwrap(), "means a whiteout");
    if !is_root() {
        return;
    }
    for name in ["trusted.overlay.redirect", "trusted.overlay.metacopy"] {
        refused(
            &|top| {
                fs::create_dir(top.join("d")).unwrap();
                rustix::fs::setxattr(top.join("d"), name, b"/x", XattrFlags::empty()).unwrap();
            },
            "in a lower layer",
        );
    }
    let folder = Folder::new();
    let top = folder.folder("top");
    fs::write(top.join("a"), "").unwrap();
    let error = pack(&top, &mut Vec::new(), Owners::Kept { offset: 100_000 })
        .unwrap_err()
        .to_string();
    assert!(error.contains("begin at 100000"), "{error}");
}

#[test]
fn owners_are_shifted_by_the_range_of_a_jail() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let top = folder.folder("top");
    let archive = Tar::new().pax(&[("uid", b"5"), ("gid", b"6")]).file("a", b"x").end();
    let shifted = Owners::Kept { offset: 100_000 };
    let mut reader = &archive[..];
    chiton_container::image::layer::unpack_archive(&mut reader, "test", &top, Limits::default(), shifted).unwrap();
    let found = fs::metadata(top.join("a")).unwrap();
    assert_eq!((found.uid(), found.gid()), (100_005, 100_006));
    let mut bytes = Vec::new();
    pack(&top, &mut bytes, shifted).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (5, 6));
}

#[test]
fn sockets_and_devices_are_left_out_and_counted() {
    let folder = Folder::new();
    let top = folder.folder("top");
    let _socket = std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap();
    fs::write(top.join("a"), "x").unwrap();
    let (_, packed) = packed(&top);
    assert_eq!((packed.entries, packed.skipped), (1, 1));
}

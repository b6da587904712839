//! Unpacked layers under a real overlayfs, and its upper folder as a new layer.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use chiton_container::image::commit::{Commit, commit};
use chiton_container::image::diff::{Change, diff};
use chiton_container::image::layer::Owners;
use chiton_container::image::progress::Quiet;

use crate::support::{Folder, Layout, Tar, assert_whole, is_root, listing, skip};

/// A mount, undone with the test.
struct Mount(PathBuf);

impl Mount {
    fn overlay(at: PathBuf, lower: &[PathBuf], writable: Option<(&Path, &Path)>) -> Option<Self> {
        let lower: Vec<_> = lower.iter().map(|path| path.to_str().unwrap()).collect();
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some((upper, work)) = writable {
            options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
        }
        let options = CString::new(options).unwrap();
        let target = CString::new(at.as_os_str().as_bytes()).unwrap();
        // SAFETY: all strings end in zero and outlive the call.
        let result = unsafe {
            libc::mount(
                c"overlay".as_ptr(),
                target.as_ptr(),
                c"overlay".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        if result != 0 {
            skip(&format!(
                "overlayfs cannot be mounted here: {}",
                std::io::Error::last_os_error()
            ));
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let target = CString::new(self.0.as_os_str().as_bytes()).unwrap();
        // SAFETY: the string ends in zero and outlives the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

fn three_layers() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .folder("etc/")
            .file("etc/a", b"low")
            .file("etc/b", b"low")
            .folder("old/")
            .file("old/x", b"low")
            .folder("hidden/")
            .file("hidden/x", b"low")
            .end(),
        Tar::new()
            .file("etc/.wh.a", b"")
            .file("etc/b", b"middle")
            .file(".wh.old", b"")
            .end(),
        Tar::new()
            .folder("hidden/")
            .file("hidden/.wh..wh..opq", b"")
            .file("hidden/y", b"top")
            .file("etc/c", b"top")
            .end(),
    ]
}

#[test]
fn the_merged_tree_is_what_the_layers_say() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let store = folder.store();
    let layout = Layout::of(folder.path("layout"), "docker.io/library/x:1", &three_layers());
    let image = layout.import(&store).unwrap().remove(0);
    let unpacked = store.unpacked(&image, &Quiet).unwrap();
    assert_eq!(unpacked.layers().len(), 3);
    let at = folder.folder("merged");
    let Some(_mount) = Mount::overlay(at.clone(), unpacked.layers(), None) else {
        return;
    };
    let files: Vec<_> = listing(&at)
        .into_keys()
        .map(|path| path.display().to_string())
        .collect();
    assert_eq!(files, ["etc", "etc/b", "etc/c", "hidden", "hidden/y"]);
    assert_eq!(fs::read(at.join("etc/b")).unwrap(), b"middle");
}

#[test]
fn what_is_below_a_root_that_hides_it_is_neither_unpacked_nor_asked_for() {
    let folder = Folder::new();
    let store = folder.store();
    let layers = [
        Tar::new().file("a", b"low").end(),
        Tar::new().file(".wh..wh..opq", b"").file("b", b"top").end(),
    ];
    let layout = Layout::of(folder.path("layout"), "docker.io/library/x:1", &layers);
    let image = layout.import(&store).unwrap().remove(0);
    let unpacked = store.unpacked(&image, &Quiet).unwrap();
    assert_eq!(unpacked.layers().len(), 1);
    assert_eq!(unpacked.lost_owners().unwrap(), 0);
}

#[test]
fn an_upper_folder_becomes_a_layer() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let store = folder.store();
    let layout = Layout::of(folder.path("layout"), "docker.io/library/x:1", &three_layers());
    let base = layout.import(&store).unwrap().remove(0);
    let unpacked = store.unpacked(&base, &Quiet).unwrap();
    // The upper folder cannot be on an overlayfs, where the folder for temporary files may be.
    let (at, upper, work) = (folder.folder("merged"), folder.folder("upper"), folder.folder("work"));
    let Some(mount) = Mount::overlay(at.clone(), unpacked.layers(), Some((&upper, &work))) else {
        return;
    };
    fs::remove_file(at.join("etc/b")).unwrap();
    fs::write(at.join("etc/new"), "new").unwrap();
    fs::remove_dir_all(at.join("hidden")).unwrap();
    fs::create_dir(at.join("hidden")).unwrap();
    fs::write(at.join("hidden/z"), "z").unwrap();
    let wanted = listing(&at);
    drop(mount);

    let options = Commit {
        name: Some("x:2".parse().unwrap()),
        created_by: "a test".into(),
        ..Commit::default()
    };
    let image = commit(&store, &base, &upper, Owners::ours(), &options).unwrap();
    assert_eq!(image.manifest.layers.len(), 4);
    assert_eq!(
        image.config.history.last().unwrap().created_by.as_deref(),
        Some("a test")
    );
    let new = store.unpacked(&image, &Quiet).unwrap();
    assert_eq!(new.layers()[1..], *unpacked.layers());
    let again = folder.folder("again");
    let Some(_mount) = Mount::overlay(again.clone(), new.layers(), None) else {
        return;
    };
    // Times of folders that were only copied up are the copy's.
    let names = |all: &std::collections::BTreeMap<PathBuf, String>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&listing(&again)), names(&wanted));
    for (path, line) in listing(&again) {
        // Of the two attributes that make a folder opaque, an overlay shows the one that it does not use.
        let line = line.replace("(\"user.overlay.opaque\", [121])", "");
        assert_eq!(line, wanted[&path], "{}", path.display());
    }

    let changes = diff(unpacked.layers(), new.layers()).unwrap();
    let changes: Vec<_> = changes
        .iter()
        .map(|(change, path)| format!("{change} {}", path.display()))
        .collect();
    assert_eq!(changes, ["D etc/b", "A etc/new", "D hidden/y", "A hidden/z"]);
    assert_eq!(Change::Changed.to_string(), "C");
    drop((store, new, unpacked));
    assert_whole(&folder.path("store"));
}

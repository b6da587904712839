//! No room, and nowhere to write: a clear sentence, and nothing half done.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use chiton_container::image::Store;
use chiton_container::image::progress::Quiet;

use crate::support::{Folder, Layout, Tar, assert_whole, is_root, until};

/// A file system in memory, of so many bytes.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(at: PathBuf, bytes: u64) -> Self {
        mount(&at, &format!("size={bytes}"), 0);
        Self(at)
    }

    /// Not while a child that another test starts has a file of it open for writing.
    fn read_only(&self) {
        until("read-only", || {
            let result = try_mount(&self.0, "", libc::MS_REMOUNT | libc::MS_RDONLY);
            let is_busy = result
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
            assert!(result.is_ok() || is_busy, "{result:?}");
            !is_busy
        });
    }

    fn writable(&self) {
        mount(&self.0, "", libc::MS_REMOUNT);
    }
}

fn mount(at: &Path, options: &str, flags: libc::c_ulong) {
    try_mount(at, options, flags).unwrap();
}

fn try_mount(at: &Path, options: &str, flags: libc::c_ulong) -> io::Result<()> {
    let (target, options) = (
        CString::new(at.as_os_str().as_bytes()).unwrap(),
        CString::new(options).unwrap(),
    );
    // SAFETY: all strings end in zero and outlive the call.
    let result = unsafe {
        libc::mount(
            c"tmpfs".as_ptr(),
            target.as_ptr(),
            c"tmpfs".as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let target = CString::new(self.0.as_os_str().as_bytes()).unwrap();
        // SAFETY: the string ends in zero and outlives the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

/// A layer that does not become smaller by compression.
fn layer(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let content: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        })
        .collect();
    Tar::new().file("a", &content).end()
}

#[test]
fn a_full_disk_is_said_to_be_and_leaves_nothing_half_done() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let layout = Layout::of(folder.path("layout"), "docker.io/library/x:1", &[layer(600_000)]);
    // Not even the blob fits; the blob, but not the layer unpacked; both.
    for (size, imports, unpacks) in [
        (300_000, false, false),
        (1_000_000, true, false),
        (8_000_000, true, true),
    ] {
        let disk = Tmpfs::new(folder.folder("disk"), size);
        let path = disk.0.join("store");
        let store = Store::open(&path).unwrap();
        match layout.import(&store) {
            Ok(images) => {
                assert!(imports);
                let result = store.unpacked(&images[0], &Quiet);
                assert_eq!(result.is_ok(), unpacks, "{size}: {result:?}");
                if let Err(error) = result {
                    assert!(error.to_string().contains("No space left"), "{error}");
                }
            }
            Err(error) => {
                assert!(!imports, "{error}");
                let text = error.to_string();
                assert!(
                    text.contains("No space left") && text.contains("chiton image prune"),
                    "{text}"
                );
                assert!(store.entries().unwrap().is_empty());
            }
        }
        drop(store);
        assert_whole(&path);
    }
}

#[test]
fn a_store_that_cannot_be_written_can_be_read_and_says_so_otherwise() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let disk = Tmpfs::new(folder.folder("disk"), 8_000_000);
    let path = disk.0.join("store");
    let layout = Layout::of(folder.path("layout"), "docker.io/library/x:1", &[layer(1000)]);
    let store = Store::open(&path).unwrap();
    let image = layout.import(&store).unwrap().remove(0);
    drop(store);
    // What a dead process left cannot be removed now, and is no reason to stop.
    fs::create_dir(path.join("tmp/dead")).unwrap();
    disk.read_only();

    let store = Store::open(&path).unwrap();
    assert_eq!(store.images().unwrap().len(), 1);
    assert!(store.verify().unwrap().problems.is_empty());
    for error in [
        store.unpacked(&image, &Quiet).unwrap_err(),
        store.untag("x:1").unwrap_err(),
        store.prune(&[]).unwrap_err(),
        Layout::of(folder.path("other"), "y:1", &[layer(2000)])
            .import(&store)
            .unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(
            text.contains("Read-only file system") && text.contains("CHITON_HOME"),
            "{text}"
        );
    }
    let error = Store::open(disk.0.join("another")).unwrap_err().to_string();
    assert!(error.contains("Read-only file system"), "{error}");
    drop(store);
    disk.writable();
    assert_whole(&path);
}

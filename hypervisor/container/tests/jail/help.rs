//! What tests share.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use chiton_container::jail::{Error, IdMap, Init, Jail, Landlock, Lease, Ranges, Root, Status};

/// A test: a sentence, and a function that panics if it is not true.
pub(crate) type Test = (&'static str, fn());

pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid always succeeds.
    unsafe { libc::geteuid() == 0 }
}

/// Leaves the mounts of the host: others make and remove some there while these tests look that a jail has not. Mounts
/// made here would be seen by all who share these, as on most hosts.
pub(crate) fn mounts_of_our_own() {
    let change = |flags| {
        // SAFETY: the path is a C string, and nothing else is read for a change of propagation.
        unsafe {
            libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | flags,
                std::ptr::null(),
            )
        }
    };
    // SAFETY: this process has one thread, and no mount of it is in use elsewhere.
    let left = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    let own = left && change(libc::MS_PRIVATE) == 0 && change(libc::MS_SHARED) == 0;
    assert!(own, "{}", std::io::Error::last_os_error());
}

/// A directory that goes with the test, with a root, a scratch directory and a place for ranges.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) lease: Option<Lease>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("chiton-jail-").tempdir().unwrap();
        for name in ["root/etc", "root/bin", "scratch/upper", "scratch/work", "probe"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        for name in ["", "root", "scratch", "probe"] {
            open_to_all(&folder.path().join(name));
        }
        std::fs::write(folder.path().join("root/etc/name"), "image").unwrap();
        let mut place = Self { folder, lease: None };
        if place.maps_owners() {
            place.lease = Some(place.ranges().lease().unwrap());
        }
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn ranges(&self) -> Ranges {
        Ranges::usual(&self.path("ids"))
    }

    /// Whether this kernel can show other owners on this file system. Memory file systems could not
    /// before Linux 6.3.
    pub(crate) fn maps_owners(&self) -> bool {
        let root = Root {
            layers: vec![self.path("probe")],
            ..Root::default()
        };
        match Jail::new(root, IdMap::range(0x7fff_0000, 0x1_0000)).spawn(|| 0) {
            Ok(mut jailed) => {
                jailed.wait().unwrap();
                true
            }
            Err(error) => {
                assert!(error.to_string().contains("cannot map owners"), "{error}");
                eprintln!("no other owners on this file system here: {error}");
                false
            }
        }
    }

    /// Whether the jail's root is nobody outside. Where it is the host's, some walls have nothing to stand on;
    /// says so.
    pub(crate) fn is_nobody_outside(&self) -> bool {
        if self.lease.is_none() {
            eprintln!("not tried: the jail's root is the host's here");
        }
        self.lease.is_some()
    }

    /// Owners as the file system here can have them.
    pub(crate) fn ids(&self) -> IdMap {
        self.lease
            .as_ref()
            .map_or_else(|| IdMap::range(0, 0x1_0000), Lease::map)
    }

    /// A jail with all its walls, and a root that is thrown away.
    pub(crate) fn jail(&self) -> Jail {
        let root = Root {
            layers: vec![self.path("root")],
            scratch: Some(self.path("scratch")),
            ..Root::default()
        };
        Jail::new(root, self.ids())
    }

    /// A jail without the two walls that stand behind the others, which then have to hold alone.
    pub(crate) fn jail_of_namespaces(&self) -> Jail {
        let mut jail = self.jail();
        jail.filter = None;
        jail.landlock = Landlock::Off;
        jail
    }

    /// Puts a static busybox into the root.
    pub(crate) fn busybox(&self) {
        let from = ["/usr/bin/busybox", "/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let from = from.expect("busybox: apt-get install busybox-static");
        std::fs::copy(from, self.path("root/bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", self.path("root/bin/sh")).unwrap();
    }
}

pub(crate) fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a function in a jail; its answer, and how the jail ended.
pub(crate) fn ask(jail: &mut Jail, question: impl FnOnce() -> String) -> (String, Status) {
    try_ask(jail, question).unwrap()
}

/// As [`ask`], if there is a jail.
pub(crate) fn try_ask(jail: &mut Jail, question: impl FnOnce() -> String) -> Result<(String, Status), Error> {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    jail.keep.push(writer.as_raw_fd());
    let spawned = jail.spawn(|| {
        let answer = question();
        i32::from(writer.write_all(answer.as_bytes()).is_err())
    });
    jail.keep.pop();
    drop(writer);
    let mut jailed = spawned?;
    let mut answer = String::new();
    reader.read_to_string(&mut answer).unwrap();
    Ok((answer, jailed.wait().unwrap()))
}

/// As [`ask`], of a jail that must end well.
pub(crate) fn answer(jail: &mut Jail, question: impl FnOnce() -> String) -> String {
    let (answer, status) = ask(jail, question);
    assert_eq!(status, Status::Exited(0), "{answer}");
    answer
}

/// A jail whose payload is process 1.
pub(crate) fn alone(mut jail: Jail) -> Jail {
    jail.init = Init::Payload;
    jail
}

/// What a file holds, or why it cannot be read.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
}

/// Names in a directory, in order.
pub(crate) fn names(path: &str) -> String {
    let mut names: Vec<_> = match std::fs::read_dir(path) {
        Ok(entries) => entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect(),
        Err(error) => return error.to_string(),
    };
    names.sort();
    names.join(" ")
}

/// `errno` of a call that answered -1; 0 if it did not.
pub(crate) fn errno(answer: i64) -> i32 {
    if answer == -1 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    } else {
        0
    }
}

//! Volumes: files and directories of the host, bound into the jail.
//!
//! The host's side is what the caller says. The jail's side is a path in an image that somebody else
//! made, so it is walked with the image as the root of everything (`openat2(2)`, RESOLVE_IN_ROOT): a link
//! to `/etc` is the image's `/etc`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::mount;
use crate::jail::error::{At, Failure, Step};

/// How many links to what is not there lead to one place at most, as many as the kernel follows.
const LINKS: u32 = 40;

/// How often a way is walked again that another process's mounts and renames have come into.
const RACES: u32 = 1000;

/// `f_type` of the kernel's own file systems (`statfs(2)`).
const KERNEL: [i64; 4] = [0x9FA0, 0x6265_6572, 0x6367_7270, 0x27_E0EB];

/// A file or directory of the host that the jail sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Where it is on the host.
    pub host: PathBuf,
    /// Where it is in the jail; an absolute path.
    pub guest: PathBuf,
    /// Whether it cannot be written from inside.
    pub read_only: bool,
}

/// Why words name no volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// There is no colon, or too many.
    #[error("{0:?} is not a volume: write HOST:GUEST or HOST:GUEST:ro")]
    Form(String),
    /// A side is not an absolute path.
    #[error("{0:?} is not a volume: {1} must begin with /")]
    Relative(String, &'static str),
    /// The jail's side has `..` or is its root.
    #[error("{0:?} is not a volume: the path in the jail must lead below /, without ..")]
    Guest(String),
}

impl std::str::FromStr for Volume {
    type Err = VolumeError;

    /// Reads `host:guest` or `host:guest:ro`.
    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (host, guest, read_only) = match parts[..] {
            [host, guest] | [host, guest, "rw"] => (host, guest, false),
            [host, guest, "ro"] => (host, guest, true),
            _ => return Err(VolumeError::Form(text.into())),
        };
        for (path, name) in [(host, "the host's path"), (guest, "the path in the jail")] {
            if !path.starts_with('/') {
                return Err(VolumeError::Relative(text.into(), name));
            }
        }
        if components(Path::new(guest)).is_none_or(|components| components.is_empty()) {
            return Err(VolumeError::Guest(text.into()));
        }
        Ok(Self {
            host: host.into(),
            guest: guest.into(),
            read_only,
        })
    }
}

/// The names of an absolute path that has no `..`.
fn components(path: &Path) -> Option<Vec<&OsStr>> {
    let names = path.components().filter(|component| *component != Component::RootDir);
    names
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect()
}

impl Volume {
    /// Opens the host's side.
    pub(in crate::jail) fn open(&self) -> Result<OwnedFd, Failure> {
        mount::view(CWD, &self.host, true).at(Step::Volume, || self.host.display().to_string())
    }

    /// Gives it its place below a root directory.
    pub(super) fn bind(&self, tree: &OwnedFd, root: BorrowedFd<'_>) -> Result<(), Failure> {
        let what = || format!("{} on {}", self.host.display(), self.guest.display());
        let is_directory =
            FileType::from_raw_mode(rustix::fs::fstat(tree).at(Step::Volume, what)?.st_mode) == FileType::Directory;
        let target = self.target(root, is_directory).at(Step::Volume, what)?;
        let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        if self.read_only {
            attributes |= libc::MOUNT_ATTR_RDONLY;
        }
        mount::set_attributes(tree.as_fd(), attributes, true).at(Step::Volume, what)?;
        mount::attach(tree.as_fd(), target.as_fd()).at(Step::Volume, what)
    }

    /// The place, made where it is missing: directories, and a file at the end for a file. What a link leads to is
    /// made below the root, as if that were the root of everything.
    fn target(&self, root: BorrowedFd<'_>, is_directory: bool) -> Result<OwnedFd, Errno> {
        let names = components(&self.guest)
            .filter(|names| !names.is_empty())
            .ok_or(Errno::INVAL)?;
        // What is still to be walked, the next name last.
        let mut rest: Vec<_> = names.into_iter().rev().map(OsStr::to_owned).collect();
        let mut place = PathBuf::from(".");
        let mut parent = resolve(root, &place)?;
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let here = place.join(&name);
            let found = match resolve(root, &here) {
                Err(Errno::NOENT) => {
                    if let Ok(link) = readlinkat(&parent, &name, Vec::new()) {
                        links += 1;
                        if links > LINKS {
                            return Err(Errno::LOOP);
                        }
                        let link = Path::new(OsStr::from_bytes(link.to_bytes()));
                        if link.is_absolute() {
                            place = PathBuf::from(".");
                            parent = resolve(root, &place)?;
                        }
                        let step = |component| match component {
                            Component::Normal(name) => Some(name.to_owned()),
                            Component::ParentDir => Some("..".into()),
                            _ => None,
                        };
                        rest.extend(link.components().rev().filter_map(step));
                        continue;
                    }
                    if rest.is_empty() && !is_directory {
                        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                        drop(openat(&parent, &name, flags, Mode::from_raw_mode(0o644))?);
                    } else {
                        mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
                    }
                    resolve(root, &here)?
                }
                found => found?,
            };
            // Over /proc it could fake what programs ask the kernel.
            if KERNEL.contains(&rustix::fs::fstatfs(&found)?.f_type) {
                return Err(Errno::XDEV);
            }
            (place, parent) = (here, found);
        }
        Ok(parent)
    }
}

fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // openat2(2): something was mounted or renamed, wherever it was, while a `..` of a link was followed.
            Err(Errno::AGAIN) if tries < RACES => tries += 1,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_as_docker_writes_them() {
        let volume: Volume = "/srv/data:/data:ro".parse().unwrap();
        assert_eq!(volume.host, Path::new("/srv/data"));
        assert_eq!(volume.guest, Path::new("/data"));
        assert!(volume.read_only);
        assert!(!"/a:/b".parse::<Volume>().unwrap().read_only);
    }

    #[test]
    fn bad_volumes_are_refused_with_what_is_wrong() {
        for (text, word) in [
            ("/a", "HOST:GUEST"),
            ("/a:/b:ro:x", "HOST:GUEST"),
            ("/a:/b:exec", "HOST:GUEST"),
            ("a:/b", "the host's path must begin with /"),
            ("/a:b", "the path in the jail must begin with /"),
            ("/a:/b/../../c", "without .."),
            ("/a:/", "below /"),
        ] {
            let error = text.parse::<Volume>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    /// Where a volume would be bound below a root.
    fn target(root: &std::fs::File, guest: &str, is_directory: bool) -> Result<OwnedFd, Errno> {
        let volume = Volume {
            host: "/".into(),
            guest: guest.into(),
            read_only: false,
        };
        volume.target(root.as_fd(), is_directory)
    }

    #[test]
    fn a_link_in_the_image_leads_nowhere_but_into_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let [root, outside] = ["root", "outside"].map(|name| folder.path().join(name));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("relative")).unwrap();
        std::fs::create_dir(root.join("outside")).unwrap();
        let open = std::fs::File::open(&root).unwrap();
        let target = |guest| target(&open, guest, true);
        // The link's target does not exist below the root, where it is made.
        target("/absolute/x").unwrap();
        let inside = root.join(outside.strip_prefix("/").unwrap());
        assert!(inside.join("x").is_dir());
        target("/relative/x").unwrap();
        assert!(root.join("outside/x").is_dir());
        assert!(std::fs::read_dir(&outside).unwrap().next().is_none());
    }

    #[test]
    fn links_to_nothing_are_made_something_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, root.join(at)).unwrap();
        link("/run/resolve/stub.conf", "etc/absolute");
        link("../../../../var/x", "etc/relative");
        link("other", "etc/chain");
        link("/etc/relative", "etc/other");
        link("loop", "etc/loop");
        link("b", "etc/a");
        link("a", "etc/b");
        let open = std::fs::File::open(&root).unwrap();
        let target = |guest| target(&open, guest, false);
        target("/etc/absolute").unwrap();
        assert!(root.join("run/resolve/stub.conf").is_file());
        target("/etc/relative").unwrap();
        assert!(root.join("var/x").is_file() && !folder.path().join("var").exists());
        // It is there by now, and is found by two links.
        target("/etc/chain").unwrap();
        for guest in ["/etc/loop", "/etc/a"] {
            assert_eq!(target(guest).unwrap_err(), Errno::LOOP, "{guest}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_links_of_an_image_lead_out(
            links in proptest::collection::vec(("[a-c]", "/?((\\.\\.|[a-d])/){0,3}(\\.\\.|[a-d])"), 0..4),
            guest in "(/[a-d]){1,4}",
            is_directory: bool,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("x/y/root");
            std::fs::create_dir_all(&root).unwrap();
            for (at, to) in links {
                // The same name twice is one link.
                let _ = std::os::unix::fs::symlink(to, root.join(at));
            }
            let open = std::fs::File::open(&root).unwrap();
            let target = target(&open, &guest, is_directory);
            if let Ok(target) = target {
                let path = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target)));
                proptest::prop_assert!(path.unwrap().starts_with(&root));
            }
            for outer in [folder.path(), &folder.path().join("x"), &folder.path().join("x/y")] {
                proptest::prop_assert_eq!(std::fs::read_dir(outer).unwrap().count(), 1);
            }
        }
    }
}

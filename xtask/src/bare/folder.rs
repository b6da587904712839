//! A folder of the host as it is now, as an archive for the image's ramdisk.

use std::{
    fs::{self, FileType, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use tar::{Builder, EntryType, Header};

use crate::error::{Error, Result};

/// The most bytes of all files of a folder: they are in the machine's memory as long as it runs.
const MOST: u64 = 64 << 20;

/// A folder, packed.
pub(crate) struct Folder {
    /// Its own name, by which the guest knows it.
    pub(crate) name: String,
    /// What is in it: a ustar archive.
    pub(crate) archive: Vec<u8>,
    /// Whether the guest may write to it.
    pub(crate) writable: bool,
}

impl Folder {
    /// Packs the folder of an option: its path, with `:rw`, `:ro` or nothing behind it.
    ///
    /// # Errors
    ///
    /// If it is none, cannot be read, or does not fit.
    pub(crate) fn pack(option: &str) -> Result<Self> {
        let (path, writable) = match option.strip_suffix(":rw") {
            Some(path) => (path, true),
            None => (option.strip_suffix(":ro").unwrap_or(option), false),
        };
        let path = Path::new(path);
        let whole = path.canonicalize().map_err(Error::file("open", path))?;
        if !whole.is_dir() {
            return Err(Error::Usage(format!(
                "{} is not a folder: give the guest the folder it is in, or a file as a disk (--disk)",
                path.display()
            )));
        }
        // As `chiton run` calls it.
        let name = whole.file_name().map_or(Some("root"), |name| name.to_str());
        let name = name.filter(|name| !name.contains('\n')).ok_or_else(|| {
            Error::Usage(format!(
                "the guest cannot call the folder {} by its name: rename it",
                path.display()
            ))
        })?;
        let mut packer = Packer {
            root: whole.clone(),
            archive: Builder::new(Vec::new()),
            bytes: 0,
        };
        packer.inside(&whole)?;
        let archive = packer.archive.into_inner().map_err(Error::file("pack", path))?;
        let name = name.to_owned();
        Ok(Self {
            name,
            archive,
            writable,
        })
    }
}

struct Packer {
    root: PathBuf,
    archive: Builder<Vec<u8>>,
    bytes: u64,
}

impl Packer {
    /// Adds what is in a directory, in the order in which the host lists it: then a guest finds it in the same order
    /// here and there.
    fn inside(&mut self, directory: &Path) -> Result<()> {
        for entry in fs::read_dir(directory).map_err(Error::file("read", directory))? {
            let path = entry.map_err(Error::file("read", directory))?.path();
            let about = path.symlink_metadata().map_err(Error::file("read", &path))?;
            self.add(&path, &about)?;
            if about.is_dir() {
                self.inside(&path)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, about: &Metadata) -> Result<()> {
        let mut header = Header::new_ustar();
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        let name = if about.is_dir() {
            inside.join("")
        } else {
            inside.to_owned()
        };
        header.set_path(name).map_err(|error| {
            Error::Usage(format!(
                "{} cannot be packed: {error}; rename it, or leave it out",
                path.display()
            ))
        })?;
        header.set_entry_type(kind(about.file_type()));
        header.set_mode(about.mode() & 0o7777);
        header.set_uid(about.uid().into());
        header.set_gid(about.gid().into());
        header.set_mtime(u64::try_from(about.mtime()).unwrap_or(0));
        let mut content = Vec::new();
        if about.is_file() {
            self.bytes += about.len();
            if self.bytes > MOST {
                return Err(Error::Usage(format!(
                    "the folder {} has more than {} MiB in it: give the guest a part of it",
                    self.root.display(),
                    MOST >> 20
                )));
            }
            content = fs::read(path).map_err(Error::file("read", path))?;
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        let added: io::Result<()> = self.archive.append(&header, &content[..]);
        added.map_err(Error::file("pack", path))
    }
}

/// What a file is; sockets, for which an archive has no word, are pipes: a guest can open neither.
fn kind(of: FileType) -> EntryType {
    if of.is_dir() {
        EntryType::Directory
    } else if of.is_file() {
        EntryType::Regular
    } else if of.is_symlink() {
        EntryType::Symlink
    } else if of.is_block_device() {
        EntryType::Block
    } else if of.is_char_device() {
        EntryType::Char
    } else {
        EntryType::Fifo
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder of the test's own, which is removed behind it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("chiton-pack-{}-{name}", std::process::id()));
            fs::create_dir_all(path.join("src/sub/empty")).unwrap();
            Self(path)
        }

        fn pack(&self, suffix: &str) -> Result<Folder> {
            Folder::pack(&format!("{}/src{suffix}", self.0.display()))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let place = Place::new("order");
        fs::write(place.0.join("src/sub/file"), "text").unwrap();
        symlink("/etc/passwd", place.0.join("src/link")).unwrap();
        let folder = place.pack(":ro").unwrap();
        assert_eq!((&folder.name[..], folder.writable), ("src", false));
        assert!(place.pack(":rw").unwrap().writable);
        let mut archive = tar::Archive::new(&folder.archive[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            (path, entry.header().entry_type(), entry.header().size().unwrap())
        });
        let entries: Vec<_> = entries.collect();
        let at = |path: &str| entries.iter().position(|entry| entry.0 == path).unwrap();
        assert!(at("sub/") < at("sub/file") && at("sub/") < at("sub/empty/"));
        assert_eq!(entries[at("sub/file")].2, 4);
        assert_eq!((entries[at("link")].1, entries[at("link")].2), (EntryType::Symlink, 0));
        assert_eq!(entries.len(), 4);
    }

    #[test]
    fn what_cannot_be_packed_is_told() {
        let place = Place::new("refused");
        let words = |suffix: &str| place.pack(suffix).err().unwrap().to_string();
        assert!(words("/none").contains("none"));
        fs::write(place.0.join("src/file"), "").unwrap();
        assert!(words("/file").contains("is not a folder"));
        fs::write(place.0.join("src/sub").join("n".repeat(150)), "").unwrap();
        assert!(words("").contains("cannot be packed"), "{}", words(""));
    }

    #[test]
    fn too_much_is_refused_before_it_is_read() {
        let place = Place::new("much");
        let file = fs::File::create(place.0.join("src/file")).unwrap();
        file.set_len(MOST + 1).unwrap();
        assert!(place.pack("").err().unwrap().to_string().contains("more than 64 MiB"));
    }
}

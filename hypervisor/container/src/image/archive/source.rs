//! Files by name, in a folder or an archive. Nothing is written under a name that an archive chose.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::super::error::Doing;
use super::super::layer::bounded::{Bounded, Over};
use super::super::layer::compression::Compression;
use super::super::layer::tar::{Archive, Broken, Kind};
use super::super::store::{Store, open_top};
use super::super::{Error, Limits, Result};

/// The most files an archive of images may hold.
const FILES: usize = 100_000;

/// Where an image is read from.
pub(super) struct Source {
    /// For messages.
    pub(super) label: String,
    files: Files,
}

enum Files {
    Folder(OwnedFd),
    Archive {
        file: File,
        /// Offset and size of each file.
        members: HashMap<Vec<u8>, (u64, u64)>,
        /// Links by the name they have, as old versions of `docker save` made them.
        links: HashMap<Vec<u8>, Vec<u8>>,
    },
}

impl Source {
    /// Opens a folder or an archive; `-` is an archive on standard input.
    pub(super) fn open(store: &Store, path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Self::archive(
                spool(store, &mut io::stdin().lock(), "standard input")?,
                "standard input".into(),
            );
        }
        let label = path.display().to_string();
        let mut file = File::open(path).at("open", path)?;
        let found = file.metadata().at("look at", path)?;
        if found.is_dir() {
            let files = Files::Folder(open_top(path)?);
            return Ok(Self { label, files });
        }
        let mut first = [0; 4];
        if found.is_file() {
            let count = file.read(&mut first).at("read", path)?;
            file.rewind().at("read", path)?;
            if Compression::of(&first[..count]) == Compression::None {
                return Self::archive(file, label);
            }
        }
        let spooled = spool(store, &mut file, &label)?;
        Self::archive(spooled, label)
    }

    fn archive(file: File, label: String) -> Result<Self> {
        let mut members = HashMap::new();
        let mut links = HashMap::new();
        let mut archive = Archive::new(BufReader::new(file));
        loop {
            let entry = match archive.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(Broken::Io(error)) => return Err(error).doing(|| format!("read {label}")),
                Err(Broken::Format(_, why)) => return Err(Error::document(label, why)),
            };
            if members.len() + links.len() >= FILES {
                return Err(Error::document(label, format!("it holds more than {FILES} files")));
            }
            let name = plain(&entry.path);
            match entry.kind {
                Kind::File => {
                    members.insert(name, (archive.position(), entry.size));
                }
                Kind::Symlink | Kind::HardLink => {
                    let target = if entry.kind == Kind::Symlink {
                        beside(&name, &entry.link)
                    } else {
                        plain(&entry.link)
                    };
                    links.insert(name, target);
                }
                _ => {}
            }
        }
        let file = archive.into_inner().into_inner();
        Ok(Self {
            label,
            files: Files::Archive { file, members, links },
        })
    }

    /// A file, and its size; none if there is none.
    pub(super) fn file(&self, name: &str) -> Result<Option<(Box<dyn Read + '_>, u64)>> {
        match &self.files {
            Files::Folder(top) => {
                let file = rustix::fs::openat2(
                    top,
                    name,
                    OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
                    Mode::empty(),
                    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
                );
                let file = match file {
                    Err(rustix::io::Errno::NOENT) => return Ok(None),
                    opened => opened.doing(|| format!("open {}/{name}", self.label))?,
                };
                let stat = rustix::fs::fstat(&file).doing(|| format!("look at {}/{name}", self.label))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(Error::document(format!("{}/{name}", self.label), "it is no file"));
                }
                Ok(Some((
                    Box::new(File::from(file)),
                    u64::try_from(stat.st_size).unwrap_or_default(),
                )))
            }
            Files::Archive { file, members, links } => {
                let mut key = plain(name.as_bytes());
                if let Some(target) = links.get(&key) {
                    key.clone_from(target);
                }
                let Some((offset, size)) = members.get(&key) else {
                    return Ok(None);
                };
                let mut file = file;
                file.seek(SeekFrom::Start(*offset))
                    .doing(|| format!("read {}", self.label))?;
                Ok(Some((Box::new(file.take(*size)), *size)))
            }
        }
    }

    /// A document, whole; none if there is none.
    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some((file, size)) = self.file(name)? else {
            return Ok(None);
        };
        if size > Limits::DOCUMENT {
            return Err(Error::document(
                format!("{}/{name}", self.label),
                format!("{size} bytes are too many for a document"),
            ));
        }
        let mut bytes = Vec::new();
        file.take(Limits::DOCUMENT)
            .read_to_end(&mut bytes)
            .doing(|| format!("read {}/{name}", self.label))?;
        Ok(Some(bytes))
    }
}

/// Puts what cannot be read twice into a file, unpacked.
fn spool(store: &Store, from: &mut dyn Read, label: &str) -> Result<File> {
    let mut file = store.scratch()?;
    let mut reader = Bounded::new(from, store.limits()).doing(|| format!("read {label}"))?;
    if let Err(error) = io::copy(&mut reader, &mut file) {
        return match Over::of(&error) {
            Some(over) => Err(Error::document(label, format!("unpacked it has {over}"))),
            None => Err(error).doing(|| format!("unpack {label}")),
        };
    }
    file.rewind().doing(|| format!("read {label}"))?;
    Ok(file)
}

/// A name without `./` and the like; where it leads up it is nobody's name, because names are only
/// compared.
fn plain(name: &[u8]) -> Vec<u8> {
    let parts: Vec<_> = name
        .split(|b| *b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .collect();
    parts.join(&b'/')
}

/// The name that a link in the folder of `name` means.
fn beside(name: &[u8], link: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = name.split(|b| *b == b'/').collect();
    parts.pop();
    for part in link.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

//! Opens a snapshot, and makes memory of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chiton_core::cpuid::Entry;
use chiton_shared::map;

use super::format::{CHUNK, Description, HEADER, Header, Id, MEMORY, Pages, Run};
use super::{SnapshotError, format};
use crate::Error;
use crate::host::disk::Disk;
use crate::ram::Ram;

/// How many snapshots may build on one another.
const MOST_PARENTS: usize = 16;

/// Runs of so many pages are mapped; shorter ones are read, which is quicker than another mapping.
const MAPPED: u64 = 32;

/// A snapshot that is open and has been checked, but for its memory, which [`verify`](Self::verify) does: to read all
/// of it would take the longer the more there is.
#[derive(Debug)]
pub struct Snapshot {
    file: File,
    header: Header,
    pub(crate) description: Description,
    parent: Option<Box<Snapshot>>,
}

impl Snapshot {
    /// Opens a snapshot, and those that it builds on.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        Self::open_at(path, 0).map_err(|source| Error::Snapshot {
            path: path.to_owned(),
            source,
        })
    }

    fn open_at(path: &Path, depth: usize) -> Result<Self, SnapshotError> {
        if depth > MOST_PARENTS {
            return Err(SnapshotError::TooDeep(MOST_PARENTS));
        }
        let file = open_file(path)?;
        let (header, description) = read(&file)?;
        let parent = match (&header.parent, &description.parent) {
            (Some(id), Some(name)) => Some(Box::new(Self::open_parent(path, name, id, &description, depth)?)),
            (None, None) => None,
            _ => return Err(SnapshotError::Damaged("its header")),
        };
        Ok(Self {
            file,
            header,
            description,
            parent,
        })
    }

    /// The parent is where it was, or beside its child.
    fn open_parent(
        child: &Path,
        name: &str,
        id: &Id,
        description: &Description,
        depth: usize,
    ) -> Result<Self, SnapshotError> {
        let there = PathBuf::from(name);
        let beside = child.with_file_name(there.file_name().unwrap_or_default());
        let path = if there.exists() { there } else { beside };
        let opened = Self::open_at(&path, depth + 1).and_then(|parent| {
            if parent.header.id == *id && parent.description.memory == description.memory {
                Ok(parent)
            } else {
                Err(SnapshotError::OtherParent)
            }
        });
        opened.map_err(|source| match source {
            SnapshotError::TooDeep(_) => source,
            source => SnapshotError::Parent {
                path,
                source: Box::new(source),
            },
        })
    }

    /// What names it.
    #[must_use]
    pub const fn id(&self) -> Id {
        self.header.id
    }

    /// Its file, and those of the snapshots that it builds on.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        let chain = std::iter::successors(Some(self), |snapshot| snapshot.parent.as_deref());
        chain.map(|snapshot| &snapshot.file)
    }

    /// What the guest is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// Guest memory, in bytes.
    #[must_use]
    pub const fn memory(&self) -> u64 {
        self.description.memory
    }

    /// How many processors the guest may have.
    #[must_use]
    pub const fn processors(&self) -> u32 {
        self.description.processors
    }

    /// Reads all memory, and the guest's file, and checks them; of those it builds on too.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`], which says where the damage is.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        if let Some(parent) = &self.parent {
            parent.verify()?;
        }
        let mut buffer = vec![0; CHUNK as usize];
        match &self.description.pages {
            Pages::All(sums) => {
                for (start, sum) in (0..self.header.memory).step_by(CHUNK as usize).zip(sums) {
                    let len = CHUNK.min(self.header.memory - start);
                    self.verify_range(start, len, *sum, start, &mut buffer)?;
                }
            }
            Pages::Changed(runs) => {
                for (at, run) in places(runs) {
                    self.verify_range(at, run.count * map::PAGE, run.crc, run.first * map::PAGE, &mut buffer)?;
                }
            }
        }
        let guest = self.guest()?;
        if crc32fast::hash(&guest) == self.header.guest_crc {
            Ok(())
        } else {
            Err(SnapshotError::Damaged("the guest's file in it"))
        }
    }

    /// A range of the memory in the file that belongs at an address.
    fn verify_range(&self, at: u64, len: u64, sum: u32, address: u64, buffer: &mut [u8]) -> Result<(), SnapshotError> {
        let mut hasher = crc32fast::Hasher::new();
        for start in (0..len).step_by(buffer.len()) {
            let piece = &mut buffer[..CHUNK.min(len - start) as usize];
            self.file.read_exact_at(piece, MEMORY + at + start)?;
            hasher.update(piece);
        }
        if hasher.finalize() == sum {
            return Ok(());
        }
        Err(SnapshotError::Memory { address, bytes: len })
    }

    /// The guest's file.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(crate) fn guest(&self) -> io::Result<Vec<u8>> {
        let mut guest = vec![0; self.header.guest as usize];
        self.file.read_exact_at(&mut guest, self.header.guest_at())?;
        Ok(guest)
    }

    /// Refuses disks that are not those of the snapshot.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Disks`], [`SnapshotError::Disk`].
    pub(crate) fn check_disks(&self, disks: &[Disk]) -> Result<(), SnapshotError> {
        let then = &self.description.disks;
        if then.len() != disks.len() {
            let paths: Vec<_> = then.iter().map(|disk| disk.path.as_str()).collect();
            return Err(SnapshotError::Disks {
                then: then.len(),
                paths: paths.join(", "),
                now: disks.len(),
            });
        }
        for (number, (then, disk)) in then.iter().zip(disks).enumerate() {
            let now = disk.facts()?;
            let words = |yes, one: &str, other: &str| if yes { one.to_owned() } else { other.to_owned() };
            let what = if now.sectors != then.sectors {
                format!("it had {} sectors and has {}", then.sectors, now.sectors)
            } else if now.read_only != then.read_only {
                words(
                    then.read_only,
                    "the guest could not write to it: add :ro",
                    "the guest could write to it: leave :ro out",
                )
            } else if now.queues != then.queues {
                format!("it had {} queues: give it queues={}", then.queues, then.queues)
            } else if now.written != then.written {
                "it has been written to since, and the guest would not know".to_owned()
            } else {
                continue;
            };
            return Err(SnapshotError::Disk {
                number,
                path: then.path.clone(),
                what,
            });
        }
        Ok(())
    }

    /// Refuses a processor that guests see otherwise.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Processor`].
    pub(crate) fn check_processor(&self, now: &[Entry]) -> Result<(), SnapshotError> {
        let then = &self.description.cpuid;
        let words = |entry: Option<&Entry>| {
            entry.map_or("nothing".to_owned(), |Entry { answer, .. }| {
                format!("{:x} {:x} {:x} {:x}", answer.eax, answer.ebx, answer.ecx, answer.edx)
            })
        };
        let longest = then.len().max(now.len());
        match (0..longest).find(|i| then.get(*i) != now.get(*i)) {
            None => Ok(()),
            Some(i) => Err(SnapshotError::Processor {
                leaf: then.get(i).or(now.get(i)).map_or(0, |entry| entry.leaf),
                then: words(then.get(i)),
                now: words(now.get(i)),
            }),
        }
    }

    /// Refuses another frequency than the one that the guest reckons with. What the kernel measures anew at each boot may
    /// differ a little.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Frequency`].
    pub(crate) fn check_frequency(&self, now: u32) -> Result<(), SnapshotError> {
        let then = self.description.tsc_khz;
        // 250 ppm, as other hypervisors have it.
        if u64::from(then.abs_diff(now)) * 4000 <= u64::from(then) {
            Ok(())
        } else {
            Err(SnapshotError::Frequency { then, now })
        }
    }

    /// Memory as it was: that of the first of those that build on one another, with what the others have changed over it.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(crate) fn make_memory(&self) -> Result<Ram, Error> {
        let Pages::Changed(runs) = &self.description.pages else {
            return Ram::of_file(&self.file, MEMORY, self.header.memory);
        };
        let parent = self.parent.as_ref().ok_or(Error::Died)?;
        let ram = parent.make_memory()?;
        let failed = |source: io::Error| Error::Memory {
            mib: ram.bytes() >> 20,
            reason: source.to_string(),
        };
        for (at, run) in places(runs) {
            let mut at = MEMORY + at;
            let start = run.first * map::PAGE;
            for (place, len) in ram.pieces(start..start + run.count * map::PAGE) {
                if run.count >= MAPPED {
                    self.map_over(place, len, at).map_err(failed)?;
                } else {
                    // SAFETY: a piece of memory that nobody uses yet.
                    let piece = unsafe { std::slice::from_raw_parts_mut(place, len) };
                    self.file.read_exact_at(piece, at).map_err(failed)?;
                }
                at += len as u64;
            }
        }
        Ok(ram)
    }

    /// Puts a part of the file in the place of a piece of memory.
    fn map_over(&self, place: *mut u8, len: usize, at: u64) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let (fd, at) = (self.file.as_raw_fd(), at.cast_signed());
        // SAFETY: the piece is whole pages of memory that `Ram` has mapped and keeps, and nobody uses yet.
        let mapped = unsafe { libc::mmap(place.cast(), len, protection, flags, fd, at) };
        if mapped == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// Where in a file's memory each run lies.
fn places(runs: &[Run]) -> impl Iterator<Item = (u64, &Run)> {
    let mut at = 0;
    runs.iter().map(move |run| {
        let here = at;
        at += run.count * map::PAGE;
        (here, run)
    })
}

/// Opens a regular file, and waits for nobody.
fn open_file(path: &Path) -> Result<File, SnapshotError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => SnapshotError::Link,
        _ => error.into(),
    })?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(SnapshotError::Kind)
    }
}

/// The header and the description, checked, of a file that is as long as they say.
fn read(file: &File) -> Result<(Header, Description), SnapshotError> {
    let mut bytes = [0; HEADER];
    file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Magic,
        _ => error.into(),
    })?;
    let header = Header::parse(&bytes)?;
    let (is, should) = (file.metadata()?.len(), header.file_len());
    if is != should {
        return Err(SnapshotError::Length { is, should });
    }
    let mut bytes = vec![0; header.description as usize];
    file.read_exact_at(&mut bytes, header.description_at())?;
    if crc32fast::hash(&bytes) != header.description_crc {
        return Err(SnapshotError::Damaged("its description"));
    }
    let description = format::Description::parse(&bytes, header.memory)?;
    Ok((header, description))
}

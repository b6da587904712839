//! What is in a snapshot's file, and where.
//!
//! ```text
//!  0                 header: 128 bytes, the last 4 a checksum of the others
//!  4096              memory: whole pages, in the order of their addresses; pages of zeros are holes
//!  …                 the guest's file
//!  …                 the description: everything else, with checksums of what is before it
//! ```
//!
//! Memory lies so that it can be mapped as it is. The description is all that is read at a start. Its parser
//! is given bytes that anybody may have written.

use chiton_core::cpuid::Entry;
use chiton_core::state::{Reader, StateError, Writer};
use chiton_shared::interrupts::Idle;
use chiton_shared::manifest::Ring;
use chiton_shared::{map, processor};

use super::SnapshotError;

/// The first bytes of the file.
pub const MAGIC: [u8; 8] = *b"CHITONSS";
/// Counted up when the header or the order of the file changes. All else is bound to the [build](BUILD).
pub const VERSION: u32 = 1;
/// The build that this is: its version, and a hash of the code whose state a snapshot holds.
pub const BUILD: &str = env!("CHITON_BUILD");
/// Length of the header, in bytes.
pub const HEADER: usize = 128;
/// Where memory begins.
pub const MEMORY: u64 = map::PAGE;
/// A checksum is of so many bytes of memory.
pub const CHUNK: u64 = 1 << 20;
/// The longest description, in bytes.
pub const MAX_DESCRIPTION: u32 = 64 << 20;
/// The most memory that a snapshot holds, in bytes.
const MAX_MEMORY: u64 = 1 << 46;
/// The longest file of a guest, in bytes.
const MAX_GUEST: u64 = 1 << 30;

/// Names a snapshot; made at random.
pub type Id = [u8; 16];

/// The header.
///
/// | offset | what | |
/// |---:|---|---|
/// | 0 | magic | `CHITONSS` |
/// | 8 | version | `u32`, [`VERSION`] |
/// | 12 | length of the description, in bytes | `u32` |
/// | 16 | CRC-32 of the description | `u32` |
/// | 20 | CRC-32 of the guest's file | `u32` |
/// | 24 | bytes of memory in this file | `u64` |
/// | 32 | length of the guest's file, in bytes | `u64` |
/// | 40 | ID | 16 bytes |
/// | 56 | ID of the parent; zeros without | 16 bytes |
/// | 72 | build | 48 bytes of text, filled up with zeros |
/// | 120 | nothing | zeros |
/// | 124 | CRC-32 of bytes 0 to 123 | `u32` |
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table has them")]
pub struct Header {
    pub description: u32,
    pub description_crc: u32,
    pub guest_crc: u32,
    pub memory: u64,
    pub guest: u64,
    pub id: Id,
    pub parent: Option<Id>,
    pub build: String,
}

impl Header {
    /// The bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER] {
        let mut build = [0; 48];
        let text = self.build.as_bytes();
        let len = text.len().min(build.len());
        build[..len].copy_from_slice(&text[..len]);
        let mut writer = Writer::new();
        writer.raw(&MAGIC);
        writer.u32(VERSION);
        writer.u32(self.description);
        writer.u32(self.description_crc);
        writer.u32(self.guest_crc);
        writer.u64(self.memory);
        writer.u64(self.guest);
        writer.raw(&self.id);
        writer.raw(&self.parent.unwrap_or_default());
        writer.raw(&build);
        writer.u32(0);
        let mut bytes = writer.into_bytes();
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let mut header = [0; HEADER];
        header.copy_from_slice(&bytes);
        header
    }

    /// Reads and checks a header.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`], by what differs first: magic, version, checksum, build.
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Self, SnapshotError> {
        let header = Self::read(bytes)?;
        if header.build != BUILD {
            return Err(SnapshotError::Build(header.build));
        }
        Ok(header)
    }

    fn read(bytes: &[u8; HEADER]) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != &MAGIC {
            return Err(SnapshotError::Magic);
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let (before, crc) = bytes.split_at(HEADER - 4);
        if crc32fast::hash(before).to_le_bytes() != crc {
            return Err(SnapshotError::Damaged("its header"));
        }
        let header = Self {
            description: reader.u32()?,
            description_crc: reader.u32()?,
            guest_crc: reader.u32()?,
            memory: reader.u64()?,
            guest: reader.u64()?,
            id: *reader.array()?,
            parent: Some(*reader.array()?).filter(|id| *id != Id::default()),
            build: text(reader.raw(48)?),
        };
        let large = header.description > MAX_DESCRIPTION || header.guest > MAX_GUEST || header.memory > MAX_MEMORY;
        if large || !header.memory.is_multiple_of(map::PAGE) {
            return Err(SnapshotError::Damaged("its header"));
        }
        Ok(header)
    }

    /// Where the guest's file begins.
    #[must_use]
    pub const fn guest_at(&self) -> u64 {
        MEMORY + self.memory
    }

    /// Where the description begins.
    #[must_use]
    pub const fn description_at(&self) -> u64 {
        self.guest_at() + self.guest.next_multiple_of(map::PAGE)
    }

    /// How long the file is.
    #[must_use]
    pub const fn file_len(&self) -> u64 {
        self.description_at() + self.description as u64
    }
}

/// Text that zeros follow, in which nothing does anything to a terminal.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let harmless = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(harmless).collect()
}

/// A disk, as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// Where it was.
    pub path: String,
    /// How many sectors of 512 bytes it had.
    pub sectors: u64,
    /// Whether the guest could not write to it.
    pub read_only: bool,
    /// How many queues it had.
    pub queues: u32,
    /// When it was written last, in nanoseconds since 1970; 0 where that does not tell, as of a block device.
    pub written: u64,
}

/// Where the parts of memory are that a file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// All of it; the checksums are of [`CHUNK`] bytes each, in order.
    All(Vec<u32>),
    /// What has changed since the parent, one run after the other.
    Changed(Vec<Run>),
}

/// Pages that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of the first, counted from the beginning of memory.
    pub first: u64,
    /// How many there are.
    pub count: u64,
    /// CRC-32 of their bytes.
    pub crc: u32,
}

/// The description: the machine, but for its memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// What the guest is called.
    pub name: String,
    /// Guest memory, in bytes.
    pub memory: u64,
    /// How many processors it may have.
    pub processors: u32,
    /// The ring that was asked for.
    pub ring: Option<Ring>,
    /// How it waits, if it has interrupts.
    pub interrupts: Option<Idle>,
    /// Frequency of the time-stamp counter.
    pub tsc_khz: u32,
    /// What the guest sees of its processor.
    pub cpuid: Vec<Entry>,
    /// The disks.
    pub disks: Vec<DiskFacts>,
    /// How much the host would like to have in the balloon, if there is one.
    pub balloon: Option<u64>,
    /// The devices, in order.
    pub devices: Vec<Vec<u8>>,
    /// The processors that run: which, and their states.
    pub vcpus: Vec<(u32, Vec<u8>)>,
    /// Where the parent is, if there is one.
    pub parent: Option<String>,
    /// Where memory is.
    pub pages: Pages,
}

/// The most of anything that is counted and small.
const MANY: u32 = 1024;

impl Description {
    /// The bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut to = Writer::new();
        to.bytes(self.name.as_bytes());
        to.u64(self.memory);
        to.u32(self.processors);
        to.u8(match self.ring {
            None => 0xff,
            Some(Ring::Kernel) => 0,
            Some(Ring::User) => 3,
        });
        to.u8(match self.interrupts {
            None => 0xff,
            Some(idle) => idle as u8,
        });
        to.u32(self.tsc_khz);
        to.u32(self.cpuid.len() as u32);
        for Entry { leaf, subleaf, answer } in &self.cpuid {
            to.u32(*leaf);
            to.flag(subleaf.is_some());
            to.u32(subleaf.unwrap_or(0));
            for word in [answer.eax, answer.ebx, answer.ecx, answer.edx] {
                to.u32(word);
            }
        }
        to.u32(self.disks.len() as u32);
        for disk in &self.disks {
            to.bytes(disk.path.as_bytes());
            to.u64(disk.sectors);
            to.flag(disk.read_only);
            to.u32(disk.queues);
            to.u64(disk.written);
        }
        to.flag(self.balloon.is_some());
        to.u64(self.balloon.unwrap_or(0));
        to.u32(self.devices.len() as u32);
        self.devices.iter().for_each(|device| to.bytes(device));
        to.u32(self.vcpus.len() as u32);
        for (number, state) in &self.vcpus {
            to.u32(*number);
            to.bytes(state);
        }
        match (&self.parent, &self.pages) {
            (Some(parent), Pages::Changed(runs)) => {
                to.flag(true);
                to.bytes(parent.as_bytes());
                to.u32(runs.len() as u32);
                for Run { first, count, crc } in runs {
                    to.u64(*first);
                    to.u64(*count);
                    to.u32(*crc);
                }
            }
            (_, pages) => {
                to.flag(false);
                if let Pages::All(sums) = pages {
                    sums.iter().for_each(|sum| to.u32(*sum));
                }
            }
        }
        to.into_bytes()
    }

    /// Reads and checks a description that belongs to a file with so much memory in it.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn parse(bytes: &[u8], memory_here: u64) -> Result<Self, StateError> {
        let mut from = Reader::new(bytes);
        let name = text(from.bytes()?);
        let memory = from.u64()?;
        if memory == 0 || memory > MAX_MEMORY || !memory.is_multiple_of(map::PAGE) {
            return Err(StateError::value("guest memory", memory));
        }
        let processors = from.u32()?;
        if !(1..=processor::MAX).contains(&processors) {
            return Err(StateError::value("how many processors there are", processors));
        }
        let ring = match from.u8()? {
            0xff => None,
            0 => Some(Ring::Kernel),
            3 => Some(Ring::User),
            other => return Err(StateError::value("the ring", other)),
        };
        let interrupts = match from.u8()? {
            0xff => None,
            0 => Some(Idle::Doorbell),
            1 => Some(Idle::Halt),
            other => return Err(StateError::value("how it waits", other)),
        };
        let tsc_khz = from.u32()?;
        let cpuid = list(&mut from, MANY, entry)?;
        let disks = list(&mut from, map::DEVICE_MAX as u32, disk)?;
        let has_balloon = from.flag()?;
        let balloon = Some(from.u64()?).filter(|_| has_balloon);
        let devices = list(&mut from, map::DEVICE_MAX as u32, |from| Ok(from.bytes()?.to_vec()))?;
        let vcpus = list(&mut from, processors, |from| Ok((from.u32()?, from.bytes()?.to_vec())))?;
        if vcpus.first().is_none_or(|(number, _)| *number != 0) || !vcpus.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(StateError::value("the processors that run", vcpus.len() as u64));
        }
        if let Some((last, _)) = vcpus.last().filter(|(last, _)| *last >= processors) {
            return Err(StateError::value("a processor's number", *last));
        }
        let (parent, pages) = if from.flag()? {
            let parent = String::from_utf8_lossy(from.bytes()?).into_owned();
            (Some(parent), Pages::Changed(runs(&mut from, memory, memory_here)?))
        } else if memory_here == memory {
            let count = memory.div_ceil(CHUNK);
            let sums = (0..count).map(|_| from.u32()).collect::<Result<_, _>>()?;
            (None, Pages::All(sums))
        } else {
            return Err(StateError::value("guest memory", memory));
        };
        from.end()?;
        Ok(Self {
            name,
            memory,
            processors,
            ring,
            interrupts,
            tsc_khz,
            cpuid,
            disks,
            balloon,
            devices,
            vcpus,
            parent,
            pages,
        })
    }
}

/// A list of at most so many.
fn list<'s, T>(
    from: &mut Reader<'s>,
    most: u32,
    mut one: impl FnMut(&mut Reader<'s>) -> Result<T, StateError>,
) -> Result<Vec<T>, StateError> {
    let count = from.u32()?;
    if count > most {
        return Err(StateError::value("the length of a list", count));
    }
    (0..count).map(|_| one(from)).collect()
}

fn entry(from: &mut Reader<'_>) -> Result<Entry, StateError> {
    let leaf = from.u32()?;
    let has_subleaf = from.flag()?;
    let subleaf = Some(from.u32()?).filter(|_| has_subleaf);
    let (eax, ebx, ecx, edx) = (from.u32()?, from.u32()?, from.u32()?, from.u32()?);
    let answer = std::arch::x86_64::CpuidResult { eax, ebx, ecx, edx };
    Ok(Entry { leaf, subleaf, answer })
}

fn disk(from: &mut Reader<'_>) -> Result<DiskFacts, StateError> {
    Ok(DiskFacts {
        path: text(from.bytes()?),
        sectors: from.u64()?,
        read_only: from.flag()?,
        queues: from.u32()?,
        written: from.u64()?,
    })
}

/// Runs in order, without overlap, in memory, which together are what the file has.
fn runs(from: &mut Reader<'_>, memory: u64, memory_here: u64) -> Result<Vec<Run>, StateError> {
    let (mut next, mut sum) = (0, 0);
    let runs = list(from, MAX_DESCRIPTION, |from| {
        let (first, count, crc) = (from.u64()?, from.u64()?, from.u32()?);
        let end = first.checked_add(count).filter(|end| *end <= memory / map::PAGE);
        let end = end.filter(|_| first >= next && count > 0);
        next = end.ok_or(StateError::value("the first of some pages", first))?;
        sum += count;
        Ok(Run { first, count, crc })
    })?;
    if sum * map::PAGE != memory_here {
        return Err(StateError::value("how many pages have changed", sum));
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(pages: Pages) -> Description {
        Description {
            name: "counter".into(),
            memory: 3 << 20,
            processors: 3,
            ring: Some(Ring::User),
            interrupts: Some(Idle::Halt),
            tsc_khz: 2_000_000,
            cpuid: vec![Entry {
                leaf: 7,
                subleaf: Some(0),
                answer: std::arch::x86_64::CpuidResult {
                    eax: 1,
                    ebx: 2,
                    ecx: 3,
                    edx: 4,
                },
            }],
            disks: vec![DiskFacts {
                path: "/srv/a".into(),
                sectors: 8,
                read_only: true,
                queues: 1,
                written: 9,
            }],
            balloon: Some(4096),
            devices: vec![vec![1, 2], Vec::new()],
            vcpus: vec![(0, vec![3]), (2, vec![4])],
            parent: matches!(pages, Pages::Changed(_)).then(|| "/srv/full".into()),
            pages,
        }
    }

    fn run(first: u64, count: u64) -> Run {
        Run { first, count, crc: 1 }
    }

    #[test]
    fn a_description_reads_back_and_no_part_of_one_is_one() {
        for (pages, here) in [
            (Pages::All(vec![1, 2, 3]), 3 << 20),
            (Pages::Changed(vec![run(1, 2), run(5, 1)]), 3 << 12),
        ] {
            let description = description(pages);
            let bytes = description.to_bytes();
            assert_eq!(Description::parse(&bytes, here), Ok(description));
            for len in 0..bytes.len() {
                assert!(Description::parse(&bytes[..len], here).is_err(), "{len}");
            }
            assert!(Description::parse(&[&bytes[..], &[0]].concat(), here).is_err());
            assert!(
                Description::parse(&bytes, here + map::PAGE).is_err(),
                "as much as the file has"
            );
        }
    }

    #[test]
    fn runs_that_overlap_or_leave_memory_are_refused() {
        let last = (3 << 20) / map::PAGE;
        for runs in [
            vec![run(4, 2), run(5, 1)],
            vec![run(5, 1), run(4, 1)],
            vec![run(last, 1)],
            vec![run(0, 0)],
            vec![run(u64::MAX, 2)],
        ] {
            let here = runs.iter().fold(0_u64, |sum, run| sum.wrapping_add(run.count)) * map::PAGE;
            let bytes = description(Pages::Changed(runs)).to_bytes();
            assert!(matches!(
                Description::parse(&bytes, here),
                Err(StateError::Value { .. })
            ));
        }
    }

    #[test]
    fn the_first_processor_runs_and_none_is_there_twice_or_beyond_the_last() {
        for vcpus in [vec![], vec![1], vec![0, 0], vec![0, 2, 1], vec![0, 3]] {
            let description = Description {
                vcpus: vcpus.into_iter().map(|number| (number, Vec::new())).collect(),
                ..description(Pages::All(vec![0; 3]))
            };
            assert!(Description::parse(&description.to_bytes(), 3 << 20).is_err());
        }
    }

    #[test]
    fn a_header_reads_back_and_says_what_differs_first() {
        let header = Header {
            description: 10,
            description_crc: 1,
            guest_crc: 2,
            memory: 3 << 20,
            guest: 5000,
            id: [7; 16],
            parent: Some([8; 16]),
            build: BUILD.into(),
        };
        let bytes = header.to_bytes();
        assert_eq!(Header::parse(&bytes).ok(), Some(header.clone()));
        assert_eq!(header.file_len(), 4096 + (3 << 20) + 8192 + 10);
        for at in 0..HEADER {
            let mut bad = bytes;
            bad[at] ^= 1;
            let refused = Header::parse(&bad).unwrap_err();
            let right = match at {
                0..8 => matches!(refused, SnapshotError::Magic),
                8..12 => matches!(refused, SnapshotError::Version(_)),
                _ => matches!(refused, SnapshotError::Damaged(_)),
            };
            assert!(right, "{at}: {refused}");
        }
        let other = Header {
            build: "0.0.1-\u{1b}[2J".into(),
            ..header
        };
        let refused = Header::parse(&other.to_bytes()).unwrap_err().to_string();
        assert!(refused.contains("it was taken by build 0.0.1-\u{fffd}[2J"), "{refused}");
    }
}

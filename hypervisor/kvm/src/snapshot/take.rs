//! What a snapshot of a running guest takes.

use std::fs::File;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use chiton_core::cpuid::Entry;
use chiton_shared::interrupts::Idle;
use chiton_shared::manifest::Ring;

use super::format::{Description, DiskFacts, Id, Pages};
use super::{Snapshot, TakeError};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Take {
    /// Only what has changed since this one, which is there.
    pub(crate) parent: Option<(Id, String)>,
    /// Note from now on what changes, for an incremental one.
    pub(crate) track: bool,
    /// End the guest.
    pub(crate) stop: bool,
}

/// What was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What names it.
    pub id: Id,
    /// Guest memory, in bytes.
    pub memory: u64,
    /// Bytes of it that are in the file: the others are zeros, or those of the parent.
    pub written: u64,
}

/// What there is to know of a guest, beside its state.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) guest: GuestFile,
    pub(crate) processors: u32,
    pub(crate) ring: Option<Ring>,
    pub(crate) interrupts: Option<Idle>,
    pub(crate) tsc_khz: u32,
    pub(crate) cpuid: Vec<Entry>,
    pub(crate) disks: Vec<DiskProbe>,
}

/// Where the guest's file is.
#[derive(Clone, Debug)]
pub(crate) enum GuestFile {
    Bytes(Arc<Vec<u8>>),
    /// In the snapshot that it goes on from.
    Snapshot(Arc<Snapshot>),
}

impl GuestFile {
    pub(crate) fn bytes(&self) -> io::Result<Arc<Vec<u8>>> {
        match self {
            Self::Bytes(bytes) => Ok(Arc::clone(bytes)),
            Self::Snapshot(snapshot) => Ok(Arc::new(snapshot.guest()?)),
        }
    }
}

/// A disk, to be looked at when a snapshot is taken.
#[derive(Debug)]
pub(crate) struct DiskProbe {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) sectors: u64,
    pub(crate) read_only: bool,
    pub(crate) queues: u32,
}

impl DiskProbe {
    /// The disk as it is now.
    pub(crate) fn facts(&self) -> io::Result<DiskFacts> {
        let metadata = self.file.metadata()?;
        let seconds = metadata.st_mtime().cast_unsigned();
        let written = seconds
            .wrapping_mul(1_000_000_000)
            .wrapping_add(metadata.st_mtime_nsec().cast_unsigned());
        Ok(DiskFacts {
            path: self.path.to_string_lossy().into_owned(),
            sectors: self.sectors,
            read_only: self.read_only,
            queues: self.queues,
            written: if metadata.is_file() { written } else { 0 },
        })
    }

    pub(crate) fn is_writable_block_device(&self) -> bool {
        !self.read_only && self.file.metadata().is_ok_and(|metadata| !metadata.is_file())
    }
}

impl Facts {
    /// The description of the guest, but for its memory.
    pub(crate) fn describe(
        &self,
        memory: u64,
        balloon: Option<u64>,
        devices: Vec<Vec<u8>>,
        vcpus: Vec<(u32, Vec<u8>)>,
        take: &Take,
    ) -> Result<Description, TakeError> {
        Ok(Description {
            name: self.name.clone(),
            memory,
            processors: self.processors,
            ring: self.ring,
            interrupts: self.interrupts,
            tsc_khz: self.tsc_khz,
            cpuid: self.cpuid.clone(),
            disks: self.disks.iter().map(DiskProbe::facts).collect::<Result<_, _>>()?,
            balloon,
            devices,
            vcpus,
            parent: take.parent.as_ref().map(|(_, path)| path.clone()),
            pages: Pages::All(Vec::new()),
        })
    }
}

//! Why a snapshot cannot be taken, or be gone on from.

use std::io;
use std::path::PathBuf;

use chiton_core::devices::NotSaved;
use chiton_core::state::StateError;

use super::format::{BUILD, VERSION};

/// Why nothing goes on from a file.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be read, or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no regular file.
    #[error("it is not a regular file")]
    Kind,
    /// It is a symbolic link.
    #[error("it is a symbolic link: name the file itself, so that the one that is checked is the one that runs")]
    Link,
    /// It is none.
    #[error("it is not a snapshot, or one that was not finished")]
    Magic,
    /// Its form is another.
    #[error("its format is version {0}, and this chiton reads version {VERSION}")]
    Version(u32),
    /// It is of another build.
    #[error("it was taken by build {0}, and this is build {BUILD}: a snapshot is the state of the code that took it")]
    Build(String),
    /// A part of it is not what was written.
    #[error("{0} is damaged: its checksum is wrong")]
    Damaged(&'static str),
    /// A part of its memory is not what was written.
    #[error("its memory is damaged: the checksum of the {bytes} bytes from {address:#x} on is wrong")]
    Memory {
        /// Address of the first, counted from the beginning of memory.
        address: u64,
        /// How many.
        bytes: u64,
    },
    /// It is shorter or longer than its header says.
    #[error("it has {is} bytes, and its header says {should}: it was cut, or is still being written")]
    Length {
        /// How long it is.
        is: u64,
        /// How long it ought to be.
        should: u64,
    },
    /// What it says makes no sense.
    #[error("what it says cannot be: {0}")]
    State(#[from] StateError),
    /// It was taken on another processor.
    #[error(
        "it was taken on another processor: leaf {leaf:#x} of CPUID, as guests see it, says {then} there and {now} here"
    )]
    Processor {
        /// The first leaf that differs.
        leaf: u32,
        /// EAX to EDX there, or that there was none.
        then: String,
        /// Here.
        now: String,
    },
    /// The time-stamp counter has another frequency.
    #[error("it was taken where the time-stamp counter runs at {then} kHz, and here that is {now} kHz")]
    Frequency {
        /// There.
        then: u32,
        /// Here.
        now: u32,
    },
    /// The parent of an incremental one.
    #[error("its parent {} cannot be used: {source}", path.to_string_lossy().escape_debug())]
    Parent {
        /// Where it ought to be, as the file says, which anybody may have written.
        path: PathBuf,
        /// Why.
        source: Box<SnapshotError>,
    },
    /// Another file is where the parent was.
    #[error("this is another snapshot than the one that it builds on")]
    OtherParent,
    /// Parents of parents.
    #[error("more than {0} snapshots build on one another: take a full one")]
    TooDeep(usize),
    /// Not as many disks.
    #[error("it was taken with {then} disks ({paths}), and {now} are given: give the same ones with --disk")]
    Disks {
        /// How many.
        then: usize,
        /// Where they were.
        paths: String,
        /// How many are given.
        now: usize,
    },
    /// A disk that is not as it was.
    #[error("disk {number} ({path}) is not as it was: {what}")]
    Disk {
        /// Which.
        number: usize,
        /// Where it was.
        path: String,
        /// What differs.
        what: String,
    },
    /// Something that the snapshot has already, or cannot have.
    #[error("{0}")]
    Option(&'static str),
}

/// Why no snapshot of a guest is taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// A device cannot be saved.
    #[error("no snapshot: {kind} {number} cannot be in one: {why}")]
    Device {
        /// What it is.
        kind: &'static str,
        /// Which of its kind.
        number: usize,
        /// Why.
        why: NotSaved,
    },
    /// Emulated devices.
    #[error("no snapshot: an emulated device cannot be in one: it says nothing of its state")]
    Emulated,
    /// A disk that the guest can write to goes on to change.
    #[error(
        "no snapshot: disk {0} can be written to, and would no longer be the one that the guest knows when it goes on \
         from the snapshot: give it to the guest with :ro, or end the guest with the snapshot (--stop)"
    )]
    WritableDisk(usize),
    /// A block device does not tell whether it has been written to.
    #[error(
        "no snapshot: disk {0} is a block device that can be written to, and does not tell whether it has changed since: \
         give it to the guest with :ro"
    )]
    BlockDevice(usize),
    /// A processor could not be held.
    #[error("no snapshot: the guest's processors did not all come to a stop within {0} seconds")]
    NotHeld(u64),
    /// The guest ends.
    #[error("no snapshot: the guest ends")]
    Ending,
    /// A processor's state cannot be had.
    #[error("no snapshot: the state of processor {number} cannot be had: {why}")]
    Processor {
        /// Which.
        number: u32,
        /// Why.
        why: String,
    },
    /// This KVM cannot have the guest go on.
    #[error("no snapshot: {0}")]
    Unsupported(&'static str),
    /// Only with what was taken last.
    #[error("no incremental snapshot: {0}")]
    NoParent(&'static str),
    /// The file cannot be written.
    #[error("no snapshot: cannot write it: {0}")]
    Io(#[from] io::Error),
    /// KVM does not tell what has changed.
    #[error("no incremental snapshot: this KVM does not tell which pages have changed: {0}")]
    DirtyLog(kvm_ioctls::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_calls_its_parent_does_nothing_to_a_terminal() {
        let error = SnapshotError::Parent {
            path: "/a\u{1b}[2J\nb".into(),
            source: Box::new(SnapshotError::Magic),
        };
        let words = error.to_string();
        assert!(
            words.starts_with(r"its parent /a\u{1b}[2J\nb cannot be used: "),
            "{words}"
        );
    }
}

//! Others that run a program behind walls, or a machine: what each is asked to do, and the proof that it did it.
//!
//! | module | who |
//! |---|---|
//! | [`namespaces`] | `unshare`, bubblewrap |
//! | [`oci`] | crun, runc |
//! | [`machines`] | QEMU's microvm, Firecracker, Solo5, Hyperlight |
//! | [`payload`] | what they run: the smallest program, the smallest kernel |
//! | [`ours`] | Chiton, doing the same |
//!
//! Whoever is not installed, or does not work here, is listed with the reason.

pub mod machines;
pub mod namespaces;
pub mod oci;
pub mod ours;
pub mod payload;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::trial::{Chiton, Program, Result, TrialError, answer, find};

/// What a peer is prepared with.
#[derive(Debug)]
pub struct Bed<'a> {
    /// Chiton.
    pub chiton: &'a Chiton,
    /// The guest `hello`.
    pub guest: &'a Path,
    /// A folder for what is needed.
    pub place: &'a Path,
    /// A folder that is looked in before PATH.
    pub folder: Option<&'a Path>,
    /// A root with a program that [greets](payload::SAID).
    pub bundle: oci::Bundle,
    /// Where crun works, on a host that has cgroup v2 beside v1.
    pub beside: Option<oci::WithoutUnified>,
}

impl<'a> Bed<'a> {
    /// What peers are prepared with, in this place.
    ///
    /// # Errors
    ///
    /// If the bundle cannot be written.
    pub fn new(chiton: &'a Chiton, guest: &'a Path, place: &'a Path, folder: Option<&'a Path>) -> Result<Self> {
        Ok(Self {
            chiton,
            guest,
            place,
            folder,
            bundle: oci::Bundle::new(&place.join("bundle"))?,
            // Who may not make one measures without crun.
            beside: oci::WithoutUnified::new().unwrap_or(None),
        })
    }

    /// A program of a peer; `how` says how it comes here.
    ///
    /// # Errors
    ///
    /// If it is neither in the folder for peers nor in PATH.
    pub fn find(&self, program: &str, how: &str) -> Result<PathBuf> {
        let given = self.folder.map(|folder| folder.join(program));
        let found = given.filter(|path| path.is_file()).or_else(|| find(program));
        found.ok_or_else(|| TrialError::Missing(format!("{program} is not installed: {how}")))
    }
}

/// A peer that can be measured.
#[derive(Debug)]
pub struct Ready {
    /// What it says its version is.
    pub version: String,
    /// What is timed.
    pub program: Program,
    /// What it says if it works.
    pub expected: &'static str,
    /// What a reader has to know.
    pub note: Option<String>,
}

impl Ready {
    /// A program whose last part is the [payload], or a machine that runs it.
    ///
    /// # Errors
    ///
    /// If it does not say its version.
    pub fn greets(name: &str, program: &Path, command: Command) -> Result<Self> {
        let said = answer(Command::new(program).arg("--version"))?;
        Ok(Self {
            version: said.lines().next().unwrap_or_default().to_owned(),
            program: Program::new(name, command),
            expected: payload::SAID,
            note: None,
        })
    }
}

/// A peer.
#[derive(Debug)]
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// Whom it is like.
    pub group: &'static str,
    /// What is timed, in one sentence.
    pub what: &'static str,
    /// Which of [`ours`] does the same.
    pub against: &'static str,
    /// Makes it ready; an error is why it is skipped.
    pub prepare: fn(&Bed<'_>) -> Result<Ready>,
}

/// The group of Chiton's own.
pub const OURS: &str = "chiton";
/// The group of those that jail a process.
pub const JAILS: &str = "jails";
/// The group of those that run a machine.
pub const MACHINES: &str = "machines";

/// All of them, Chiton first.
pub const PEERS: &[Peer] = &[
    ours::UNJAILED,
    ours::JAILED,
    ours::IMAGE,
    ours::PROCESS,
    namespaces::UNSHARE,
    namespaces::BUBBLEWRAP,
    oci::CRUN,
    oci::RUNC,
    oci::WAY,
    machines::QEMU_KVM,
    machines::QEMU_TCG,
    machines::FIRECRACKER,
    machines::SOLO5,
    machines::HYPERLIGHT,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_compared_with_one_of_ours_and_nobody_is_there_twice() {
        let mut names: Vec<_> = PEERS.iter().map(|peer| peer.name).collect();
        for peer in PEERS {
            let ours = PEERS.iter().find(|other| other.name == peer.against);
            assert_eq!(ours.map(|ours| ours.group), Some(OURS), "{}", peer.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PEERS.len());
    }
}

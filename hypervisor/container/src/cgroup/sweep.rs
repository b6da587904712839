//! Finds the cgroups whose makers are dead, and removes them.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use super::error::{Error, Result};
use super::group::lock;
use super::parent::Parent;
use super::remove;

/// A cgroup that a dead process had left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Its name.
    pub name: String,
    /// How many processes were still in it.
    pub killed: usize,
}

impl Parent {
    /// Removes every cgroup below this one that no process holds, and kills what is in it.
    ///
    /// Who made one holds locks on its directories, which the kernel drops at its death, however it
    /// dies. A cgroup is dead if none of its directories is held.
    pub fn sweep(&self) -> Result<Vec<Swept>> {
        let mut names = BTreeSet::new();
        for stem in &self.stems {
            let entries = match fs::read_dir(&stem.directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => {
                    return Err(Error::Read {
                        path: stem.directory.clone(),
                        source,
                    });
                }
            };
            names.extend(
                entries
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .filter_map(|entry| entry.file_name().into_string().ok()),
            );
        }
        let mut swept = Vec::new();
        for name in names {
            swept.extend(self.sweep_one(name)?);
        }
        for stem in &self.stems {
            // The leaf of a process that made its place in its own cgroup; it stays while it is used.
            let _ = fs::remove_dir(self.own_leaf(stem));
        }
        Ok(swept)
    }

    fn sweep_one(&self, name: String) -> Result<Option<Swept>> {
        let mut held = Vec::new();
        for stem in &self.stems {
            let path = stem.directory.join(&name);
            match lock(&path) {
                Ok(Some(file)) => held.push((path, file)),
                Ok(None) => {}
                // Somebody lives. The locks taken so far are dropped.
                Err(Error::InUse(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let mut killed = 0;
        for (path, _lock) in &held {
            killed = killed.max(remove::all_processes(path)?.len());
            remove::tree(path, remove::WAIT)?;
        }
        Ok((!held.is_empty()).then_some(Swept { name, killed }))
    }
}

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Result, TrialError};

/// A folder of our own, which is gone afterwards.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Place {
    /// A new folder below this one.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or is there already.
    pub fn below(folder: &Path) -> Result<Self> {
        // Programs are told of it that run elsewhere.
        let folder = std::path::absolute(folder).map_err(TrialError::file("find", folder))?;
        let path = folder.join(format!("chiton-bench-{}", std::process::id()));
        // Not one that is there: programs are put into it and run, and anybody may make one in /tmp.
        fs::create_dir(&path).map_err(TrialError::file("create", &path))?;
        Ok(Self(path))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed lies where such things lie.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_there_already_is_nobodys_place() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::below(folder.path()).unwrap();
        let said = Place::below(folder.path()).unwrap_err().to_string();
        assert!(
            said.starts_with(&format!("cannot create {}", place.path().display())),
            "{said}"
        );
        drop(place);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

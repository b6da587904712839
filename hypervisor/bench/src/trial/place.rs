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
    /// If it cannot be made.
    pub fn below(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("chiton-bench-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(TrialError::file("create", &path))?;
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

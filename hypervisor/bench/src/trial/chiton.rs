use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Result, TrialError, find};

/// The options of every command that starts guests.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Programs {
    /// The program `chiton`; else the one beside this program, or in PATH.
    #[arg(long, value_name = "FILE")]
    chiton: Option<PathBuf>,

    /// The guest that is started; else the one that `cargo xtask guests` built.
    #[arg(long, value_name = "FILE")]
    guest: Option<PathBuf>,
}

impl Programs {
    /// The program `chiton`, whose instances and images are kept in `home`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn chiton(&self, home: PathBuf) -> Result<Chiton> {
        Chiton::find(self.chiton.as_deref(), home)
    }

    /// The guest, of this name if it is not given.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn guest(&self, name: &str) -> Result<PathBuf> {
        guest(self.guest.as_deref(), name)
    }
}

/// The program `chiton`, and where its instances are while it is measured.
#[derive(Clone, Debug)]
pub struct Chiton {
    program: PathBuf,
    home: PathBuf,
}

impl Chiton {
    /// The program at this path, else beside this program, else in PATH. Instances and images are kept in `home`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn find(given: Option<&Path>, home: PathBuf) -> Result<Self> {
        let program = match given {
            Some(path) if path.is_file() => Some(path.to_owned()),
            Some(path) => {
                return Err(TrialError::Missing(format!("there is no {}", path.display())));
            }
            None => beside("chiton").or_else(|| find("chiton")),
        };
        let program = program.ok_or_else(|| {
            TrialError::Missing("there is no chiton beside this program, or in PATH: name it with --chiton".into())
        })?;
        Ok(Self { program, home })
    }

    /// Where the program is.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where its instances and images are.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The program with these arguments, and a jail whatever the environment says.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("CHITON_HOME", &self.home)
            .env_remove("CHITON_JAIL")
            .env_remove("CHITON_TIMELINE");
        command
    }
}

/// A guest's file: the path that was given, else `name` in a folder `guests` beside this program or above it, which
/// is where `cargo xtask guests` leaves them.
///
/// # Errors
///
/// If there is none.
pub fn guest(given: Option<&Path>, name: &str) -> Result<PathBuf> {
    if let Some(path) = given {
        return match path.is_file() {
            true => Ok(path.to_owned()),
            false => Err(TrialError::Missing(format!("there is no guest {}", path.display()))),
        };
    }
    let own = std::env::current_exe().map_err(TrialError::system("find this program"))?;
    let found = own
        .ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join("guests").join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        TrialError::Missing(format!(
            "there is no guest {name} in a folder `guests` beside or above {}: build it with `cargo xtask guests`, \
             or name one",
            own.display()
        ))
    })
}

fn beside(name: &str) -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name(name);
    path.is_file().then_some(path)
}

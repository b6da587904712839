//! `cargo xtask manual`: manual pages and what shells need to complete commands, to be installed beside the
//! program.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    build::cargo,
    command,
    error::{Error, Result},
    ui::Task,
};

/// The shells, and what each calls its file.
const SHELLS: [(&str, &str); 3] = [("bash", "chiton.bash"), ("zsh", "_chiton"), ("fish", "chiton.fish")];

/// Arguments of `cargo xtask manual`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder; pages go to `man1` in it.
    #[arg(default_value = "target/manual")]
    folder: PathBuf,
}

/// Writes all of it.
///
/// # Errors
///
/// If the program does not build, or the folder cannot be written.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = std::path::absolute(&args.folder).map_err(Error::file("find", &args.folder))?;
    let task = Task::start("writing manual pages and completions");
    write(&folder, |words| {
        let mut run = cargo();
        run.args(["run", "--quiet", "--package", "chiton", "--features", "manual", "--"]);
        command::quietly(&task, run.args(words))
    })?;
    task.done();
    println!("{}", folder.display());
    Ok(())
}

/// Has `chiton`, which is given words and answers with what it printed, write the pages, and writes the rest.
fn write(folder: &Path, chiton: impl Fn(&[&OsStr]) -> Result<String>) -> Result<()> {
    let pages = folder.join("man1");
    fs::create_dir_all(&pages).map_err(Error::file("create", &pages))?;
    chiton(&["man".as_ref(), pages.as_ref()])?;
    for (shell, name) in SHELLS {
        let text = chiton(&["completions".as_ref(), shell.as_ref()])?;
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That the program itself understands these words and writes a page for each command, its own tests look.
    #[test]
    fn the_program_is_asked_for_its_pages_and_for_each_shell() {
        let folder = std::env::temp_dir().join(format!("xtask-manual-{}", std::process::id()));
        write(&folder, |words| {
            if words[0] == "man" {
                fs::write(Path::new(words[1]).join("chiton.1"), "a page").expect("its folder is there");
            }
            Ok(words[1].to_string_lossy().into_owned())
        })
        .expect("it writes");
        let read = |name: &str| fs::read_to_string(folder.join(name)).expect("it is there");
        assert_eq!(read("man1/chiton.1"), "a page");
        assert_eq!(
            ["chiton.bash", "_chiton", "chiton.fish"].map(read),
            ["bash", "zsh", "fish"]
        );
        fs::remove_dir_all(folder).expect("it goes");
    }
}

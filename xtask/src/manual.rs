//! `cargo xtask manual`: manual pages and what shells need to complete commands, to be installed beside the
//! program.

use std::{fs, path::PathBuf};

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
    let pages = folder.join("man1");
    fs::create_dir_all(&pages).map_err(Error::file("create", &pages))?;
    let chiton = |words: &[&str]| {
        let mut run = cargo();
        run.args(["run", "--quiet", "--package", "chiton", "--features", "manual", "--"]);
        run.args(words);
        run
    };
    let task = Task::start("writing manual pages and completions");
    command::quietly(&task, chiton(&["man"]).arg(&pages))?;
    for (shell, name) in SHELLS {
        let text = command::quietly(&task, &mut chiton(&["completions", shell]))?;
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    task.done();
    println!("{}", folder.display());
    Ok(())
}

//! `cargo xtask doc`: the reference that rustdoc makes, and the book.

use std::process::Command;

use crate::{build::cargo, command, error::Result, paths, ui::Task};

/// Makes the reference with every warning an error, and checks the book; builds it too where mdbook
/// is installed.
///
/// # Errors
///
/// If rustdoc warns, or a link in the book leads nowhere.
pub(crate) fn run() -> Result<()> {
    let task = Task::start("documenting the crates");
    let mut doc = cargo();
    doc.args(["doc", "--no-deps", "--workspace", "--all-features"])
        .env("RUSTDOCFLAGS", "-D warnings");
    command::quietly(&task, &mut doc)?;
    task.done();

    let task = Task::start("checking the book");
    super::book::check(&paths::root())?;
    super::musts::check(&paths::root())?;
    if let Some(mdbook) = command::find("mdbook") {
        command::quietly(&task, Command::new(mdbook).arg("build").arg(paths::root().join("docs")))?;
    }
    task.done();
    Ok(())
}

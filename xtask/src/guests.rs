//! Finds and builds guests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    build::cargo,
    command,
    error::{Error, Result},
    paths, tools,
    ui::Task,
};

/// A guest's package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    /// Name of the package and of its binary.
    pub(crate) name: String,
    /// The target it is built for.
    pub(crate) target: String,
    /// Its directory.
    pub(crate) dir: PathBuf,
}

/// The example guests, sorted by name.
///
/// # Errors
///
/// If a package says nothing of its target.
pub(crate) fn all() -> Result<Vec<Guest>> {
    let apps = paths::apps();
    let entries = fs::read_dir(&apps).map_err(Error::file("read", &apps))?;
    let mut dirs: Vec<_> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|dir| dir.join("Cargo.toml").exists())
        .collect();
    dirs.sort();
    dirs.iter().map(|dir| at(dir)).collect()
}

/// The guest whose package is in `dir`.
///
/// # Errors
///
/// If there is no package, or it says nothing of its target.
pub(crate) fn at(dir: &Path) -> Result<Guest> {
    let file = dir.join("Cargo.toml");
    let manifest = fs::read_to_string(&file).map_err(Error::file("read", &file))?;
    let field = |table, key| {
        value(&manifest, table, key).ok_or_else(|| {
            Error::Usage(format!(
                "{} has no `{key}` in [{table}], which every guest needs",
                file.display()
            ))
        })
    };
    let name = field("package", "name")?;
    let target = field("package.metadata.chiton", "target")?;
    Ok(Guest {
        name,
        target,
        dir: dir.to_owned(),
    })
}

/// The string `key = "…"` in a table of a Cargo.toml.
fn value(manifest: &str, table: &str, key: &str) -> Option<String> {
    let header = format!("[{table}]");
    let lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != header)
        .skip(1);
    let mut pairs = lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='));
    let (_, value) = pairs.find(|(found, _)| found.trim() == key)?;
    value.split('"').nth(1).map(str::to_owned)
}

/// Builds what the user calls `app`, an example's name, a package's directory or an ELF file, and
/// returns the ELF file.
///
/// # Errors
///
/// If there is nothing of that name, or it does not build.
pub(crate) fn resolve(app: &str) -> Result<PathBuf> {
    let path = Path::new(app);
    if app.contains('/') {
        if path.join("Cargo.toml").exists() {
            return build_elsewhere(&at(path)?);
        }
        return path.canonicalize().map_err(Error::file("find the guest", path));
    }
    let guests = all()?;
    let Some(guest) = guests.iter().find(|guest| guest.name == app) else {
        let names: Vec<_> = guests.iter().map(|guest| guest.name.as_str()).collect();
        let names = names.join(", ");
        return Err(Error::Usage(format!(
            "there is no guest `{app}`; there are {names}, and paths such as ./my-guest"
        )));
    };
    build(std::slice::from_ref(guest))?;
    Ok(paths::guests().join(app))
}

/// Builds example guests into [`paths::guests`].
///
/// # Errors
///
/// If one does not build.
pub(crate) fn build(guests: &[Guest]) -> Result<()> {
    let out = paths::guests();
    fs::create_dir_all(&out).map_err(Error::file("create", &out))?;
    let built = paths::target().join("guest-build");
    let mut targets: Vec<_> = guests.iter().map(|guest| &guest.target).collect();
    targets.sort();
    targets.dedup();
    for target in targets {
        let of_target: Vec<_> = guests.iter().filter(|guest| guest.target == *target).collect();
        let names: Vec<_> = of_target.iter().map(|guest| guest.name.as_str()).collect();
        let what = if let [name] = names[..] {
            format!("the guest {name}")
        } else {
            format!("{} guests", names.len())
        };
        tools::target(target)?;
        let task = Task::start(format!("building {what}"));
        let mut build = guest_cargo(&paths::apps());
        build
            .args(["build", "--release", "--target", target])
            .env("CARGO_TARGET_DIR", &built);
        for name in &names {
            // Not by package: a guest may have the name of a library that it uses.
            build.args(["--bin", name]);
        }
        command::quietly(&task, &mut build)?;
        task.done();
        for name in names {
            let from = built.join(target).join("release").join(name);
            copy_if_new(&from, &out.join(name))?;
        }
    }
    Ok(())
}

/// Builds a guest outside this repository, with its own settings and into its own directory.
fn build_elsewhere(guest: &Guest) -> Result<PathBuf> {
    tools::target(&guest.target)?;
    let task = Task::start(format!("building the guest {}", guest.name));
    let mut build = guest_cargo(&guest.dir);
    build
        .args(["build", "--release", "--target", &guest.target])
        .env("CARGO_TARGET_DIR", "target");
    command::quietly(&task, &mut build)?;
    task.done();
    let elf = guest
        .dir
        .join("target")
        .join(&guest.target)
        .join("release")
        .join(&guest.name);
    elf.canonicalize().map_err(Error::file("find", &elf))
}

/// Cargo in a guest's directory, whose own settings hold the flags; ours would replace them.
pub(crate) fn guest_cargo(dir: &Path) -> Command {
    let mut cargo = cargo();
    cargo
        .current_dir(dir)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
}

/// Copies, unless the copy is there already: a running guest keeps its file.
fn copy_if_new(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).map_err(Error::file("read", from))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let part = to.with_extension("part");
    fs::write(&part, new).map_err(Error::file("write", &part))?;
    fs::rename(&part, to).map_err(Error::file("write", to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"hello\"\n\n[package.metadata.chiton]\ntarget = \"x86_64-unknown-none\" \
                            # soft float\n\n[dependencies]\nname = \"x\"\n";

    #[test]
    fn a_value_is_looked_for_in_its_own_table() {
        assert_eq!(value(MANIFEST, "package", "name").as_deref(), Some("hello"));
        assert_eq!(
            value(MANIFEST, "package.metadata.chiton", "target").as_deref(),
            Some("x86_64-unknown-none")
        );
        assert_eq!(value(MANIFEST, "package", "target"), None);
    }
}

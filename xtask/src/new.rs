//! `cargo xtask new`: the skeleton of a guest, which builds and runs at once.

use std::{fs, path::Path};

use crate::{
    error::{Error, Result},
    paths,
};

const MAIN: &str = include_str!("../templates/main.rs");
const APP: &str = include_str!("../templates/app.toml");
const ALONE: &str = include_str!("../templates/alone.toml");

/// Arguments of `cargo xtask new`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A name for an example in guest/apps, or a path such as ../my-guest for a guest elsewhere.
    guest: String,
}

/// Writes the skeleton and says how to run it.
///
/// # Errors
///
/// If the name is none that cargo takes, or something is there already.
pub(crate) fn run(args: &Args) -> Result<()> {
    let alone = args.guest.contains('/');
    let dir = if alone {
        Path::new(&args.guest).to_owned()
    } else {
        paths::apps().join(&args.guest)
    };
    let name = dir
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    if !is_name(&name) {
        return Err(Error::Usage(format!(
            "`{name}` is no name for a guest: use letters, digits, - and _, and a letter first"
        )));
    }
    if dir.exists() {
        return Err(Error::Usage(format!(
            "{} exists already; choose another name",
            dir.display()
        )));
    }
    write(&dir.join("src/main.rs"), &MAIN.replace("{name}", &name))?;
    if alone {
        let library = paths::root().join("guest").display().to_string();
        write(
            &dir.join("Cargo.toml"),
            &ALONE.replace("{name}", &name).replace("{library}", &library),
        )?;
        // The flags that make a guest of a program stand in one place; this is a copy of them.
        let flags = paths::apps().join(".cargo/config.toml");
        let flags = fs::read_to_string(&flags).map_err(Error::file("read", &flags))?;
        write(&dir.join(".cargo/config.toml"), &flags)?;
        write(&dir.join(".gitignore"), "/target\n")?;
    } else {
        write(&dir.join("Cargo.toml"), &APP.replace("{name}", &name))?;
        register(&name)?;
    }
    println!(
        "wrote {}; run it with: cargo xtask run {} -- one two",
        dir.display(),
        args.guest
    );
    Ok(())
}

/// Adds the package to the workspace of the guests, in the order of the alphabet.
fn register(name: &str) -> Result<()> {
    let path = paths::apps().join("Cargo.toml");
    let manifest = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let Some(with) = with_member(&manifest, name) else {
        return Err(Error::Usage(format!(
            "add \"{name}\" to the members in {} by hand",
            path.display()
        )));
    };
    fs::write(&path, with).map_err(Error::file("write", &path))
}

/// A workspace's manifest with one more member.
fn with_member(manifest: &str, name: &str) -> Option<String> {
    let (before, rest) = manifest.split_once("members = [")?;
    let (list, after) = rest.split_once(']')?;
    let mut members: Vec<_> = list.split(',').map(|member| member.trim().trim_matches('"')).collect();
    members.retain(|member| !member.is_empty());
    members.push(name);
    members.sort_unstable();
    members.dedup();
    let lines: String = members.iter().map(|member| format!("    \"{member}\",\n")).collect();
    Some(format!("{before}members = [\n{lines}]{after}"))
}

/// What cargo takes for the name of a package and a binary, less what nobody should use.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    }
    fs::write(path, text).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_finds_its_place() {
        let manifest = "[workspace]\nmembers = [\"hello\", \"cat\"]\n\n[profile.release]\n";
        let with = with_member(manifest, "dog").unwrap();
        assert_eq!(
            with,
            "[workspace]\nmembers = [\n    \"cat\",\n    \"dog\",\n    \"hello\",\n]\n\n[profile.release]\n"
        );
        assert_eq!(with_member(&with, "dog").unwrap(), with);
    }

    #[test]
    fn names_that_cargo_refuses_are_refused_first() {
        assert!(is_name("my-guest_2"));
        assert!(!is_name("2nd") && !is_name("a b") && !is_name("") && !is_name("ü"));
    }
}

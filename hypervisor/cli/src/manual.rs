//! `chiton completions` and `chiton man`: what a shell and a reader want to know, from the same options that the
//! command line is read by.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::generate_to;

use crate::options::{Command, Options};
use crate::say;

#[derive(Debug, Args)]
pub(crate) struct CompletionOptions {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManOptions {
    /// The folder, which is made if it is not there: `/usr/local/share/man/man1`, say.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints what the shell is to read.
pub(crate) fn completions(options: &CompletionOptions) -> Result<(), Box<dyn Error>> {
    let mut text = Vec::new();
    generate(options.shell, &mut Options::<Command>::command(), "chiton", &mut text);
    Ok(say(&String::from_utf8_lossy(&text))?)
}

/// Writes a page for each command.
pub(crate) fn man(options: &ManOptions) -> Result<(), Box<dyn Error>> {
    let folder = &options.folder;
    let failed = |error| format!("cannot write pages to {}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(failed)?;
    generate_to(Options::<Command>::command(), folder).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words are those of `cargo xtask manual`.
    #[test]
    fn both_are_asked_for_by_the_command_line() {
        use clap::Parser;
        for words in [
            &["man", "/somewhere"][..],
            &["completions", "bash"],
            &["completions", "zsh"],
            &["completions", "fish"],
        ] {
            let line = ["chiton"].iter().chain(words);
            let read = Options::<Command>::try_parse_from(line).unwrap().command;
            assert!(matches!(read, Command::Man(_) | Command::Completions(_)), "{words:?}");
        }
    }

    /// Clap looks for mistakes in the options only where it is asked to: names that are there twice, and the like.
    #[test]
    fn the_options_are_sound() {
        Options::<Command>::command().debug_assert();
    }

    #[test]
    fn shells_and_readers_are_told_of_all_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            generate(shell, &mut Options::<Command>::command(), "chiton", &mut text);
            assert!(String::from_utf8_lossy(&text).contains("unpause"), "{shell}");
        }
        let folder = std::env::temp_dir().join(format!("chiton-man-{}", std::process::id()));
        man(&ManOptions { folder: folder.clone() }).unwrap();
        let mut pages = Vec::new();
        collect_pages("chiton", &Options::<Command>::command(), &mut pages);
        assert!(pages.iter().any(|page| page == "chiton-image-build"), "{pages:?}");
        for page in pages {
            let path = folder.join(format!("{page}.1"));
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            assert!(text.contains(".SH SYNOPSIS"), "{text}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    /// The names of the pages of a command and of those below it.
    fn collect_pages(name: &str, command: &clap::Command, pages: &mut Vec<String>) {
        pages.push(name.to_owned());
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            collect_pages(&format!("{name}-{}", below.get_name()), below, pages);
        }
    }
}

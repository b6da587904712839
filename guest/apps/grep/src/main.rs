//! Prints the lines of files that contain a word: `grep WORD [PATH]...`.
//!
//! A path is a file or a directory of a folder that the guest was given (`--folder`); of a directory,
//! everything below it is searched. Without a path that is all folders. The exit code is 1 if there
//! is no such line.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use chiton_guest::fs::{self, FsError, Kind};
use chiton_guest::{ExitCode, env, println};

chiton_guest::entry!(main, heap = 4 * MIB);

fn main() -> Result<ExitCode, String> {
    let mut args = env::args().skip(1);
    let word = args
        .next()
        .filter(|word| !word.is_empty())
        .ok_or("usage: grep WORD [PATH]...")?;
    let mut paths: Vec<String> = args.map(Into::into).collect();
    if paths.is_empty() {
        paths = below("").map_err(|error| format!("{error}"))?;
        if paths.is_empty() {
            return Err("there is no folder to search; start the guest with --folder PATH".into());
        }
    }
    let mut found = false;
    for path in paths {
        let kind = if is_top(&path) {
            Ok(Kind::Directory)
        } else {
            fs::metadata(&path).map(|metadata| metadata.kind)
        };
        match kind.map_err(|error| format!("{error}"))? {
            Kind::Directory => found |= search_below(path, word),
            _ => found |= search(&path, word).map_err(|error| format!("{error}"))?,
        }
    }
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a path is what all folders are in.
fn is_top(path: &str) -> bool {
    path.split('/').all(|name| matches!(name, "" | "."))
}

/// Searches every file below a directory; what cannot be read is told and left out.
fn search_below(directory: String, word: &str) -> bool {
    let (mut found, mut to_do) = (false, vec![directory]);
    while let Some(directory) = to_do.pop() {
        let entries = fs::read_dir(&directory).unwrap_or_else(|error| {
            chiton_guest::log::warn!("{error}");
            Vec::new()
        });
        let mut directories = Vec::new();
        for entry in entries {
            let path = join(&directory, &entry.name);
            match entry.kind {
                Kind::Directory => directories.push(path),
                Kind::File => match search(&path, word) {
                    Ok(any) => found |= any,
                    Err(error) => chiton_guest::log::warn!("{error}"),
                },
                Kind::Link | Kind::Other => {}
            }
        }
        to_do.append(&mut directories);
    }
    found
}

/// What is in a directory, as paths.
fn below(directory: &str) -> Result<Vec<String>, FsError> {
    let entries = fs::read_dir(directory)?;
    Ok(entries.iter().map(|entry| join(directory, &entry.name)).collect())
}

fn join(directory: &str, name: &str) -> String {
    match directory.trim_end_matches('/') {
        "" => name.into(),
        directory => format!("{directory}/{name}"),
    }
}

/// Prints the lines of a file that contain the word, and returns whether there are any. Only the line
/// at hand is kept in memory.
fn search(path: &str, word: &str) -> Result<bool, FsError> {
    let mut file = fs::File::open(path)?;
    let mut piece = vec![0; 32 << 10];
    let (mut line, mut number, mut found) = (Vec::new(), 1, false);
    loop {
        let len = file.read(&mut piece)?;
        for part in piece[..len].split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.ends_with(b"\n") {
                found |= show(path, number, &line, word);
                line.clear();
                number += 1;
            }
        }
        if len == 0 {
            return Ok(found | show(path, number, &line, word));
        }
    }
}

fn show(path: &str, number: usize, line: &[u8], word: &str) -> bool {
    let found = line.windows(word.len()).any(|part| part == word.as_bytes());
    if found {
        println!("{path}:{number}:{}", String::from_utf8_lossy(line).trim_end());
    }
    found
}

//! Lists, reads, writes, moves and removes files of the host:
//! `files list|read|write|fill|mkdir|rename|remove PATH [TEXT|BYTES|PATH]`, and after a `,` the next.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use chiton_guest::console;
use chiton_guest::env;
use chiton_guest::fs::{self, File, FsError, Kind};
use chiton_guest::println;

chiton_guest::entry!(main, heap = MIB);

fn main() -> Result<(), String> {
    let words: Vec<_> = env::args().skip(1).collect();
    words.split(|word| *word == ",").try_for_each(one)
}

/// Does one thing.
fn one(words: &[&str]) -> Result<(), String> {
    let [what, path, rest @ ..] = words else {
        return Err("usage: files list|read|write|fill|mkdir|rename|remove PATH [TEXT|BYTES|PATH] [, …]".into());
    };
    let argument = rest.first().copied().unwrap_or_default();
    let result = match *what {
        "list" => list(path),
        "read" => return read(path),
        "write" => write(path, argument),
        "fill" => fill(
            path,
            argument
                .parse()
                .map_err(|_| format!("{argument} is no number of bytes"))?,
        ),
        "mkdir" => fs::create_dir(path),
        "rename" => fs::rename(path, argument),
        "remove" => fs::remove(path),
        _ => return Err(format!("{what} is not something to do")),
    };
    result.map_err(|error| format!("{error}"))
}

fn list(path: &str) -> Result<(), FsError> {
    let mut entries = fs::read_dir(path)?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in entries {
        let kind = match entry.kind {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Link => "link",
            Kind::Other => "other",
        };
        println!("{kind} {}", entry.name);
    }
    Ok(())
}

fn read(path: &str) -> Result<(), String> {
    let mut file = File::open(path).map_err(|error| format!("{error}"))?;
    let mut piece = vec![0; 32 << 10];
    loop {
        let len = file.read(&mut piece).map_err(|error| format!("{error}"))?;
        if len == 0 {
            return Ok(());
        }
        console::write(&piece[..len]).map_err(|error| format!("{error}"))?;
    }
}

fn write(path: &str, text: &str) -> Result<(), FsError> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.flush()
}

/// Writes so many bytes, each the low byte of its offset's sixteenth part, and reads them back.
fn fill(path: &str, bytes: usize) -> Result<(), FsError> {
    let byte = |offset: usize| (offset / 16) as u8;
    let mut file = File::create(path)?;
    let mut piece = vec![0; 100_000];
    for start in (0..bytes).step_by(piece.len()) {
        let len = piece.len().min(bytes - start);
        for (i, place) in piece[..len].iter_mut().enumerate() {
            *place = byte(start + i);
        }
        file.write_all(&piece[..len])?;
    }
    file.seek(0);
    let (mut right, mut at) = (true, 0);
    loop {
        let len = file.read(&mut piece)?;
        if len == 0 {
            break;
        }
        right &= piece[..len].iter().enumerate().all(|(i, found)| *found == byte(at + i));
        at += len;
    }
    println!("{at} bytes, {}", if right { "as written" } else { "not as written" });
    Ok(())
}

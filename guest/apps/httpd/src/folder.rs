//! Files of the host's folder, if the guest was given one by `--folder`.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use chiton_guest::fs::{self, File, FsError, Kind, Reason};

use crate::connection::Body;

/// Files up to here are read at once, and others a piece at a time, when there is room for it.
const PIECE: usize = 16 << 10;

/// A file on its way, of which one piece is in memory.
pub(crate) struct Served {
    file: File,
    pub(crate) len: u64,
    piece: Vec<u8>,
    /// Where in the file the piece begins.
    start: u64,
}

impl Served {
    /// Some of the bytes from `at` on, which never goes back; none if the file has become shorter, or cannot be read.
    pub(crate) fn from(&mut self, at: u64) -> &[u8] {
        let end = self.start + self.piece.len() as u64;
        if at >= end {
            self.start = end;
            self.piece.resize((self.len - end).min(PIECE as u64) as usize, 0);
            let read = self.file.read(&mut self.piece).unwrap_or(0);
            self.piece.truncate(read);
        }
        &self.piece[((at - self.start) as usize).min(self.piece.len())..]
    }
}

/// The answer to a request for a path below a folder: status, type and bytes. The way up is no path, and a symbolic
/// link is no file.
pub(crate) fn answer(folder: &str, path: &str) -> (&'static str, &'static str, Body) {
    let Some(path) = decoded(path) else {
        return ("400 Bad Request", "text/plain", Body::Static(b""));
    };
    let mut path = format!("{folder}/{path}");
    if fs::metadata(&path).is_ok_and(|found| found.kind == Kind::Directory) {
        path += "/index.html";
    }
    match open(&path) {
        Ok(body) => ("200 OK", kind_of(&path), body),
        Err(error) => {
            let status = match error.reason {
                Reason::TooManyOpen => "503 Service Unavailable",
                Reason::Device(_) | Reason::Host(_) | Reason::Answer => "500 Internal Server Error",
                _ => "404 Not Found",
            };
            (status, "text/plain", Body::Static(b"there is no such file\n"))
        }
    }
}

fn open(path: &str) -> Result<Body, FsError> {
    let mut file = File::open(path)?;
    let len = file.len()?;
    if len > PIECE as u64 {
        return Ok(Body::File(Served {
            file,
            len,
            piece: vec![],
            start: 0,
        }));
    }
    let mut bytes = vec![];
    file.read_to_end(&mut bytes)?;
    Ok(Body::Owned(bytes))
}

/// A path without the `%` and two digits that stand for a byte (RFC 3986 section 2.1).
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, behind @ ..] = rest {
        rest = behind;
        bytes.push(match byte {
            b'%' => {
                let digits = core::str::from_utf8(behind.get(..2)?).ok()?;
                rest = &behind[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn kind_of(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, kind)| kind) {
        Some("html") => "text/html",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        Some("json") => "application/json",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

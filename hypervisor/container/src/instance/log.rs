//! What an instance wrote: a JSON object a line, as docker's `json-file` has it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{InstanceError, Time};

/// A log of this length is put aside, and the one put aside before forgotten, in bytes.
const LONGEST: u64 = 16 << 20;
/// What has no line end is written in pieces of this size, in bytes.
const LINE: usize = 16 << 10;

/// Where something was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// The console of a guest; the standard output of a process.
    Stdout,
    /// What is said of a guest; the standard error of a process.
    Stderr,
}

/// A line of a log, or a piece of a long one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The text, with its line end if it has one; bytes that are not UTF-8 are replaced.
    pub log: String,
    /// Where it was written to.
    pub stream: Stream,
    /// When its end came.
    pub time: Time,
}

/// Adds to a log.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    length: u64,
    /// What of each stream has no end yet.
    begun: [Vec<u8>; 2],
}

impl LogWriter {
    pub(super) fn open(path: &Path) -> Result<Self, InstanceError> {
        let mut options = File::options();
        options.append(true).create(true).mode(0o600);
        options.read(true);
        let file = options.open(path).map_err(InstanceError::file("open", path))?;
        let mut length = file.metadata().map_err(InstanceError::file("read", path))?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.read_exact_at(&mut last, length - 1)
                .map_err(InstanceError::file("read", path))?;
        }
        // A crash cut the last line off: what comes now is no part of it.
        if last != *b"\n" {
            (&file).write_all(b"\n").map_err(InstanceError::file("write", path))?;
            length += 1;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            begun: Default::default(),
        })
    }

    /// Adds what was written to a stream; lines appear when they end.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`], for example where the disk is full.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8]) -> Result<(), InstanceError> {
        while !bytes.is_empty() {
            let begun = &mut self.begun[stream as usize];
            let room = LINE - begun.len();
            let end = bytes
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(bytes.len(), |at| at + 1);
            let (now, later) = bytes.split_at(end.min(room));
            begun.extend_from_slice(now);
            bytes = later;
            if begun.ends_with(b"\n") || begun.len() == LINE {
                self.end_line(stream)?;
            }
        }
        Ok(())
    }

    /// Writes what has no end yet.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn flush(&mut self) -> Result<(), InstanceError> {
        self.end_line(Stream::Stdout)?;
        self.end_line(Stream::Stderr)
    }

    fn end_line(&mut self, stream: Stream) -> Result<(), InstanceError> {
        let begun = std::mem::take(&mut self.begun[stream as usize]);
        if begun.is_empty() {
            return Ok(());
        }
        let line = Line {
            log: String::from_utf8_lossy(&begun).into_owned(),
            stream,
            time: Time::now(),
        };
        let mut bytes = serde_json::to_vec(&line).map_err(|source| InstanceError::Damaged {
            path: self.path.clone(),
            source,
        })?;
        bytes.push(b'\n');
        if self.length + bytes.len() as u64 > LONGEST {
            self.put_aside()?;
        }
        self.file
            .write_all(&bytes)
            .map_err(InstanceError::file("write", &self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn put_aside(&mut self) -> Result<(), InstanceError> {
        fs::rename(&self.path, aside(&self.path)).map_err(InstanceError::file("put aside", &self.path))?;
        let begun = std::mem::take(&mut self.begun);
        *self = Self::open(&self.path)?;
        self.begun = begun;
        Ok(())
    }
}

/// Where a log goes that has become too long.
fn aside(path: &Path) -> PathBuf {
    path.with_extension("1")
}

/// Reads a log, from the beginning on, also while it grows.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// What was read of a line whose end was not there yet.
    begun: Vec<u8>,
}

impl LogReader {
    pub(super) fn open(path: &Path) -> Result<Self, InstanceError> {
        let mut reader = Self {
            path: path.to_owned(),
            file: None,
            begun: Vec::new(),
        };
        reader.file = match reader.try_open(&aside(path))? {
            None => reader.try_open(path)?,
            old => old,
        };
        Ok(reader)
    }

    fn try_open(&self, path: &Path) -> Result<Option<BufReader<File>>, InstanceError> {
        match File::open(path) {
            Ok(file) => Ok(Some(BufReader::new(file))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(InstanceError::file("open", path)(error)),
        }
    }

    /// The next line that is there; `None` if there is none yet. A line that a crash cut off is passed
    /// over.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`].
    pub fn next_line(&mut self) -> Result<Option<Line>, InstanceError> {
        loop {
            let Some(file) = &mut self.file else {
                self.file = self.try_open(&self.path)?;
                if self.file.is_none() {
                    return Ok(None);
                }
                continue;
            };
            file.read_until(b'\n', &mut self.begun)
                .map_err(InstanceError::file("read", &self.path))?;
            if self.begun.ends_with(b"\n") {
                let line = serde_json::from_slice(&std::mem::take(&mut self.begun));
                if let Ok(line) = line {
                    return Ok(Some(line));
                }
            } else if !self.turn_over()? {
                return Ok(None);
            }
        }
    }

    /// Goes on with the log that came after the one that is at its end, if there is one.
    fn turn_over(&mut self) -> Result<bool, InstanceError> {
        let (Some(file), Ok(there)) = (&mut self.file, fs::metadata(&self.path)) else {
            return Ok(false);
        };
        let open = file
            .get_ref()
            .metadata()
            .map_err(InstanceError::file("read", &self.path))?;
        let same = (open.dev(), open.ino()) == (there.dev(), there.ino());
        // Something may have been added between the last look and its being put aside.
        let position = file
            .stream_position()
            .map_err(InstanceError::file("read", &self.path))?;
        if same || position < open.len() {
            file.seek(SeekFrom::Start(position))
                .map_err(InstanceError::file("read", &self.path))?;
            return Ok(!same);
        }
        self.begun.clear();
        self.file = self.try_open(&self.path)?;
        Ok(self.file.is_some())
    }

    /// The last so many lines that are there.
    ///
    /// # Errors
    ///
    /// As [`next_line`](Self::next_line).
    pub fn last(&mut self, count: usize) -> Result<Vec<Line>, InstanceError> {
        let mut last = std::collections::VecDeque::new();
        while let Some(line) = self.next_line()? {
            last.push_back(line);
            if last.len() > count {
                last.pop_front();
            }
        }
        Ok(last.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(reader: &mut LogReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_line().unwrap())
            .map(|line| line.log)
            .collect()
    }

    #[test]
    fn lines_are_lines_however_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = LogWriter::open(&path).unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        writer.write(Stream::Stdout, b"one\ntw").unwrap();
        assert_eq!(all(&mut reader), ["one\n"]);
        writer.write(Stream::Stderr, b"err\n").unwrap();
        writer.write(Stream::Stdout, b"o\n\nthree").unwrap();
        writer.flush().unwrap();
        assert_eq!(all(&mut reader), ["err\n", "two\n", "\n", "three"]);
        assert_eq!(LogReader::open(&path).unwrap().last(2).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_text_and_what_has_no_end_is_kept_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = LogWriter::open(&path).unwrap();
        writer.write(Stream::Stdout, &vec![b'x'; LINE + 1]).unwrap();
        writer.write(Stream::Stdout, b"\xff\n").unwrap();
        let lines = all(&mut LogReader::open(&path).unwrap());
        assert_eq!(lines, ["x".repeat(LINE), "x\u{fffd}\n".into()]);
    }

    #[test]
    fn a_reader_goes_on_with_the_next_log_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = LogWriter::open(&path).unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        let mut read = Vec::new();
        for round in 0..40 {
            for n in 0..40 {
                let mut line = format!("{round} {n} ");
                line += &"y".repeat(LINE - line.len() - 1);
                writer.write(Stream::Stdout, (line + "\n").as_bytes()).unwrap();
            }
            read.extend(all(&mut reader));
        }
        assert_eq!(read.len(), 1600);
        let numbers: Vec<_> = read
            .iter()
            .map(|line| line[..line.find('y').unwrap()].to_owned())
            .collect();
        let wanted: Vec<_> = (0..1600).map(|i| format!("{} {} ", i / 40, i % 40)).collect();
        assert_eq!(numbers, wanted);
        let kept = fs::metadata(&path).unwrap().len() + fs::metadata(aside(&path)).unwrap().len();
        assert!(kept <= 2 * LONGEST);
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "{\"log\":\"half").unwrap();
        let mut writer = LogWriter::open(&path).unwrap();
        writer.write(Stream::Stdout, b"whole\n").unwrap();
        assert_eq!(all(&mut LogReader::open(&path).unwrap()), ["whole\n"]);
    }
}

//! The image's ramdisk: a ustar archive with the file `command`, the guests, and the files `kernel` and `checksums`, by
//! which the kernel finds damage, its own too.

use std::{fmt::Write, fs, path::Path};

use crate::error::{Error, Result};

/// A ramdisk in the making.
pub(crate) struct Ramdisk {
    archive: tar::Builder<Vec<u8>>,
    /// A line for each file: its CRC-32, and its name.
    checksums: String,
}

impl Default for Ramdisk {
    fn default() -> Self {
        Self {
            archive: tar::Builder::new(Vec::new()),
            checksums: String::new(),
        }
    }
}

impl Ramdisk {
    /// Adds a file.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let _ = writeln!(self.checksums, "{:08x}  {name}", crc32fast::hash(content));
        self.append(name, content)
    }

    fn append(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        self.archive
            .append_data(&mut header, name, content)
            .map_err(Error::file("add to the ramdisk", Path::new(name)))
    }

    /// Adds a guest's file, and tells its name there.
    pub(crate) fn guest(&mut self, file: &Path) -> Result<String> {
        let name = file
            .file_name()
            .map_or_else(|| "guest".into(), |name| name.to_string_lossy().into_owned());
        let content = fs::read(file).map_err(Error::file("read", file))?;
        self.add(&format!("guests/{name}"), &content)?;
        Ok(name)
    }

    /// Adds the file `command`: one `key=value` a line.
    pub(crate) fn command(&mut self, lines: &[String]) -> Result<()> {
        if let Some(line) = lines.iter().find(|line| line.contains('\n')) {
            return Err(Error::Usage(format!(
                "{line:?} has a line end in it, and `command` is made of lines"
            )));
        }
        let mut text = lines.join("\n");
        text.push('\n');
        self.add("command", text.as_bytes())
    }

    /// The archive, for an image with this kernel.
    pub(crate) fn finish(mut self, kernel: &[u8]) -> Result<Vec<u8>> {
        let text = format!("{} {:08x}\n", kernel.len(), crc32fast::hash(kernel));
        self.add("kernel", text.as_bytes())?;
        let checksums = std::mem::take(&mut self.checksums);
        self.append("checksums", checksums.as_bytes())?;
        self.archive
            .into_inner()
            .map_err(Error::file("make", Path::new("the ramdisk")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_made_of_lines() {
        let mut ramdisk = Ramdisk::default();
        assert!(ramdisk.command(&["arg=a\nguest=b".into()]).is_err());
        ramdisk.command(&["guest=hello".into()]).unwrap();
        let archive = ramdisk.finish(b"kernel").unwrap();
        assert_eq!(&archive[..8], b"command\0");
        assert_eq!(&archive[512..524], b"guest=hello\n");
        assert_eq!(&archive[1024..1031], b"kernel\0");
        assert_eq!(&archive[1536..1547], b"6 5dd29aab\n");
        assert_eq!(&archive[2048..2057], b"checksums");
        assert_eq!(&archive[2560..2578], b"30dc4706  command\n");
    }
}

//! Disk images that go into the nested machine and, if they are writable, come back.
//!
//! QEMU attaches each as a block device; inside it is copied into a file of the same length, since
//! that is what programs expect, and copied back before the machine ends.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A disk image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    index: usize,
    path: PathBuf,
    length: u64,
    read_only: bool,
}

impl Disk {
    /// The image at `path`, as disk number `index`.
    ///
    /// # Errors
    ///
    /// If it cannot be found.
    pub(crate) fn new(index: usize, path: &Path, read_only: bool) -> Result<Self> {
        let path = path.canonicalize().map_err(Error::file("use", path))?;
        let length = path.metadata().map_err(Error::file("use", &path))?.len();
        Ok(Self {
            index,
            path,
            length,
            read_only,
        })
    }

    /// The path of the file inside.
    #[must_use]
    pub(crate) fn inside(&self) -> String {
        format!("/disks/{}", self.index)
    }

    /// Room the file takes inside.
    #[must_use]
    pub(crate) fn mebibytes(&self) -> usize {
        self.length.div_ceil(1 << 20) as usize
    }

    /// For the script that starts inside: block device, length, file.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        let letter = char::from(b'a' + u8::try_from(self.index % 26).unwrap_or(0));
        format!("vd{letter} {} {}\n", self.length, self.inside())
    }

    /// QEMU's options for it.
    #[must_use]
    pub(crate) fn arguments(&self) -> [String; 4] {
        let read_only = if self.read_only { "on" } else { "off" };
        // A comma in a value of QEMU's is written twice.
        let path = self.path.display().to_string().replace(',', ",,");
        [
            "-drive".into(),
            format!(
                "if=none,id=disk{},format=raw,readonly={read_only},file={path}",
                self.index
            ),
            "-device".into(),
            format!("virtio-blk-pci,drive=disk{}", self.index),
        ]
    }
}

//! Archives in the "newc" format of cpio, as the kernel unpacks them into its first root
//! (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).

/// An archive that grows in memory.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

impl Archive {
    /// Adds a directory, whose parent must be there already.
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[]);
    }

    /// Adds a file with these permission bits.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, REGULAR | mode, content);
    }

    /// Adds a symbolic link that points to `to`.
    pub(crate) fn symlink(&mut self, path: &str, to: &str) {
        self.entry(path, SYMLINK | 0o777, to.as_bytes());
    }

    /// Ends the archive.
    #[must_use]
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let name = path.trim_start_matches('/');
        // magic, ino, mode, uid, gid, nlink, mtime, filesize, dev, rdev (major and minor each),
        // namesize with its NUL, checksum
        let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let fields = [self.inode, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(&content[..len as usize]);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_documented_layout() {
        let mut archive = Archive::default();
        archive.file("/bin/x", 0o755, b"hello");
        let bytes = archive.finish();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000081ed");
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(&bytes[94..102], b"00000006");
        assert_eq!(&bytes[110..116], b"bin/x\0");
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes.windows(10).any(|w| w == b"TRAILER!!!"));
    }
}

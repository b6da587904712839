//! Image formats that are not raw, by the bytes they begin with.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Where a format's mark is, what it is, and the format's name.
const MARKS: [(u64, &[u8], &str); 8] = [
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
];

/// The format of this image as `qemu-img` calls it, if it is one of those known.
pub(super) fn of(file: &File) -> Option<&'static str> {
    let mut start = [0; 512];
    // A disk has a sector at least; one that cannot be read says so when it is used.
    file.read_exact_at(&mut start, 0).ok()?;
    MARKS.iter().find_map(|&(at, mark, name)| {
        let there = start.get(at as usize..)?.starts_with(mark);
        there.then_some(name)
    })
}

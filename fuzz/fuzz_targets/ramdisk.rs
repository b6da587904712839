//! The boot image's ramdisk: a ustar archive that may be damaged anywhere.
#![no_main]

use chiton_bare::ramdisk::Ramdisk;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(ramdisk) = Ramdisk::open(data) else { return };
    let inside =
        |part: &[u8]| data.as_ptr_range().start <= part.as_ptr() && part.as_ptr_range().end <= data.as_ptr_range().end;
    for file in ramdisk.files() {
        assert!(inside(file.name) && inside(file.content));
        let Ok(name) = str::from_utf8(file.name) else { continue };
        // What is given out has the checksum that is written down.
        if let Ok(content) = ramdisk.file(name) {
            let content = content.expect("it is there");
            let line = format!("{:08x}  {name}", crc32fast::hash(content));
            let mut sums = ramdisk.files().filter(|file| file.name == b"checksums");
            let sums = String::from_utf8_lossy(sums.next().expect("else nothing is given out").content).to_lowercase();
            assert!(sums.split('\n').any(|sum| sum == line.to_lowercase()), "{line}");
        }
    }
});

use super::*;
use crate::ram::Ram;
use chiton_shared::memory::GuestMemory;

/// A file that is gone with the test.
struct Image(PathBuf);

impl Image {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("chiton-disk-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn what_is_written_is_read_back_across_windows() {
    let image = Image::new("roundtrip", &[0; 4096]);
    let mut disk = Disk::open(&image.0, false).unwrap();
    let ram = Ram::new(1 << 20).unwrap();
    ram.window(0, 6).unwrap().write(0, b"abcdef");
    let from = [
        ram.window(0, 2).unwrap(),
        ram.window(2, 0).unwrap(),
        ram.window(2, 4).unwrap(),
    ];
    disk.write_at(510, &from).unwrap();
    disk.flush().unwrap();
    assert_eq!(std::fs::read(&image.0).unwrap()[508..518], *b"\0\0abcdef\0\0");
    disk.read_at(511, &[ram.window(100, 3).unwrap(), ram.window(200, 1).unwrap()])
        .unwrap();
    let mut bytes = [0; 3];
    ram.window(100, 3).unwrap().read(0, &mut bytes);
    assert_eq!(&bytes, b"bcd");
}

#[test]
fn a_disk_that_shrank_fails_the_read_and_does_not_hang() {
    let image = Image::new("shrunk", &[1; 4096]);
    let mut disk = Disk::open(&image.0, true).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&image.0)
        .unwrap()
        .set_len(1000)
        .unwrap();
    let ram = Ram::new(1 << 20).unwrap();
    assert!(disk.read_at(512, &[ram.window(0, 1024).unwrap()]).is_err());
    assert!(disk.read_at(0, &[ram.window(0, 512).unwrap()]).is_ok());
}

#[test]
fn writing_a_read_only_disk_fails() {
    let image = Image::new("ro", &[1; 512]);
    let mut disk = Disk::open(&image.0, true).unwrap();
    assert!(disk.is_read_only() && disk.sectors() == 1);
    let ram = Ram::new(1 << 20).unwrap();
    assert!(disk.write_at(0, &[ram.window(0, 512).unwrap()]).is_err());
    assert_eq!(std::fs::read(&image.0).unwrap(), [1; 512]);
}

#[test]
fn a_writer_excludes_everybody_and_readers_exclude_writers() {
    let image = Image::new("lock", &[0; 512]);
    let writer = Disk::open(&image.0, false).unwrap();
    assert!(matches!(Disk::open(&image.0, true), Err(DiskOpenError::Locked(_))));
    drop(writer);
    let _one = Disk::open(&image.0, true).unwrap();
    let _two = Disk::open(&image.0, true).unwrap();
    assert!(matches!(Disk::open(&image.0, false), Err(DiskOpenError::Locked(_))));
}

#[test]
fn the_name_is_the_files_as_far_as_it_fits() {
    assert_eq!(&name_of(Path::new("/a/data.img"))[..9], b"data.img\0");
    assert_eq!(
        &name_of(Path::new("a-name-of-more-than-twenty-bytes")),
        b"a-name-of-more-than-"
    );
}

#[test]
fn images_of_other_formats_are_refused_by_name() {
    let mut vdi = [0; 512];
    vdi[0x40..0x44].copy_from_slice(b"\x7f\x10\xda\xbe");
    let start = |mark: &[u8]| {
        let mut sector = [0; 512];
        sector[..mark.len()].copy_from_slice(mark);
        sector
    };
    for (name, bytes) in [
        ("qcow2", start(b"QFI\xfb\0\0\0\x03")),
        ("vmdk", start(b"KDMV")),
        ("vhdx", start(b"vhdxfile")),
        ("vpc", start(b"conectix")),
        ("vdi", vdi),
    ] {
        let image = Image::new(name, &bytes);
        let error = Disk::open(&image.0, true).unwrap_err().to_string();
        assert!(error.contains(&format!("is a {name} image")), "{error}");
        assert!(error.contains("qemu-img convert -O raw"), "{error}");
        assert!(DiskOptions::new().raw(true).open(&image.0).is_ok());
    }
}

#[test]
fn discards_and_zeros_keep_the_size_and_what_is_beside() {
    let image = Image::new("erase", &[1; 64 << 10]);
    let mut disk = Disk::open(&image.0, false).unwrap();
    disk.write_zeroes(4096, 4096, false).unwrap();
    disk.write_zeroes(8192, 4096, true).unwrap();
    disk.write_zeroes(512, 512, true).unwrap();
    disk.discard(32 << 10, 8192).unwrap();
    let bytes = std::fs::read(&image.0).unwrap();
    assert_eq!(bytes.len(), 64 << 10);
    let zeros: Vec<_> = (0..128)
        .filter(|sector| bytes[sector * 512..][..512] == [0; 512])
        .collect();
    assert_eq!(
        zeros[..17],
        (8..24).fold(vec![1], |mut all, sector| {
            all.push(sector);
            all
        })
    );
    assert!(bytes[40 << 10..].iter().all(|byte| *byte == 1));
}

#[test]
fn a_failure_is_told_once_with_its_place() {
    let image = Image::new("told", &[1; 4096]);
    let mut disk = Disk::open(&image.0, false).unwrap();
    let complaint = disk.complaint.clone();
    std::fs::write(&image.0, [1; 512]).unwrap();
    let ram = Ram::new(1 << 20).unwrap();
    assert!(disk.read_at(1024, &[ram.window(0, 512).unwrap()]).is_err());
    let told = complaint.take().unwrap();
    assert!(
        told.contains("cannot read 512 bytes at byte 1024") && told.contains("shorter"),
        "{told}"
    );
    assert_eq!(complaint.take(), None);
}

#[test]
fn direct_or_not_the_bytes_are_the_same() {
    let image = Image::new("direct", &[1; 64 << 10]);
    let mut disk = match DiskOptions::new().direct(true).open(&image.0) {
        Ok(disk) => disk,
        Err(error) => {
            assert!(matches!(error, DiskOpenError::NoDirect(_)), "{error}");
            println!("SKIPPED: {error}");
            return;
        }
    };
    let ram = Ram::new(1 << 20).unwrap();
    ram.window(0, 8192).unwrap().write(0, &[2; 8192]);
    // Aligned, an odd address, an odd offset.
    disk.write_at(0, &[ram.window(0, 4096).unwrap()]).unwrap();
    disk.write_at(8192, &[ram.window(1, 4096).unwrap()]).unwrap();
    disk.write_at(16384 + 512, &[ram.window(0, 512).unwrap()]).unwrap();
    let to = [ram.window(4096, 4096).unwrap(), ram.window(16384, 28 << 10).unwrap()];
    disk.read_at(0, &to).unwrap();
    let mut bytes = vec![0; 32 << 10];
    to[0].read(0, &mut bytes[..4096]);
    to[1].read(0, &mut bytes[4096..]);
    let mut expected = vec![1; 32 << 10];
    for (at, len) in [(0, 4096), (8192, 4096), (16896, 512)] {
        expected[at..at + len].fill(2);
    }
    assert!(bytes == expected);
    assert_eq!(std::fs::read(&image.0).unwrap()[..32 << 10], expected);
}

#[test]
fn a_serial_is_checked() {
    assert!(DiskOptions::new().serial("disk-7").is_ok());
    assert_eq!(DiskOptions::new().serial("").unwrap_err(), SerialError(String::new()));
    assert!(DiskOptions::new().serial("a name longer than 20").is_err());
    assert!(DiskOptions::new().serial("\u{e4}").is_err());
    let image = Image::new("serial", &[1; 512]);
    let disk = DiskOptions::new().serial("disk-7").unwrap().open(&image.0).unwrap();
    assert_eq!(&disk.name()[..7], b"disk-7\0");
}

/// A disk that has a ring, if the kernel gives one.
fn with_ring(image: &Image, options: &DiskOptions) -> Option<Disk> {
    let mut disk = options.open(&image.0).unwrap();
    // SAFETY: the tests drop the memory after the disk.
    unsafe { disk.work_asynchronously() };
    for _ in 0..OPERATIONS_BEFORE_RING {
        disk.ring();
    }
    matches!(disk.engine, Engine::Ring(_)).then_some(disk)
}

/// Waits for everything under way; answers which tags ended well, in order of the tags.
fn ends(disk: &mut Disk, count: usize) -> Vec<(u16, bool)> {
    let mut ends = Vec::new();
    disk.submit();
    while ends.len() < count {
        match disk.complete() {
            Some((tag, result)) => ends.push((tag, result.is_ok())),
            None => disk.wait(),
        }
    }
    assert_eq!(disk.complete(), None);
    ends.sort_unstable();
    ends
}

#[test]
fn what_is_begun_ends_with_every_window_filled() {
    let ram = Ram::new(1 << 20).unwrap();
    let image = Image::new("ring", &[0; 64 << 10]);
    let Some(mut disk) = with_ring(&image, &DiskOptions::new()) else {
        return;
    };
    for tag in 0..64_u16 {
        let at = u64::from(tag) * 1024;
        ram.window(at, 1024).unwrap().write(0, &[tag as u8 + 1; 1024]);
        let windows = [ram.window(at, 1000).unwrap(), ram.window(at + 1000, 24).unwrap()];
        assert_eq!(disk.begin(tag, Operation::Write(at), &windows), Begun::UnderWay);
    }
    assert!(ends(&mut disk, 64).iter().all(|(_, good)| *good));
    assert_eq!(disk.begin(7, Operation::Flush, &[]), Begun::UnderWay);
    assert_eq!(ends(&mut disk, 1), [(7, true)]);
    let to = ram.window(0x8_0000, 4096).unwrap();
    assert_eq!(disk.begin(0, Operation::Read(1024), &[to]), Begun::UnderWay);
    assert_eq!(ends(&mut disk, 1), [(0, true)]);
    let mut bytes = [0; 4096];
    to.read(0, &mut bytes);
    assert_eq!(bytes[..], std::fs::read(&image.0).unwrap()[1024..5120]);
    assert_eq!((bytes[0], bytes[4095]), (2, 5));
    drop(disk);
}

#[test]
fn what_a_ring_can_do_only_in_part_fails_and_the_rest_ends_well() {
    let ram = Ram::new(1 << 20).unwrap();
    let image = Image::new("ring-shrunk", &[1; 8192]);
    let Some(mut disk) = with_ring(&image, &DiskOptions::new().read_only(true)) else {
        return;
    };
    let file = OpenOptions::new().write(true).open(&image.0).unwrap();
    file.set_len(5000).unwrap();
    let to = |at, len| ram.window(at, len).unwrap();
    let across = [to(0, 512), to(512, 3584), to(4096, 4096)];
    assert_eq!(disk.begin(0, Operation::Read(0), &across), Begun::UnderWay);
    assert_eq!(
        disk.begin(1, Operation::Read(0), &[to(0x1_0000, 4096)]),
        Begun::UnderWay
    );
    assert_eq!(disk.begin(2, Operation::Write(0), &[to(0, 512)]), Begun::UnderWay);
    assert_eq!(ends(&mut disk, 3), [(0, false), (1, true), (2, false)]);
    assert!(disk.complaint.take().is_some());
    drop(disk);
}

#[test]
fn a_disk_that_is_dropped_waits_for_what_is_under_way() {
    let ram = Ram::new(1 << 20).unwrap();
    let image = Image::new("ring-drop", &[9; 4096]);
    let Some(mut disk) = with_ring(&image, &DiskOptions::new()) else {
        return;
    };
    let to = ram.window(0, 4096).unwrap();
    assert_eq!(disk.begin(0, Operation::Read(0), &[to]), Begun::UnderWay);
    drop(disk);
    let mut bytes = [0; 4096];
    to.read(0, &mut bytes);
    assert_eq!(bytes, [9; 4096]);
}

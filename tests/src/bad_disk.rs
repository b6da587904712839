//! A disk with sectors that fail: a block device of the kernel's device mapper, made without any tool.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::Folder;
use crate::loop_device::LoopDevice;
use crate::tap::check;

const CONTROL: &str = "/dev/mapper/control";
const NAME: usize = 128;
/// `DM_DEV_CREATE`, `DM_DEV_REMOVE`, `DM_DEV_SUSPEND` and `DM_TABLE_LOAD` of `linux/dm-ioctl.h`.
const CREATE: u8 = 3;
const REMOVE: u8 = 4;
const RESUME: u8 = 6;
const LOAD: u8 = 9;

/// `struct dm_ioctl`, with room for a table behind it.
#[repr(C)]
struct Request {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event: u32,
    padding: u32,
    device: u64,
    name: [u8; NAME],
    uuid: [u8; 129],
    data: [u8; 7],
    table: [Target; 3],
}

/// `struct dm_target_spec`, with its parameters behind it.
#[repr(C)]
struct Target {
    start: u64,
    sectors: u64,
    status: i32,
    /// From this target to the next, in bytes.
    next: u32,
    kind: [u8; 16],
    parameters: [u8; 64],
}

/// A disk of which some sectors in the middle fail; it is gone when the test is over.
#[derive(Debug)]
pub struct BadDisk {
    name: String,
    path: PathBuf,
    /// Detached after the device above it is gone.
    _below: LoopDevice,
}

fn text<const N: usize>(words: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..words.len()].copy_from_slice(words.as_bytes());
    bytes
}

impl BadDisk {
    /// A disk of `good`, then `bad`, then again `good` sectors, whose bytes are zero; `None`, with the
    /// reason on standard output, where the kernel has no device mapper: a test skips itself then.
    ///
    /// # Panics
    ///
    /// If there is one and the disk cannot be made; as [`skip`](crate::skip) if there is none.
    #[must_use]
    pub fn new(folder: &Folder, good: u64, bad: u64) -> Option<Self> {
        if !Path::new(CONTROL).exists() {
            crate::skip("device mapper", format_args!("{CONTROL} is missing"));
            return None;
        }
        let sectors = 2 * good + bad;
        let image = folder.file("below", vec![0; sectors as usize * 512]);
        let below = LoopDevice::new(&image).expect("a loop device");
        let name = format!("chiton-test-{}", std::process::id());
        let device = below.path().display().to_string();
        let linear = |from: u64| format!("{device} {from}");
        let target = |kind: &str, start: u64, sectors: u64, parameters: &str| Target {
            start,
            sectors,
            status: 0,
            next: size_of::<Target>() as u32,
            kind: text(kind),
            parameters: text(parameters),
        };
        let table = || {
            [
                target("linear", 0, good, &linear(0)),
                target("error", good, bad, ""),
                target("linear", good + bad, good, &linear(good + bad)),
            ]
        };
        let number = call(&name, CREATE, 0, table()).expect("a new device").device;
        // The low byte of the minor number, and what is above it, as `makedev` has them.
        let minor = number & 0xFF | number >> 12 & 0xF_FF00;
        let disk = Self {
            name,
            path: PathBuf::from(format!("/dev/dm-{minor}")),
            _below: below,
        };
        call(&disk.name, LOAD, 3, table()).expect("a table");
        call(&disk.name, RESUME, 0, table()).expect("the table takes effect");
        Some(disk)
    }

    /// The block device.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for BadDisk {
    fn drop(&mut self) {
        let nothing = || Target {
            start: 0,
            sectors: 0,
            status: 0,
            next: 0,
            kind: text(""),
            parameters: text(""),
        };
        let _ = call(&self.name, REMOVE, 0, [nothing(), nothing(), nothing()]);
    }
}

/// One request about the device with this name.
fn call(name: &str, number: u8, target_count: u32, table: [Target; 3]) -> io::Result<Request> {
    let mut request = Request {
        version: [4, 0, 0],
        data_size: size_of::<Request>() as u32,
        data_start: offset_of!(Request, table) as u32,
        target_count,
        open_count: 0,
        flags: 0,
        event: 0,
        padding: 0,
        device: 0,
        name: text(name),
        uuid: [0; 129],
        data: [0; 7],
        table,
    };
    let control = File::options().read(true).write(true).open(CONTROL)?;
    // `_IOWR(0xFD, number, struct dm_ioctl)`.
    let code = 3 << 30 | (offset_of!(Request, table) as libc::c_ulong) << 16 | 0xFD << 8 | libc::c_ulong::from(number);
    // SAFETY: the request is as long as it says, and nobody else's.
    check(unsafe { libc::ioctl(control.as_raw_fd(), code as libc::Ioctl, &raw mut request) })?;
    Ok(request)
}

const _: () = assert!(offset_of!(Request, table) == 312 && size_of::<Target>() == 40 + 64);

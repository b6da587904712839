//! A machine of QEMU's whose processor halts at once, so that nobody uses its devices but the test: registers are
//! reached by the protocol of `-qtest`, and memory is a file that both map.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use chiton_ring::memory::{GuestMemory, Window};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::device::{Device, PATIENCE};

const PROGRAM: &str = "qemu-system-x86_64";
/// Guest-physical memory, of which the first MiB is for firmware.
const MEMORY: usize = 4 << 20;
/// Where the machine `microvm` has its virtio-mmio devices.
const DEVICES: u64 = 0xfeb0_0000;
const DEVICE: u64 = 0x200;
const MOST_DEVICES: u64 = 8;

pub(crate) struct Machine {
    child: Child,
    line: RefCell<BufReader<UnixStream>>,
    memory: GuestMemoryMmap,
    folder: Folder,
}

impl Machine {
    /// A machine with these devices, and a disk image named `disk`; `None` if there is no QEMU, which is said.
    pub(crate) fn start(disk: &[u8], devices: &[&str]) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let folder = Folder::new();
        fs::write(folder.at("disk"), disk).expect("a disk image");
        fs::write(folder.at("firmware"), firmware()).expect("firmware");
        let mut memory = OpenOptions::new();
        memory.read(true).write(true).create_new(true);
        let file = memory.open(folder.at("memory")).expect("a file for memory");
        file.set_len(MEMORY as u64).expect("room for memory");
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        ours.set_read_timeout(Some(PATIENCE)).expect("a time that is not 0");
        let theirs = OwnedFd::from(theirs);
        let child = Command::new(PROGRAM)
            .current_dir(&folder.0)
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-accel", "tcg,tb-size=1", "-bios", "firmware", "-m", "4M"])
            .args([
                "-machine",
                "microvm,acpi=off,pit=off,pic=off,rtc=off,isa-serial=off,memory-backend=memory",
            ])
            .args([
                "-object",
                "memory-backend-file,id=memory,size=4M,mem-path=memory,share=on",
            ])
            // A kick is an access like any other, and what it leads to is begun when it is answered.
            .args(["-global", "virtio-mmio.ioeventfd=off"])
            .args(["-global", "virtio-mmio.force-legacy=false"])
            .args(["-qtest", "stdio", "-qtest-log", "none"])
            .args(["-drive", "if=none,id=disk,format=raw,cache=unsafe,file=disk"])
            .args(devices)
            .stdin(theirs.try_clone().expect("a descriptor"))
            .stdout(theirs)
            .stderr(File::create(folder.at("errors")).expect("a file for errors"))
            .spawn()
            .expect("QEMU starts");
        let range = (GuestAddress(0), MEMORY, Some(FileOffset::new(file, 0)));
        Some(Self {
            child,
            line: RefCell::new(BufReader::new(ours)),
            memory: GuestMemoryMmap::from_ranges_with_files([range]).expect("a mapping"),
            folder,
        })
    }

    /// Its devices of this kind.
    pub(crate) fn devices(&self, kind: u32) -> Vec<Device<'_>> {
        (0..MOST_DEVICES)
            .map(|index| Device::new(self, DEVICES + index * DEVICE))
            .filter(|device| device.kind() == kind)
            .collect()
    }

    /// What the file of the disk holds.
    pub(crate) fn disk(&self) -> Vec<u8> {
        fs::read(self.folder.at("disk")).expect("the disk image")
    }

    pub(crate) fn read(&self, address: u64) -> u32 {
        let answer = self.ask(&format!("readl {address:#x}"));
        let value = answer.trim().strip_prefix("0x").expect("a hexadecimal number");
        u32::from_str_radix(value.trim_start_matches('0'), 16).unwrap_or(0)
    }

    pub(crate) fn write(&self, address: u64, value: u32) {
        self.ask(&format!("writel {address:#x} {value:#x}"));
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.window(address, bytes.len())
            .expect("within memory")
            .write(0, bytes);
    }

    pub(crate) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.window(address, len).expect("within memory").read(0, &mut bytes);
        bytes
    }

    fn ask(&self, question: &str) -> String {
        let mut line = self.line.borrow_mut();
        let mut answer = String::new();
        let asked = writeln!(line.get_mut(), "{question}").and_then(|()| line.read_line(&mut answer));
        let Some(rest) = answer.strip_prefix("OK") else {
            let errors = fs::read_to_string(self.folder.at("errors")).unwrap_or_default();
            panic!("QEMU answers {question:?} by {answer:?} ({asked:?}) and says:\n{errors}");
        };
        rest.to_owned()
    }
}

impl GuestMemory for Machine {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let slice = self.memory.get_slice(GuestAddress(address), len).ok()?;
        let start = NonNull::new(slice.ptr_guard_mut().as_ptr())?;
        // SAFETY: a mapping that lives as long as `self` and that nobody refers to.
        Some(unsafe { Window::new(start, len) })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether QEMU is there. Where `CHITON_STRICT` or CI is set, it has to be.
fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(PROGRAM).exists()) {
        return true;
    }
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true" || ci == "1");
    let strict = ci || std::env::var_os("CHITON_STRICT").is_some();
    assert!(
        !strict,
        "{PROGRAM} is required here (Debian: apt-get install qemu-system-x86)"
    );
    println!("SKIPPED: there is no {PROGRAM} (Debian: apt-get install qemu-system-x86)");
    false
}

/// Where the processor begins, 16 bytes before the end: `cli`, `hlt`, and back to it.
fn firmware() -> Vec<u8> {
    let mut rom = vec![0xff; 64 << 10];
    let start = rom.len() - 16;
    rom[start..start + 4].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfd]);
    rom
}

/// A folder that goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("chiton-ring-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

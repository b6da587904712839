//! Somebody else changes the files of a root while a jail is made of it, as another jail could that shares them.
//!
//! A directory is exchanged for a link, over and over, by a process of its own. However the race ends, the jail is
//! either refused or as it should be, and nothing outside is covered or written.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use chiton_container::jail::{Jail, Root, Status, Volume};

use crate::help::{Place, Test, names, try_ask};

pub(crate) const TESTS: &[Test] = &[
    ("a_proc_that_turns_into_a_link_is_masked_or_refused", proc),
    ("a_dev_that_turns_into_a_link_is_a_dev_or_refused", dev),
    ("a_volume_whose_place_turns_into_a_link_stays_inside", volume),
];

/// So many jails are made against each racer.
const JAILS: u32 = 150;
/// How long a racer may win each time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that exchanges two names until this is dropped.
struct Racer(libc::pid_t);

impl Racer {
    fn start(one: &Path, two: &Path) -> Self {
        let c = |path: &Path| CString::new(path.to_str().unwrap()).unwrap();
        let (one, two) = (c(one), c(two));
        // SAFETY: this process has one thread; the child makes system calls only, until it is killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            loop {
                // SAFETY: both paths are C strings of this process.
                unsafe {
                    // Not every C library has a function of that name.
                    libc::syscall(
                        libc::SYS_renameat2,
                        libc::AT_FDCWD,
                        one.as_ptr(),
                        libc::AT_FDCWD,
                        two.as_ptr(),
                        libc::RENAME_EXCHANGE,
                    );
                }
            }
        }
        assert!(child > 0);
        Self(child)
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        // SAFETY: the child is this test's own, and has not been waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// A jail whose root is a directory as it is, which others may have too.
fn shared(place: &Place) -> Jail {
    let root = Root {
        layers: vec![place.path("root")],
        ..Root::default()
    };
    let mut jail = Jail::new(root, place.ids());
    // Namespaces have to hold alone.
    jail.filter = None;
    jail
}

/// Makes many jails, and more until one stands: the racer may have been stopped when it was ahead. Each is refused at
/// the step in these words, or what it says is empty.
fn many(jail: &mut Jail, refusal: &str, question: impl Fn() -> String) {
    let (mut made, mut stood, begun) = (0, 0, Instant::now());
    while made < JAILS || stood == 0 && begun.elapsed() < PATIENCE {
        made += 1;
        match try_ask(jail, &question) {
            Ok((said, status)) => {
                assert_eq!((said.as_str(), status), ("", Status::Exited(0)));
                stood += 1;
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains(refusal), "{error}");
            }
        }
    }
    assert!(stood > 0, "the racer won each time");
}

/// A directory that somebody exchanges, by either of its names, and what `statfs(2)` says of it.
fn caught(names: [&str; 2]) -> (File, libc::statfs) {
    loop {
        for name in names {
            let mut options = File::options();
            options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW);
            let Ok(directory) = options.open(name) else { continue };
            let of_it = statfs(&directory);
            return (directory, of_it);
        }
    }
}

fn statfs(file: &File) -> libc::statfs {
    // SAFETY: an all-zero `statfs` is a valid value, for the kernel to overwrite.
    let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut answer) }, 0);
    answer
}

/// Whether it is of `/proc`. C libraries differ in whether these numbers have a sign.
fn is_proc(about: &libc::statfs) -> bool {
    about.f_type.to_ne_bytes() == libc::PROC_SUPER_MAGIC.to_ne_bytes()
}

fn is_read_only(file: &File) -> bool {
    // SAFETY: an all-zero `statvfs` is a valid value, for the C library to overwrite.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut answer) }, 0);
    answer.f_flag & libc::ST_RDONLY != 0
}

/// Something in a directory, if it is there.
fn open_in(directory: &File, name: &str) -> Option<File> {
    let name = CString::new(name).unwrap();
    // SAFETY: the path is a C string; a descriptor that was just opened is nobody else's.
    unsafe {
        let fd = libc::openat(directory.as_raw_fd(), name.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
        (fd >= 0).then(|| File::from_raw_fd(fd))
    }
}

fn proc() {
    let place = Place::new();
    fs::create_dir(place.path("root/proc")).unwrap();
    symlink("/etc", place.path("root/other")).unwrap();
    let _racer = Racer::start(&place.path("root/proc"), &place.path("root/other"));
    many(&mut shared(&place), "cannot mount: /proc", || {
        let (proc, of_it) = caught(["/proc", "/other"]);
        if !is_proc(&of_it) {
            return "there is no /proc".into();
        }
        let bare = ["kcore", "keys", "timer_list", "interrupts", "acpi", "scsi"]
            .into_iter()
            .filter(|name| {
                let file = open_in(&proc, name);
                file.is_some_and(|file| is_proc(&statfs(&file)))
            });
        let mut bare: Vec<_> = bare.collect();
        let sys = open_in(&proc, "sys").unwrap();
        if !is_read_only(&sys) {
            bare.push("sys, to be written");
        }
        bare.join(" ")
    });
    assert_eq!(names(place.path("root/etc").to_str().unwrap()), "name");
}

fn dev() {
    let place = Place::new();
    fs::create_dir(place.path("root/dev")).unwrap();
    symlink("/etc", place.path("root/other")).unwrap();
    let _racer = Racer::start(&place.path("root/dev"), &place.path("root/other"));
    many(&mut shared(&place), "cannot mount: /dev", || {
        let (dev, _) = caught(["/dev", "/other"]);
        let null = open_in(&dev, "null").map(|null| null.metadata().unwrap().rdev());
        let is_strict = is_read_only(&dev);
        if (null, is_strict) == (Some(libc::makedev(1, 3)), true) {
            return String::new();
        }
        format!("null is {null:?}, read-only: {is_strict}")
    });
    assert_eq!(names(place.path("root/etc").to_str().unwrap()), "name");
}

fn volume() {
    let place = Place::new();
    let outside = place.path("outside");
    for path in ["root/data/sub", "volume", "outside"] {
        fs::create_dir_all(place.path(path)).unwrap();
    }
    fs::write(place.path("volume/mark"), "").unwrap();
    for to in [Path::new("/proc"), Path::new("../../../../../.."), &outside] {
        let link = place.path("root/data/link");
        symlink(to, &link).unwrap();
        let racer = Racer::start(&place.path("root/data/sub"), &link);
        let mut jail = shared(&place);
        jail.root.volumes = vec![Volume {
            host: place.path("volume"),
            guest: "/data/sub".into(),
            read_only: false,
        }];
        many(&mut jail, "cannot bind a volume", || {
            let proc = File::open("/proc").unwrap();
            if !is_proc(&statfs(&proc)) {
                return "it covers /proc".into();
            }
            String::new()
        });
        drop(racer);
        assert_eq!(names(outside.to_str().unwrap()), "");
        // Whichever of the two is the link now.
        for name in ["root/data/sub", "root/data/link"] {
            let _ = fs::remove_file(place.path(name));
        }
        fs::create_dir_all(place.path("root/data/sub")).unwrap();
        let _ = fs::remove_dir_all(&link);
    }
    assert_eq!(names(place.path("volume").to_str().unwrap()), "mark");
}

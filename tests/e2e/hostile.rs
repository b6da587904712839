//! A guest that breaks every rule breaks its own devices and nothing else.

use std::io::Read;
use std::time::{Duration, Instant};

use chiton_tests::{Chiton, Folder, Tap, disk_is_free, few, finish, is_root, kvm_works, signal};

/// Every attack that the guest gets through, except the flood, which has a test of its own, and how
/// often it tries: less than it would by itself, since an emulated machine is slow.
const ATTACKS: &[(&str, &str)] = &[
    ("rings", "2000"),
    ("loops", "4"),
    ("range", "4"),
    ("tables", "4"),
    ("indices", "4"),
    ("requests", "40"),
    ("packed", "2"),
    ("kicks", "20"),
    ("registers", "2000"),
    ("ports", "500"),
    ("processors", "200"),
    ("setup", "100"),
    ("mailbox", "50"),
    ("waits", "200"),
];

#[test]
fn hostile_guests_end_by_themselves_and_leave_nothing() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = folder.file("disk", vec![7; 1 << 16]);
    for (attack, rounds) in ATTACKS {
        for seed in few(&["1", "2"], 1) {
            let run = Chiton::new()
                .args(["run", "--timeout", "120s", "--disk", disk.to_str().expect("utf-8")])
                .args(["--vsock", "socket"])
                .guest("hostile")
                .args([attack, seed, rounds])
                .run();
            assert_eq!(run.status.code(), Some(0), "{attack} {seed}: {run}");
            assert!(disk_is_free(&disk), "{attack} {seed}");
        }
    }
    Chiton::new()
        .args(["run", "--disk", disk.to_str().expect("utf-8")])
        .guest("hello")
        .run()
        .assert_status(0);
}

/// All devices there are, at once: those behind registers have their registers attacked. The balloon may take the
/// guest's own code away, which is the guest's fault alone.
#[test]
fn hostile_guests_meet_every_device_and_packed_queues() {
    let Some(tap) = kvm_works().then(Tap::new).flatten() else {
        return;
    };
    let Some(emulated) = Tap::new() else { return };
    let folder = Folder::new();
    let outer = place();
    let disks = ["disk", "other"].map(|name| folder.file(name, vec![7; 1 << 16]).display().to_string());
    let options = [
        ("--disk", disks[0].clone()),
        ("--emulated-disk", disks[1].clone()),
        ("--net", tap.option()),
        ("--emulated-net", format!("tap={}", emulated.name())),
        ("--folder", format!("{}:rw", outer.path("shared").display())),
        ("--port", format!("a={}", folder.path("port").display())),
        ("--vsock", folder.path("socket").display().to_string()),
    ];
    let attacks = [
        ("rings", "500"),
        ("loops", "1"),
        ("packed", "1"),
        ("range", "1"),
        ("tables", "1"),
        ("indices", "1"),
        ("requests", "10"),
        ("kicks", "10"),
        ("registers", "2000"),
        ("setup", "50"),
    ];
    for (attack, rounds) in few(&attacks, 3) {
        for packed in [None, Some("--packed")] {
            let run = Chiton::new()
                .args(["run", "--timeout", "120s", "--balloon"])
                .args(options.iter().flat_map(|(option, value)| [*option, value]))
                .args(packed)
                .guest("hostile")
                .args([attack, "3", rounds])
                .run();
            assert!(matches!(run.status.code(), Some(0 | 102)), "{attack} {packed:?}: {run}");
            assert!(disks.iter().all(|disk| disk_is_free(disk.as_ref())), "{attack}");
        }
    }
    assert_eq!(std::fs::read(outer.path("secret")).expect("a file"), SECRET);
}

/// What no guest may read or change.
const SECRET: &[u8] = b"the needle outside\n";

/// A folder for a guest with ways out of it, in another one with a file.
fn place() -> Folder {
    let outer = Folder::new();
    std::fs::create_dir_all(outer.path("shared/sub")).expect("a folder");
    let _ = outer.file("secret", SECRET);
    let _ = outer.file("shared/one", "one");
    for (target, name) in [(outer.path("secret"), "link"), ("..".into(), "up")] {
        std::os::unix::fs::symlink(target, outer.path(&format!("shared/{name}"))).expect("a link");
    }
    let node = |name: &str, kind, device| {
        let path = outer
            .path(&format!("shared/{name}"))
            .into_os_string()
            .into_encoded_bytes();
        let path = std::ffi::CString::new(path).expect("no zero in it");
        // SAFETY: the string lives until the call is over.
        assert_eq!(unsafe { libc::mknod(path.as_ptr(), kind | 0o666, device) }, 0, "{name}");
    };
    node("fifo", libc::S_IFIFO, 0);
    if is_root() {
        node("null", libc::S_IFCHR, libc::makedev(1, 3));
    }
    outer
}

#[test]
fn no_message_leads_out_of_a_folder() {
    if !kvm_works() {
        return;
    }
    for access in [":ro", ":rw"] {
        let outer = place();
        let run = Chiton::new()
            .args(["run", "--timeout", "120s", "--folder"])
            .args([format!("{}{access}", outer.path("shared").display())])
            .guest("hostile")
            .args(["folder", "1", "1"])
            .run();
        run.assert_status(0);
        assert_eq!(std::fs::read(outer.path("secret")).expect("a file"), SECRET, "{access}");
        let mut names = outer.names();
        names.sort_unstable();
        assert_eq!(names, ["secret", "shared"], "{access}");
    }
}

#[test]
fn a_device_that_a_guest_broke_is_named_in_the_log() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new().args(["run"]).guest("hostile").args(["loops"]).run();
    run.assert_status(0)
        .assert_says("needs a reset")
        .assert_says("descriptor chain loops");
}

#[test]
fn ports_that_are_no_doorbells_are_closed_to_ring_3_or_dead() {
    if !kvm_works() {
        return;
    }
    // The permission map faults them; a processor that goes by IOPL lets them through to nothing.
    let run = Chiton::new()
        .args(["run", "--timeout", "120s"])
        .guest("hostile")
        .args(["foreign-ports"])
        .run();
    assert!(matches!(run.status.code(), Some(0 | 102)), "{run}");
}

#[test]
fn lies_about_a_panic_or_a_trap_end_the_guest_and_nothing_else() {
    if !kvm_works() {
        return;
    }
    Chiton::new()
        .args(["run"])
        .guest("hostile")
        .args(["panic"])
        .run()
        .assert_status(101);
    Chiton::new()
        .args(["run"])
        .guest("hostile")
        .args(["trap"])
        .run()
        .assert_status(102);
}

#[test]
fn a_flood_does_not_grow_the_host() {
    if !kvm_works() {
        return;
    }
    let mut child = Chiton::new()
        .args(["run", "--timeout", "150s"])
        .guest("hostile")
        .args(["flood", "1", "1000000000"])
        .spawn();
    let pid = child.id();
    let (mut most, mut bytes) = (0, 0);
    let mut some = vec![0; 1 << 16];
    let start = Instant::now();
    let mut looked = None;
    // For a while, and until there was something to keep.
    while start.elapsed() < Duration::from_secs(2) || bytes <= 1 << 16 {
        let len = child
            .stdout
            .as_mut()
            .expect("a pipe")
            .read(&mut some)
            .expect("it floods");
        assert!(len > 0, "it ended after {bytes} bytes");
        bytes += len;
        if looked.is_none_or(|looked: Instant| looked.elapsed() > Duration::from_millis(50)) {
            most = most.max(resident_kib(pid).expect("it runs"));
            looked = Some(Instant::now());
        }
    }
    most = most.max(resident_kib(pid).expect("it runs"));
    signal(&child, libc::SIGTERM);
    finish(child).assert_status(143);
    // The program, the guest's touched pages, and slack: far below what was written.
    assert!(most < 16 << 10, "{most} KiB resident after {bytes} bytes of output");
}

/// Resident memory of a process that is not a zombie.
fn resident_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

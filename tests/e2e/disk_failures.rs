//! Disks that fail while a guest uses them: the guest sees an error, the log has a line, and the
//! other devices go on.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use chiton_tests::{BadDisk, Chiton, Folder, LoopDevice, finish, is_root, kvm_works, skip};

#[test]
fn a_disk_that_shrinks_fails_what_is_beyond_its_end() {
    if !kvm_works() {
        return;
    }
    // Few requests are done one by one, more by io_uring.
    for sectors in [16_usize, 256] {
        let half = sectors / 2;
        let folder = Folder::new();
        let disk = folder.file("disk", vec![0; sectors * 512]);
        let mut child = Chiton::new()
            .args(["run", "--disk", text(&disk)])
            .guest("disk")
            .args(["wait", "0", &sectors.to_string()])
            .spawn();
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("text");
        std::fs::File::options()
            .write(true)
            .open(&disk)
            .and_then(|file| file.set_len(sectors as u64 * 256))
            .expect("own file");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(b"go\n")
            .expect("it reads");
        line.clear();
        output.read_line(&mut line).expect("text");
        assert_eq!(line, format!("{half} of {sectors} sectors\n"));
        finish(child)
            .assert_status(0)
            .assert_says(&format!("cannot read 512 bytes at byte {} of the disk", half * 512))
            .assert_says("the file has become shorter than the disk")
            .assert_says(&format!("{half} device requests of disk failed"));
    }
}

#[test]
fn a_write_that_finds_no_room_fails_and_the_guest_goes_on() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = folder.file("disk", vec![0; 8192]);
    let run = Chiton::new()
        .file_limit(4096)
        .args(["run", "--disk", disk.to_str().expect("utf-8")])
        .guest("disk")
        .args(["write", "0", "16"])
        .run();
    run.assert_status(0)
        .assert_says("cannot write 512 bytes at byte 4096 of the disk");
    assert!(run.stdout_text().contains("8 of 16 sectors"), "{run}");
}

/// Runs a program of the system that has to succeed; answers what it wrote.
fn system(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect(program);
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn with(io_uring: bool) -> Chiton {
    if io_uring {
        Chiton::new()
    } else {
        Chiton::new().without_io_uring()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// A file system of a megabyte.
struct Small(PathBuf);

impl Small {
    fn mount(folder: &Folder) -> Self {
        let place = folder.path("small");
        std::fs::create_dir(&place).expect("own folder");
        // This thread and what it starts see the mount, and no other test does.
        // SAFETY: only this thread's view of mounts changes.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "root may");
        system("mount", &["--make-rprivate", "/"]);
        system("mount", &["-t", "tmpfs", "-o", "size=1M", "chiton-test", text(&place)]);
        Self(place)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A child that another test starts just now has a copy of what was open there.
        system("umount", &["-l", text(&self.0)]);
    }
}

#[test]
fn a_file_system_that_is_full_fails_writes_and_the_disk_goes_on() {
    if !kvm_works() || !is_root() {
        return;
    }
    let folder = Folder::new();
    let small = Small::mount(&folder);
    let disk = small.0.join("disk");
    std::fs::File::create(&disk)
        .and_then(|file| file.set_len(4 << 20))
        .expect("a hole");
    for io_uring in [true, false] {
        let run = with(io_uring)
            .args(["run", "--disk", text(&disk)])
            .guest("disk")
            .args(["write", "0", "8192"])
            .run();
        run.assert_status(0)
            .assert_says("cannot write 512 bytes at byte 1")
            .assert_says("No space left on device");
        let said = run.stdout_text();
        let written: u64 = said.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
        assert!((1024..=2048).contains(&written), "{run}");
    }
}

/// A block device whose medium ends before it does; `None`, with the reason on standard output, where
/// there is none that fails.
fn short_disk(folder: &Folder) -> Option<LoopDevice> {
    let backing = folder.file("backing", vec![1; 1 << 20]);
    let device = match LoopDevice::new(&backing) {
        Ok(device) => device,
        Err(error) => {
            skip("loop device", error);
            return None;
        }
    };
    std::fs::File::options()
        .write(true)
        .open(&backing)
        .and_then(|file| file.set_len(512 << 10))
        .expect("own file");
    let behind = std::fs::File::open(device.path()).and_then(|file| file.read_exact_at(&mut [0; 512], 768 << 10));
    if behind.is_ok() {
        skip("failing loop device", "it has zeros where its file has ended");
        return None;
    }
    Some(device)
}

#[test]
fn a_medium_that_fails_is_an_error_of_those_requests_and_the_other_disk_goes_on() {
    if !kvm_works() || !is_root() {
        return;
    }
    let folder = Folder::new();
    let Some(bad) = short_disk(&folder) else {
        return;
    };
    let good = folder.file("good", vec![0; 1 << 20]);
    for io_thread in [None, Some("--io-thread")] {
        let run = Chiton::new()
            .args([
                "run",
                "--cpus",
                "2",
                "--disk",
                text(&good),
                "--disk",
                &format!("{}:ro,direct", bad.path().display()),
            ])
            .args(io_thread)
            .guest("flood")
            .args(["disk"])
            .run();
        run.assert_status(0).assert_says("cannot read 65536 bytes at byte");
        run.assert_says("device requests of flood failed");
        let said = run.stdout_text();
        assert!(!said.contains(" 0 failed"), "{run}");
    }
}

#[test]
fn sectors_that_fail_in_the_middle_of_a_disk_fail_alone() {
    if !kvm_works() || !is_root() {
        return;
    }
    let folder = Folder::new();
    let Some(bad) = BadDisk::new(&folder, 1024, 64) else {
        return;
    };
    let device = bad.path().display();
    let first = 1024 * 512;
    for (what, option) in [("read", ":ro"), ("read", ":ro,direct"), ("write", "")] {
        for io_uring in [true, false] {
            let run = with(io_uring)
                .args(["run", "--disk", &format!("{device}{option}")])
                .guest("disk")
                .args([what, "960", "192"])
                .run();
            run.assert_status(0)
                .assert_says(&format!("cannot {what} 512 bytes at byte {first} of the disk"))
                .assert_says("(os error 5)")
                .assert_says("64 device requests of disk failed");
            assert_eq!(run.stdout_text(), "128 of 192 sectors\n", "{run}");
        }
    }
    // The other disk, and the console, go on.
    let good = folder.file("good", vec![0; 1 << 20]);
    for io_thread in [None, Some("--io-thread")] {
        let run = Chiton::new()
            .args(["run", "--cpus", "2", "--disk", text(&good)])
            .args(["--disk", &format!("{device}:ro,direct")])
            .args(io_thread)
            .guest("flood")
            .args(["disk"])
            .stdin(b"are you there?\n")
            .run();
        run.assert_status(0)
            .assert_says("of the disk /dev/dm-")
            .assert_says("device requests of flood failed");
        let said = run.stdout_text();
        assert!(
            said.contains("are you there?\n") && !said.contains(" 0 failed"),
            "{run}"
        );
    }
}

//! Disks that fail while a guest uses them: the guest sees an error, the log has a line, and the
//! other devices go on.

use std::io::{BufRead, BufReader, Write};

use chiton_tests::{Chiton, Folder, finish, kvm_works};

#[test]
fn a_disk_that_shrinks_fails_what_is_beyond_its_end() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = folder.file("disk", vec![0; 8192]);
    let mut child = Chiton::new()
        .args(["run", "--disk", disk.to_str().expect("utf-8")])
        .guest("disk")
        .args(["wait", "0", "16"])
        .spawn();
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("text");
    assert_eq!(line, "ready\n");
    std::fs::File::options()
        .write(true)
        .open(&disk)
        .and_then(|file| file.set_len(4096))
        .expect("own file");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(b"go\n")
        .expect("it reads");
    line.clear();
    output.read_line(&mut line).expect("text");
    assert_eq!(line, "8 of 16 sectors\n");
    let run = finish(child);
    run.assert_status(0)
        .assert_says("cannot read 512 bytes at byte 4096 of the disk")
        .assert_says("the file has become shorter than the disk")
        .assert_says("8 device requests of disk failed");
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

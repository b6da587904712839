//! What stands behind `--disk PATH`, and what a guest can have done besides reads and writes.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;

use chiton_tests::{Chiton, Folder, Run, finish, kvm_works, skip};

fn disk(option: &str, args: &[&str]) -> Run {
    Chiton::new()
        .args(["run", "--disk", option])
        .guest("disk")
        .args(args)
        .run()
}

#[test]
fn a_serial_is_what_the_guest_reads() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let image = folder.file("data.img", [0; 1024]);
    let path = image.to_str().expect("utf-8");
    for (option, said) in [
        (path.to_owned(), "data.img: 2 sectors, writable"),
        (format!("{path},serial=vol-7"), "vol-7: 2 sectors, writable"),
        (format!("{path}:ro,serial=vol-7"), "vol-7: 2 sectors, read-only"),
        (format!("{path}:ro"), "data.img: 2 sectors, read-only"),
    ] {
        let run = disk(&option, &[]);
        run.assert_status(0);
        assert!(run.stdout_text().starts_with(said), "{option}: {run}");
    }
}

#[test]
fn discarded_space_goes_back_to_the_host() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let image = folder.file("disk", vec![1; 1 << 20]);
    let path = image.to_str().expect("utf-8");
    let blocks = || std::fs::metadata(&image).expect("the file is there").blocks();
    let before = blocks();
    disk(path, &["zero", "0", "8"]).assert_status(0);
    disk(path, &["unmap", "1024", "512"]).assert_status(0);
    disk(path, &["discard", "1536", "512"]).assert_status(0);
    let bytes = std::fs::read(&image).expect("the file is there");
    assert_eq!(bytes.len(), 1 << 20);
    assert!(bytes[..4096].iter().all(|byte| *byte == 0), "zeros at the start");
    assert!(bytes[4096..512 << 10].iter().all(|byte| *byte == 1), "the rest is kept");
    assert!(
        bytes[512 << 10..768 << 10].iter().all(|byte| *byte == 0),
        "zeros at the end"
    );
    assert!(blocks() < before, "{} blocks of {before} are left", blocks());

    let kept = std::fs::read(&image).expect("the file is there");
    let read_only = disk(&format!("{path}:ro"), &["discard", "0", "8"]);
    read_only.assert_status(1).assert_says("read-only");
    disk(path, &["zero", "2047", "2"])
        .assert_status(1)
        .assert_says("beyond the disk");
    assert!(std::fs::read(&image).expect("the file is there") == kept);
}

#[test]
fn direct_or_not_a_guest_reads_what_it_wrote() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let image = folder.file("disk", vec![0; 1 << 20]);
    let option = format!("{},direct", image.display());
    let run = Chiton::new()
        .args(["run", "--disk", &option])
        .guest("fill")
        .args(["chiton!"])
        .run();
    if run.status.code() == Some(125) {
        run.assert_refused("on a file system without direct I/O");
        skip("direct I/O", run);
        return;
    }
    run.assert_status(0);
    let written = std::fs::read(&image).expect("the file is there");
    assert!(written.iter().eq(b"chiton!".iter().cycle().take(1 << 20)));
    disk(&option, &["read", "0", "2048"]).assert_status(0);
}

/// Whether a process has asked for huge pages anywhere ("hg", proc(5)).
fn wants_huge_pages(process: u32) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{process}/smaps")).expect("an own process");
    let mut flags = maps.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
    flags.any(|flags| flags.split_whitespace().any(|flag| flag == "hg"))
}

#[test]
fn memory_comes_in_huge_pages_for_a_direct_disk_and_no_balloon() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let image = folder.file("disk", vec![0; 1 << 20]);
    if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        skip("huge pages", "this kernel was built without them");
        return;
    }
    for (option, balloon, huge) in [
        ("", None, false),
        (",direct", Some("--balloon=0"), false),
        (",direct", None, true),
    ] {
        let mut child = Chiton::new()
            .args(["run", "--disk", &format!("{}{option}", image.display())])
            .args(balloon)
            .guest("disk")
            .args(["wait", "0", "1"])
            .spawn();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        output.read_line(&mut line).expect("text");
        if line != "ready\n" {
            finish(child).assert_refused("on a file system without direct I/O");
            skip("direct I/O", "the file system has none");
            return;
        }
        assert_eq!(wants_huge_pages(child.id()), huge, "{option} {balloon:?}");
        drop(child.stdin.take());
        output.read_line(&mut line).expect("text");
        finish(child).assert_status(0);
    }
}

#[test]
fn a_rate_limit_takes_the_time_it_says_and_no_other_device_waits() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let image = folder.file("disk", vec![0; 64 << 10]);
    let path = image.display();
    for option in [format!("{path},ops=100/10"), format!("{path},bytes=50K/5K")] {
        let start = std::time::Instant::now();
        let run = disk(&option, &["read", "0", "60"]);
        let took = start.elapsed().as_millis();
        run.assert_status(0);
        assert!(run.stdout_text().contains("60 of 60 sectors"), "{run}");
        // 60 requests of 512 bytes, of which the burst has 10.
        assert!(took >= 450, "{option}: {took} ms");
    }
    let run = Chiton::new()
        .args(["run", "--timeout", "300ms", "--disk", &format!("{path},ops=1/1")])
        .guest("disk")
        .args(["read", "0", "60"])
        .run();
    run.assert_status(124);
}

#[test]
fn options_and_images_that_make_no_disk_are_refused() {
    let folder = Folder::new();
    let refuse = |option: &str, words: &str| {
        let run = Chiton::new().args(["run", "--disk", option]).guest("hello").run();
        assert!(!run.status.success(), "{option}: {run}");
        run.assert_says(words);
    };
    let image = folder.file("disk", [0; 512]);
    let path = image.to_str().expect("utf-8");
    refuse(&format!("{path},cache=none"), "`cache=none` is no option of a disk");
    refuse(&format!("{path}:ro,fast"), "`fast` is no option of a disk");
    refuse(&format!("{path},serial="), "cannot be a disk's serial");
    refuse(
        &format!("{path},serial=123456789012345678901"),
        "cannot be a disk's serial",
    );
    let mut header = [0; 512];
    for (mark, format) in [(b"QFI\xfb", "qcow2"), (b"KDMV", "vmdk")] {
        header[..4].copy_from_slice(mark);
        let image = folder.file("image", header);
        let run = Chiton::new()
            .args(["run", "--disk", image.to_str().expect("utf-8")])
            .guest("hello")
            .run();
        run.assert_refused(&format!("is a {format} image"))
            .assert_says("qemu-img convert -O raw");
    }
}

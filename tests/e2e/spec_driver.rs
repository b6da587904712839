//! A driver written from the virtio specification alone finds every register as it says.

use chiton_tests::{Chiton, Folder, kvm_works};

#[test]
fn a_driver_written_from_the_specification_alone_works() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let bytes: Vec<u8> = (0..1_u32 << 16).map(|i| (i / 512) as u8).collect();
    let disk = folder.file("disk", bytes);
    let run = Chiton::new()
        .args(["run", "--timeout", "120s", "--disk", disk.to_str().expect("utf-8")])
        .guest("spec")
        .run();
    run.assert_status(0);
    let passed = run.stdout_text().lines().filter(|line| line.contains("PASS")).count();
    assert!(passed >= 20, "only {passed} checks\n{run}");
}

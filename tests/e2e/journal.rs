//! The journal of the guest `log`, with `chiton` killed at any moment.

use std::io::Read;
use std::time::Duration;

use chiton_tests::{Chiton, Folder, kvm_works, signal, slow};

/// The number behind the last whole line that begins with `word`.
fn last(output: &str, word: &str) -> Option<u64> {
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    let number = |line: &str| line.strip_prefix(word)?.trim().parse().ok();
    whole.lines().filter_map(number).next_back()
}

#[test]
fn every_acknowledged_record_is_there_after_kill_9() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = folder.path("disk");
    std::fs::File::create(&disk)
        .and_then(|file| file.set_len(64 << 20))
        .expect("own file");
    let option = disk.to_str().expect("utf-8");
    let log = |records: &str| {
        Chiton::new()
            .args(["run", "--disk", option])
            .guest("log")
            .args([records])
    };
    let mut state = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    let mut killed = 0;
    let mut acknowledged = 0;
    for round in 0..if slow() { 3 } else { 12 } {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut child = log("1000000").spawn();
        let mut output = child.stdout.take().expect("a pipe");
        // Every other round the end comes once it has begun, at the latest after a while.
        let mut seen = vec![0; if round % 2 == 0 { 40 } else { 1 }];
        output.read_exact(&mut seen).expect("it says what it found");
        std::thread::sleep(Duration::from_micros(state >> 49));
        signal(&child, libc::SIGKILL);
        output.read_to_end(&mut seen).expect("the rest");
        let run = chiton_tests::finish(child);
        killed += usize::from(run.status.code().is_none());
        let text = String::from_utf8_lossy(&seen);
        acknowledged = acknowledged.max(last(&text, "acked ").unwrap_or(0));

        let check = log("0").run();
        check.assert_status(0);
        let found = last(&check.stdout_text(), "found ").unwrap_or_else(|| panic!("{check}"));
        assert!(found >= acknowledged, "{found} of {acknowledged} in round {round}");
    }
    assert!(
        killed > 0 && acknowledged > 0,
        "{killed} killed, {acknowledged} records"
    );
}

#[test]
fn a_disk_with_something_else_on_it_is_no_journal() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = folder.file("disk", [7; 4096]);
    let run = Chiton::new()
        .args(["run", "--disk", disk.to_str().expect("utf-8")])
        .guest("log")
        .run();
    run.assert_status(1).assert_says("holds something that is no journal");
    assert_eq!(std::fs::read(&disk).expect("the file is there"), [7; 4096]);
}

//! Snapshots: `chiton snapshot`, and what goes on from one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use chiton_tests::{Chiton, Folder, Record, Run, few, finish, guest_path, hardware_kvm, is_root, kvm_works, signal};

use crate::control::Live;

/// What a guest that goes on says, up to its first number.
#[derive(Debug, Default)]
struct Beginning {
    generation: String,
    random: String,
    key: String,
    wall: u64,
    count: u64,
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// The number of a line of the counter's.
fn count(line: &str) -> Option<u64> {
    line.strip_prefix("count ")?.parse().ok()
}

/// Takes a snapshot of a guest, into a file of a folder.
#[track_caller]
fn take(live: &Live, folder: &Folder, name: &str, options: &[&str]) -> PathBuf {
    let path = folder.path(name);
    let run = live.chiton("snapshot", &[&[text(&path)], options].concat());
    run.assert_status(0);
    assert!(run.stdout_text().contains("KiB of memory"), "{}", run.stdout_text());
    path
}

/// A counter, and a snapshot of it from a moment at which it had counted so far.
fn counter(folder: &Folder, options: &[&str], args: &[&str]) -> (Live, PathBuf) {
    let mut live = Live::start(options, "counter", args);
    live.until("count 20");
    let path = take(&live, folder, "a.snap", &[]);
    (live, path)
}

/// Ends a guest that counts; the numbers it said since.
fn end(live: Live) -> (Vec<u64>, Run) {
    live.chiton("stop", &[]).assert_status(0);
    let run = live.finish();
    run.assert_status(0);
    let numbers = run.stdout_text().lines().filter_map(count).collect();
    (numbers, run)
}

/// Starts so many guests from a snapshot, reads what each says up to its tenth number, and ends them.
fn clones(path: &Path, options: &[&str], how_many: usize) -> Vec<Beginning> {
    let start = |_| Chiton::new().args(["run", "--from", text(path)]).args(options).spawn();
    let all: Vec<_> = (0..how_many).map(start).collect();
    let read = |mut child: chiton_tests::Running| {
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut beginning = Beginning::default();
        let mut next = None;
        for line in lines.by_ref().take(40) {
            let line = line.expect("text");
            let rest = |word| line.strip_prefix(word).map(str::to_owned);
            if let Some(number) = count(&line) {
                beginning.count = next.map_or(number, |_| beginning.count);
                assert_eq!(number, next.unwrap_or(number), "a number is missing, or was said twice");
                next = Some(number + 1);
                if number >= beginning.count + 10 {
                    break;
                }
            } else if let Some(generation) = rest("generation ") {
                assert_eq!(beginning.generation, "", "it changed again");
                beginning.generation = generation;
            } else if let Some(random) = rest("random ") {
                beginning.random = random;
            } else if let Some(key) = rest("key ") {
                beginning.key = key;
            } else if let Some(wall) = rest("wall ") {
                beginning.wall = wall.parse().expect("seconds");
            } else {
                assert_eq!(line, "others count");
            }
        }
        signal(&child, libc::SIGTERM);
        lines.for_each(drop);
        let run = finish(child);
        run.assert_status(143);
        beginning
    };
    all.into_iter().map(read).collect()
}

fn all_different<'b>(of: impl Iterator<Item = &'b String>) {
    let all: Vec<_> = of.collect();
    let different: BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "{all:?}");
    assert!(!all.iter().any(|one| one.is_empty()));
}

#[test]
fn a_guest_goes_on_after_a_snapshot_as_if_there_had_been_none() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let (live, path) = counter(&folder, &[], &["2"]);
    assert!(fs::metadata(&path).expect("the file").len() % 4096 != 0);
    let (numbers, run) = end(live);
    assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "{numbers:?}");
    assert_eq!(numbers.first(), Some(&21));
    for never in ["generation", "time jumped", "memory:"] {
        assert!(!run.stdout_text().contains(never), "{}", run.stdout_text());
    }
}

#[test]
fn clones_go_on_from_the_same_moment_each_with_its_own_generation_and_random_numbers() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let (live, path) = counter(&folder, &[], &["2"]);
    let clones = clones(&path, &[], few(&[(); 10], 3).len());
    let first = clones[0].count;
    assert!(first > 20);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs();
    for clone in &clones {
        assert_eq!(clone.count, first);
        assert!(now.abs_diff(clone.wall) < 600, "{clone:?}, and it is {now}");
    }
    all_different(clones.iter().map(|clone| &clone.generation));
    all_different(clones.iter().map(|clone| &clone.random));
    all_different(clones.iter().map(|clone| &clone.key));
    end(live);
}

/// How much of a process's mappings of a file is in memory, and what its part of that is, in KiB.
fn mapped(process: u32, file: &Path) -> (u64, u64) {
    let maps = fs::read_to_string(format!("/proc/{process}/smaps")).expect("it runs");
    let (mut of_file, mut resident, mut part) = (false, 0, 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match first {
            "Rss:" if of_file => resident += second.parse::<u64>().expect("KiB"),
            "Pss:" if of_file => part += second.parse::<u64>().expect("KiB"),
            // Each mapping begins with its addresses and ends with its file.
            _ if !first.ends_with(':') => of_file = line.ends_with(text(file)),
            _ => {}
        }
    }
    (resident, part)
}

#[test]
fn clones_have_the_pages_in_common_that_none_of_them_has_changed() {
    if !kvm_works() {
        return;
    }
    const PATTERN_KIB: u64 = 8 << 10;
    let folder = Folder::new();
    let (live, path) = counter(&folder, &["--memory", "32M"], &["8"]);
    end(live);
    let path = fs::canonicalize(path).expect("the file");
    let how_many = few(&[(); 10], 3).len();
    let clone = |_| Chiton::new().args(["run", "--from", text(&path)]).spawn();
    let mut all: Vec<_> = (0..how_many).map(clone).collect();
    // Each looks at all that it had filled before it says a number. The first may come of a look that
    // it was in the middle of when the snapshot was taken.
    let mut outputs = Vec::new();
    for clone in &mut all {
        let mut lines = BufReader::new(clone.stdout.take().expect("a pipe")).lines();
        let numbers = lines.by_ref().map(|line| line.expect("text"));
        let second = numbers.filter(|line| count(line).is_some()).nth(1);
        assert!(second.is_some());
        outputs.push(lines);
    }
    let memory: Vec<_> = all.iter().map(|clone| mapped(clone.id(), &path)).collect();
    for (clone, output) in all.into_iter().zip(outputs) {
        signal(&clone, libc::SIGTERM);
        output.for_each(drop);
        finish(clone).assert_status(143);
    }
    // Half of it may be its own: the stack, the heap's lists, what else a guest writes.
    for (resident, part) in memory {
        assert!(
            resident >= PATTERN_KIB,
            "{resident} KiB are in memory, of {PATTERN_KIB} that it reads"
        );
        assert!(part < resident / 2, "of {resident} KiB, {part} are a clone's own");
    }
}

#[test]
fn several_processors_go_on_all_of_them() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let mut live = Live::start(&["--cpus", "3"], "counter", &["1", "2"]);
    live.until("others count");
    let path = take(&live, &folder, "a.snap", &[]);
    live.until("others count");
    end(live);
    let mut child = Chiton::new().args(["run", "--from", text(&path)]).spawn();
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    for _ in 0..2 {
        // The host may let one of them stand still for a while.
        let mut others = lines
            .by_ref()
            .map(|line| line.expect("text"))
            .filter(|line| line.contains("others"))
            .take(100);
        assert!(others.any(|line| line == "others count"), "not all of them go on");
    }
    signal(&child, libc::SIGTERM);
    lines.for_each(drop);
    finish(child).assert_status(143);
}

#[test]
fn a_clone_has_snapshots_of_its_own_and_a_paused_guest_stays_paused() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let (live, path) = counter(&folder, &[], &["1"]);
    live.chiton("pause", &[]).assert_status(0);
    take(&live, &folder, "b.snap", &[]);
    assert!(live.ask(r#"{"query":{}}"#).contains(r#""paused":true"#));
    live.chiton("resume", &[]).assert_status(0);
    end(live);
    let socket = Folder::new();
    let again = socket.path("again.snap");
    let control = socket.path("c.sock");
    let mut child = Chiton::new()
        .args(["run", "--from", text(&path), "--control", text(&control)])
        .spawn();
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let said = |line: std::io::Result<String>| count(&line.expect("text"));
    let first = lines.by_ref().find_map(said).expect("a number");
    let run = Chiton::new()
        .args(["snapshot", "--stop", text(&control), text(&again)])
        .run();
    run.assert_status(0);
    let last = lines.filter_map(said).last().unwrap_or(first);
    finish(child).assert_status(0);
    let clone = &clones(&again, &["--verify"], 1)[0];
    assert_eq!(clone.count, last + 1, "nothing is lost, nothing said twice");
}

#[test]
fn what_has_changed_since_the_last_snapshot_is_enough_for_the_next() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let mut live = Live::start(&["--memory", "32M"], "counter", &["8"]);
    live.until("count 10");
    let refused = |live: &Live, options: &[&str], words: &str| {
        let path = live.folder.path("never.snap");
        let run = live.chiton("snapshot", &[&[text(&path)], options].concat());
        run.assert_status(125);
        assert!(run.stderr_text().contains(words), "{}", run.stderr_text());
        assert!(!path.exists());
    };
    let full = take(&live, &folder, "full.snap", &[]);
    refused(&live, &["--incremental", text(&full)], "take that with --track");
    let full = take(&live, &folder, "full.snap", &["--track"]);
    live.until("count 40");
    let run = live.chiton("snapshot", &["--incremental", text(&full), text(&full)]);
    run.assert_status(125);
    assert!(
        run.stderr_text().contains("is needed from then on"),
        "{}",
        run.stderr_text()
    );
    let one = take(&live, &folder, "one.snap", &["--incremental", text(&full)]);
    refused(&live, &["--incremental", text(&full)], "was taken of this guest last");
    let one_again = take(&live, &folder, "two.snap", &["--track"]);
    let two = take(&live, &folder, "three.snap", &["--incremental", text(&one_again)]);
    end(live);
    let size = |path: &Path| fs::metadata(path).expect("a file").len();
    assert!(
        size(&full) > 32 << 20 && size(&one) < 4 << 20,
        "{} {}",
        size(&full),
        size(&one)
    );
    assert!(clones(&one, &["--verify"], 1)[0].count > 40);
    assert!(clones(&two, &[], 1)[0].count > 40);
    // Another one in the place of the parent; and none.
    fs::rename(&one_again, &full).expect("renamed");
    assert_refused(&one, &[], "this is another snapshot than the one that it builds on");
    fs::remove_file(&full).expect("removed");
    assert_refused(&one, &[], "cannot be used: No such file");
}

/// Nothing goes on, for this reason.
#[track_caller]
fn assert_refused(path: &Path, options: &[&str], words: &str) {
    let run = Chiton::new().args(["run", "--from", text(path)]).args(options).run();
    run.assert_status(125);
    assert!(run.stderr_text().contains(words), "{words}: {}", run.stderr_text());
    assert_eq!(run.stdout_text(), "");
}

/// CRC-32, as ISO 3309 has it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ 0xedb8_8320 & (crc & 1).wrapping_neg()
        })
    })
}

/// A snapshot's bytes, to be changed.
struct Bytes(Vec<u8>);

impl Bytes {
    fn word(&self, at: usize) -> usize {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("8 bytes")) as usize
    }

    /// Where the description begins.
    fn description(&self) -> usize {
        4096 + self.word(24) + self.word(32).next_multiple_of(4096)
    }

    /// With checksums that are right again.
    fn signed(mut self) -> Vec<u8> {
        let description = crc32(&self.0[self.description()..]);
        self.0[16..20].copy_from_slice(&description.to_le_bytes());
        let header = crc32(&self.0[..124]);
        self.0[124..128].copy_from_slice(&header.to_le_bytes());
        self.0
    }
}

#[test]
fn a_file_that_is_no_whole_snapshot_of_this_build_and_processor_is_refused() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let (live, path) = counter(&folder, &[], &["1"]);
    end(live);
    let whole = fs::read(&path).expect("the file");
    let bad = path.with_file_name("bad.snap");
    let changed = |change: fn(&mut Bytes)| {
        let mut bytes = Bytes(whole.clone());
        change(&mut bytes);
        bytes
    };
    let refused = |bytes: &[u8], options: &[&str], words: &str| {
        fs::write(&bad, bytes).expect("written");
        assert_refused(&bad, options, words);
    };
    refused(b"", &[], "it is not a snapshot");
    refused(b"#!/bin/sh\n", &[], "it is not a snapshot");
    refused(&whole[..100], &[], "it is not a snapshot");
    refused(&whole[..whole.len() - 1], &[], "it was cut, or is still being written");
    refused(
        &[&whole[..], b"x"].concat(),
        &[],
        "it was cut, or is still being written",
    );
    refused(&changed(|b| b.0[8] = 9).0, &[], "its format is version 9");
    refused(&changed(|b| b.0[41] ^= 1).0, &[], "its header is damaged");
    refused(
        &changed(|b| *b.0.last_mut().expect("bytes") ^= 1).0,
        &[],
        "its description is damaged",
    );
    refused(&changed(|b| b.0[72] = b'9').signed(), &[], "it was taken by build 9");
    let other_processor = |bytes: &mut Bytes| {
        let at = bytes.description();
        // EBX of leaf 0, behind the name, memory, processors, ring, interrupts, frequency, count, leaf and subleaf.
        let name = u32::from_le_bytes(bytes.0[at..at + 4].try_into().expect("4 bytes")) as usize;
        bytes.0[at + 4 + name + 8 + 4 + 1 + 1 + 4 + 4 + 9 + 4] ^= 1;
    };
    refused(
        &changed(other_processor).signed(),
        &[],
        "it was taken on another processor: leaf 0x0 of CPUID",
    );
    let cut_state = |bytes: &mut Bytes| {
        let at = bytes.description();
        bytes.0[at] = 0xff;
    };
    refused(&changed(cut_state).signed(), &[], "what it says cannot be");
    let damaged = changed(|b| b.0[4096 + (3 << 20) + 17] ^= 1).0;
    refused(
        &damaged,
        &["--verify"],
        "the checksum of the 1048576 bytes from 0x300000 on is wrong",
    );
    let guest = changed(|b| {
        let at = 4096 + b.word(24) + 100;
        b.0[at] ^= 1;
    });
    refused(&guest.0, &["--verify"], "the guest's file in it is damaged");
    // As it is, it runs.
    fs::write(&bad, &whole).expect("written");
    clones(&bad, &["--verify"], 1);
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let (live, path) = counter(&folder, &[], &["1"]);
    let (pipe, link, none) = (
        live.folder.path("pipe"),
        live.folder.path("link"),
        live.folder.path("none"),
    );
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    symlink(&path, &link).expect("a link");
    for (place, words) in [
        (pipe.as_path(), "it is not a regular file"),
        (&link, "it is a symbolic link"),
        (&live.folder.path(""), "it is not a regular file"),
        (&none, "No such file"),
    ] {
        assert_refused(place, &[], words);
    }
    for place in [&pipe, &link] {
        let run = live.chiton("snapshot", &[text(place)]);
        run.assert_status(125);
        assert!(
            run.stderr_text().contains("is there, and not a regular file"),
            "{}",
            run.stderr_text()
        );
    }
    let nowhere = live.folder.path("no/such/folder.snap");
    live.chiton("snapshot", &[text(&nowhere)]).assert_status(125);
    let names = live.folder.names();
    assert!(
        names.iter().all(|name| !name.starts_with('.')),
        "a file is left: {names:?}"
    );
    end(live);
}

#[test]
fn options_that_contradict_a_snapshot_are_refused_by_name() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let (live, path) = counter(&folder, &[], &["1"]);
    end(live);
    for options in [
        ["--memory", "16M"],
        ["--cpus", "1"],
        ["--env", "A=b"],
        ["--ring", "3"],
        ["--net", "tap=tap9"],
        ["--vsock", "v.sock"],
        ["--folder", "/"],
        ["--port", "a=a.sock"],
        ["--emulated-disk", "x.img"],
        ["--emulated-net", "tap=tap9"],
    ] {
        assert_refused(&path, &options, &format!("{} does not go with --from", options[0]));
    }
    assert_refused(&path, &["--packed"], "--packed does not go with --from");
    assert_refused(
        &path,
        &["hello"],
        "a guest, or an argument for it, does not go with --from",
    );
    let run = Chiton::new().args(["run", "--verify"]).guest("hello").run();
    run.assert_status(125);
    run.assert_says("--verify reads a snapshot: name it with --from");
}

#[test]
fn disks_have_to_be_as_the_guest_knows_them() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let (disk, other) = (folder.path("disk.img"), folder.path("other.img"));
    let sized = |path: &Path, bytes| File::create(path).and_then(|file| file.set_len(bytes)).expect("a file");
    sized(&disk, 1 << 20);
    sized(&other, 2 << 20);
    let read_only = format!("{}:ro", text(&disk));
    let (live, path) = counter(&folder, &["--disk", &read_only], &["1"]);
    end(live);
    assert_refused(&path, &[], "it was taken with 1 disks");
    assert_refused(
        &path,
        &["--disk", text(&disk)],
        "the guest could not write to it: add :ro",
    );
    let others = format!("{}:ro", text(&other));
    assert_refused(&path, &["--disk", &others], "it had 2048 sectors and has 4096");
    clones(&path, &["--disk", &read_only], 2);

    let mut live = Live::start(&["--disk", text(&disk)], "counter", &["1"]);
    live.until("count 5");
    let never = live.folder.path("never.snap");
    let run = live.chiton("snapshot", &[text(&never)]);
    run.assert_status(125);
    assert!(
        run.stderr_text()
            .contains("or end the guest with the snapshot (--stop)"),
        "{}",
        run.stderr_text()
    );
    let last = folder.path("last.snap");
    live.chiton("snapshot", &["--stop", text(&last)]).assert_status(0);
    live.finish().assert_status(0);
    clones(&last, &["--disk", text(&disk)], 1);
    fs::write(&disk, vec![1; 1 << 20]).expect("written");
    assert_refused(&last, &["--disk", text(&disk)], "it has been written to since");
}

#[test]
fn a_guest_with_others_at_the_other_end_has_no_snapshot_and_goes_on() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let port = format!("log={}", text(&folder.path("log.sock")));
    for (option, value, words) in [
        (
            "--vsock",
            text(&folder.path("v.sock")),
            "sockets 0 cannot be in one: it has to do with others",
        ),
        (
            "--folder",
            text(&folder.path("")),
            "folder 0 cannot be in one: it has to do with others",
        ),
        (
            "--port",
            port.as_str(),
            "console 0 cannot be in one: it has to do with others",
        ),
    ] {
        let mut live = Live::start(&[option, value], "counter", &["1"]);
        live.until("count 5");
        let never = live.folder.path("never.snap");
        let run = live.chiton("snapshot", &[text(&never)]);
        run.assert_status(125);
        assert!(run.stderr_text().contains(words), "{}", run.stderr_text());
        assert!(!never.exists());
        let line = live.ask(r#"{"snapshot":{}}"#);
        assert!(line.contains("no file came with the line"), "{line}");
        live.until("count 10");
        end(live);
    }
}

#[test]
fn interrupts_go_on_where_the_counter_can_be_set_and_are_refused_where_not() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let path = folder.path("a.snap");
    // On a busy machine the guest may be done before it is asked for.
    let try_it = |time| {
        let live = Live::start(&[], "preempt", &[time]);
        let run = live.chiton("snapshot", &["--stop", text(&path)]);
        let said = run.stderr_text();
        let is_late = ["does not exist", "nobody listens", "did not answer", "the guest ends"];
        if is_late.iter().any(|words| said.contains(words)) {
            println!("too late: {said}");
            live.finish().assert_status(0);
            return None;
        }
        Some((live, run))
    };
    let (live, run) = ["5000", "60000"].into_iter().find_map(try_it).expect("it came in time");
    if !hardware_kvm() {
        run.assert_status(125);
        assert!(
            run.stderr_text().contains("the guest has interrupts"),
            "{}",
            run.stderr_text()
        );
        assert!(!path.exists());
        live.finish().assert_status(0);
        return;
    }
    run.assert_status(0);
    let cut = live.finish();
    cut.assert_status(0);
    assert_eq!(cut.stdout_text(), "", "it was not at its end");
    // Without its timer it would never take the processor from one for the other.
    let run = Chiton::new().args(["run", "--from", text(&path)]).run();
    run.assert_status(0);
    assert!(run.stdout_text().contains("switches"), "{}", run.stdout_text());
}

#[test]
fn an_instance_in_its_jail_goes_into_a_snapshot_and_on_from_it_in_another_jail() {
    if !kvm_works() || !is_root() {
        return;
    }
    let record = Record::new([]);
    let guest = guest_path("counter");
    record.ok(&["run", "--detach", "--name", "first", text(&guest), "1"]);
    let until = |name: &str, wanted: &str| {
        while !record.ok(&["logs", name]).contains(wanted) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    until("first", "count 5");
    let file = record.folder().path("first.snap");
    record.ok(&["snapshot", "--stop", "first", text(&file)]);
    record.ok(&["wait", "first"]);
    let before = record.ok(&["logs", "first"]);
    let last = before.lines().filter_map(count).next_back().expect("a number");
    for name in ["second", "third"] {
        record.ok(&["run", "--detach", "--name", name, "--from", text(&file)]);
        until(name, &format!("count {}", last + 3));
        record.ok(&["stop", name]);
        let after = record.ok(&["logs", name]);
        assert_eq!(after.lines().find_map(count), Some(last + 1));
        assert!(after.contains("generation "), "{after}");
    }
    let refused = record.output(&["snapshot", "first", text(&file)]);
    assert!(!refused.status.success());
    // What has changed, noted in one jail; and in another one both files, and memory from them.
    let (full, changed) = (record.folder().path("full.snap"), record.folder().path("changed.snap"));
    record.ok(&["run", "--detach", "--name", "fourth", "--from", text(&file)]);
    until("fourth", &format!("count {}", last + 3));
    record.ok(&["snapshot", "--track", "fourth", text(&full)]);
    record.ok(&["snapshot", "--incremental", text(&full), "fourth", text(&changed)]);
    record.ok(&["stop", "fourth"]);
    record.ok(&["run", "--detach", "--name", "fifth", "--from", text(&changed)]);
    until("fifth", "generation ");
    record.ok(&["stop", "fifth"]);
    let after = record.ok(&["logs", "fifth"]);
    assert!(after.contains("asked to end") && !after.contains("memory: "), "{after}");
    record.ok(&["prune"]);
}

//! The guests that are compared, and what each gets.

/// A guest, and what it gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Its name, and its arguments.
    pub(super) words: &'static [&'static str],
    /// Whether it has the disk.
    pub(super) disk: bool,
    /// Whether it has the disk behind registers.
    pub(super) emulated: bool,
    /// Whether it has the folder.
    pub(super) folder: bool,
    /// Whether it may write to it: a copy of its own, as on bare metal.
    pub(super) writes: bool,
    /// Whether it has a balloon.
    pub(super) balloon: bool,
    /// Whether its exits are counted.
    pub(super) exits: bool,
    /// Its input; none is an end at once.
    pub(super) input: Option<&'static [u8]>,
    /// Whether it does not end by itself.
    pub(super) endless: bool,
    /// Whether it then has as long as a busy machine may need.
    pub(super) patient: bool,
    /// Whether its status alone is compared: what it does to devices depends on when they work.
    pub(super) status_only: bool,
    /// Whether its APIC is one by exits alone, where the processor could have it.
    pub(super) by_exits: bool,
    /// Whether its memory is in small pages, so that an exit cuts the delivery of its first event: what is needed for
    /// that is touched by nobody before.
    pub(super) cut: bool,
    /// Whether it runs in ring 0, whatever it asks for.
    pub(super) ring_0: bool,
    /// How many processors it has.
    pub(super) cpus: u32,
}

pub(super) const fn run_of(words: &'static [&'static str]) -> Run {
    Run {
        words,
        disk: false,
        emulated: false,
        folder: false,
        writes: false,
        balloon: false,
        exits: false,
        input: None,
        endless: false,
        patient: false,
        status_only: false,
        by_exits: false,
        cut: false,
        ring_0: false,
        cpus: 1,
    }
}

/// An attack on the devices, with the same random numbers everywhere. A few rounds: what it prints on the way takes a serial
/// line its time.
const fn attack(words: &'static [&'static str]) -> Run {
    let mut run = run_of(words).with_disk();
    run.status_only = true;
    run
}

impl Run {
    pub(super) const fn with_disk(mut self) -> Self {
        self.disk = true;
        self
    }

    pub(super) const fn with_emulated_disk(mut self) -> Self {
        self.emulated = true;
        self
    }

    pub(super) const fn with_folder(mut self) -> Self {
        self.folder = true;
        self
    }

    pub(super) const fn with_writable_folder(mut self) -> Self {
        self.writes = true;
        self.with_folder()
    }

    pub(super) const fn with_balloon(mut self) -> Self {
        self.balloon = true;
        self
    }

    pub(super) const fn counted(mut self) -> Self {
        self.exits = true;
        self
    }

    pub(super) const fn with_input(mut self, input: &'static [u8]) -> Self {
        self.input = Some(input);
        self
    }

    pub(super) const fn by_exits(mut self) -> Self {
        self.by_exits = true;
        self
    }

    pub(super) const fn cut(mut self) -> Self {
        self.cut = true;
        self
    }

    const fn in_ring_0(mut self) -> Self {
        self.ring_0 = true;
        self
    }

    pub(super) const fn on_cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// A guest that does not end by itself.
    pub(super) const fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    /// With more time, if it does not end by itself.
    pub(super) const fn patiently(mut self) -> Self {
        self.patient = true;
        self
    }
}

/// Input that no text is: every byte, those too that mean something on a serial line.
const EVERY_BYTE: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut at = 0;
    while at < 256 {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};

/// Files and directories made, changed, moved over each other, and removed.
const NAMES: &[&str] = &[
    "files",
    "write",
    "words/many",
    "a needle",
    ",",
    "mkdir",
    "words/d",
    ",",
    "rename",
    "words/sub",
    "words/d/sub",
    ",",
    "list",
    "words/d/sub",
    ",",
    "rename",
    "words/many",
    "words/d/sub/two",
    ",",
    "read",
    "words/d/sub/two",
    ",",
    "remove",
    "words/d/sub/empty",
    ",",
    "remove",
    "words/one",
    ",",
    "list",
    "words",
    ",",
    "list",
    "words/d/sub",
    ",",
    "remove",
    "words/d",
];
/// None of them asks what only one of the machines has.
pub(super) const RUNS: &[Run] = &[
    run_of(&["hello", "Anna", "Otto"]),
    run_of(&["compute", "1"]),
    run_of(&["exits", "100"]).counted(),
    run_of(&["spec"]),
    run_of(&["spec"]).with_disk(),
    run_of(&["sha256"]).with_disk(),
    run_of(&["disk", "read", "0", "192"]).with_disk(),
    run_of(&["disk", "write", "7", "9"]).with_disk(),
    run_of(&["disk", "read", "190", "4"]).with_disk(),
    run_of(&["compare-disk", "virtio", "digest", "2"]).with_disk(),
    run_of(&["compare-disk", "pio", "digest", "2"]).with_emulated_disk(),
    run_of(&["compare-disk", "dma", "digest", "0"]).with_emulated_disk(),
    run_of(&["compare-disk", "pio", "write", "2", "1024"]).with_emulated_disk(),
    run_of(&["compare-disk", "dma", "write", "3"]).with_emulated_disk(),
    run_of(&["compare-disk", "pio", "digest", "2"]).with_disk(),
    run_of(&["grep", "needle"]).with_folder(),
    run_of(&["grep", "needle", "words/sub/two"]).with_folder(),
    run_of(&["grep", "needle", "words/none"]).with_folder(),
    run_of(&["grep", "haystack"]).with_folder(),
    run_of(&["grep", "needle"]),
    run_of(&["files", "list", "words"]).with_folder(),
    run_of(&["files", "read", "words/many"]).with_folder(),
    run_of(&["files", "read", "words/link"]).with_folder(),
    run_of(&["files", "read", "words/sub"]).with_folder(),
    run_of(&["files", "write", "words/new", "x"]).with_folder(),
    run_of(&["files", "rename", "words/many", "words/sub/many"]).with_folder(),
    run_of(&["files", "remove", "words/none"]).with_folder(),
    run_of(&["files", "fill", "words/new", "300000"]).with_writable_folder(),
    run_of(NAMES).with_writable_folder(),
    run_of(&["files", "rename", "words/sub", "words/sub/empty/sub"]).with_writable_folder(),
    run_of(&["files", "remove", "words/sub"]).with_writable_folder(),
    run_of(&["files", "mkdir", "words/sub"]).with_writable_folder(),
    run_of(&["files", "write", "words/sub", "x"]).with_writable_folder(),
    run_of(&["files", "write", "words/link", "x"]).with_writable_folder(),
    run_of(&["grep", "needle"]).with_writable_folder(),
    run_of(&["ports", "size", "none"]),
    Run {
        status_only: true,
        ..run_of(&["diskbench", "50", "4"]).with_disk()
    },
    run_of(&["balloon", "4"]).with_balloon(),
    run_of(&["balloon"]),
    run_of(&["cat"]),
    run_of(&["cat"]).with_input(b"hi\n"),
    run_of(&["cat"]).with_input(&EVERY_BYTE),
    run_of(&["fault", "null-read"]),
    run_of(&["fault", "wild-write"]),
    run_of(&["fault", "write-text"]),
    run_of(&["fault", "jump-data"]),
    run_of(&["fault", "stack-overflow"]),
    run_of(&["fault", "divide"]),
    run_of(&["fault", "undefined"]),
    run_of(&["fault", "privileged"]),
    run_of(&["fault", "breakpoint"]),
    run_of(&["fault", "panic"]),
    run_of(&["fault", "heap"]),
    run_of(&["fault", "exit"]),
    run_of(&["fault", "park"]),
    run_of(&["fault", "loop"]).endless(),
    run_of(&["fault", "sleep"]).endless(),
    run_of(&["fill", "x", "2000"]),
    run_of(&["fill", "x"]).with_disk(),
    run_of(&["log", "20"]).with_disk(),
    run_of(&["hostile", "ports", "1", "200"]),
    run_of(&["hostile", "waits", "1", "200"]),
    run_of(&["hostile", "trap"]),
    run_of(&["hostile", "panic"]),
    attack(&["hostile", "rings", "1", "50"]),
    attack(&["hostile", "rings", "2", "20"]).with_balloon().with_folder(),
    attack(&["hostile", "loops", "1", "2"]),
    attack(&["hostile", "range", "1", "1"]),
    attack(&["hostile", "tables", "1", "2"]),
    attack(&["hostile", "indices", "1", "2"]),
    attack(&["hostile", "requests", "1", "2"]),
    attack(&["hostile", "kicks", "1", "2"]),
    attack(&["hostile", "registers", "1", "100"]),
    attack(&["hostile", "setup", "1", "10"]),
    attack(&["hostile", "mailbox", "1", "20"]),
    run_of(&["interrupts", "timer"]),
    run_of(&["interrupts", "handler"]),
    // One byte: a serial line brings more one by one, and how many are there at once is a matter of time.
    run_of(&["interrupts", "queue"]).with_input(b"x"),
    run_of(&["interrupts", "nobody"]),
    run_of(&["interrupts", "deadlines"]),
    run_of(&["interrupts", "burst"]),
    run_of(&["interrupts", "unmapped"]),
    run_of(&["interrupts", "kernel"]),
    run_of(&["interrupts", "stack"]),
    run_of(&["interrupts", "halt"]).endless(),
    run_of(&["preempt", "100", "2000"]),
    run_of(&["interrupts", "handler"]).by_exits(),
    run_of(&["preempt", "100", "2000"]).by_exits(),
    // An exception without an error code, one with, and an interrupt, which is injected: of one that the virtual APIC
    // delivers Bochs tells, where that is cut, the event before.
    run_of(&["fault", "divide"]).cut(),
    run_of(&["fault", "wild-write"]).cut(),
    run_of(&["interrupts", "handler"]).cut().by_exits(),
];
/// These need ring 0, which not every KVM has: bare machines are compared with each other, and with how they have to
/// end: the status, and a part of the words on VMX, and on SVM. Where these are others all words are.
pub(super) const RING_0: [(Run, i32, [&str; 2]); 5] = [
    (run_of(&["processor"]), 0, ["", ""]),
    (
        run_of(&["processor", "halt"]),
        FAULT,
        ["it executed `hlt`, and nothing can wake it"; 2],
    ),
    (
        run_of(&["processor", "shutdown"]),
        FAULT,
        ["a triple fault: the processor could not deliver an exception"; 2],
    ),
    (
        run_of(&["processor", "nowhere"]),
        FAULT,
        [
            "at the guest-physical address 0x100000000, where a table of the guest's own paging is, for the linear address 0x",
            "the guest has a page table at guest-physical 0x100000000, where no memory is",
        ],
    ),
    (
        run_of(&["fault", "register"]).in_ring_0(),
        FAULT,
        ["rdmsr of the register 0x12345678, which this processor does not have"; 2],
    ),
];
/// The status of a fault.
pub(super) const FAULT: i32 = 102;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::{super::outside, super::together, *};
    use crate::paths;

    /// The rows of the book's table of guests that are not compared.
    fn left_out(book: &str) -> BTreeSet<String> {
        let (_, table) = book.split_once("| guest that is not compared |").unwrap();
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        rows.filter_map(|row| Some(row.split('`').nth(1)?.to_owned())).collect()
    }

    #[test]
    fn every_guest_is_compared_with_kvm_or_the_book_says_why_not() {
        let there: BTreeSet<_> = fs::read_dir(paths::root().join("guest/apps"))
            .unwrap()
            .map(Result::unwrap)
            .filter(|entry| entry.path().join("Cargo.toml").exists())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        let one = RUNS.iter().chain(RING_0.iter().map(|(run, ..)| run));
        let several = together::RUNS.iter().chain(together::OTHERS.iter().map(|(run, _)| run));
        let names = one.chain(several).map(|run| run.words[0]).chain(outside::NAMES);
        let compared: BTreeSet<_> = names.map(str::to_owned).collect();
        let book = fs::read_to_string(paths::root().join("docs/src/bare-running.md")).unwrap();
        let left_out = left_out(&book);
        assert!(compared.is_disjoint(&left_out), "compared, and said not to be");
        assert_eq!(&compared | &left_out, there);
    }
}

//! Disks that work on many requests at a time, and who goes on meanwhile.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use chiton_tests::{Chiton, Folder, Running, finish, is_root, kvm_works};

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// A disk of `len` bytes without a hole.
fn full(folder: &Folder, name: &str, len: usize) -> String {
    text(&folder.file(name, vec![0x5A; len])).to_owned()
}

#[test]
fn many_requests_take_few_exits_with_and_without_io_uring_and_an_io_thread() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = full(&folder, "disk", 4 << 20);
    for (io_thread, ring) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut chiton = Chiton::new();
        if !ring {
            chiton = chiton.without_io_uring();
        }
        let run = chiton
            .args(["run", "--disk", &format!("{disk}:ro")])
            .args(io_thread.then_some("--io-thread"))
            .guest("diskbench")
            // How often a look finds something is up to the machine.
            .args(["4000", "32", "look=0"])
            .run();
        run.assert_status(0);
        let said = run.stdout_text();
        let exits = said.split(", ").last().and_then(|last| last.split(' ').next());
        let exits: u64 = exits.and_then(|count| count.parse().ok()).expect("a count of exits");
        assert!(exits < 50, "io thread {io_thread}, io_uring {ring}: {run}");
    }
}

#[test]
fn a_guest_that_looks_while_the_io_thread_works_does_not_sleep() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = full(&folder, "disk", 4 << 20);
    let run = Chiton::new()
        .args(["run", "--io-thread", "--disk", &format!("{disk}:ro")])
        .guest("diskbench")
        // An hour: however slow this machine is.
        .args(["200", "32", "look=3600000000000"])
        .run();
    run.assert_status(0);
    assert!(run.stdout_text().contains(" 0 waits,"), "{run}");
}

#[test]
fn doctor_says_whether_there_is_io_uring() {
    let run = Chiton::new().args(["doctor"]).without_io_uring().run();
    let line = |text: String| {
        text.lines()
            .find(|line| line.contains("io_uring"))
            .unwrap_or_default()
            .to_owned()
    };
    let said = line(run.stdout_text());
    assert!(said.contains("one request after the other"), "{run}");
}

#[test]
fn each_processor_can_have_a_queue_of_its_own() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = full(&folder, "disk", 4 << 20);
    for what in [&["write"][..], &["bytes=65536"], &["sequential", "kick"]] {
        let run = Chiton::new()
            .args(["run", "--cpus", "2", "--disk", &format!("{disk},queues=2")])
            .guest("diskbench")
            .args(["1000", "8", "queues=2"])
            .args(what)
            .run();
        run.assert_status(0);
        assert!(run.stdout_text().starts_with("1000 "), "{run}");
    }
    let run = Chiton::new()
        .args(["run", "--cpus", "2", "--disk", &disk])
        .guest("diskbench")
        .args(["1000", "8", "queues=2"])
        .run();
    run.assert_status(1).assert_says("the device has no queue 1");
}

/// Says something to a guest that echoes, and waits for the echo.
struct Talk {
    child: Running,
    output: BufReader<Box<dyn Read + Send>>,
}

impl Talk {
    fn new(mut child: Running) -> Self {
        let output = child.stdout.take().expect("a pipe");
        let mut talk = Self {
            child,
            output: BufReader::new(Box::new(output)),
        };
        talk.expect("ready");
        talk
    }

    fn expect(&mut self, words: &str) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        assert!(line.contains(words), "{line:?} instead of {words:?}");
        line
    }

    fn say_and_hear(&mut self, words: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(format!("{words}\n").as_bytes()).expect("it reads");
        self.expect(words);
    }

    /// Ends the guest's input.
    fn end(&mut self) {
        drop(self.child.stdin.take());
    }
}

#[test]
fn disks_that_are_flooded_leave_the_console_its_turn() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let (one, two) = (full(&folder, "one", 1 << 20), full(&folder, "two", 1 << 20));
    for io_thread in [None, Some("--io-thread")] {
        let child = Chiton::new()
            .args([
                "run",
                "--cpus",
                "2",
                "--disk",
                &format!("{one}:ro"),
                "--disk",
                &format!("{two}:ro"),
            ])
            .args(io_thread)
            .guest("flood")
            .args(["disk"])
            .spawn();
        let mut talk = Talk::new(child);
        for turn in 0..20 {
            talk.say_and_hear(&format!("line {turn}"));
        }
        talk.end();
        let line = talk.expect("reads, 0 failed");
        let counts: Vec<u64> = line
            .trim_start_matches('[')
            .split([',', ']'])
            .map_while(|count| count.trim().parse().ok())
            .collect();
        assert!(counts.len() == 2 && counts.iter().all(|count| *count >= 100), "{line}");
        finish(talk.child).assert_status(0);
    }
}

/// A file system of one empty directory that does not answer who looks for a name in it, until it is
/// told to.
struct Slow {
    /// `/dev/fuse`.
    device: File,
    /// The question that was not answered.
    unique: u64,
}

/// Kinds of questions of FUSE.
mod fuse {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const STATFS: u32 = 17;
    pub(super) const INIT: u32 = 26;
}

impl Slow {
    /// Mounts it, for this thread and what it starts.
    fn mount(place: &Path) -> Self {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("the kernel has FUSE");
        let c = |text: &str| std::ffi::CString::new(text).expect("no NUL");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let (place, options) = (c(text(place)), c(&options));
        // SAFETY: only this thread's view of mounts changes; all strings live until the calls return.
        unsafe {
            assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "root may");
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let null = std::ptr::null();
            assert_eq!(libc::mount(null, c"/".as_ptr(), null, private, null.cast()), 0);
            let data = options.as_ptr().cast();
            let mounted = libc::mount(c"test".as_ptr(), place.as_ptr(), c"fuse".as_ptr(), 0, data);
            assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
        }
        Self { device, unique: 0 }
    }

    fn answer(&mut self, unique: u64, error: i32, body: &[u8]) {
        let mut message = (16 + body.len() as u32).to_le_bytes().to_vec();
        message.extend(error.to_le_bytes());
        message.extend(unique.to_le_bytes());
        message.extend(body);
        self.device.write_all(&message).expect("somebody asked");
    }

    /// Answers until somebody looks for a name.
    fn serve(&mut self) {
        let mut question = vec![0; 1 << 17];
        loop {
            let len = self.device.read(&mut question).expect("a question");
            assert!(len >= 40);
            let opcode = u32::from_le_bytes(question[4..8].try_into().expect("4 bytes"));
            let unique = u64::from_le_bytes(question[8..16].try_into().expect("8 bytes"));
            match opcode {
                fuse::INIT => {
                    let mut body = [0; 64];
                    (body[0], body[4]) = (7, 31);
                    body[20..24].copy_from_slice(&4096_u32.to_le_bytes());
                    self.answer(unique, 0, &body);
                }
                fuse::GETATTR => {
                    let mut body = [0; 104];
                    // The inode's number, its mode and its links.
                    (body[16], body[80]) = (1, 2);
                    body[76..80].copy_from_slice(&0o40755_u32.to_le_bytes());
                    self.answer(unique, 0, &body);
                }
                fuse::STATFS => self.answer(unique, 0, &[0; 80]),
                fuse::LOOKUP => {
                    self.unique = unique;
                    return;
                }
                _ => self.answer(unique, -libc::ENOSYS, &[]),
            }
        }
    }

    /// There is no such name.
    fn go_on(&mut self) {
        self.answer(self.unique, -libc::ENOENT, &[]);
    }
}

/// Nanoseconds that the I/O thread of a process has run (proc(5), schedstat).
fn io_thread_time(process: u32) -> Option<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten();
    let mut threads = tasks.map(|task| task.path());
    let io = threads.find(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == "io"))?;
    let times = std::fs::read_to_string(io.join("schedstat")).ok()?;
    times.split(' ').next()?.parse().ok()
}

#[test]
fn with_an_io_thread_a_file_system_that_does_not_answer_holds_up_nobody_else() {
    if !kvm_works() || !is_root() {
        return;
    }
    let folder = Folder::new();
    let place = folder.path("shared");
    std::fs::create_dir(&place).expect("own folder");
    let mut slow = Slow::mount(&place);
    let child = Chiton::new()
        .args(["run", "--cpus", "2", "--io-thread", "--folder", text(&place)])
        .guest("flood")
        .args(["file", "shared/slow"]);
    let serving = std::thread::spawn(move || {
        slow.serve();
        slow
    });
    let mut talk = Talk::new(child.spawn());
    let mut slow = serving.join().expect("no panic");
    // Somebody waits for an answer now.
    for turn in 0..5 {
        talk.say_and_hear(&format!("line {turn}"));
    }
    slow.go_on();
    // With nothing to do its thread comes to rest, though the guest goes on: its processor time stays as it is.
    let used = io_thread_time(talk.child.id()).expect("its thread");
    let mut before = used;
    let rests = (0..1000).any(|_| {
        talk.say_and_hear("rest");
        let now = io_thread_time(talk.child.id()).expect("its thread");
        std::mem::replace(&mut before, now) == now
    });
    assert!(rests, "from {used} to {before} ns");
    talk.end();
    finish(talk.child).assert_status(1).assert_says("shared/slow");
}

//! `kill -9` at random moments: of supervisors, of what they run, of those who import images, and of those
//! who clean up.
//!
//! | variable | meaning | without it |
//! |---|---|---|
//! | `CHITON_SOAK_KILLS` | how many are killed | a few |
//! | `CHITON_SOAK_SEED` | what is random follows from it | the same each time |
//!
//! `cargo xtask soak` sets both. Two kill at once, in one record, so that sweeps meet those who are at work. After
//! each [`ROUND`] what runs is ended by the commands for that, and then nothing may be left: no process, so
//! no namespace; no mount, cgroup, network device, table of nf_tables, address, range of ids or half blob.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chiton_tests::{PATIENCE, Record, guest_path, is_root, kvm_works, slow, tables};

use crate::instances::{cgroups, processes};

/// So many are killed before it is looked whether anything is left.
const ROUND: u32 = 25;
/// How many kill at once.
const KILLERS: u64 = 2;
/// The longest that somebody lives who is to be killed, in microseconds: some are done by then.
const LIFE: u64 = 60_000;

/// Numbers that follow from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Seeds that follow each other are not to begin alike, and none may be 0.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

/// The first of the ids that its instances have.
const IDS: u32 = 0x5000_0000;

struct Soak {
    record: Record,
    bridge: String,
    /// A program for jailed processes, if there is one.
    has_processes: bool,
    next: AtomicU32,
    /// How many were killed, by what they were.
    killed: Mutex<BTreeMap<&'static str, u32>>,
}

impl Soak {
    fn new() -> Self {
        let process = std::process::id();
        let bridge = format!("chitests{}", process % 100_000);
        let subnet = format!("10.{}.{}.0/24", 160 + process % 64, process / 64 % 256);
        let ids = format!("{IDS}:{}", 64 * 0x1_0000);
        let soak = Self {
            record: Record::new([
                ("CHITON_BRIDGE", bridge.clone()),
                ("CHITON_SUBNET", subnet),
                ("CHITON_IDS", ids),
            ]),
            bridge,
            has_processes: Path::new("/bin/busybox").exists(),
            next: AtomicU32::new(0),
            killed: Mutex::default(),
        };
        let hello = guest_path("live").display().to_string();
        let file = soak
            .record
            .folder()
            .file("file", vec![7; 1 << 20])
            .display()
            .to_string();
        soak.ok(&[
            "image",
            "build",
            "-t",
            "live",
            "--guest",
            &hello,
            "--file",
            &format!("{file}:/data"),
        ]);
        for (format, name) in [("oci-archive", "live.oci.tar"), ("docker-archive", "live.docker.tar")] {
            let path = soak.path(name);
            soak.ok(&["image", "export", "--format", format, "live", "-o", &path]);
        }
        if soak.has_processes {
            soak.ok(&["image", "build", "-t", "box", "--guest", "/bin/busybox"]);
        }
        soak
    }

    fn home(&self) -> PathBuf {
        self.record.home()
    }

    fn path(&self, name: &str) -> String {
        self.record.folder().path(name).display().to_string()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.record.ok(args)
    }

    /// Starts what is to be killed; it says to a file what it has to say.
    fn start(&self, args: &[&str]) -> Child {
        let said = File::options().append(true).create(true).open(self.path("said"));
        let mut command = self.record.command(args);
        command.stdout(Stdio::null()).stderr(said.expect("a file"));
        command.spawn().expect("chiton starts")
    }

    /// Kills somebody now and then, until so many are dead.
    fn kill(&self, random: &mut Random, kills: u32) {
        let mut dead = 0;
        while dead < kills {
            let number = self.next.fetch_add(1, Ordering::Relaxed).to_string();
            let (what, words) = self.victim(random, &number);
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let mut child = self.start(&words);
            std::thread::sleep(Duration::from_micros(random.below(LIFE)));
            // Whoever is in the background, or runs: its supervisor, or the first process of its jail.
            if random.below(3) == 0
                && let Some((what, pid)) = self.one_of_an_instance(random)
                && self.kill_process(pid)
            {
                self.count(what);
                dead += 1;
            }
            if child.try_wait().expect("it is a child").is_none() {
                child.kill().expect("it is a child");
                self.count(what);
                dead += 1;
            }
            child.wait().expect("it is a child");
        }
    }

    fn count(&self, what: &'static str) {
        *self.killed.lock().expect("nobody panicked").entry(what).or_default() += 1;
    }

    /// A command line, and what it is to be counted as.
    fn victim(&self, random: &mut Random, number: &str) -> (&'static str, Vec<String>) {
        let name = format!("soak{number}");
        let run = |options: &[&str], image: &[&str]| {
            [&["run", "--name", &name], options, image]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect()
        };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let guest = guest_path("live").display().to_string();
        let publish = format!("{}:80", 20_000 + random.below(20_000));
        let limits = ["--memory-max", "64M", "--pids-max", "64", "--cpu-weight", "50"];
        let bridge = ["--network", "bridge", "-p", &publish];
        let some = self.any_instance(random).unwrap_or_else(|| "nobody".into());
        match random.below(16) {
            0 => ("supervisor", run(&[], &[&guest])),
            1 => ("supervisor, --rm", run(&["--rm"], &[&guest])),
            2 => ("supervisor with limits", run(&limits, &[&guest])),
            3 => ("supervisor on a bridge", run(&bridge, &[&guest])),
            4 => ("supervisor of an image", run(&["--network", "bridge"], &["live"])),
            5 if self.has_processes => (
                "supervisor of a process",
                run(&["--network", "bridge", "--process"], &["box", "sleep", "1000"]),
            ),
            6 if self.has_processes => (
                "supervisor of a process",
                run(&["--memory-max", "64M", "--process"], &["box", "sleep", "1000"]),
            ),
            7 => (
                "who starts in the background",
                run(&["-d", "--restart", "always"], &[&guest]),
            ),
            8 => (
                "who starts in the background",
                run(
                    &[&["-d", "--restart", "on-failure:3"], &bridge[..], &limits[..]].concat(),
                    &["live"],
                ),
            ),
            9 => ("who starts again", words(&["restart", "-t", "0", &some])),
            10 => ("who removes", words(&["rm", "--force", &some])),
            11 => ("who prunes", words(&["prune"])),
            12 => {
                let archive = if random.below(2) == 0 {
                    "live.oci.tar"
                } else {
                    "live.docker.tar"
                };
                (
                    "importer",
                    words(&["image", "import", &self.path(archive), "-t", &name]),
                )
            }
            13 => (
                "importer",
                words(&[
                    "image",
                    "build",
                    "-t",
                    &name,
                    "--guest",
                    &guest,
                    "--label",
                    &format!("n={number}"),
                ]),
            ),
            14 => ("who commits", words(&["commit", &some, &name])),
            _ => ("who prunes images", words(&["image", "prune"])),
        }
    }

    fn instances(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home().join("instances"))
            .into_iter()
            .flatten()
            .flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }

    fn any_instance(&self, random: &mut Random) -> Option<String> {
        let all = self.instances();
        let some = all.get(random.below(all.len().max(1) as u64) as usize)?;
        Some(some.file_name()?.to_string_lossy().into_owned())
    }

    /// A process that the record tells of, and what it is.
    fn one_of_an_instance(&self, random: &mut Random) -> Option<(&'static str, u32)> {
        let kinds = [
            ("supervisor of one that runs", "\"supervisor\":"),
            ("jailed process", "\"pid\":"),
        ];
        let mut all = Vec::new();
        for folder in self.instances() {
            let state = fs::read_to_string(folder.join("state.json")).unwrap_or_default();
            for (what, key) in kinds {
                let digits = state
                    .split_once(key)
                    .and_then(|(_, rest)| rest.split([',', '}']).next());
                all.extend(digits.and_then(|digits| digits.parse().ok()).map(|pid| (what, pid)));
            }
        }
        all.get(random.below(all.len().max(1) as u64) as usize).copied()
    }

    /// Kills a process if it is still one of this test's; whether it was.
    fn kill_process(&self, pid: u32) -> bool {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let Ok(fd @ 0..) = i32::try_from(fd) else { return false };
        // SAFETY: it was just opened, and is nobody else's.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
        // Behind the descriptor, which is of this process and no other that has its number later.
        if !self.is_ours(&Path::new("/proc").join(pid.to_string())) {
            return false;
        }
        // SAFETY: there is no information to be sent with the signal.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, 0, 0) };
        sent == 0
    }

    /// The IDs of all instances that there ever were.
    fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for name in ["events.1", "events"] {
            let text = fs::read_to_string(self.home().join(name)).unwrap_or_default();
            let found = text
                .lines()
                .filter_map(|line| line.split_once("\"id\":\"")?.1.get(..12));
            ids.extend(found.map(str::to_owned));
        }
        ids.sort();
        ids.dedup();
        ids
    }

    /// Whether a process is of this test: by its environment, or, since a jail has another, by its cgroup.
    fn is_ours(&self, process: &Path) -> bool {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(&self.home().display().to_string()) {
            return true;
        }
        let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        groups.contains("/chiton/") && self.ids().iter().any(|id| groups.contains(id))
    }

    /// Ends all that run, as its user would, and checks that nothing is left of anything.
    fn settle(&self) {
        self.ok(&["prune"]);
        let listed = self.ok(&["ps", "--all", "--quiet", "--no-trunc"]);
        for id in listed.lines() {
            self.ok(&["rm", "--force", id]);
        }
        self.ok(&["prune"]);
        self.ok(&["image", "prune"]);
        // What was killed may take a moment to be gone, and has no environment while it runs another program: nobody is to
        // be seen then, who holds something all the same.
        let start = Instant::now();
        loop {
            let running = processes().into_iter().find(|process| self.is_ours(process));
            let left = self.left();
            if running.is_none() && left.is_empty() {
                break;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{left:?} and {:?} are left",
                running.map(|process| fs::read_to_string(process.join("stat")).unwrap_or_default())
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let doctor = self.record.output(&["doctor", "--store"]);
        let said = String::from_utf8_lossy(&doctor.stdout);
        assert!(doctor.status.success() && said.starts_with("ok "), "{said}");
        let said = fs::read_to_string(self.path("said")).unwrap_or_default();
        assert!(!said.contains("panicked"), "{said}");
    }

    /// What is left.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let network = format!("network/{}", self.bridge);
        let network = |name: &str| format!("{network}/{name}");
        let folders = ["instances", "names", "live", "images/tmp"].map(str::to_owned);
        let of_network = ["leases", "owners", "hosts.own"].map(network);
        for folder in folders.iter().chain(&of_network) {
            let entries = fs::read_dir(self.home().join(folder)).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            // The last address is only where the search for the next begins.
            left.extend(
                names
                    .filter(|name| name != "last")
                    .map(|name| format!("{folder}/{name}")),
            );
        }
        let unfinished = network("new");
        left.extend(self.home().join(&unfinished).exists().then_some(unfinished));
        let hosts = fs::read_to_string(self.home().join(network("hosts"))).unwrap_or_default();
        left.extend(hosts.lines().filter(|line| line.contains('#')).map(str::to_owned));
        let ids = self.ids();
        for id in &ids {
            left.extend(cgroups(id).iter().map(|path| path.display().to_string()));
        }
        let ours = |name: &String| name.contains(&self.bridge) || ids.iter().any(|id| name.contains(id));
        let devices = fs::read_dir("/sys/class/net").expect("there is a /sys").flatten();
        left.extend(
            devices
                .map(|device| device.file_name().to_string_lossy().into_owned())
                .filter(ours),
        );
        left.extend(tables().into_iter().filter(ours));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let home = self.home().display().to_string();
        left.extend(mounts.lines().filter(|line| line.contains(&home)).map(str::to_owned));
        let locks = File::options()
            .write(true)
            .open("/run/chiton/ids")
            .expect("ids were given out");
        // SAFETY: all zeros are a value of it, and the kernel answers into it.
        let lock = unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            (lock.l_type, lock.l_start, lock.l_len) = (libc::F_WRLCK as libc::c_short, IDS.into(), 64 * 0x1_0000);
            assert_eq!(libc::fcntl(locks.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock), 0);
            lock
        };
        if lock.l_type != libc::F_UNLCK as libc::c_short {
            left.push(format!("a lock on ids from {} on", lock.l_start));
        }
        left
    }

    /// What those who were not killed in time complained of, each sentence once.
    fn complaints(&self) -> BTreeMap<String, u32> {
        let mut text = String::new();
        if let Ok(mut said) = File::open(self.path("said")) {
            said.read_to_string(&mut text).expect("text");
        }
        let mut complaints = BTreeMap::new();
        for line in text.lines() {
            let words = line
                .split(' ')
                .filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
            *complaints.entry(words.collect::<Vec<_>>().join(" ")).or_default() += 1;
        }
        complaints
    }
}

impl Drop for Soak {
    /// A test that failed leaves nothing to others either.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let listed = self.record.output(&["ps", "--all", "--quiet"]).stdout;
            for id in String::from_utf8_lossy(&listed).lines() {
                self.record.output(&["rm", "--force", id]);
            }
            self.record.output(&["prune"]);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn nothing_is_left_of_whom_a_kill_met_at_a_random_moment() {
    if !kvm_works() {
        return;
    }
    if !is_root() {
        assert!(std::env::var_os("CHITON_STRICT").is_none(), "root is required here");
        println!("SKIPPED: cgroups and bridges need root");
        return;
    }
    let kills = number("CHITON_SOAK_KILLS").unwrap_or(if slow() { 10 } else { 50 });
    let kills = u32::try_from(kills).expect("a number of kills");
    let seed = number("CHITON_SOAK_SEED").unwrap_or(1);
    println!("seed {seed}, {kills} kills");
    let soak = Soak::new();
    let mut killers: Vec<_> = (0..KILLERS).map(|n| Random::new(seed * KILLERS + n)).collect();
    let mut left = kills;
    while left > 0 {
        let now = left.min(ROUND);
        std::thread::scope(|scope| {
            for (n, random) in killers.iter_mut().enumerate() {
                let share = now / KILLERS as u32 + u32::from(n == 0) * (now % KILLERS as u32);
                let soak = &soak;
                scope.spawn(move || soak.kill(random, share));
            }
        });
        soak.settle();
        left -= now;
        println!("{} killed, nothing left", kills - left);
    }
    for (what, count) in soak.killed.lock().expect("nobody panicked").iter() {
        println!("{count:>6}  {what}");
    }
    println!("what those said who lived on, without words that have digits:");
    for (words, count) in soak.complaints() {
        println!("{count:>6}  {words}");
    }
}

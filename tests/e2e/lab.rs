//! `chiton-bench start`, `density` and `vs`: what they measure makes sense, and nothing is left of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chiton_tests::{Folder, PATIENCE, Traces, chiton_path, guest_path, is_root, kvm_works};
use serde_json::Value;

/// Where `chiton-bench` measures, and what it finds there.
struct Lab(Folder);

impl Lab {
    /// None where it cannot work.
    fn new() -> Option<Self> {
        let program = program();
        for (what, there) in [("root", is_root()), (&program.to_string_lossy(), program.exists())] {
            if !there {
                assert!(std::env::var_os("CHITON_STRICT").is_none(), "{what} is required here");
                println!("SKIPPED: {what} is required");
                return None;
            }
        }
        kvm_works().then(|| Self(Folder::new()))
    }

    /// `chiton-bench` with these arguments.
    fn command(&self, args: &[&str]) -> Command {
        let temporary = self.0.path("tmp");
        fs::create_dir_all(&temporary).expect("a folder");
        let mut command = Command::new(program());
        command.args(args).arg("--chiton").arg(chiton_path());
        command.env("TMPDIR", &temporary).env_remove("CHITON_HOME");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Has it measure, with a guest, and reads what it writes.
    fn measure(&self, args: &[&str], guest: &str) -> (Value, String) {
        let before = Traces::now();
        let json = self.0.path("run.json");
        let mut command = self.command(args);
        command.arg("--guest").arg(guest_path(guest)).arg("--json").arg(&json);
        let output = command.output().expect("chiton-bench starts");
        assert!(output.status.success(), "{args:?}: {output:?}");
        self.assert_nothing_left(&before);
        let run: Value = read(&json);
        assert_eq!(run["schema"], "chiton-bench/1");
        (run, String::from_utf8(output.stdout).expect("a table"))
    }

    /// No folder, no mount, no process, no cgroup.
    fn assert_nothing_left(&self, before: &Traces) {
        assert_eq!(self.folders(), Vec::<String>::new());
        assert_eq!(&Traces::now(), before);
        assert_eq!(self.processes(), Vec::<String>::new());
    }

    fn folders(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path("tmp")).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// The processes that have a home below this place.
    fn processes(&self) -> Vec<String> {
        let home = format!("CHITON_HOME={}", self.0.path("tmp").display());
        let mine = |pid: &String| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&home)
        };
        let entries = fs::read_dir("/proc").expect("there is a /proc").flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
            .filter(mine)
            .collect()
    }

    /// Starts `density` of three, and comes back when it watches them.
    fn density_under_way(&self) -> Child {
        let mut command = self.command(&["density", "3", "--watch", "3600"]);
        let child = command
            .arg("--guest")
            .arg(guest_path("cat"))
            .spawn()
            .expect("chiton-bench starts");
        let mut folders = Vec::new();
        wait_until("three instances run", || {
            folders = self.folders();
            let names = folders
                .first()
                .map(|folder| self.0.path("tmp").join(folder).join("home/names"));
            names.is_some_and(|names| fs::read_dir(names).is_ok_and(|names| names.count() == 3))
        });
        child
    }
}

fn program() -> PathBuf {
    chiton_path().with_file_name("chiton-bench")
}

fn read(json: &Path) -> Value {
    let text = fs::read(json).expect("a measurement");
    serde_json::from_slice(&text).expect("JSON")
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "still not so: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn cases(run: &Value) -> &Vec<Value> {
    run["cases"].as_array().expect("cases")
}

/// The case of this group and name.
fn case<'r>(run: &'r Value, group: &str, name: &str) -> &'r Value {
    let found = cases(run)
        .iter()
        .find(|case| case["group"] == group && case["name"] == name);
    found.unwrap_or_else(|| panic!("no case {name} of {group}"))
}

/// This figure of all repeats of a case, added up.
fn sum(case: &Value, figure: &str) -> u64 {
    let repeats = case["outcome"]["measured"]["repeats"].as_array();
    let repeats = repeats.unwrap_or_else(|| panic!("{case} was not measured"));
    repeats
        .iter()
        .map(|samples| samples[figure].as_u64().expect("a figure"))
        .sum()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_phases_of_a_start_add_up_to_the_whole() {
    let Some(lab) = Lab::new() else { return };
    let (run, table) = lab.measure(&["start", "--runs", "6"], "hello");
    assert_eq!(run["kind"], "start");
    for group in ["unjailed", "jailed", "image", "snapshot", "snapshot, jailed"] {
        let whole = case(&run, group, "in all");
        assert_eq!(sum(whole, "count"), 6, "{group}");
        let phases = cases(&run).iter().filter(|case| {
            let name = case["name"].as_str().unwrap();
            case["group"] == group && name.starts_with("phase: ")
        });
        let phases: Vec<_> = phases.collect();
        assert!(phases.len() > 10, "{group}");
        assert_eq!(
            phases.iter().map(|case| sum(case, "sum")).sum::<u64>(),
            sum(whole, "sum"),
            "{group}"
        );
        let first = case(&run, group, "exec to the first instruction");
        assert!(sum(first, "sum") < sum(whole, "sum"), "{group}");
        assert!(table.contains(&format!("{group}: chiton run")), "{table}");
    }
    let parts = ["request in", "run", "reply out", "reset", "pool"].map(|part| format!("phase: {part}"));
    let parts = parts.iter().map(|part| sum(case(&run, "warm pool", part), "sum"));
    assert_eq!(parts.sum::<u64>(), sum(case(&run, "warm pool", "in all"), "sum"));
    for phase in [
        "begin cgroups",
        "clone",
        "pivot root",
        "filter",
        "process ends",
        "remove cgroups",
    ] {
        let name = format!("phase: {phase}");
        assert!(sum(case(&run, "jailed", &name), "max") > 0, "{phase}");
        assert!(
            !cases(&run)
                .iter()
                .any(|case| case["group"] == "unjailed" && case["name"] == name)
        );
    }
}

#[test]
fn a_descriptor_for_phases_that_nobody_has_is_refused() {
    if !kvm_works() {
        return;
    }
    for number in ["77", "2", "x"] {
        let run = chiton_tests::Chiton::new()
            .env("CHITON_TIMELINE", number)
            .args(["run"])
            .guest("hello");
        let run = run.run();
        run.assert_status(125);
        let sentence = format!(
            "chiton: CHITON_TIMELINE is `{number}`: it is to be the number, above 2, of a descriptor that chiton inherits\n"
        );
        assert_eq!(run.stderr_text(), sentence);
        assert_eq!(run.stdout_text(), "");
    }
}

#[test]
fn three_instances_are_measured_idle_and_removed() {
    let Some(lab) = Lab::new() else { return };
    let measure = || lab.measure(&["density", "3", "--watch", "1"], "cat");
    let is_idle = |(run, _): &(Value, String)| {
        let used = |name| sum(case(run, "idle for 1 s", name), "max");
        used("context switches") < 20 && used("processor time") < 20_000_000
    };
    // On a busy machine they may not be through with their start when they are looked at.
    let (run, table) = (0..4).map(|_| measure()).find(is_idle).expect("they are idle once");
    assert_eq!(run["kind"], "density");
    for count in [1, 2, 3] {
        let group = format!("{count} instances");
        assert_eq!(sum(case(&run, &group, "start"), "count"), 1, "one more at each look");
        let pss = case(&run, &group, "PSS");
        assert_eq!(sum(pss, "count"), count);
        // More than the pages that the guest writes, less than all that it could.
        assert!(sum(pss, "min") > 100 << 10 && sum(pss, "max") < 16 << 20, "{pss}");
        assert!(sum(case(&run, &group, "private"), "max") < sum(pss, "max"), "{pss}");
        assert!(sum(case(&run, &group, "shared"), "min") > 100 << 10);
        assert!(sum(case(&run, &group, "cgroup"), "min") > sum(case(&run, &group, "cgroup, kernel"), "min"));
    }
    let idle = |name| case(&run, "idle for 1 s", name);
    assert_eq!(sum(idle("processor time"), "count"), 3);
    // A supervisor, a processor, the devices; and KVM's own, where it has one.
    assert!((3..=4).contains(&sum(idle("threads"), "min")), "{}", idle("threads"));
    let end = case(&run, "end", "remove");
    assert!(
        end.to_string()
            .contains("left behind: 0 mounts, 0 cgroups, 0 processes"),
        "{end}"
    );
    assert!(table.contains("instances start p50"), "{table}");
}

#[test]
fn instances_are_removed_however_the_measurement_ends() {
    let Some(lab) = Lab::new() else { return };
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let before = Traces::now();
        let child = lab.density_under_way();
        // SAFETY: the process is a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id().cast_signed(), signal) }, 0);
        let output = child.wait_with_output().unwrap();
        if signal != libc::SIGKILL {
            assert_eq!(output.status.code(), Some(125), "{output:?}");
            assert_eq!(said(&output), "chiton bench: interrupted\n");
        }
        // Where it was killed, somebody else does it, and takes a moment.
        wait_until("nothing is left", || {
            lab.folders().is_empty() && lab.processes().is_empty()
        });
        lab.assert_nothing_left(&before);
    }
}

#[test]
fn instances_are_removed_when_one_of_them_fails() {
    let Some(lab) = Lab::new() else { return };
    let before = Traces::now();
    // The fourth that is to run, the third to stay, does not.
    let count = lab.0.path("count");
    let script = format!(
        "if [ \"$1\" = run ]; then echo >> {count}; [ $(wc -l < {count}) -ge 4 ] && {{ echo no more >&2; exit 3; }}; fi\nexec {chiton} \"$@\"",
        count = count.display(),
        chiton = chiton_path().display(),
    );
    let wrapper = lab.0.script("wrapper", &script);
    let mut command = Command::new(program());
    fs::create_dir_all(lab.0.path("tmp")).unwrap();
    command
        .args(["density", "3", "--chiton"])
        .arg(&wrapper)
        .env("TMPDIR", lab.0.path("tmp"));
    let output = command.arg("--guest").arg(guest_path("cat")).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let said = said(&output);
    assert!(
        said.contains("ended with exit status: 3, and said: no more") && said.lines().count() == 1,
        "{said}"
    );
    lab.assert_nothing_left(&before);
}

#[test]
fn more_instances_than_fit_are_refused_in_one_sentence() {
    let Some(lab) = Lab::new() else { return };
    let before = Traces::now();
    for (args, sentence) in [
        (
            &["density", "1000000"][..],
            "chiton bench: 1000000 instances do not fit: ",
        ),
        (
            &["density", "1", "--keep-free", "100000000"],
            "chiton bench: 1 instances do not fit: ",
        ),
        (
            &["density", "max", "--keep-free", "100000000"],
            "chiton bench: not one instance fits: ",
        ),
    ] {
        let output = lab.command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let said = said(&output);
        assert!(said.starts_with(sentence) && said.lines().count() == 1, "{said}");
        lab.assert_nothing_left(&before);
    }
}

#[test]
fn peers_that_are_missing_are_listed_with_what_brings_them() {
    let Some(lab) = Lab::new() else { return };
    let before = Traces::now();
    let json = lab.0.path("run.json");
    let mut command = lab.command(&["vs", "--runs", "2"]);
    command
        .arg("--json")
        .arg(&json)
        .arg("--guest")
        .arg(guest_path("hello"))
        .env("PATH", "/nowhere");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let run: Value = read(&json);
    for name in ["chiton, no jail", "chiton, jailed", "chiton, image", "chiton, process"] {
        assert_eq!(sum(case(&run, "chiton", name), "count"), 2);
    }
    for (group, name, how) in [
        ("machines", "Firecracker", "Debian has none"),
        ("machines", "Hyperlight", "cargo xtask peers"),
        ("machines", "Solo5 hvt", "--peers"),
    ] {
        let reason = case(&run, group, name)["outcome"]["skipped"]["reason"]
            .as_str()
            .unwrap();
        assert!(reason.contains("is not installed") && reason.contains(how), "{reason}");
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(table.contains(&format!("not measured: {reason}")), "{table}");
    }
    lab.assert_nothing_left(&before);
}

#[test]
fn a_peer_that_does_not_do_what_it_is_asked_is_listed_and_not_measured() {
    let Some(lab) = Lab::new() else { return };
    let peers = lab.0.path("peers");
    fs::create_dir_all(&peers).unwrap();
    let fake = |name: &str, script: &str| drop(lab.0.script(&format!("peers/{name}"), script));
    // One that says nothing, and one that does its work.
    fake("firecracker", "echo Firecracker v0");
    fake("chiton-peer-hyperlight", "echo hello from a payload");
    let args = [
        "vs",
        "--runs",
        "2",
        "--only",
        "firecracker",
        "--only",
        "hyperlight",
        "--peers",
    ];
    let args = [&args[..], &[peers.to_str().unwrap()]].concat();
    let (run, _) = lab.measure(&args, "hello");
    let reason = &case(&run, "machines", "Firecracker")["outcome"]["skipped"]["reason"];
    assert!(
        reason
            .as_str()
            .unwrap()
            .contains("did not say \"hello from a payload\""),
        "{reason}"
    );
    assert_eq!(sum(case(&run, "machines", "Hyperlight"), "count"), 2);
}

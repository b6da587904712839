//! Real guests and real jails: the package `chiton-tests` and the folder `tests` of
//! `chiton-container`, on this machine and in a nested one.
//!
//! Both run the same static test programs, which find `chiton` at CHITON_BIN and the guests in
//! the directory CHITON_GUESTS.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use crate::{
    build::{self, STATIC_TARGET, cargo},
    command,
    error::{Error, Result},
    failures, guests, kvm, paths,
    qemu::{self, Job},
    tools,
    ui::Task,
};

/// How many tests run at a time; each is a `chiton` with a guest of its own.
const THREADS: &str = "--test-threads=2";
/// How long all tests may take in the nested machine, where everything is slow.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Test programs that are of no use there: images are the same on every kernel, and their oracles, registries
/// and other tools, are not in the nested machine.
const ONLY_HERE: [&str; 1] = ["image-"];

/// Tests of which the same holds, each with the reason: a module, or one that takes the emulated processor long. What is
/// tried there is what another kernel and another KVM might do in another way: guests and devices on it, jails, cgroups,
/// networks, and that nothing is left of them.
const SAME_THERE: [(&str, &str); 21] = [
    ("command_line::", "words of the command line"),
    ("refusals::", "files and words refused before there is a machine"),
    ("said::", "which lines are told, and to whom"),
    ("images::", "images"),
    ("lab::", "pages of reports"),
    ("bench::", "tools that measure"),
    (
        "filters::",
        "each jail there has the same filters, and is ended by what they refuse",
    ),
    (
        "calls::a_guest_that_writes_much_once_is_watched_anew_after_a_while",
        "a count of the pool's own, to 256",
    ),
    (
        "emulated::every_access_to_a_register_is_an_exit_and_virtio_has_none",
        "counts what the devices' registers are asked for",
    ),
    ("life::lists_show_what_they_are_asked_for", "what is shown of a record"),
    (
        "life::logs_are_shown_from_where_they_are_asked_for",
        "what is shown of a file",
    ),
    ("life::events_come_as_they_happen", "what is shown of a record"),
    (
        "life::a_console_is_looked_at_without_being_typed_into",
        "a supervisor's sockets",
    ),
    (
        "life::who_attaches_a_terminal_tells_its_size_passes_signals_and_can_let_go",
        "a supervisor's sockets",
    ),
    ("life::who_sits_at_a_terminal_sees_how_far_an_image_is", "images"),
    (
        "instances::logs_can_be_followed_and_consoles_attached",
        "a supervisor's sockets",
    ),
    ("instances::on_a_terminal_stats_go_on", "what is shown of a record"),
    (
        "instances::a_policy_starts_it_again_until_it_is_stopped_by_hand",
        "what a supervisor decides",
    ),
    (
        "instances::what_belongs_to_a_namespace_of_its_own_is_refused_in_anothers",
        "refused before there is a jail",
    ),
    (
        "instances::a_process_is_who_its_image_says_or_who_is_asked_for",
        "images",
    ),
    ("instances::what_an_instance_wrote_becomes_an_image", "images"),
];

/// What each of the two machines is known not to have, and the other has: the tests of it skip themselves.
const NOT_HERE: &str = "device mapper";
const NOT_THERE: &str = "curl,wrk,strace,failing loop device";
/// What only root has.
const ROOTS: &str = "device mapper,TAP device,loop device";

/// What ordinary users have of a jail takes these: ids besides their own, and a network.
const USERS_PROGRAMS: [&str; 3] = ["newuidmap", "newgidmap", "pasta"];
/// What a machine with users has, and a way into the world, which leads nowhere.
const FOR_USERS: &str = "mkdir -p /etc && touch /etc/passwd /etc/group /etc/subuid /etc/subgid && \
    chmod u+s /bin/newuidmap /bin/newgidmap && ip link add up0 type veth && ip addr add 192.0.2.2/24 dev up0 && \
    ip link set up0 up && ip link set veth0 up && ip route add default via 192.0.2.1 || exit 1";

/// All that the tests need, built.
pub(super) struct Built {
    pub(super) chiton: PathBuf,
    /// Beside it.
    bench: PathBuf,
    guests: Vec<String>,
    /// Of chiton-tests.
    pub(super) tests: Vec<PathBuf>,
    /// Of chiton-container.
    jails: Vec<PathBuf>,
}

pub(super) fn build() -> Result<Built> {
    let chiton = build::chiton()?;
    let bench = build::bench()?;
    let guests = guests::all()?;
    guests::build(&guests)?;
    let task = Task::start("building the end-to-end tests");
    let tests = programs(&task, &["--package", "chiton-tests"])?;
    // Every program in its folder `tests`, and not the tests beside the code.
    let jails = programs(&task, &["--package", "chiton-container", "--test", "*"])?;
    task.done();
    let guests = guests.into_iter().map(|guest| guest.name).collect();
    Ok(Built {
        chiton,
        bench,
        guests,
        tests,
        jails,
    })
}

/// Builds the test programs that cargo's arguments choose.
fn programs(task: &Task, which: &[&str]) -> Result<Vec<PathBuf>> {
    let mut tests = cargo();
    tests.arg("test").args(which);
    tests.args(["--target", STATIC_TARGET, "--no-run"]);
    let output = command::quietly(task, tests.args(["--message-format", "json-render-diagnostics"]))?;
    Ok(executables(&output))
}

/// The test programs in cargo's messages.
fn executables(messages: &str) -> Vec<PathBuf> {
    const KEY: &str = "\"executable\":\"";
    let tests = messages
        .lines()
        .filter(|line| line.contains("\"reason\":\"compiler-artifact\""));
    tests
        .filter_map(|line| line.split_once(KEY)?.1.split('"').next())
        .map(PathBuf::from)
        .collect()
}

/// On this machine's KVM.
pub(super) fn host() -> Result<String> {
    kvm::usable().map_err(|why| Error::Missing(format!("no real guests here: {why}")))?;
    let built = build()?;
    eprintln!("  on this machine's KVM ({})", kvm::kind());
    let mut output = String::new();
    let mut failed = String::new();
    for test in built.tests.iter().chain(&built.jails) {
        let mut run = Command::new(test);
        run.arg(THREADS).current_dir(paths::root().join("tests"));
        run.env("CHITON_BIN", &built.chiton)
            .env("CHITON_GUESTS", paths::guests())
            .env("CHITON_WITHOUT", if command::is_root() { NOT_HERE } else { ROOTS });
        // Much of a jail is for root only.
        if command::is_root() || !built.jails.contains(test) {
            run.env("CHITON_STRICT", "1");
        }
        // The others are run all the same: one failure must not hide another.
        match command::openly(&mut run) {
            Ok(said) => output += &said,
            Err(error) => failed += &format!("{error}\n"),
        }
    }
    if !failed.is_empty() {
        return Err(Error::Found(failed));
    }
    super::counted(&output)
}

/// Kills so many at random moments, as follows from the seed, on this machine's KVM (`tests/e2e/soak.rs`).
pub(crate) fn soak(kills: u32, seed: u64) -> Result<()> {
    kvm::usable().map_err(|why| Error::Missing(format!("no real guests here: {why}")))?;
    let built = build()?;
    for test in &built.tests {
        let mut run = Command::new(test);
        run.args(["soak::", "--nocapture"])
            .current_dir(paths::root().join("tests"));
        run.env("CHITON_BIN", &built.chiton)
            .env("CHITON_GUESTS", paths::guests())
            .env("CHITON_SOAK_KILLS", kills.to_string())
            .env("CHITON_SOAK_SEED", seed.to_string())
            .env("CHITON_STRICT", "1");
        command::openly(&mut run)?;
    }
    Ok(())
}

/// On the KVM of a nested machine.
pub(super) fn qemu() -> Result<String> {
    let built = build()?;
    let mut files = vec![
        (built.chiton, "/bin/chiton".to_owned()),
        (built.bench, "/bin/chiton-bench".to_owned()),
    ];
    files.extend(
        built
            .guests
            .iter()
            .map(|name| (paths::guests().join(name), format!("/guests/{name}"))),
    );
    for test in built.tests.into_iter().chain(built.jails) {
        let name = test
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        if !ONLY_HERE.iter().any(|program| name.starts_with(program)) {
            files.push((test, format!("/tests/{name}")));
        }
    }
    for program in USERS_PROGRAMS {
        files.extend(with_libraries(program)?);
    }
    let scratch = scratch()?;
    let skip: String = SAME_THERE.iter().map(|(tests, _)| format!(" --skip {tests}")).collect();
    let each = format!(
        "mount -t ext4 /dev/vda /tmp && chmod 1777 /tmp || exit 1; {FOR_USERS}; code=0; for test in /tests/*; do $test {THREADS}{skip} || code=1; done; exit $code"
    );
    let environment = [
        ("CHITON_BIN", "/bin/chiton"),
        ("CHITON_GUESTS", "/guests"),
        ("CHITON_STRICT", "1"),
        ("CHITON_WITHOUT", NOT_THERE),
        ("CHITON_SLOW", if qemu::emulates() { "1" } else { "0" }),
    ];
    let job = Job {
        command: vec!["/bin/sh".into(), "-c".into(), each],
        environment: environment
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        files,
        scratch: Some(scratch),
        limit: Some(LIMIT),
        ..Job::default()
    };
    let mut output = Both(Vec::new());
    let code = qemu::run_into(&job, &mut output);
    let failed = failures::of(&String::from_utf8_lossy(&output.0));
    match code {
        Ok(0) => Ok(qemu::named().into()),
        Ok(code) => Err(Error::Found(format!(
            "the tests in the nested machine failed with status {code}\n{failed}"
        ))),
        Err(error) => Err(error),
    }
}

/// Shows what is written to it, and keeps it.
struct Both(Vec<u8>);

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = io::stdout().write(bytes)?;
        self.0.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// A program of this machine, which is to be in `/bin`, and the libraries that it needs, each where it is here.
fn with_libraries(program: &str) -> Result<Vec<(PathBuf, String)>> {
    let path = command::find(program)
        .ok_or_else(|| Error::Missing(format!("the tests need {program}: apt-get install uidmap passt")))?;
    let mut ldd = Command::new("ldd");
    let listed = command::quietly(&Task::silent(), ldd.arg(&path))?;
    let mut files = vec![(path, format!("/bin/{program}"))];
    files.extend(libraries(&listed).map(|library| (PathBuf::from(library), library.to_owned())));
    Ok(files)
}

/// The files that `ldd` lists: `name => /path (address)`, and the loader without an arrow.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed.split_whitespace().filter(|word| word.starts_with('/'))
}

/// An empty ext4 file system, which takes only the room that is used.
fn scratch() -> Result<PathBuf> {
    let lab = paths::lab();
    fs::create_dir_all(&lab).map_err(Error::file("create", &lab))?;
    let path = lab.join("scratch.ext4");
    let mut make = Command::new(tools::debian("mke2fs", "e2fsprogs")?);
    make.args(["-q", "-F", "-t", "ext4"]).arg(&path).arg("2G");
    command::quietly(&Task::silent(), &mut make)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_there_is_a_test_here() {
        let tests = paths::root().join("tests/e2e");
        for (filter, why) in SAME_THERE {
            let (module, test) = filter.split_once("::").expect("a module");
            let source = fs::read_to_string(tests.join(module).with_extension("rs")).expect("a source");
            assert!(
                source.contains(&format!("#[test]\nfn {test}")),
                "there is no test {filter}"
            );
            assert!(!why.is_empty());
        }
    }

    #[test]
    fn the_libraries_of_a_program_are_found() {
        let listed =
            "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007fe0)\n\t/lib64/ld.so (0x1)\n";
        assert!(libraries(listed).eq(["/lib/x/libc.so.6", "/lib64/ld.so"]));
    }

    #[test]
    fn test_programs_are_found_among_cargos_messages() {
        let messages = "   Compiling x v0.1.0\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"kind\":[\"lib\"]},\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/debug/deps/run-12ab\",\"fresh\":true}\n\
            {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executables(messages), [PathBuf::from("/t/debug/deps/run-12ab")]);
    }
}

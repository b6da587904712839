//! The same guest files under KVM, on bare VMX and on bare SVM: what they say, how they end, and in which
//! words that is told.

mod disagreements;
mod examples;
mod exits;
mod frames;
mod outside;
mod refusals;
mod runs;
mod shown;
mod ticks;
mod together;

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    time::Duration,
};

use crate::{
    bare::{self, Emulated, Ended, Hardware, Input, Model, Processor},
    build,
    error::{Error, Result},
    guests, kvm, paths,
};
use runs::{RING_0, RUNS, Run, run_of};

/// How long a machine may take for all of them: far more than it takes, so that only one that hangs is killed.
const LIMIT: Duration = Duration::from_secs(300);
/// How long a guest may run that does not end by itself: under KVM, and on bare metal, in Bochs by a time of its own.
const TIMEOUTS: [&str; 2] = ["1s", "100ms"];
/// How long it may where that was too short: a busy machine may let it, or QEMU, wait before it begins.
const PATIENT: &str = "20s";

/// The disk that guests get: no times and no names are in it.
const DISK: &str = "disks/numbers";
/// The folder that guests get.
const FOLDER: &str = "folders/words";
/// What bare metal alone has to say of a guest that has written to its disk or folder.
const LOST: &str = " was kept in memory, and is lost now";
/// What bare metal alone has to say of its processors.
const PROCESSORS: &str = " processors";
/// What bare metal alone has to say of a balloon.
const BALLOON: &str = "the balloon";
/// How much is wanted of each balloon.
const WANTED: &str = "8M";
/// The machines that run all guests: one of VMX and one of SVM first, whose exits are counted.
const MACHINES: [Emulated; 4] = [
    Emulated::Bochs(Model::SkylakeX),
    Emulated::Qemu(Processor::Svm),
    Emulated::Bochs(Model::Haswell),
    Emulated::Bochs(Model::Tigerlake),
];

/// The row of events whose delivery was cut.
const AGAIN: &str = "events delivered again";
/// What is left of one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    status: i32,
    /// Its console.
    said: String,
    /// What the hypervisor says of its end.
    told: String,
    /// How often it left the guest, and why, if that was asked for.
    exits: Vec<(String, u64)>,
}

impl Left {
    fn new(status: i32, said: &[u8], told: &str) -> Self {
        let (told, exits) = exits::split(told);
        Self {
            status,
            said: timeless(&String::from_utf8_lossy(said)),
            told: comparable(told),
            exits,
        }
    }

    /// Whether the two are the same for whoever reads them.
    fn is_like(&self, other: &Self) -> bool {
        (self.status, &self.said, &self.told) == (other.status, &other.said, &other.told)
    }
}

/// Compares each guest on each machine with KVM.
pub(super) fn run() -> Result<String> {
    kvm::usable().map_err(|why| Error::Missing(format!("nothing to compare bare metal with: {why}")))?;
    let chiton = build::chiton()?;
    guests::build(&guests::all()?)?;
    let hosted: Vec<_> = RUNS.iter().map(|run| hosted(&chiton, run)).collect::<Result<_>>()?;
    let all: Vec<_> = RUNS.iter().chain(RING_0.iter().map(|(run, ..)| run)).copied().collect();
    let image = image_of("guests", &all)?;
    let mut found = Vec::new();
    let mut lefts = Vec::new();
    for machine in MACHINES {
        let (named, left, _) = on(machine, &image, &all)?;
        eprintln!("  {} guests in {named}", left.len());
        for ((run, here), there) in RUNS.iter().zip(&hosted).zip(&left) {
            let alike = if run.status_only {
                here.status == there.status
            } else {
                here.is_like(there)
            };
            if !(alike || run.endless && is_like_in_time(&chiton, machine, *run, there)?) {
                found.push(format!(
                    "`{}` in {named}: {there:#?}\nunder KVM: {here:#?}",
                    run.words.join(" ")
                ));
            }
            if run.cut && there.exits.iter().all(|(row, _)| row != AGAIN) {
                found.push(format!(
                    "no exit has cut the delivery of an event of `{}` in {named}: {:#?}",
                    run.words.join(" "),
                    there.exits
                ));
            }
        }
        lefts.push(left);
    }
    for (index, (run, status, words)) in (RUNS.len()..).zip(&RING_0) {
        let first = &lefts[0][index];
        let of_machine = |machine| words[usize::from(matches!(machine, Emulated::Qemu(_)))];
        let right = |(machine, left): (Emulated, &Vec<Left>)| {
            let left = &left[index];
            let alike = left.said == first.said && (words[0] != words[1] || left.told == first.told);
            alike && left.status == *status && left.told.contains(of_machine(machine))
        };
        if !MACHINES.into_iter().zip(&lefts).all(right) {
            let here: Vec<_> = lefts.iter().map(|left| &left[index]).collect();
            found.push(format!(
                "`{}`, which has to end with {status} everywhere, and with {words:?}: {here:#?}",
                run.words.join(" ")
            ));
        }
    }
    let counted = RUNS.iter().position(|run| run.exits).unwrap_or_default();
    let columns = [&hosted[counted], &lefts[0][counted], &lefts[1][counted]];
    let columns = columns.map(|left| &left.exits[..]);
    println!("{}", exits::table(RUNS[counted].words, columns));
    found.extend(exits::differences(columns));
    found.extend(hello_alone(&chiton)?);
    found.extend(hello_like_on_a_desk()?);
    found.extend(together::run(&chiton)?);
    found.extend(shown::run()?);
    found.extend(together::several(&chiton)?);
    found.extend(together::ends()?);
    found.extend(outside::run(&chiton)?);
    found.extend(refusals::run()?);
    examples::run()?;
    if found.is_empty() {
        Ok(format!("{} guests, {} refusals", all.len(), refusals::COUNT))
    } else {
        Err(Error::Found(found.join("\n")))
    }
}

/// Whether a guest that does not end by itself is the same under KVM and there, if it has more time; in Bochs the time
/// that it had is its own.
fn is_like_in_time(chiton: &Path, machine: Emulated, run: Run, there: &Left) -> Result<bool> {
    let run = run.patiently();
    let here = hosted(chiton, &run)?;
    if matches!(machine, Emulated::Bochs(_)) {
        return Ok(here.is_like(there));
    }
    let image = image_of("patient", &[run])?;
    let (_, left, _) = on(machine, &image, &[run])?;
    Ok(here.is_like(&left[0]))
}

/// `hello` alone, whose ticks are compared with what is recorded. Returns what is wrong.
fn hello_alone(chiton: &Path) -> Result<Vec<String>> {
    let run = [run_of(&["hello"])];
    let here = hosted(chiton, &run[0])?;
    let image = image_of("hello", &run)?;
    let (named, left, took) = on(Emulated::Bochs(Model::SkylakeX), &image, &run)?;
    let mut found = ticks::compare(&took)?;
    if !here.is_like(&left[0]) {
        found.push(format!("`hello` in {named}: {:#?}\nunder KVM: {here:#?}", left[0]));
    }
    Ok(found)
}

/// `hello` on a machine that boots by UEFI and has no port for the hypervisor's words, which then share the serial line
/// with the guest's console. Returns what is wrong.
fn hello_like_on_a_desk() -> Result<Option<String>> {
    let machine = Emulated::LikeOnDesk;
    let image = machine.image("desk", Some(&ramdisk_of(&[run_of(&["hello"])])?))?;
    let machine = machine.boot(&image)?;
    let mut lines = Vec::new();
    let status = machine.run(Some(LIMIT), Input::Nothing, io::sink(), |line| {
        lines.push(line.trim_end().to_owned());
    })?;
    eprintln!("  hello by UEFI, with the hypervisor's words on the serial line");
    let has = |part: &str| lines.iter().any(|line| line.contains(part));
    let right = status == 0 && has(" on bare metal with ") && has("Hello from ring 3");
    Ok((!right).then(|| format!("`hello` by UEFI ends with {status} and says {lines:#?}")))
}

/// What is on the disk: 96 KiB of numbers.
fn numbers() -> Vec<u8> {
    (0_u32..24 << 10).flat_map(u32::to_le_bytes).collect()
}

/// The folder on the host, which nobody writes to.
fn folder() -> Result<PathBuf> {
    folder_in(&paths::images())
}

/// The same folder for one guest, which may write to it.
fn folder_of_its_own() -> Result<PathBuf> {
    let place = paths::images().join("own");
    match fs::remove_dir_all(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", &place)(error)),
        _ => folder_in(&place),
    }
}

/// Makes the folder there: files with a word in some lines, one of them longer than a message, and what is no file.
fn folder_in(place: &Path) -> Result<PathBuf> {
    let folder = place.join("words");
    let many: String = (0..6000).map(|number| format!("line {number} of many\n")).collect();
    fs::create_dir_all(folder.join("sub/empty")).map_err(Error::file("create", &folder))?;
    for (name, text) in [
        ("one", "nothing\na needle here\n"),
        ("many", many.as_str()),
        ("sub/two", "needle\nneedles"),
        ("sub/none", ""),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    let link = folder.join("link");
    if link.symlink_metadata().is_err() {
        symlink("one", &link).map_err(Error::file("create", &link))?;
    }
    Ok(folder)
}

/// One image for these runs, booted by BIOS.
fn image_of(name: &str, runs: &[Run]) -> Result<PathBuf> {
    bare::image_of(name, Some(&ramdisk_of(runs)?))
}

/// The ramdisk for these runs.
fn ramdisk_of(runs: &[Run]) -> Result<Vec<u8>> {
    let mut names: Vec<_> = runs.iter().map(|run| run.words[0]).collect();
    names.sort_unstable();
    names.dedup();
    let mut files = Vec::new();
    for guest in names {
        let path = paths::guests().join(guest);
        let content = fs::read(&path).map_err(Error::file("read", &path))?;
        files.push((format!("guests/{guest}"), content));
    }
    if runs.iter().any(|run| run.disk || run.emulated) {
        files.push((DISK.into(), numbers()));
    }
    if runs.iter().any(|run| run.folder) {
        let path = folder()?.display().to_string();
        files.push((FOLDER.into(), bare::Folder::pack(&path)?.archive));
    }
    let mut lines = Vec::new();
    for run in runs {
        lines.push(format!("guest={}", run.words[0]));
        lines.extend(run.words[1..].iter().map(|argument| format!("arg={argument}")));
        lines.extend(run.disk.then(|| format!("disk={DISK}")));
        lines.extend(run.emulated.then(|| format!("emulated-disk={DISK}")));
        lines.extend(
            run.folder
                .then(|| format!("folder={FOLDER}{}", if run.writes { ":rw" } else { "" })),
        );
        lines.extend(run.balloon.then(|| format!("balloon={WANTED}")));
        lines.extend((run.exits || run.cut).then(|| "exits=1".into()));
        lines.extend(run.cut.then(|| "pages=4k".into()));
        lines.extend(run.ring_0.then(|| "ring=0".into()));
        lines.extend(run.by_exits.then(|| "virtual-apic=0".into()));
        lines.extend(run.input.map(|_| "input=serial".into()));
        let timeout = if run.patient { PATIENT } else { TIMEOUTS[1] };
        lines.extend(run.endless.then(|| format!("timeout={timeout}")));
        lines.push(format!("cpus={}", run.cpus));
        lines.push(String::new());
    }
    bare::ramdisk_with(&files, Some(&lines))
}

/// Under KVM.
fn hosted(chiton: &Path, run: &Run) -> Result<Left> {
    let mut command = build::without_jail(chiton);
    command.arg("run");
    if run.disk || run.emulated {
        let images = paths::images();
        fs::create_dir_all(&images).map_err(Error::file("create", &images))?;
        let disk = images.join("numbers");
        fs::write(&disk, numbers()).map_err(Error::file("write", &disk))?;
        command
            .arg(if run.disk { "--disk" } else { "--emulated-disk" })
            .arg(disk);
    }
    if run.writes {
        let folder = folder_of_its_own()?;
        command.arg("--folder").arg(format!("{}:rw", folder.display()));
    } else if run.folder {
        command.arg("--folder").arg(folder()?);
    }
    if run.balloon {
        command.arg(format!("--balloon={WANTED}"));
    }
    if run.exits {
        command.arg("--exits");
    }
    if run.endless {
        command.args(["--timeout", if run.patient { PATIENT } else { TIMEOUTS[0] }]);
    }
    if run.cpus > 1 {
        command.args(["--cpus", &run.cpus.to_string()]);
    }
    command.arg(paths::guests().join(run.words[0])).args(&run.words[1..]);
    let start_error = |source| Error::Start {
        program: chiton.display().to_string(),
        source,
    };
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start_error)?;
    if let Some(mut input) = child.stdin.take() {
        // It fits into the pipe.
        input.write_all(run.input.unwrap_or_default()).map_err(start_error)?;
    }
    let output = child.wait_with_output().map_err(start_error)?;
    let told = String::from_utf8_lossy(&output.stderr).replace("chiton: ", "");
    Ok(Left::new(output.status.code().unwrap_or(-1), &output.stdout, &told))
}

/// On bare metal, all in one boot: what the machine is, what is left of each guest, and how long it took.
fn on(machine: Emulated, image: &Path, runs: &[Run]) -> Result<(String, Vec<Left>, Took)> {
    let count = runs.len();
    let input = runs.iter().filter_map(|run| run.input).flat_map(Input::whole).collect();
    let hardware = Hardware {
        processors: runs.iter().map(|run| run.cpus).max().unwrap_or(1),
        ..Hardware::default()
    };
    // Bochs with two processors takes eight times as long to boot.
    let limit = LIMIT * if hardware.processors > 1 { 2 } else { 1 };
    let machine = machine.boot_with(image, hardware)?;
    let (named, log) = (machine.named().to_owned(), machine.log().to_owned());
    let console = Mutex::new(Vec::new());
    let mut told = String::new();
    let mut ends = Vec::new();
    let ended = machine.run_to_end(Some(limit), Input::Bytes(input), Shared(&console), |line| {
        if let Some(end) = End::parse(line) {
            ends.push((end, std::mem::take(&mut told)));
        } else if !is_of_bare_metal(line) {
            told += line.strip_prefix("chiton: ").unwrap_or(line);
            told.push('\n');
        }
    })?;
    let console = console.into_inner().unwrap_or_default();
    let took = Took { log, ended };
    if count == 1 {
        // One guest alone has the machine's status, and the whole console.
        return Ok((named, vec![Left::new(ended.status, &console, &told)], took));
    }
    if ends.len() != count {
        return Err(Error::Found(format!("{named} ran {} guests of {count}", ends.len())));
    }
    let sent: usize = ends.iter().map(|(end, _)| end.console).sum();
    if sent != console.len() {
        return Err(Error::Found(format!(
            "the console of {named} has {} bytes, and the guests sent {sent}",
            console.len()
        )));
    }
    let mut rest = &console[..];
    let mut lefts = Vec::new();
    for (end, told) in ends {
        let (said, after) = rest.split_at(end.console);
        rest = after;
        lefts.push(Left::new(end.status, said, &told));
    }
    Ok((named, lefts, took))
}

/// By what it can be told how long a machine took.
struct Took {
    /// The emulator's log.
    log: PathBuf,
    /// What the hypervisor says.
    ended: Ended,
}

/// Whether a line is one that KVM has no like of.
fn is_of_bare_metal(line: &str) -> bool {
    line.contains(" on bare metal with ")
        || line.ends_with(LOST)
        || line.ends_with(PROCESSORS)
        || line.starts_with(BALLOON)
}

/// `chiton: guest=NAME status=N console=BYTES`, which ends each guest of several.
struct End {
    status: i32,
    console: usize,
}

impl End {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("chiton: guest=")?.split(' ').skip(1);
        Some(Self {
            status: words.next()?.strip_prefix("status=")?.parse().ok()?,
            console: words.next()?.strip_prefix("console=")?.parse().ok()?,
        })
    }
}

/// A text with its times taken out, and what depends on them: numbers before `us` and `ns`, and what is counted while
/// time passes.
fn timeless(text: &str) -> String {
    let words = text.split_inclusive([' ', '\n', ',']).collect::<Vec<_>>();
    let unit = |word: Option<&&str>| {
        let word = word.map(|word| word.trim_end_matches([' ', '\n', ',']));
        matches!(word, Some("us" | "ns" | "switches" | "primes" | "terms"))
    };
    (0..words.len())
        .map(|at| if unit(words.get(at + 1)) { "N " } else { words[at] })
        .collect()
}

/// Of what is told of a guest's end: all but the values of registers, in which a time may be, and the time it had.
fn comparable(told: &str) -> String {
    let lines = told.lines().filter(|line| {
        let first = line.split_whitespace().next();
        !matches!(first, Some("rax" | "rsi" | "r8" | "r12" | "rip"))
    });
    let text: String = lines.flat_map(|line| [line.trim_end(), "\n"]).collect();
    TIMEOUTS.iter().chain([&PATIENT]).fold(text, |text, time| {
        text.replace(&format!(" within {time} "), " in time ")
    })
}

/// Where the console is collected while the machine runs.
struct Shared<'a>(&'a Mutex<Vec<u8>>);

impl Write for Shared<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Ok(mut all) = self.0.lock() {
            all.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_out_and_nothing_else() {
        assert_eq!(
            timeless("iteration 1: 60 ns, checksum 23\nbest of 1: 7 ns\n"),
            "iteration 1: N ns, checksum 23\nbest of 1: N ns\n"
        );
    }

    #[test]
    fn registers_are_left_out() {
        assert_eq!(
            comparable("  at x\n    rax 0 rbx 1\n     r8 1\n  backtrace\n"),
            "  at x\n  backtrace\n"
        );
    }

    #[test]
    fn an_end_is_read() {
        let end = End::parse("chiton: guest=hello status=102 console=77").unwrap();
        assert_eq!((end.status, end.console), (102, 77));
        assert!(End::parse("chiton: end status=0").is_none());
    }
}

//! The file `command` of the ramdisk: what to run, and what to show of it.
//!
//! One `key=value` a line. An empty line ends what is said of one guest; what follows is of another,
//! which runs after it. A line that begins with `#` is a remark.
//!
//! ```text
//! guest=sha256
//! arg=--verbose
//! disk=disks/image:ro
//! exits=1
//!
//! guest=hello
//! ```

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use chiton_shared::doorbell::LogLevel;
use chiton_shared::manifest::Ring;
use thiserror::Error;

/// The memory of a guest of which nothing else is said, in bytes.
pub const DEFAULT_MEMORY: u64 = 16 << 20;
/// The longest file that is read, in bytes.
const MAX_LENGTH: usize = 64 << 10;
/// The most processors that are used.
pub const MAX_PROCESSORS: usize = 32;
/// The most guests of one file.
const MAX_GUESTS: usize = 128;

/// What to do with one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its name: the file below `guests/`, and its first argument.
    pub guest: String,
    /// Its arguments, without the name.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Its memory, in bytes.
    pub memory: u64,
    /// The ring, if not the one its manifest asks for.
    pub ring: Option<Ring>,
    /// Its disks: files of the ramdisk.
    pub disks: Vec<Disk>,
    /// Its disk behind the registers of an ATA device.
    pub emulated_disk: Option<Disk>,
    /// Whether the line's network is behind the registers of an Intel 8254x.
    pub emulated_net: bool,
    /// Its folders: files of the ramdisk, each an archive.
    pub folders: Vec<Folder>,
    /// How much memory the host would like to have in its balloon, in bytes; `None` for no balloon.
    pub balloon: Option<u64>,
    /// Whether the serial line is its input; without it, its input ends at once.
    pub input: bool,
    /// The serial port at which a line leads to sockets and a network.
    pub line: Option<LinePort>,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// The processor of the machine that it runs on. Guests of one processor run one after the other,
    /// those of several at once.
    pub on: usize,
    /// How many processors it has: those of the machine from [`on`](Self::on) on.
    pub cpus: u32,
    /// Whether guests of other processors run beside it. Its console then goes out in whole lines,
    /// and each begins with the processor's number and `|`.
    pub beside: bool,
    /// The most detailed log lines of the guest that are shown.
    pub log: LogLevel,
    /// What to show.
    pub show: Show,
}

/// A disk of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file of the ramdisk.
    pub file: String,
    /// Whether the guest may not write.
    pub read_only: bool,
}

/// A folder of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// The file of the ramdisk. The guest knows the folder by the last part of its name.
    pub file: String,
    /// Whether the guest may write.
    pub writable: bool,
}

/// A serial port beside the console's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinePort {
    /// The second of a PC.
    Com2,
    /// The third.
    Com3,
    /// The fourth.
    Com4,
}

impl LinePort {
    const ALL: [Self; 3] = [Self::Com2, Self::Com3, Self::Com4];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Com2 => "com2",
            Self::Com3 => "com3",
            Self::Com4 => "com4",
        }
    }

    /// Its first I/O port.
    #[must_use]
    pub const fn base(self) -> u16 {
        match self {
            Self::Com2 => 0x2f8,
            Self::Com3 => 0x3e8,
            Self::Com4 => 0x2e8,
        }
    }
}

/// What to show of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// The table of exits.
    pub exits: bool,
    /// Each exit as it happens.
    pub trace: bool,
    /// The VMCS or VMCB at the end.
    pub control_structure: bool,
    /// The controls: wanted, allowed, chosen.
    pub controls: bool,
    /// The rules of VM entries, before each entry.
    pub check: bool,
    /// The two-dimensional page walk of these guest-virtual addresses, at the end.
    pub walk: Vec<u64>,
    /// Guest memory in pages of 4 KiB alone.
    pub small_pages: bool,
    /// EPT without accessed and dirty flags.
    pub without_accessed_dirty: bool,
    /// Guest memory by EPT entries that no processor takes, which are mended one by one.
    pub misconfigure: bool,
    /// Interrupts of the guest's APIC by exits alone, though the processor could deliver them.
    pub without_virtual_apic: bool,
    /// What is broken of the VMCS or VMCB before the guest is entered: a case of the checker, by its name.
    pub broken: Option<String>,
    /// What a file knows that this crate does not: keys that begin with `x-`, for examples.
    pub extra: Vec<(String, String)>,
}

impl Command {
    /// The example to run in the guest's place: the key `x-example`.
    #[must_use]
    pub fn example(&self) -> Option<&str> {
        let mut extra = self.show.extra.iter();
        extra.find(|(key, _)| key == "x-example").map(|(_, name)| name.as_str())
    }

    fn new(guest: &str) -> Self {
        Self {
            guest: guest.to_string(),
            args: Vec::new(),
            env: Vec::new(),
            memory: DEFAULT_MEMORY,
            ring: None,
            disks: Vec::new(),
            emulated_disk: None,
            emulated_net: false,
            folders: Vec::new(),
            balloon: None,
            input: false,
            line: None,
            timeout: None,
            on: 0,
            cpus: 1,
            beside: false,
            log: LogLevel::Warn,
            show: Show::default(),
        }
    }
}

/// Why a command file is not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// There is none.
    #[error("the ramdisk has no file `command`, which says what to run: make the image again with `cargo xtask image`")]
    Missing,
    /// It is too long.
    #[error("the file `command` has {0} bytes, and {MAX_LENGTH} are the most")]
    TooLong(usize),
    /// It is not UTF-8.
    #[error("the file `command` is not text: byte {0} is not UTF-8")]
    NotText(usize),
    /// It names no guest.
    #[error("the file `command` names no guest: it needs a line guest=NAME")]
    NoGuest,
    /// It names too many.
    #[error("the file `command` names more than {MAX_GUESTS} guests")]
    TooManyGuests,
    /// A guest has several processors, and one of them is another's that runs beside it.
    #[error(
        "the file `command` has guests on processors {0} and {1}, and the first has more processors than lie between"
    )]
    Overlap(usize, usize),
    /// Two guests that run at once have the line.
    #[error(
        "the file `command` gives the line to guests on processors {0} and {1}, which run at once: it is one guest's"
    )]
    SharedLine(usize, usize),
    /// A line says something of a guest that was not named yet.
    #[error("line {0} of the file `command` says something of no guest: guest=NAME comes first")]
    BeforeGuest(usize),
    /// A guest is named where another is meant to be gone on with.
    #[error("line {0} of the file `command` names a second guest: an empty line comes before it")]
    SecondGuest(usize),
    /// A line without `=`.
    #[error("line {line} of the file `command` is no key=value: {text:?}")]
    NoValue {
        /// Which, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// A key that means nothing.
    #[error("line {line} of the file `command`: there is no key {key:?}; there are {KEYS}")]
    UnknownKey {
        /// Which, from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// A value that means nothing there.
    #[error("line {line} of the file `command`: {key}={value} makes no sense: {expected} is expected")]
    Value {
        /// Which, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What makes sense.
        expected: &'static str,
    },
}

/// The keys, for people.
const KEYS: &str = "guest, arg, env, memory, ring, disk, emulated-disk, emulated-net, folder, balloon, input, line, timeout, on, cpus, log, \
                    exits, trace, vmcs, controls, check, walk, pages, ept-ad, misconfigure, virtual-apic, break";

/// Reads a command file.
///
/// # Errors
///
/// [`CommandError`], which names the line.
pub fn parse(bytes: &[u8]) -> Result<Vec<Command>, CommandError> {
    if bytes.len() > MAX_LENGTH {
        return Err(CommandError::TooLong(bytes.len()));
    }
    let text = core::str::from_utf8(bytes).map_err(|error| CommandError::NotText(error.valid_up_to()))?;
    let mut commands: Vec<Command> = Vec::new();
    let mut open = false;
    for (line, text) in (1..).zip(text.lines()) {
        if text.is_empty() {
            open = false;
            continue;
        }
        if text.starts_with('#') {
            continue;
        }
        let (key, value) = text.split_once('=').ok_or_else(|| CommandError::NoValue {
            line,
            text: text.to_string(),
        })?;
        match (key, open) {
            ("guest", true) => return Err(CommandError::SecondGuest(line)),
            ("guest", false) => {
                if commands.len() == MAX_GUESTS {
                    return Err(CommandError::TooManyGuests);
                }
                commands.push(Command::new(value));
                open = true;
            }
            (_, false) => return Err(CommandError::BeforeGuest(line)),
            (key, true) => {
                if let Some(command) = commands.last_mut() {
                    set(command, line, key, value)?;
                }
            }
        }
    }
    if commands.is_empty() {
        return Err(CommandError::NoGuest);
    }
    let all = || commands.iter();
    if let Some((one, other)) = all().find_map(|one| Some((one, all().find(|other| overlap(one, other))?))) {
        return Err(CommandError::Overlap(one.on, other.on));
    }
    let mut on_the_line = all().filter(|command| command.line.is_some()).map(|command| command.on);
    if let Some(one) = on_the_line.next()
        && let Some(other) = on_the_line.find(|other| *other != one)
    {
        return Err(CommandError::SharedLine(one, other));
    }
    let first = commands[0].on;
    let beside = commands.iter().any(|command| command.on != first);
    commands.iter_mut().for_each(|command| command.beside = beside);
    Ok(commands)
}

/// Whether two guests would run at once on the same processor.
const fn overlap(one: &Command, other: &Command) -> bool {
    one.on < other.on && other.on < one.on + one.cpus as usize
}

/// Takes in one line.
fn set(command: &mut Command, line: usize, key: &str, value: &str) -> Result<(), CommandError> {
    let show = &mut command.show;
    let expected = match key {
        "arg" => return push(&mut command.args, value),
        "env" => return push(&mut command.env, value),
        "disk" => {
            command.disks.push(disk(value));
            return Ok(());
        }
        "emulated-disk" => return store(&mut command.emulated_disk, Some(disk(value))),
        "emulated-net" => match value {
            "0" => return store(&mut command.emulated_net, false),
            "1" => return store(&mut command.emulated_net, true),
            _ => "0 or 1",
        },
        "folder" => {
            let (file, writable) = match value.strip_suffix(":rw") {
                Some(file) => (file, true),
                None => (value.strip_suffix(":ro").unwrap_or(value), false),
            };
            let file = file.to_string();
            command.folders.push(Folder { file, writable });
            return Ok(());
        }
        "memory" => match size(value) {
            Some(bytes) => return store(&mut command.memory, bytes),
            None => "a size such as 16M",
        },
        "balloon" => match size(value).or_else(|| (value == "0").then_some(0)) {
            Some(bytes) => return store(&mut command.balloon, Some(bytes)),
            None => "0 or a size such as 8M",
        },
        "ring" => match value {
            "0" => return store(&mut command.ring, Some(Ring::Kernel)),
            "3" => return store(&mut command.ring, Some(Ring::User)),
            _ => "0 or 3",
        },
        "input" => match value {
            "serial" => return store(&mut command.input, true),
            "none" => return store(&mut command.input, false),
            _ => "serial or none",
        },
        "line" => match LinePort::ALL.into_iter().find(|port| port.name() == value) {
            Some(port) => return store(&mut command.line, Some(port)),
            None => "com2, com3 or com4",
        },
        "timeout" => match duration(value) {
            Some(timeout) => return store(&mut command.timeout, Some(timeout)),
            None => "a time such as 5s or 200ms",
        },
        "on" => match value.parse() {
            Ok(processor) if processor < MAX_PROCESSORS => return store(&mut command.on, processor),
            _ => "the number of a processor, from 0,",
        },
        "cpus" => match value.parse() {
            Ok(count) if (1..=MAX_PROCESSORS).contains(&count) => return store(&mut command.cpus, count as u32),
            _ => "a number of processors, from 1,",
        },
        "log" => match level(value) {
            Some(level) => return store(&mut command.log, level),
            None => "error, warn, info, debug or trace",
        },
        "walk" => match address(value) {
            Some(address) => {
                show.walk.push(address);
                return Ok(());
            }
            None => "an address such as 0x200000",
        },
        "pages" => match value {
            "4k" => return store(&mut show.small_pages, true),
            "large" => return store(&mut show.small_pages, false),
            _ => "4k or large",
        },
        "ept-ad" => match value {
            "0" => return store(&mut show.without_accessed_dirty, true),
            "1" => return store(&mut show.without_accessed_dirty, false),
            _ => "0 or 1",
        },
        "virtual-apic" => match value {
            "0" => return store(&mut show.without_virtual_apic, true),
            "1" => return store(&mut show.without_virtual_apic, false),
            _ => "0 or 1",
        },
        "break" => match value {
            "" => "the name of a case of the checker",
            name => return store(&mut show.broken, Some(name.to_string())),
        },
        "misconfigure" | "exits" | "trace" | "vmcs" | "controls" | "check" => {
            let flag = match key {
                "misconfigure" => &mut show.misconfigure,
                "exits" => &mut show.exits,
                "trace" => &mut show.trace,
                "vmcs" => &mut show.control_structure,
                "controls" => &mut show.controls,
                _ => &mut show.check,
            };
            match value {
                "0" => return store(flag, false),
                "1" => return store(flag, true),
                _ => "0 or 1",
            }
        }
        _ if key.starts_with("x-") => {
            show.extra.push((key.to_string(), value.to_string()));
            return Ok(());
        }
        _ => {
            return Err(CommandError::UnknownKey {
                line,
                key: key.to_string(),
            });
        }
    };
    Err(CommandError::Value {
        line,
        key: key.to_string(),
        value: value.to_string(),
        expected,
    })
}

/// A file of the ramdisk, with `:ro` behind it read-only.
fn disk(value: &str) -> Disk {
    let (file, read_only) = match value.strip_suffix(":ro") {
        Some(file) => (file, true),
        None => (value, false),
    };
    let file = file.to_string();
    Disk { file, read_only }
}

fn push(list: &mut Vec<String>, value: &str) -> Result<(), CommandError> {
    list.push(value.to_string());
    Ok(())
}

fn store<T>(place: &mut T, value: T) -> Result<(), CommandError> {
    *place = value;
    Ok(())
}

/// Bytes: `4096`, `64K`, `16M`, `1G`; a whole number of pages, and not none.
fn size(text: &str) -> Option<u64> {
    let unit = |suffix: char| text.strip_suffix(suffix);
    let (number, shift) = if let Some(number) = unit('K') {
        (number, 10)
    } else if let Some(number) = unit('M') {
        (number, 20)
    } else if let Some(number) = unit('G') {
        (number, 30)
    } else {
        (text, 0)
    };
    let bytes = number.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    (bytes > 0 && bytes.is_multiple_of(4096)).then_some(bytes)
}

/// A time: `200ms`, `5s`, or seconds.
fn duration(text: &str) -> Option<Duration> {
    if let Some(number) = text.strip_suffix("ms") {
        return number.parse().ok().map(Duration::from_millis);
    }
    let number = text.strip_suffix('s').unwrap_or(text);
    number.parse().ok().map(Duration::from_secs)
}

fn level(text: &str) -> Option<LogLevel> {
    Some(match text {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => return None,
    })
}

/// An address, in hexadecimal with `0x`, else in decimal.
fn address(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_guest_alone_has_what_it_has_elsewhere() {
        let commands = parse(b"guest=hello\n").unwrap();
        assert_eq!(commands, [Command::new("hello")]);
        assert_eq!(commands[0].memory, 16 << 20);
    }

    #[test]
    fn the_line_is_one_guests_at_a_time() {
        let one_after_the_other = parse(b"guest=a\nline=com2\n\nguest=b\nline=com3\n").unwrap();
        let ports = one_after_the_other.iter().map(|command| command.line);
        assert!(ports.eq([Some(LinePort::Com2), Some(LinePort::Com3)]));
        let at_once = words("guest=a\nline=com2\n\nguest=b\non=1\n\nguest=c\non=2\nline=com2\n");
        assert!(at_once.contains("processors 0 and 2, which run at once"), "{at_once}");
        assert!(words("guest=a\nline=com1\n").contains("com2, com3 or com4 is expected"));
    }

    #[test]
    fn every_key_is_taken_in() {
        let text = "# a remark\nguest=cat\narg=a b\narg=-v\nenv=A=b\nmemory=64M\nring=0\ndisk=d/a:ro\ndisk=d/b\nemulated-disk=d/c:ro\nemulated-net=1\nfolder=f/src\nfolder=f/new:rw\nfolder=f/old:ro\n\
                    balloon=8M\ninput=serial\nline=com4\ntimeout=200ms\non=1\ncpus=2\nlog=debug\nexits=1\ntrace=1\nvmcs=1\ncontrols=1\ncheck=1\n\
                    walk=0x200000\nwalk=4096\npages=4k\nept-ad=0\n\
                    misconfigure=1\nvirtual-apic=0\nbreak=VPID 0\nx-pml=1\n";
        let [command] = &parse(text.as_bytes()).unwrap()[..] else {
            panic!("one guest")
        };
        let disk = |file: &str, read_only| Disk {
            file: file.into(),
            read_only,
        };
        let folder = |file: &str, writable| Folder {
            file: file.into(),
            writable,
        };
        let expected = Command {
            guest: "cat".into(),
            args: vec!["a b".into(), "-v".into()],
            env: vec!["A=b".into()],
            memory: 64 << 20,
            ring: Some(Ring::Kernel),
            disks: vec![disk("d/a", true), disk("d/b", false)],
            emulated_disk: Some(disk("d/c", true)),
            emulated_net: true,
            folders: vec![folder("f/src", false), folder("f/new", true), folder("f/old", false)],
            balloon: Some(8 << 20),
            input: true,
            line: Some(LinePort::Com4),
            timeout: Some(Duration::from_millis(200)),
            on: 1,
            cpus: 2,
            beside: false,
            log: LogLevel::Debug,
            show: Show {
                exits: true,
                trace: true,
                control_structure: true,
                controls: true,
                check: true,
                walk: vec![0x20_0000, 4096],
                small_pages: true,
                without_accessed_dirty: true,
                misconfigure: true,
                without_virtual_apic: true,
                broken: Some("VPID 0".into()),
                extra: vec![("x-pml".into(), "1".into())],
            },
        };
        assert_eq!(*command, expected);
        // Each of the keys that an error names is one.
        for key in KEYS.split(", ").filter(|key| *key != "guest") {
            assert!(!words(&format!("guest=a\n{key}\n")).is_empty());
            let answer = parse(format!("guest=a\n{key}=?\n").as_bytes());
            assert!(!matches!(answer, Err(CommandError::UnknownKey { .. })), "{key}");
        }
    }

    #[test]
    fn an_example_runs_in_the_place_of_a_guest() {
        let commands = parse(b"guest=prove\nx-example=prove\n\nguest=hello\nx-other=1\n").unwrap();
        assert_eq!(commands[0].example(), Some("prove"));
        assert_eq!(commands[1].example(), None);
    }

    #[test]
    fn an_empty_line_begins_another_guest_that_knows_nothing_of_the_first() {
        let commands = parse(b"guest=a\nmemory=1G\n\n\nguest=b\n").unwrap();
        assert_eq!(commands[0].memory, 1 << 30);
        assert_eq!(commands[1], Command::new("b"));
    }

    #[test]
    fn guests_of_different_processors_run_beside_each_other() {
        let beside = |text: &[u8]| parse(text).unwrap().iter().map(|c| c.beside).collect::<Vec<_>>();
        assert_eq!(beside(b"guest=a\non=1\n\nguest=b\non=1\n"), [false, false]);
        assert_eq!(beside(b"guest=a\n\nguest=b\non=1\n"), [true, true]);
        assert_eq!(beside(b"guest=a\ncpus=2\n\nguest=b\non=2\n"), [true, true]);
        assert_eq!(
            parse(b"guest=b\non=2\n\nguest=a\ncpus=3\n"),
            Err(CommandError::Overlap(0, 2))
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        assert!(words("").contains("names no guest"));
        assert!(words("memory=1M\n").contains("line 1"));
        assert!(words("guest=a\nguest=b\n").contains("line 2"));
        assert!(words("guest=a\nfaster\n").contains("line 2 of the file `command` is no key=value: \"faster\""));
        assert!(words("guest=a\nspeed=9\n").contains("there is no key \"speed\""));
        for line in [
            "memory=16X",
            "memory=0",
            "memory=99999999999G",
            "memory=5",
            "ring=1",
            "balloon=5",
            "balloon=",
            "input=file",
            "timeout=soon",
            "on=32",
            "on=-1",
            "cpus=0",
            "cpus=33",
            "log=loud",
            "walk=0xg",
            "pages=2k",
            "exits=yes",
            "break=",
        ] {
            let error = words(&format!("guest=a\n{line}\n"));
            assert!(error.contains(line) && error.contains("is expected"), "{error}");
        }
    }

    #[test]
    fn what_is_no_text_or_too_much_is_refused() {
        assert_eq!(parse(b"guest=\xff"), Err(CommandError::NotText(6)));
        assert_eq!(
            parse(&[b'#'; MAX_LENGTH + 1]),
            Err(CommandError::TooLong(MAX_LENGTH + 1))
        );
        let many = "guest=a\n\n".repeat(MAX_GUESTS + 1);
        assert_eq!(parse(many.as_bytes()), Err(CommandError::TooManyGuests));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "(guest|arg|memory|walk|=|\n|[0-9a-zKMG]|\\PC){0,64}") {
            let _ = parse(text.as_bytes());
        }
    }
}

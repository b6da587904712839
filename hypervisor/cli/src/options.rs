//! The command line, as clap reads it.

mod control;
mod disk;
pub(crate) mod quick;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use control::{
    DeviceOptions, LimitsOption, SnapshotOptions, StatsOptions, StopOptions, StopTimeout, Target, Targets,
    UpdateOptions,
};
pub(crate) use disk::{DiskOption, rate};
use quick::quick;

use crate::instance::Template;
use crate::jailed::options::JailOptions;
use crate::net::{NetOption, net};
use chiton_kvm::FolderOpenError;
use chiton_kvm::arguments::VsockArgument;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs small no_std guests under KVM, each a machine of its own.
#[derive(Debug, Parser)]
#[command(name = "chiton", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Options<C: Subcommand> {
    /// Say more: start-up phases in microseconds, what caused an error, and the guest's log of
    /// level info; twice debug, three times trace. To be written before the command.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: C,
}

impl Options<Command> {
    /// Reads the command line. Of all commands only `run` has to be quick: where it is asked for, no
    /// parser is made, if the line is plain, or one that knows no other command.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let words: Vec<_> = std::env::args_os().collect();
        if let Some(options) = Self::quickly(&words) {
            return Ok(options);
        }
        let mut commands = words.iter().skip(1);
        let command = commands.find(|word| !word.to_string_lossy().starts_with('-'));
        if command.is_some_and(|command| command == "run") {
            let Options { verbose, command } = Options::<Run>::try_parse_from(words)?;
            let command = Command::Run(command);
            return Ok(Self { verbose, command });
        }
        Self::try_parse_from(words)
    }

    /// A plain `chiton run`.
    fn quickly(words: &[OsString]) -> Option<Self> {
        let words: Vec<_> = words.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
        let mut rest = words.get(1..)?;
        let mut verbose = 0;
        while let ["-v", others @ ..] = rest {
            (verbose, rest) = (verbose + 1, others);
        }
        let ["run", rest @ ..] = rest else { return None };
        let (mut run, guest) = quick::read::<RunOptions>(rest)?;
        if guest.is_empty() && run.from.is_none() {
            return None;
        }
        run.guest = guest.iter().map(|word| (*word).to_owned()).collect();
        let command = Command::Run(Run::Run(Box::new(run)));
        Some(Self { verbose, command })
    }
}

const AFTER_HELP: &str = "\
A guest is an ELF file made with the chiton-guest library: `cargo xtask new NAME` writes one.

Examples:
  chiton run hello world             boot a guest, pass it an argument
  chiton run --exits hello           the same, and count its exits to the host
  chiton run --disk data.img:ro sha256
  chiton run --net tap=tap0,ip=10.0.0.2/24 httpd
  chiton run --vsock rpc.sock rpc    a guest that the host calls through a Unix socket
  echo text | chiton run cat         the console is standard input and output
  chiton run --control c.sock httpd  a guest that can be looked at and changed while it runs:
  chiton update c.sock --disk 0:ops=1000,bytes=10M
  chiton call -i 'sha256 abc' function   a guest that is a function
  chiton snapshot c.sock warm.snap   where it is now: any number go on from there
  chiton run --from warm.snap
  chiton inspect hello               what the host would build for this guest
  chiton image build -t hello --guest hello
  chiton doctor                      what this machine can do

Exit status: the guest's own; 101 if it panicked, 102 if it met a fault, 124 if it ran out of
time, 125 if chiton could not run it, 128+N if signal N ended it.";

/// The command that starts guests.
#[derive(Debug, Subcommand)]
pub(crate) enum Run {
    /// Boot a guest and stay until it ends.
    Run(Box<RunOptions>),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Run(Run),
    /// Call a guest that is a function, each time in the state in which it was when it was ready, and write its reply.
    Call(Box<crate::call::CallOptions>),
    /// Make an instance, as `run` does, without starting it, and print its ID.
    Create(Box<RunOptions>),
    /// Start instances that were made, or have ended.
    Start(crate::jailed::StartOptions),
    /// Stop instances, and start them again.
    Restart(crate::jailed::RestartOptions),
    /// Show a guest's manifest, segments and the page-table map the host would build; of an instance, all
    /// that is known, as JSON.
    Inspect(InspectOptions),
    /// Change limits while a guest runs: of its jail, of its devices; its balloon, console, restart policy.
    Update(Box<UpdateOptions>),
    /// Show what guests use: processor time, memory, devices, exits to the host.
    Stats(StatsOptions),
    /// Ask guests to end, and end them if they do not.
    Stop(StopOptions),
    /// Hold guests; their clocks go on.
    Pause(Targets),
    /// Let guests that are held go on.
    #[command(visible_alias = "unpause")]
    Resume(Targets),
    /// Write a guest that runs into a file, from which it, and any number of clones, go on: `run --from FILE`.
    Snapshot(SnapshotOptions),
    /// Show what this machine offers and what will work on it.
    Doctor(DoctorOptions),
    /// Print what a shell needs to complete commands and options.
    #[cfg(feature = "manual")]
    Completions(crate::manual::CompletionOptions),
    /// Write manual pages, one for each command.
    #[cfg(feature = "manual")]
    Man(crate::manual::ManOptions),
    /// Images: build, import, pull, push, ls, inspect, history, diff, export, tag, rm, prune.
    Image(crate::image::ImageOptions),
    /// Measure what Chiton costs, and show what was measured: runs the program chiton-bench.
    Bench(crate::bench::BenchOptions),
    #[command(flatten)]
    Instance(crate::instance::Command),
}

/// The ring that guest code runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RingOption {
    /// Privileged: may break its own page tables.
    #[value(name = "0")]
    Kernel,
    /// Unprivileged: the default.
    #[value(name = "3")]
    User,
}

impl From<RingOption> for chiton_shared::manifest::Ring {
    fn from(ring: RingOption) -> Self {
        match ring {
            RingOption::Kernel => Self::Kernel,
            RingOption::User => Self::User,
        }
    }
}

/// A folder as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FolderOption {
    pub(crate) path: PathBuf,
    pub(crate) writable: bool,
}

/// A console port as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortOption {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl FolderOption {
    /// The same folder by its whole path, which has its name at the end.
    pub(crate) fn whole(&mut self) -> Result<(), FolderOpenError> {
        let missing = |_| FolderOpenError::Missing(self.path.clone());
        self.path = std::fs::canonicalize(&self.path).map_err(missing)?;
        Ok(())
    }

    /// Where a jail has it, if its path is [whole](Self::whole).
    pub(crate) fn in_jail(&self) -> PathBuf {
        Path::new("/run/folders").join(self.path.file_name().unwrap_or("root".as_ref()))
    }
}

quick! {
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// Go on from this snapshot, instead of starting a guest: with the memory, the processors, the arguments and the
    /// environment that the guest had, and with the same disks, which have to be given again.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,

    /// Read all of the snapshot's memory first, and check it.
    #[arg(long)]
    pub(crate) verify: bool,

    /// Guest memory: bytes, or a number with K, M, G or T; 16M unless given. Pages cost nothing until touched.
    #[arg(short, long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,

    /// How many processors the guest has, 1 to 32; 1 unless given. Those beyond the first cost nothing until the
    /// guest starts them.
    #[arg(long, value_name = "N", value_parser = processors)]
    pub(crate) cpus: Option<u32>,

    /// A raw disk image; with :ro behind it read-only. May be given several times. Options behind
    /// it: serial=NAME (what the guest reads as its name), queues=N (one for each processor that uses
    /// the disk), direct (past the page cache), raw (do not look for another format), ops=RATE and
    /// bytes=RATE (so many requests and bytes a second; RATE/BURST for so many at once). A name that itself ends like that needs :rw behind it.
    #[arg(long, value_name = "PATH[:ro][,OPTION…]", value_parser = disk::parse)]
    pub(crate) disk: Vec<DiskOption>,

    /// A network interface of the guest: a TAP device, with its own address and MTU unless given, and
    /// with an IP address and a gateway for the guest to find. May be given several times.
    #[arg(short, long, value_name = "tap=NAME[,ip=ADDR/PREFIX|dhcp][,OPTION…]", value_parser = net)]
    pub(crate) net: Vec<NetOption>,

    /// Sockets between guest and host: a host program connects to the Unix socket PATH and writes
    /// `CONNECT port`; what the guest connects to is PATH_port. The guest's context ID is N, or 3.
    #[arg(long, value_name = "PATH[,cid=N]")]
    pub(crate) vsock: Option<VsockArgument>,

    /// A balloon, by which the guest can give memory back; with SIZE, how much the host would like
    /// to have.
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "0",
          value_parser = size)]
    pub(crate) balloon: Option<u64>,

    /// A folder whose files the guest can read, under the folder's own name; with :rw behind it
    /// also create, write and remove. May be given several times. (A name that itself ends in :rw
    /// needs :ro behind it.)
    #[arg(short, long, value_name = "PATH[:rw]", value_parser = folder)]
    pub(crate) folder: Vec<FolderOption>,

    /// A disk behind the registers of an ATA device instead of virtio: to see what that costs. Takes
    /// what --disk takes, but no rates.
    #[arg(long, value_name = "PATH[:ro][,OPTION…]", value_parser = disk::parse)]
    pub(crate) emulated_disk: Option<DiskOption>,

    /// A network interface behind the registers of an Intel 8254x instead of virtio: to see what that
    /// costs.
    #[arg(long, value_name = "tap=NAME[,mac=MAC][,mtu=MTU]", value_parser = net)]
    pub(crate) emulated_net: Option<NetOption>,

    /// A port of the console besides standard input and output, which the guest knows by NAME: a Unix
    /// socket that is made at PATH, or the terminal, pipe or file that is there. May be given several
    /// times.
    #[arg(long, value_name = "NAME=PATH", value_parser = port)]
    pub(crate) port: Vec<PortOption>,
    /// Serve disks and folders by a thread of their own: a file system that is slow then holds up
    /// neither the guest nor its other devices, and a guest with much in flight exits less.
    #[arg(long)]
    pub(crate) io_thread: bool,
    /// Give the guest packed virtqueues, and not split ones.
    #[arg(long)]
    pub(crate) packed: bool,

    /// An environment variable for the guest. May be given several times.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = variable)]
    pub(crate) env: Vec<String>,

    /// End the guest after this long: seconds, or a number with ms, s, m or h.
    // `-it --rm`: who writes that is to hear of terminals, too.
    #[arg(short, long, value_name = "TIME", value_parser = timeout, allow_hyphen_values = true)]
    pub(crate) timeout: Option<Duration>,

    /// A Unix socket through which others control the guest while it runs: `chiton stats PATH`,
    /// update, stop, pause and resume. Only this user can.
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,

    /// At SIGTERM, SIGINT or SIGHUP ask the guest to end, and end it this much later; a second
    /// signal ends it at once. Without, the first does.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) stop_timeout: Option<Duration>,

    /// Run the guest's code in this ring, whatever its manifest says.
    #[arg(long, value_name = "RING", value_enum)]
    pub(crate) ring: Option<RingOption>,

    /// Count exits to the host by cause, measure them, and print the table at the end.
    #[arg(short = 'x', long)]
    pub(crate) exits: bool,

    #[command(flatten)]
    pub(crate) jail: JailOptions,

    /// The KVM device.
    #[arg(long, value_name = "PATH", default_value = chiton_kvm::platform::DEV_KVM)]
    pub(crate) kvm: PathBuf,

    /// The guest, an ELF file, and its arguments: what follows GUEST belongs to the guest.
    #[arg(value_names = ["GUEST", "ARGS"], required_unless_present = "from", num_args = 1.., trailing_var_arg = true,
          allow_hyphen_values = true)]
    pub(crate) guest: Vec<String>,
}
}

/// An option that does not go with a snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotResumed {
    /// Given with one.
    #[error("{option} does not go with --from: {why}")]
    Given { option: &'static str, why: &'static str },
    /// Given without one.
    #[error("--verify reads a snapshot: name it with --from")]
    Verify,
}

impl RunOptions {
    /// Guest memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory.unwrap_or(chiton_kvm::DEFAULT_MEMORY)
    }

    /// How many processors it has.
    pub(crate) fn cpus(&self) -> u32 {
        self.cpus.unwrap_or(1)
    }

    /// Refuses options that contradict a snapshot.
    pub(crate) fn check_from(&self) -> Result<(), NotResumed> {
        const HAS: &str = "the guest goes on with what it has";
        const CANNOT: &str = "a snapshot cannot have it, since others outside the guest would have to know";
        if self.from.is_none() {
            return if self.verify { Err(NotResumed::Verify) } else { Ok(()) };
        }
        let given = [
            (!self.guest.is_empty(), "a guest, or an argument for it,", HAS),
            (self.memory.is_some(), "--memory", HAS),
            (self.cpus.is_some(), "--cpus", HAS),
            (self.balloon.is_some(), "--balloon", HAS),
            (!self.env.is_empty(), "--env", HAS),
            (self.ring.is_some(), "--ring", HAS),
            (self.packed, "--packed", HAS),
            (!self.net.is_empty(), "--net", CANNOT),
            (self.vsock.is_some(), "--vsock", CANNOT),
            (!self.folder.is_empty(), "--folder", CANNOT),
            (!self.port.is_empty(), "--port", CANNOT),
            (self.emulated_disk.is_some(), "--emulated-disk", CANNOT),
            (self.emulated_net.is_some(), "--emulated-net", CANNOT),
            (
                self.jail.network != crate::jailed::options::Network::None,
                "--network",
                CANNOT,
            ),
            (!self.jail.volume.is_empty(), "--volume", CANNOT),
            (self.jail.process, "--process", "a process has no snapshot"),
        ];
        match given.into_iter().find(|(given, ..)| *given) {
            Some((_, option, why)) => Err(NotResumed::Given { option, why }),
            None => Ok(()),
        }
    }

    /// Whether the guest is to have the rights of who calls.
    pub(crate) fn without_jail(&self) -> bool {
        self.jail.no_jail || std::env::var_os("CHITON_JAIL").is_some_and(|jail| jail == "off")
    }
}

#[derive(Debug, Args)]
pub(crate) struct InspectOptions {
    /// Guest memory to plan for.
    #[arg(short, long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    pub(crate) memory: u64,

    /// How many processors to plan for, 1 to 32.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = processors)]
    pub(crate) cpus: u32,

    /// The ring to plan for, whatever the manifest says.
    #[arg(long, value_name = "RING")]
    pub(crate) ring: Option<RingOption>,

    /// Show the page-table entries that lead to this address too.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) walk: Option<u64>,

    /// For an instance: `json`, or a text with {{.State.status}}, {{.Spec.image}} and the like in it.
    #[arg(long, value_name = "FORMAT", value_parser = Template::parse)]
    pub(crate) format: Option<Template>,

    /// The guest, an ELF file; or an instance: its name, its ID, or the beginning of that.
    #[arg(value_name = "GUEST|INSTANCE")]
    pub(crate) target: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorOptions {
    /// Check the store of images instead: every blob and every unpacked layer.
    #[arg(long)]
    pub(crate) store: bool,
}

/// Splits a number from the unit behind it.
fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// How many processors a guest has.
fn processors(text: &str) -> Result<u32, String> {
    let number = text
        .parse()
        .map_err(|error: std::num::ParseIntError| error.to_string())?;
    let most = chiton_shared::processor::MAX;
    if !(1..=most).contains(&number) {
        return Err(format!("{number} is not in 1..={most}"));
    }
    Ok(number)
}

pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text.trim());
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a size: write 64M, 1G or a number of bytes"))?;
    let shift = match unit
        .trim_end_matches("iB")
        .trim_end_matches('B')
        .to_ascii_uppercase()
        .as_str()
    {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("`{unit}` is not a unit of size: use K, M, G or T")),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("`{text}` is more than any machine has"))
}

/// `-t`, which elsewhere asks for a terminal.
fn timeout(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|error| {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return error;
        }
        format!(
            "{error}; -t is --timeout, and there is no option for a terminal: the console is standard input and output, \
             so leave -t out; in the background -i keeps the input open for `chiton attach`"
        )
    })
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text.trim());
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a time: write 500ms, 10s or 2m"))?;
    let ms = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(format!("`{unit}` is not a unit of time: use ms, s, m or h")),
    };
    match ms {
        Some(0) => Err("a guest with no time at all cannot run: write at least 1ms".into()),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err(format!("`{text}` is longer than any guest will run")),
    }
}

fn folder(text: &str) -> Result<FolderOption, String> {
    let (path, writable) = match text.strip_suffix(":rw") {
        Some(path) => (path, true),
        None => (text.strip_suffix(":ro").unwrap_or(text), false),
    };
    if path.is_empty() {
        return Err("a folder needs its path".into());
    }
    Ok(FolderOption {
        path: path.into(),
        writable,
    })
}

fn port(text: &str) -> Result<PortOption, String> {
    match text.split_once('=') {
        Some((name, path)) if !path.is_empty() => Ok(PortOption {
            name: name.to_owned(),
            path: path.into(),
        }),
        _ => Err(format!("`{text}` is not NAME=PATH")),
    }
}

pub(crate) fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() && !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(&digits.replace('_', ""), 16).map_err(|_| format!("`{text}` is not a hexadecimal address"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_book_has_a_place_for_every_command_and_option() {
        fn missing(command: &clap::Command, name: &str, page: &str, found: &mut Vec<String>) {
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                if !["help", "version"].contains(&option) && !page.contains(&format!("--{option}")) {
                    found.push(format!("{name} --{option}"));
                }
            }
            for command in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                let name = format!("{name} {}", command.get_name());
                if !page.contains(&name) {
                    found.push(name.clone());
                }
                missing(command, &name, page, found);
            }
        }
        let mut found = Vec::new();
        let page = include_str!("../../../docs/src/command-line.md");
        missing(&Options::<Command>::command(), "chiton", page, &mut found);
        assert!(found.is_empty(), "docs/src/command-line.md lacks {found:?}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::<Command>::command().debug_assert();
        Options::<Run>::command().debug_assert();
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64K", 65536),
            ("16M", 16 << 20),
            ("2GiB", 2 << 30),
            ("1g", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5M", "3X", "99999999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for text in ["", "0", "5d", "ms", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn who_asks_for_a_terminal_is_told_that_there_is_none() {
        assert!(timeout("box").is_err_and(|error| error.contains("leave -t out")));
        let read = Options::<Run>::try_parse_from(["chiton", "run", "-it", "--rm", "box"]);
        assert!(read.unwrap_err().to_string().contains("leave -t out"));
        assert!(timeout("5d").is_err_and(|error| !error.contains("terminal")));
        assert_eq!(timeout("5s"), duration("5s"));
    }

    #[test]
    fn variables() {
        assert!(variable("A=").is_ok() && variable("=b").is_err() && variable("AB").is_err());
    }

    #[test]
    fn ports_have_a_name_and_a_path() {
        let (name, path) = ("log".into(), "a=b".into());
        assert_eq!(port("log=a=b"), Ok(PortOption { name, path }));
        assert!(port("log").is_err() && port("log=").is_err());
    }

    #[test]
    fn folders_are_read_only_unless_told_otherwise() {
        let read = |text, path: &str, writable| {
            let path = path.into();
            assert_eq!(folder(text), Ok(FolderOption { path, writable }));
        };
        read("src", "src", false);
        read("src:ro", "src", false);
        read("src:rw", "src", true);
        read("src:rw:ro", "src:rw", false);
        assert!(folder(":rw").is_err() && folder("").is_err());
    }

    #[test]
    fn what_follows_the_guest_is_the_guests() {
        let options = Options::<Run>::parse_from(["chiton", "run", "--exits", "hello", "--exits", "-v", "--", "x"]);
        let Run::Run(run) = options.command;
        assert!(run.exits);
        assert_eq!(options.verbose, 0);
        assert_eq!(run.guest, ["hello", "--exits", "-v", "--", "x"]);
    }
}

//! Runs a program in a jail: `cargo run -p chiton-container --example jail -- --root DIR -- /bin/sh`.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chiton_container::jail::{Clocks, IdMap, Init, Jail, Kind, Landlock, Proc, Program, Ranges, Root, Source, Sys};

const HELP: &str = "\
Runs a program in a jail, with all eight namespaces of its own.

usage: jail --root DIR [options] -- PROGRAM [ARGUMENTS]

  --root DIR             a layer of the root; the first is the lowest
  --scratch DIR          a directory with upper and work: what is written
  --read-only            the root cannot be written
  --tmp                  /tmp is memory
  -v HOST:GUEST[:ro]     a volume
  --hostname NAME
  --boottime SECONDS     added to the time since boot, and to the monotonic clock
  --share NAMESPACE      user, mnt, uts, ipc, pid, net, cgroup or time: the caller's
  --join NAMESPACE=PID   that of another process
  --ids FILE             by whose locks ranges of ids are given (root; /run/chiton/ids)
  --no-seccomp, --no-landlock, --no-sys, --no-proc
  --init                 the program itself is process 1
  --show                 say which namespaces it has
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let mut jail = Jail::new(Root::default(), IdMap::rootless());
    let mut ids = PathBuf::from(Ranges::LOCKS);
    let mut show = false;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--root" => jail.root.layers.push(value()?.into()),
            "--scratch" => jail.root.scratch = Some(value()?.into()),
            "--read-only" => jail.root.read_only = true,
            "--tmp" => jail.root.tmp = true,
            "-v" => jail.root.volumes.push(value()?.parse()?),
            "--hostname" => jail.hostname = value()?,
            "--boottime" => {
                let seconds = value()?.parse()?;
                jail.clocks = Clocks {
                    monotonic: seconds,
                    boottime: seconds,
                };
            }
            "--share" => jail.namespaces.set(kind(&value()?)?, Source::Caller),
            "--join" => {
                let value = value()?;
                let (name, pid) = value.split_once('=').ok_or("--join NAMESPACE=PID")?;
                jail.namespaces.set(kind(name)?, Source::Process(pid.parse()?));
            }
            "--ids" => ids = value()?.into(),
            "--no-seccomp" => jail.filter = None,
            "--no-landlock" => jail.landlock = Landlock::Off,
            "--no-sys" => jail.root.sys = Sys::Absent,
            "--no-proc" => jail.root.proc = Proc::Absent,
            "--init" => jail.init = Init::Payload,
            "--show" => show = true,
            "--" => break,
            _ => {
                print!("{HELP}");
                return Ok(ExitCode::from(u8::from(word != "--help")));
            }
        }
    }
    let program = Program::new(words).ok_or("no program; see --help")?;
    // Dropped at the end, and the range is free again.
    let mut lease = None;
    if is_root() && jail.namespaces.is_new(Kind::User) {
        let taken = Ranges::usual(Path::new(&ids)).lease()?;
        jail.ids = taken.map();
        lease = Some(taken);
    }
    for name in ["TERM", "LANG"] {
        if let Ok(value) = std::env::var(name) {
            jail.environment.push(CString::new(format!("{name}={value}"))?);
        }
    }
    jail.environment.push(c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".into());
    let mut jailed = jail.spawn_program(&program)?;
    if show {
        let list = jailed
            .namespaces()
            .into_iter()
            .map(|(kind, inode)| format!("{} {inode}", kind.name()));
        eprintln!("{}", list.collect::<Vec<_>>().join(", "));
        eprintln!("landlock: {:?}; process {}", jailed.landlock(), jailed.pid());
    }
    let status = jailed.wait()?;
    drop(lease);
    Ok(ExitCode::from(u8::try_from(status.code()).unwrap_or(1)))
}

fn kind(name: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or(format!("{name:?} is no namespace"))
}

fn is_root() -> bool {
    // SAFETY: geteuid always succeeds.
    unsafe { libc::geteuid() == 0 }
}

//! `cargo xtask order`: which functions of `chiton` run when a guest does or goes on from a snapshot, in the order of their first calls.
//!
//! What runs together is then linked together (`hypervisor/cli/order.ld`), so that a start touches a tenth of the
//! pages that it would touch otherwise. Functions go by name: the list is as good as new after most changes, and
//! what it does not know, or no longer, costs nothing but its place.
//!
//! A jailed start comes last, if root asks: its functions lie behind those of every start.
//!
//! How: the linker tells where each function is (`-Map`). Each gets a breakpoint, which is taken out at its first hit.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::{fs::FileExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    bench::snapshot,
    build::{self, STATIC_TARGET, cargo},
    command,
    error::{Error, Result},
    guests, paths,
    ui::Task,
};

/// `int3`.
const BREAKPOINT: u8 = 0xcc;

/// Where a pointer to the next instruction is in `user_regs_struct`.
const RIP: usize = 16 * 8;

/// What the image is called whose start is watched.
const IMAGE: &str = "hello:order";

/// By place: what the linker script calls the function there.
type Functions = BTreeMap<u64, String>;

/// Writes the list.
///
/// # Errors
///
/// If something does not build or run, or cannot be watched.
pub(crate) fn run() -> Result<()> {
    let map = paths::target().join("chiton.map");
    let task = Task::start("building chiton, with a map");
    let mut build = cargo();
    build.args([
        "rustc",
        "--release",
        "--package",
        "chiton",
        "--target",
        STATIC_TARGET,
        "--bin",
        "chiton",
    ]);
    build
        .args(["--", "-C"])
        .arg(format!("link-arg=-Wl,-Map={}", map.display()));
    command::quietly(&task, &mut build)?;
    task.done();
    let chiton = paths::target().join(STATIC_TARGET).join("release/chiton");
    let text = fs::read_to_string(&map).map_err(Error::file("read", &map))?;
    let functions = in_map(&text);

    let (hello, cat) = (guests::resolve("hello")?, guests::resolve("cat")?);
    let place = snapshot::Place::new()?;
    let file = place.0.join("snapshot");
    snapshot::take(
        &chiton,
        &guests::resolve("counter")?,
        24,
        &place.0.join("c.sock"),
        &file,
    )?;
    let memory = ["--memory", "24M"].map(OsString::from);
    let unjailed = [
        [&memory[..], &[hello.clone().into()]].concat(),
        [&memory[..], &[cat.into()]].concat(),
        vec!["--from".into(), file.into()],
    ];
    let mut runs = Vec::from(unjailed.map(|words| {
        let mut run = build::without_jail(&chiton);
        run.arg("run").args(words);
        run
    }));
    // Behind them what only a jail takes, which is made as root.
    if command::is_root() {
        let jailed = |words: &[&str]| {
            let mut run = Command::new(&chiton);
            run.args(words).env("CHITON_HOME", place.0.join("home"));
            run.env_remove("CHITON_JAIL");
            run
        };
        let mut image = jailed(&["image", "build", "-t", IMAGE, "--guest"]);
        command::quietly(&Task::start("making an image"), image.arg(&hello))?;
        let limits = ["--memory-max", "64M", "--pids-max", "64", "--cpu-max", "2"];
        runs.push(jailed(&[&["run", "--rm"], &limits[..], &[IMAGE]].concat()));
    }

    let (mut order, mut known) = (Vec::new(), HashSet::new());
    for mut run in runs {
        let called = watch(run.stdin(Stdio::null()).stdout(Stdio::null()), &chiton, &functions);
        let called = called.map_err(|source| Error::Start {
            program: chiton.display().to_string(),
            source,
        })?;
        order.extend(called.into_iter().filter(|name| known.insert(name.clone())));
    }
    let path = paths::root().join("hypervisor/cli/order.ld");
    fs::write(&path, script(&order)).map_err(Error::file("write", &path))?;
    println!("{} of {} functions: {}", order.len(), functions.len(), path.display());
    Ok(())
}

/// The functions in a linker's map: those in sections of their own.
fn in_map(map: &str) -> Functions {
    let placed = map
        .split_once("Linker script and memory map")
        .map_or("", |(_, placed)| placed);
    let mut functions = Functions::new();
    let mut words = placed.split_whitespace().peekable();
    while let Some(section) = words.next() {
        if section != ".text" && !section.starts_with(".text.") {
            continue;
        }
        let mut number = || {
            let word = words.next_if(|word| word.starts_with("0x"))?;
            u64::from_str_radix(&word[2..], 16).ok()
        };
        let (Some(at), Some(1..)) = (number(), number()) else {
            continue;
        };
        let file = words.peek().copied().unwrap_or_default();
        functions.insert(at, pattern(section, file));
    }
    functions
}

/// What finds this section of this file again, when the compiler has given it another hash.
fn pattern(section: &str, file: &str) -> String {
    // Hand-written ones, in `libc.a(memcpy.lo)` or `rcrt1.o`, have no section of their own.
    if section == ".text" {
        return match file.split_once('(') {
            Some((_, member)) => format!("*:{}(.text)", member.trim_end_matches(')')),
            None => format!("*{}(.text)", file.rsplit('/').next().unwrap_or_default()),
        };
    }
    // `…17h0123456789abcdefE`: a name of Rust's.
    let name = match section.rfind("17h") {
        Some(at) if section.len() == at + 20 && section.ends_with('E') => format!("{}17h*", &section[..at]),
        _ => section.to_owned(),
    };
    format!("*({name})")
}

fn script(order: &[String]) -> String {
    let mut text =
        "/* What runs when a guest does, in the order of its first calls. `cargo xtask order` writes it. */\n\
                    SECTIONS\n{\n  .text.order :\n  {\n"
            .to_owned();
    for pattern in order {
        text += &format!("    {pattern}\n");
    }
    text + "  }\n}\nINSERT BEFORE .text;\n"
}

/// Runs a program to its end; the functions that it has called, each once, the first call first.
fn watch(program: &mut Command, path: &Path, functions: &Functions) -> io::Result<Vec<String>> {
    let ask = || {
        // SAFETY: a request without pointers, by the process that is to be traced.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: `ask` makes one system call and touches no memory.
    let child = unsafe { program.pre_exec(ask) }.spawn()?;
    let child = child.id().cast_signed();
    let mut order = Vec::new();
    let mut planted = None;
    loop {
        let mut status = 0;
        // SAFETY: `status` is there for the call.
        let process = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if process < 0 {
            return Err(io::Error::last_os_error());
        }
        if !libc::WIFSTOPPED(status) {
            if process == child {
                return Ok(order);
            }
            continue;
        }
        let (event, mut signal) = (status >> 16, libc::WSTOPSIG(status));
        match (&planted, signal) {
            // It has become the program.
            (None, _) => {
                let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_EXITKILL;
                request(libc::PTRACE_SETOPTIONS, process, 0, options as usize)?;
                planted = Some(plant(process, path, functions)?);
                signal = 0;
            }
            (Some((base, text)), libc::SIGTRAP) if event == 0 => {
                let at = request(libc::PTRACE_PEEKUSER, process, RIP, 0)?.cast_unsigned() - 1;
                if let Some(name) = functions.get(&(at - base)) {
                    order.push(name.clone());
                    let byte = [text[(at - base) as usize]];
                    memory(process)?.write_all_at(&byte, at)?;
                    request(libc::PTRACE_POKEUSER, process, RIP, at as usize)?;
                }
                signal = 0;
            }
            // A thread begins, or a copy of the process, which has breakpoints of its own.
            (_, libc::SIGSTOP | libc::SIGTRAP) => signal = 0,
            _ => {}
        }
        request(libc::PTRACE_CONT, process, 0, signal as usize)?;
    }
}

fn memory(process: libc::pid_t) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{process}/mem"))
}

/// Puts a breakpoint at each function; where the program is, and what it was without.
fn plant(process: libc::pid_t, path: &Path, functions: &Functions) -> io::Result<(u64, Vec<u8>)> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let of_program = |line: &&str| line.ends_with(&*path.to_string_lossy());
    let first = maps.lines().find(of_program).and_then(|line| line.split_once('-'));
    let base = first.and_then(|(start, _)| u64::from_str_radix(start, 16).ok());
    let base = base.ok_or_else(|| io::Error::other("the program is not in its own memory"))?;
    let end = functions.last_key_value().map_or(0, |(at, _)| at + 1);
    let mut text = vec![0; end as usize];
    let memory = memory(process)?;
    memory.read_exact_at(&mut text, base)?;
    for at in functions.keys() {
        memory.write_all_at(&[BREAKPOINT], base + at)?;
    }
    Ok((base, text))
}

fn request(what: libc::c_uint, process: libc::pid_t, at: usize, data: usize) -> io::Result<i64> {
    // SAFETY: requests of this module have numbers, and no pointers into this process.
    let answer = unsafe { libc::ptrace(what as _, process, at, data) };
    if answer == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_in_a_map_by_names_that_outlive_a_build() {
        let map = "Discarded input sections\n\
                    .text._ZN4gone17h0123456789abcdefE\n                0x0000000000000000       0x10 /a.o\n\
                   Linker script and memory map\n\
                   .text.order     0x0000000000016000     0x5000\n *(.text._ZN3new3runE)\n\
                    .text._ZN6chiton3run17h0123456789abcdefE\n                0x0000000000016000       0x80 /a.o\n\
                    .text.main     0x0000000000016080        0x8 /b.o\n\
                    .text          0x0000000000016088       0x10 /libc.a(memcpy.lo)\n\
                    .text          0x0000000000016098       0x10 /lib/rcrt1.o\n\
                    .text.empty    0x00000000000160a8        0x0 /b.o\n\
                    .rodata.main   0x0000000000020000        0x8 /b.o\n";
        let expected = [
            (0x16000, "*(.text._ZN6chiton3run17h*)"),
            (0x16080, "*(.text.main)"),
            (0x16088, "*:memcpy.lo(.text)"),
            (0x16098, "*rcrt1.o(.text)"),
        ];
        assert_eq!(in_map(map), expected.map(|(at, name)| (at, name.to_owned())).into());
    }

    #[test]
    fn the_program_is_linked_with_a_list_as_this_writes_it() {
        let list = include_str!("../../hypervisor/cli/order.ld");
        let inside = list.lines().filter_map(|line| line.strip_prefix("    "));
        let order: Vec<_> = inside.map(str::to_owned).collect();
        assert!(order.len() > 100, "{}", order.len());
        assert_eq!(script(&order), list);
    }
}

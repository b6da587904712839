//! `cargo xtask calls`: the system calls of jailed machines, thread by thread, as `strace` sees them in the
//! end-to-end tests. It is what the list in `hypervisor/container/src/jail/seccomp/vmm.rs` is made from.
//!
//! A thread counts from where it has its filter on, which is its last `seccomp` call; processors beyond the first are
//! born with theirs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::e2e;
use crate::command;
use crate::error::{Error, Result};
use crate::paths;

/// Tests that cannot be watched: they copy the program, or count the processes and the time that it takes, or are of
/// what no jail lets through.
const UNWATCHED: [&str; 6] = [
    "without_permission",
    "the_guest_connects_to_the_host",
    "does_not_answer",
    "soak",
    "filters",
    "no_time",
];

/// What a thread is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Processor,
    Devices,
    Io,
}

/// How often each call was made, by each kind of thread.
type Counts = BTreeMap<String, [u64; 3]>;

/// Runs the tests, and prints the table.
///
/// # Errors
///
/// If there is no `strace`, or nothing can be built or run.
pub(crate) fn run() -> Result<()> {
    let strace = command::find("strace").ok_or_else(|| Error::Missing("strace: apt-get install strace".into()))?;
    let built = e2e::build()?;
    let folder = paths::lab().join("calls");
    let (traces, home) = (folder.join("traces"), folder.join("home"));
    let _ = fs::remove_dir_all(&folder);
    for folder in [&traces, &home] {
        fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    }
    let watched = wrapper(&folder, &strace, &traces, &built.chiton)?;
    for test in &built.tests {
        let mut run = Command::new(test);
        run.current_dir(paths::root().join("tests"))
            .env("CHITON_BIN", &watched)
            .env("CHITON_GUESTS", paths::guests())
            .env("CHITON_TESTS_JAILED", &home)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        run.args(UNWATCHED.iter().flat_map(|name| ["--skip", name]));
        // Tests that measure time fail under a tracer; what is of interest is what they did.
        let started = run.status();
        started.map_err(Error::file("run", test))?;
    }
    let mut counts = Counts::new();
    for trace in fs::read_dir(&traces).map_err(Error::file("read", &traces))?.flatten() {
        count(&fs::read(trace.path()).unwrap_or_default(), &mut counts);
    }
    println!("{:<32} {:>10} {:>10} {:>10}", "call", "processor", "devices", "io");
    for (call, [processor, devices, io]) in &counts {
        println!("{call:<32} {processor:>10} {devices:>10} {io:>10}");
    }
    Ok(())
}

/// A program that is `chiton`, watched by a tracer that is nobody's child.
fn wrapper(folder: &Path, strace: &Path, traces: &Path, chiton: &Path) -> Result<PathBuf> {
    let path = folder.join("chiton");
    let text = format!(
        "#!/bin/sh\nexec {} -DD -ff -qq -e signal=none -o {}/$$ {} \"$@\"\n",
        strace.display(),
        traces.display(),
        chiton.display()
    );
    fs::write(&path, text).map_err(Error::file("write", &path))?;
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&path, executable).map_err(Error::file("write", &path))?;
    Ok(path)
}

/// Adds the calls of a thread, one a line, if it is one of a jailed machine.
fn count(trace: &[u8], counts: &mut Counts) {
    let text = String::from_utf8_lossy(trace);
    let (mut filters, mut role, mut calls) = (0, None, Vec::new());
    for line in text.lines() {
        if line.starts_with("seccomp(SECCOMP_SET_MODE_FILTER") {
            filters += 1;
            calls.clear();
        } else if let Some(name) = line.strip_prefix("prctl(PR_SET_NAME, \"") {
            role = match name.split(['"', ' ']).next() {
                Some("processor") => Some(Role::Processor),
                Some("devices") if filters == 0 => Some(Role::Devices),
                Some("io") if filters == 0 => Some(Role::Io),
                _ => role,
            };
            calls.clear();
        } else {
            calls.extend(call(line));
        }
    }
    // The first thread has the two of the jail, and then its own.
    let role = role.or((filters == 3).then_some(Role::Processor));
    let has_begun = filters > 0 || role == Some(Role::Processor);
    if let Some(role) = role.filter(|_| has_begun) {
        for call in calls {
            counts.entry(call).or_default()[role as usize] += 1;
        }
    }
}

/// The name of a call, with the request if it is `ioctl`.
fn call(line: &str) -> Option<String> {
    let (name, arguments) = line.split_once('(')?;
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    if name != "ioctl" {
        return Some(name.to_owned());
    }
    let request = arguments.split(", ").nth(1)?.trim_end_matches(')');
    let request = request.split_once("/* ").map_or(request, |(_, name)| name);
    Some(format!("ioctl {}", request.split([' ', ')']).next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_counts_from_its_filter_on() {
        let mut counts = Counts::new();
        let trace = "prctl(PR_SET_NAME, \"io\") = 0\nopen(\"x\") = 3\nseccomp(SECCOMP_SET_MODE_FILTER, 0, 0x1) = 0\n\
                     ppoll(0x1) = 1\nioctl(5, KVM_RUN, 0) = 0\nexit(0) = ?\n";
        count(trace.as_bytes(), &mut counts);
        let found: Vec<_> = counts.iter().map(|(call, counts)| (call.as_str(), *counts)).collect();
        assert_eq!(
            found,
            [("exit", [0, 0, 1]), ("ioctl KVM_RUN", [0, 0, 1]), ("ppoll", [0, 0, 1])]
        );
    }

    #[test]
    fn threads_of_others_do_not_count() {
        let mut counts = Counts::new();
        for trace in ["read(0) = 1\n", "prctl(PR_SET_NAME, \"devices\") = 0\nread(0) = 1\n"] {
            count(trace.as_bytes(), &mut counts);
        }
        assert!(counts.is_empty());
    }
}

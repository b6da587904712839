//! The crates that read what a guest wrote, under Miri.

use std::{process::Command, thread};

use crate::{command, error::Result, tools, ui::Task};

/// A package, and what Miri is told for it besides not to mind files.
type Run = (&'static str, &'static str);

const RING: Run = ("chiton-ring", "");
const SHARED: Run = ("chiton-shared", "");
/// Hostile rings read a place in one width and write it in another, which the processor defines and
/// Miri's model of weak memory does not know. Addresses that guests hold are integers.
const CORE: Run = (
    "chiton-core",
    " -Zmiri-disable-weak-memory-emulation -Zmiri-permissive-provenance",
);
/// What a device may still write to when its driver is gone is never freed.
const GUEST: Run = (
    "chiton-guest",
    " -Zmiri-disable-weak-memory-emulation -Zmiri-permissive-provenance -Zmiri-ignore-leaks",
);

/// Modules of the core whose tests Miri leaves out: they are safe code, so that Miri has nothing to find in what is
/// theirs. Those that touch guest memory do so through the windows that the devices' tests use too, and what parses
/// files is fuzzed under a sanitizer. They run natively in the step `unit`.
///
/// What has unsafe code of its own, and what a guest's queues are read by, is to stay: `devices`, `machine`, `paging`,
/// `physical`, `fpu`. A test of theirs that is long and goes no other way to memory says so by itself, with
/// `cfg_attr(miri, ignore)`.
const SAFE: [&str; 15] = [
    "apic::",
    "boot::",
    "control::",
    "cpuid::",
    "decode::",
    "exits::",
    "explain::",
    "loader::",
    "paging::memory_type::",
    "paging::mtrr::",
    "paging::pat::",
    "port::tests::",
    "space::",
    "svm::",
    "vmx::",
];

/// The same of the ABI crate: text that measuring guests print, and messages, which are made and read in a slice.
const SAFE_SHARED: [&str; 2] = ["measure::", "virtio::p9::"];
/// The same of the guest library: what stands on the driver of a disk.
const SAFE_GUEST: [&str; 1] = ["journal::"];

/// Tests of the queues' folder `tests`, which reach guest memory by ways of their own. The oracle's other side is
/// not ours to check.
const TESTS_RING: [&str; 5] = ["hostile", "hostile_packed", "packed", "notifications", "threads"];

/// Runs the tests of the queues and the unit tests of the ABI crate, the core and the guest library: the core, which
/// takes longest, beside the others, since Miri is single-threaded.
pub(super) fn run() -> Result<String> {
    let nightly = tools::nightly()?;
    let one = |run| command::quietly(&Task::silent(), &mut miri(nightly, run));
    let (core, others) = thread::scope(|scope| {
        let core = scope.spawn(|| one(CORE));
        let others = [RING, SHARED, GUEST].map(one);
        (core.join().expect("it does not panic"), others)
    });
    let [ring, shared, guest] = others;
    super::counted(&(core? + &ring? + &shared? + &guest?))
}

fn left_out(package: &str) -> &'static [&'static str] {
    match package {
        "chiton-core" => &SAFE,
        "chiton-shared" => &SAFE_SHARED,
        "chiton-guest" => &SAFE_GUEST,
        _ => &[],
    }
}

fn miri(nightly: &str, (package, flags): Run) -> Command {
    let mut test = tools::nightly_cargo(nightly);
    test.args(["miri", "test", "--lib", "--all-features", "--package", package]);
    if package == RING.0 {
        test.args(TESTS_RING.iter().flat_map(|program| ["--test", program]));
    }
    let safe = left_out(package);
    test.arg("--").args(safe.iter().flat_map(|module| ["--skip", module]));
    // Property tests look for files of earlier failures.
    test.env("MIRIFLAGS", format!("-Zmiri-disable-isolation{flags}"));
    // To look up a backtrace takes Miri seconds, of each panic that a test is to have too.
    test.env("RUST_BACKTRACE", "0");
    test
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::paths;

    /// Whether a file or folder has unsafe code besides that of its tests.
    fn is_unsafe(path: &Path) -> bool {
        if path.is_dir() {
            let mut entries = fs::read_dir(path)
                .expect("a folder")
                .map(|entry| entry.expect("an entry"));
            return entries.any(|entry| is_unsafe(&entry.path()));
        }
        let source = fs::read_to_string(path).expect("a source");
        let is_test = path
            .components()
            .any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
        !is_test
            && ["unsafe {", "unsafe fn", "unsafe impl"]
                .iter()
                .any(|word| source.contains(word))
    }

    #[test]
    fn what_is_left_out_has_no_unsafe_code() {
        let core = paths::root().join("hypervisor/core/src");
        let [shared, guest] = ["shared/src", "guest/src"].map(|source| paths::root().join(source));
        for (source, package) in [(&core, CORE.0), (&shared, SHARED.0), (&guest, GUEST.0)] {
            for module in left_out(package) {
                let name = module.trim_end_matches("tests::").trim_end_matches("::");
                let folder = source.join(name.replace("::", "/"));
                let found: Vec<_> = [folder.with_extension("rs"), folder]
                    .into_iter()
                    .filter(|path| path.exists())
                    .collect();
                assert!(!found.is_empty(), "there is no module {module}");
                assert!(!found.iter().any(|path| is_unsafe(path)), "{module} has unsafe code");
            }
        }
        assert!(is_unsafe(&core.join("physical.rs")) && is_unsafe(&core.join("devices")));
    }
}

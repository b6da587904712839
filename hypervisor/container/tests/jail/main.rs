//! Jails, from inside and outside.
//!
//! A jail is made by a process with one thread, so these tests run one after the other in the main
//! thread. Most payloads are functions of this program: what they find comes back through a pipe.
//! They need root; without it they say so and pass over.

// Clippy knows tests by an attribute that these, which have a harness of their own, do not need.
#![allow(clippy::unwrap_used)]

mod clean;
mod escape;
mod files;
mod help;
mod namespaces;
mod process;
mod races;
mod refusals;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if !help::is_root() {
        eprintln!("these tests make jails as root does, and this is not root: run them with sudo");
        if std::env::var_os("CI").is_some_and(|ci| ci == "true" || ci == "1") {
            std::process::exit(1);
        }
        return;
    }
    help::mounts_of_our_own();
    let tests = [
        namespaces::TESTS,
        process::TESTS,
        files::TESTS,
        escape::TESTS,
        races::TESTS,
        refusals::TESTS,
        clean::TESTS,
    ];
    let trials = tests.into_iter().flatten().map(|(name, test)| {
        Trial::test(*name, move || {
            // Panics become failures.
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

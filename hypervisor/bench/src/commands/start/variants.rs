//! The kinds of start.

use std::{path::PathBuf, process::Command};

use chiton_bench::trial::{self, Chiton, Place, Result};

/// What the guest says if it works.
pub(super) const SAID: &str = "Hello from ring";

/// What is measured with.
pub(super) struct Bed {
    pub(super) chiton: Chiton,
    pub(super) guest: PathBuf,
    /// A folder for what else is needed.
    #[expect(dead_code, reason = "it is held: it vanishes when this is dropped")]
    pub(super) place: Place,
}

/// A kind of start.
#[derive(Debug)]
pub(super) struct Variant {
    /// The name of its group of cases.
    pub(super) name: &'static str,
    /// What it is, in one sentence.
    pub(super) what: &'static str,
    /// Makes what is made once, and returns what is to be run; an error is why this kind is skipped.
    pub(super) prepare: fn(&Bed) -> Result<Command>,
}

/// All of them, in the order in which they are shown.
pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: "unjailed",
        what: "chiton run --no-jail hello",
        prepare: |bed| Ok(bed.run(&["run", "--no-jail"])),
    },
    Variant {
        name: "jailed",
        what: "chiton run --rm hello: the whole jail, but the root is an empty folder, and there are no limits",
        prepare: |bed| Ok(bed.run(&["run", "--rm"])),
    },
    Variant {
        name: "image",
        what: "chiton run --rm with an image and limits: an overlay too",
        prepare: |bed| {
            let mut build = bed.chiton.command(&["image", "build", "-t", IMAGE, "--guest"]);
            trial::answer(build.arg(&bed.guest))?;
            let limits = ["--memory-max", "64M", "--pids-max", "64", "--cpu-max", "2"];
            let words = [&["run", "--rm"], &limits[..], &[IMAGE]].concat();
            Ok(bed.chiton.command(&words))
        },
    },
];

/// The name of the image.
const IMAGE: &str = "hello:bench";

impl Bed {
    /// The guest's file, with these words before it.
    fn run(&self, words: &[&str]) -> Command {
        let mut command = self.chiton.command(words);
        command.arg(&self.guest);
        command
    }
}

//! The kinds of start.

use std::{path::PathBuf, process::Command};

use chiton_bench::{
    timeline::{Recorder, Waterfall},
    trial::{self, Chiton, Place, Program, Result},
};

use super::warm;

/// What the guest says if it works.
const SAID: &str = "Hello from ring";

/// Starts once, and tells the phases.
pub(super) type Way = Box<dyn FnMut(&mut Recorder) -> Result<Waterfall>>;

/// What is measured with.
pub(super) struct Bed {
    pub(super) chiton: Chiton,
    pub(super) guest: PathBuf,
    /// A folder for what else is needed.
    pub(super) place: Place,
}

/// A kind of start.
#[derive(Debug)]
pub(super) struct Variant {
    /// The name of its group of cases.
    pub(super) name: &'static str,
    /// What it is, in one sentence.
    pub(super) what: &'static str,
    /// Makes what is made once, and makes sure that it works; an error is why this kind is skipped.
    pub(super) prepare: fn(&Bed) -> Result<Way>,
}

/// All of them, in the order in which they are shown.
pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: "unjailed",
        what: "chiton run --no-jail hello",
        prepare: |bed| process(bed.run(&["run", "--no-jail"]), SAID),
    },
    Variant {
        name: "jailed",
        what: "chiton run --rm hello: the whole jail, but the root is an empty folder, and there are no limits",
        prepare: |bed| process(bed.run(&["run", "--rm"]), SAID),
    },
    Variant {
        name: "image",
        what: "chiton run --rm with an image and limits: an overlay too",
        prepare: |bed| {
            let mut build = bed.chiton.command(&["image", "build", "-t", IMAGE, "--guest"]);
            trial::answer(build.arg(&bed.guest))?;
            let limits = ["--memory-max", "64M", "--pids-max", "64", "--cpu-max", "2"];
            let words = [&["run", "--rm"], &limits[..], &[IMAGE]].concat();
            process(bed.chiton.command(&words), SAID)
        },
    },
    Variant {
        name: "snapshot",
        what: "chiton run --no-jail --from: the guest cat goes on from where it waits for input, of which there is no more",
        prepare: |bed| process(warm::from_snapshot(bed, &["run", "--no-jail"])?, ""),
    },
    Variant {
        name: "snapshot, jailed",
        what: "chiton run --rm --from: the same in the whole jail",
        prepare: |bed| process(warm::from_snapshot(bed, &["run", "--rm"])?, ""),
    },
    Variant {
        name: "warm pool",
        what: "a call of the guest function in a pool of this process: the machine stands, and is put back afterwards",
        prepare: warm::pool,
    },
];

/// A program that tells its phases, and says this if it works.
fn process(command: Command, said: &str) -> Result<Way> {
    let mut program = Program::new("chiton", command);
    program.try_out(said)?;
    let mut command = program.into_command();
    Ok(Box::new(move |recorder| {
        recorder.listen_to(&mut command);
        recorder.record(&mut command)
    }))
}

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

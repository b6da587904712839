//! What bare metal refuses, each with a sentence that names the thing and what to do.

use std::{fs, io, path::Path};

use super::{LIMIT, MACHINES};
use crate::{
    bare::{self, Emulated, Model, Processor},
    error::{Error, Result},
    paths,
};

/// The status of what could not be run.
const FAILED: i32 = 125;

/// A guest that cannot be started: the lines of `command`, and a part of the sentence.
const GUESTS: [(&[&str], &str); 4] = [
    (&["guest=nobody"], "the ramdisk has no guest \"nobody\"; there are "),
    (
        &["guest=hello", "memory=64G"],
        "the guest is to have 65536 MiB of memory, and this machine has ",
    ),
    (&["guest=damaged"], "the file ends too early, at byte 4096: "),
    (&["guest=sha256"], "the guest needs a disk: add a line disk=FILE"),
];
/// Processors that are not enough, and a part of the sentence.
const PROCESSORS: [(Emulated, &str); 3] = [
    (Emulated::Bochs(Model::WithoutVmx), "VMX"),
    (Emulated::Bochs(Model::WithoutEpt), "EPT"),
    (Emulated::Qemu(Processor::WithoutSvm), "SVM"),
];
/// How many there are.
pub(super) const COUNT: usize = GUESTS.len() * MACHINES.len() + PROCESSORS.len() + 1;

/// Tries all of them; returns what is wrong.
pub(super) fn run() -> Result<Vec<String>> {
    let guest = |name: &str| {
        let path = paths::guests().join(name);
        fs::read(&path).map_err(Error::file("read", &path))
    };
    let mut damaged = guest("hello")?;
    damaged.truncate(4096);
    let files = [
        ("guests/hello".to_owned(), guest("hello")?),
        ("guests/sha256".to_owned(), guest("sha256")?),
        ("guests/damaged".to_owned(), damaged),
    ];
    let mut found = Vec::new();

    let mut lines: Vec<String> = Vec::new();
    for (of_guest, _) in GUESTS {
        lines.extend(of_guest.iter().map(|&line| line.to_owned()));
        lines.push(String::new());
    }
    let image = bare::image_with("refused", &files, Some(&lines))?;
    for machine in MACHINES {
        let expected = GUESTS.map(|(_, sentence)| sentence);
        found.extend(refused(machine, &image, &expected)?);
    }

    let image = bare::image_with("hello", &files[..1], Some(&["guest=hello".into()]))?;
    for (machine, sentence) in PROCESSORS {
        found.extend(refused(machine, &image, &[sentence])?);
    }
    let image = bare::image_with("no-command", &files[..1], None)?;
    let sentence = "the ramdisk has no file `command`, which says what to run";
    found.extend(refused(Emulated::Qemu(Processor::Svm), &image, &[sentence])?);
    Ok(found)
}

/// Boots an image in which everything is refused, with these sentences in this order.
fn refused(machine: Emulated, image: &Path, sentences: &[&str]) -> Result<Option<String>> {
    let machine = machine.boot(image)?;
    let named = machine.named().to_owned();
    let mut errors = Vec::new();
    let status = machine.run(Some(LIMIT), io::sink(), |line| {
        errors.extend(line.strip_prefix("error: ").map(str::to_owned));
    })?;
    for error in &errors {
        eprintln!("  refused in {named}: {error}");
    }
    let right = errors.len() == sentences.len()
        && errors
            .iter()
            .zip(sentences)
            .all(|(error, sentence)| error.contains(sentence));
    Ok((status != FAILED || !right)
        .then(|| format!("{named} ends with {status} and says {errors:#?}; expected are {FAILED} and {sentences:#?}")))
}

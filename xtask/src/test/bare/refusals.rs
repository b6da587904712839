//! What bare metal refuses, each with a sentence that names the thing and what to do.

use std::{fs, io, path::Path};

use super::LIMIT;
use crate::{
    bare::{self, Emulated, Input, Model, Processor},
    error::{Error, Result},
    paths,
};

/// The machines that refuse guests: one of VMX, one of SVM.
const BOTH: [Emulated; 2] = [Emulated::Bochs(Model::SkylakeX), Emulated::Qemu(Processor::Svm)];
/// The status of what could not be run.
pub(super) const FAILED: i32 = 125;

/// A guest that cannot be started: the lines of `command`, and a part of the sentence.
const GUESTS: [(&[&str], &str); 15] = [
    (&["guest=nobody"], "the ramdisk has no guest \"nobody\"; there are "),
    (
        &["guest=hello", "memory=64G"],
        "the guest is to have 65536 MiB of memory, and this machine has ",
    ),
    (&["guest=damaged"], "the file ends too early, at byte 4096: "),
    (
        &["guest=flipped"],
        "the ramdisk's file \"guests/flipped\" is damaged: its CRC-32 is ",
    ),
    (
        &["guest=sha256", "disk=odd-disk"],
        "the disk \"odd-disk\" is 1000 bytes long, not a multiple of 512: make it so with `truncate -s 1024`",
    ),
    (
        &["guest=sha256", "disk=no-disk"],
        "the ramdisk has no file \"no-disk\" for a disk",
    ),
    (
        &["guest=hello", "folder=no-folder"],
        "the ramdisk has no file \"no-folder\" for a folder",
    ),
    (
        &["guest=hello", "folder=odd-disk"],
        "the folder \"odd-disk\" is damaged: it is no ustar archive: the header at byte 0 is of another kind; make the image",
    ),
    (
        &["guest=hello", "folder=folders/words", "folder=folders/words"],
        "two folders are called words, and the guest could not tell them apart",
    ),
    (
        &["guest=hello", "balloon=32M"],
        "the balloon cannot hold 33554432 bytes: the guest has 16777216",
    ),
    (
        &["guest=hello", "break=nothing"],
        "the checker has no case \"nothing\" by which a VMC",
    ),
    (&["guest=sha256"], "the guest needs a disk: add a line disk=FILE"),
    (
        &["guest=fetch"],
        "the guest needs a network: give it one that a line leads to (--net tap=NAME)",
    ),
    (
        &["guest=hello", "line=com2"],
        "this machine has no serial port com2 for the line: see line=",
    ),
    (
        &["guest=hello", "cpus=4"],
        "the guest is to have 4 processors, from the machine's number 0 on, and 1 are in use: give it fewer",
    ),
];
/// Processors that are not enough, and a part of the sentence.
const PROCESSORS: [(Emulated, &str); 6] = [
    (Emulated::Bochs(Model::WithoutVmx), "this processor has no VMX"),
    (
        Emulated::Bochs(Model::LockedOff),
        "the firmware has locked VMX off (IA32_FEATURE_CONTROL is 0x1): switch Intel virtualisation (VT-x) on",
    ),
    (Emulated::Bochs(Model::WithoutEpt), "this processor has no EPT"),
    (
        Emulated::Bochs(Model::WithoutUnrestrictedGuest),
        "this processor has no unrestricted guest",
    ),
    (Emulated::Qemu(Processor::WithoutSvm), "this processor has no SVM"),
    (
        Emulated::Qemu(Processor::WithoutNestedPaging),
        "this processor has no nested paging",
    ),
];

/// The good files that a ramdisk is made of: their names and contents.
type Files = [(String, Vec<u8>)];

/// A ramdisk with which nothing can be done: a way to make it of a good one, and a part of the sentence.
struct Ramdisk {
    of: fn(&Files) -> Result<Option<Vec<u8>>>,
    sentence: &'static str,
}

const RAMDISKS: [Ramdisk; 6] = [
    Ramdisk {
        of: |_| Ok(None),
        sentence: "the boot loader has brought no ramdisk: make the image again with `cargo xtask image`",
    },
    Ramdisk {
        of: |files| bare::ramdisk_with(files, None).map(Some),
        sentence: "the ramdisk has no file `command`, which says what to run: make the image again",
    },
    Ramdisk {
        of: |files| bare::ramdisk_with(files, Some(&["speed=9".into()])).map(Some),
        sentence: "line 1 of the file `command` says something of no guest: guest=NAME comes first",
    },
    Ramdisk {
        of: |files| changed(files, "command", 512 + 6),
        sentence: "the ramdisk's file \"command\" is damaged: its CRC-32 is ",
    },
    Ramdisk {
        of: |files| changed(files, "command", 0),
        sentence: "the ramdisk is damaged: the checksum of the header at byte ",
    },
    Ramdisk {
        of: |files| {
            let mut ramdisk = good(files)?;
            ramdisk.truncate(1024);
            Ok(Some(ramdisk))
        },
        sentence: "bytes, and the archive ends before; make the image again",
    },
];

/// Words of the kernel's own that are said in none of these runs, so that one with a bit changed in them runs.
const UNSAID: &[u8] = b"the hypervisor panicked";
/// What it says of that.
const CHANGED_KERNEL: &str = "the kernel itself is damaged: it has ";

/// How many there are.
pub(super) const COUNT: usize = GUESTS.len() * BOTH.len() + PROCESSORS.len() + RAMDISKS.len() + 1;

/// A ramdisk that runs `hello`.
fn good(files: &Files) -> Result<Vec<u8>> {
    bare::ramdisk_with(files, Some(&["guest=hello".into()]))
}

/// The same, with a bit changed: at so many bytes from a file's header.
fn changed(files: &Files, file: &str, offset: usize) -> Result<Option<Vec<u8>>> {
    let mut ramdisk = good(files)?;
    flip(&mut ramdisk, file, offset)?;
    Ok(Some(ramdisk))
}

/// Changes a bit of an archive, at so many bytes from a file's header.
fn flip(archive: &mut [u8], file: &str, offset: usize) -> Result<()> {
    let mut headers = (0..archive.len()).step_by(512);
    let header = headers.find(|at| archive[*at..].starts_with(file.as_bytes()));
    let byte = header.and_then(|at| archive.get_mut(at + offset));
    *byte.ok_or_else(|| Error::Found(format!("{file} is not in the archive")))? ^= 1;
    Ok(())
}

/// Tries all of them; returns what is wrong.
pub(super) fn run() -> Result<Vec<String>> {
    let guest = |name: &str| {
        let path = paths::guests().join(name);
        fs::read(&path).map_err(Error::file("read", &path))
    };
    let hello = guest("hello")?;
    let files = [
        ("guests/hello".to_owned(), hello.clone()),
        ("guests/sha256".to_owned(), guest("sha256")?),
        ("guests/fetch".to_owned(), guest("fetch")?),
        ("guests/damaged".to_owned(), hello[..4096].to_owned()),
        ("folders/words".to_owned(), vec![0; 1024]),
        ("odd-disk".to_owned(), hello[..1000].to_owned()),
        ("guests/flipped".to_owned(), hello),
    ];
    let mut found = Vec::new();

    let mut lines: Vec<String> = Vec::new();
    for (of_guest, _) in GUESTS {
        lines.extend(of_guest.iter().map(|&line| line.to_owned()));
        lines.push(String::new());
    }
    let mut ramdisk = bare::ramdisk_with(&files, Some(&lines))?;
    flip(&mut ramdisk, "guests/flipped", 512 + 4100)?;
    let image = bare::image_of("refused", Some(&ramdisk))?;
    for machine in BOTH {
        let expected = GUESTS.map(|(_, sentence)| sentence);
        found.extend(refused(machine, &image, &expected)?);
    }

    let image = bare::image_of("hello", Some(&good(&files[..1])?))?;
    for (machine, sentence) in PROCESSORS {
        found.extend(refused(machine, &image, &[sentence])?);
    }
    for Ramdisk { of, sentence } in RAMDISKS {
        let image = bare::image_of("ramdisk", of(&files[..1])?.as_deref())?;
        found.extend(refused(Emulated::Qemu(Processor::Svm), &image, &[sentence])?);
    }
    let image = bare::image_of_changed("kernel", Some(&good(&files[..1])?), |kernel| {
        let at = kernel.windows(UNSAID.len()).position(|words| words == UNSAID);
        kernel[at.ok_or_else(|| Error::Found("the kernel has no words for a panic".into()))?] ^= 1;
        Ok(())
    })?;
    found.extend(refused(Emulated::Qemu(Processor::Svm), &image, &[CHANGED_KERNEL])?);
    Ok(found)
}

/// Boots an image in which everything is refused, with these sentences in this order.
fn refused(machine: Emulated, image: &Path, sentences: &[&str]) -> Result<Option<String>> {
    let machine = machine.boot(image)?;
    let named = machine.named().to_owned();
    let mut errors = Vec::new();
    let status = machine.run(Some(LIMIT), Input::Nothing, io::sink(), |line| {
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

//! Chiton, as peers are measured.

use std::{fs, process::Command};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Bed, OURS, Peer, Ready, oci, payload};
use crate::trial::{Result, TrialError, answer};

/// A machine without a jail, as other monitors of machines are measured.
pub const UNJAILED: Peer = Peer {
    name: "chiton, no jail",
    group: OURS,
    what: "chiton run --no-jail hello: a machine with one processor, and the guest in it",
    against: "chiton, no jail",
    prepare: |bed| bed.chiton(bed.run(&["run", "--no-jail"]), HELLO),
};

/// A machine in a jail.
pub const JAILED: Peer = Peer {
    name: "chiton, jailed",
    group: OURS,
    what: "chiton run --rm hello: the same in the whole jail, with an empty root and without limits",
    against: "chiton, jailed",
    prepare: |bed| bed.chiton(bed.run(&["run", "--rm"]), HELLO),
};

/// A machine in a jail from an image.
pub const IMAGE: Peer = Peer {
    name: "chiton, image",
    group: OURS,
    what: "chiton run --rm of an image, with limits of memory, processes and processor time",
    against: "chiton, image",
    prepare: |bed| {
        let mut build = bed.chiton.command(&["image", "build", "-t", "hello:bench", "--guest"]);
        answer(build.arg(bed.guest))?;
        let words = [&["run", "--rm"], &LIMITS[..], &["hello:bench"]].concat();
        bed.chiton(bed.chiton.command(&words), HELLO)
    },
};

/// An ordinary process in a jail, as crun and the others are measured.
pub const PROCESS: Peer = Peer {
    name: "chiton, process",
    group: OURS,
    what: "chiton run --rm --process, with the same limits: the others' program in our jail, without a machine",
    against: "chiton, process",
    prepare: |bed| {
        import(bed)?;
        let words = [&["run", "--rm", "--process"], &LIMITS[..], &[TAG]].concat();
        bed.chiton(bed.chiton.command(&words), payload::SAID)
    },
};

/// What the guest `hello` says.
const HELLO: &str = "Hello from ring";

const LIMITS: [&str; 6] = ["--memory-max", "64M", "--pids-max", "64", "--cpu-max", "2"];

impl Bed<'_> {
    /// `chiton` with these words, and the guest's file.
    fn run(&self, words: &[&str]) -> Command {
        let mut command = self.chiton.command(words);
        command.arg(self.guest);
        command
    }

    fn chiton(&self, command: Command, expected: &'static str) -> Result<Ready> {
        Ok(Ready {
            expected,
            ..Ready::greets("chiton", self.chiton.program(), command)?
        })
    }
}

/// Has the store take in an image of one layer, which holds the payload: what `docker save` would write of it.
fn import(bed: &Bed<'_>) -> Result<()> {
    let folder = bed.place.join("image");
    fs::create_dir_all(&folder).map_err(TrialError::file("create", &folder))?;
    let failed = |source| TrialError::System {
        doing: "write a layer".into(),
        source,
    };
    let mut header = tar::Header::new_gnu();
    let program = payload::program();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    let mut layer = tar::Builder::new(Vec::new());
    let path = oci::PROGRAM.trim_start_matches('/');
    layer
        .append_data(&mut header, path, program.as_slice())
        .map_err(failed)?;
    let layer = layer.into_inner().map_err(failed)?;
    let digest: String = Sha256::digest(&layer)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Entrypoint": [oci::PROGRAM] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [TAG], "Layers": ["layer.tar"] }]);
    for (name, bytes) in [
        ("layer.tar", layer),
        ("config.json", config.to_string().into_bytes()),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(TrialError::file("write", &path))?;
    }
    answer(bed.chiton.command(&["image", "import"]).arg(&folder)).map(drop)
}

/// The name of that image.
const TAG: &str = "process:bench";

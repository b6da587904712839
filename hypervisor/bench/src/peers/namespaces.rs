//! Namespaces without a runtime: `unshare` and bubblewrap.

use std::{path::Path, process::Command};

use super::{JAILS, Peer, Ready, oci::Bundle, ours};

/// `unshare`: namespaces and nothing else.
pub const UNSHARE: Peer = Peer {
    name: "unshare",
    group: JAILS,
    what: "the eight namespaces, and a program in them; no root of its own, no limits, no filter",
    against: ours::PROCESS.name,
    prepare: |bed| {
        let program = bed.find("unshare", "it is part of util-linux")?;
        Ready::greets("unshare", &program, unshare(&program, &bed.bundle))
    },
};

/// bubblewrap.
pub const BUBBLEWRAP: Peer = Peer {
    name: "bubblewrap",
    group: JAILS,
    what: "bwrap --unshare-all with a root, /dev and /proc; no limits, no filter",
    against: ours::PROCESS.name,
    prepare: |bed| {
        let program = bed.find("bwrap", "apt-get install bubblewrap")?;
        Ready::greets("bubblewrap", &program, bubblewrap(&program, &bed.bundle))
    },
};

/// `unshare` of the eight namespaces, and the bundle's program in them.
#[must_use]
pub fn unshare(program: &Path, bundle: &Bundle) -> Command {
    let mut command = Command::new(program);
    for kind in ["mount", "uts", "ipc", "pid", "net", "user", "cgroup", "time"] {
        command.arg(format!("--{kind}"));
    }
    command.args(["--fork", "--map-root-user"]).arg(bundle.program());
    command
}

/// bubblewrap, and the bundle's program in the bundle's root.
#[must_use]
pub fn bubblewrap(program: &Path, bundle: &Bundle) -> Command {
    let mut command = Command::new(program);
    command.args(["--unshare-all", "--unshare-user", "--ro-bind"]);
    command.arg(bundle.root()).arg("/");
    command.args(["--dev", "/dev", "--proc", "/proc", super::oci::PROGRAM]);
    command
}

//! What jails are made of, beyond namespaces.

use std::path::PathBuf;

use chiton_container::jail::{IdMap, filters_calls, landlock_version, maps_owners};
use chiton_container::network;

use super::{Check, State};

pub(super) fn checks() -> [Check; 6] {
    [
        filters(),
        landlock(),
        mapped_mounts(),
        nf_tables(),
        subordinate_ids(),
        pasta(),
    ]
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(super) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.exists())
}

fn filters() -> Check {
    let (state, found) = match filters_calls() {
        Ok(()) => (State::Good, "filters of system calls, which kill".into()),
        Err(error) => (State::Missing, error.to_string()),
    };
    Check {
        name: "seccomp",
        state,
        found,
        advice: "jails need a kernel with CONFIG_SECCOMP_FILTER, 4.14 or later",
    }
}

fn landlock() -> Check {
    /// That of signals and abstract sockets.
    const LATEST_USED: i64 = 6;
    let (state, found) = match landlock_version() {
        Ok(version) if version >= LATEST_USED => (State::Good, format!("version {version}")),
        Ok(version) => (State::Limited, format!("version {version}: a part of it")),
        Err(error) => (State::Limited, format!("none ({error}): jails do without")),
    };
    Check {
        name: "Landlock",
        state,
        found,
        advice: "Linux 6.12 or later with CONFIG_SECURITY_LANDLOCK, and landlock in the boot option lsm=",
    }
}

fn mapped_mounts() -> Check {
    let (state, found) = match maps_owners() {
        Ok(()) => (
            State::Good,
            "mount_setattr: each jail of root has ids of its own".into(),
        ),
        Err(error) => (State::Missing, error.to_string()),
    };
    Check {
        name: "id-mapped mounts",
        state,
        found,
        advice: "Linux 5.12 or later; on tmpfs 6.3",
    }
}

fn nf_tables() -> Check {
    let (state, found) = match network::has_nf_tables() {
        Ok(()) => (
            State::Good,
            "for --network bridge, its way out, and published ports".into(),
        ),
        Err(error) if !is_root() => (
            State::Limited,
            format!("{error}: --network bridge is for root; --network user is not"),
        ),
        Err(error) => (State::Missing, error.to_string()),
    };
    Check {
        name: "nf_tables",
        state,
        found,
        advice: "modprobe nf_tables nft_chain_nat nft_masq; --network bridge needs root",
    }
}

fn subordinate_ids() -> Check {
    let programs = ["newuidmap", "newgidmap"];
    let missing: Vec<_> = programs
        .into_iter()
        .filter(|program| installed(program).is_none())
        .collect();
    let ids: u32 = IdMap::rootless().users.iter().map(|extent| extent.count).sum();
    let (state, found) = match (missing.as_slice(), ids) {
        _ if is_root() => (State::Good, "not needed by root".into()),
        ([], 2..) => (State::Good, format!("{ids} ids in a jail")),
        ([], _) => (State::Limited, "there, but this user has no subordinate ids".into()),
        (missing, _) => (
            State::Limited,
            format!("no {}: one id in a jail", missing.join(" and ")),
        ),
    };
    Check {
        name: "newuidmap",
        state,
        found,
        advice: "apt-get install uidmap, and a line USER:100000:65536 in /etc/subuid and /etc/subgid",
    }
}

fn pasta() -> Check {
    let (state, found) = match installed("pasta") {
        Some(file) => (State::Good, file.display().to_string()),
        None => (State::Limited, "not installed".into()),
    };
    Check {
        name: "pasta",
        state,
        found,
        advice: "only needed for --network user: apt-get install passt",
    }
}

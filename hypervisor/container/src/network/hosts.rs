//! Names of instances: a file like `/etc/hosts` that every jail of the network sees.
//!
//! It is written anew whenever somebody comes or goes, in place: a jail has this very file, not its name. Lines
//! without an owner behind them stay: an instance that was given names of its own has a file of its own.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::NetworkError;

/// What every file of this kind begins with.
const HEAD: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// A line: address, name, owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) address: Ipv4Addr,
    pub(super) name: String,
    pub(super) owner: String,
}

fn parse(text: &str) -> Vec<Entry> {
    let line = |line: &str| {
        let (line, owner) = line.split_once('#')?;
        let (address, name) = line.trim().split_once('\t')?;
        Some(Entry {
            address: address.parse().ok()?,
            name: name.to_owned(),
            owner: owner.trim().to_owned(),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Changes the list of names, here and in the files of `own`, a folder. Whoever does so holds the bridge's lock.
pub(super) fn change(path: &Path, own: &Path, change: impl FnOnce(&mut Vec<Entry>)) -> Result<(), NetworkError> {
    let mut entries = parse(&read(path)?);
    change(&mut entries);
    write(path, HEAD, &entries)?;
    for file in fs::read_dir(own).map_err(NetworkError::file("read", own))?.flatten() {
        let stays: String = read(&file.path())?
            .split_inclusive('\n')
            .filter(|line| !line.contains('#'))
            .collect();
        write(&file.path(), &stays, &entries)?;
    }
    Ok(())
}

/// Makes a file with names that only one instance has, which the next change completes.
pub(super) fn make_own(path: &Path, added: &[(String, IpAddr)]) -> Result<(), NetworkError> {
    let mut text = HEAD.to_owned();
    for (name, address) in added {
        text += &format!("{address}\t{name}\n");
    }
    write(path, &text, &[])
}

fn read(path: &Path) -> Result<String, NetworkError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(NetworkError::file("read", path)),
    }
}

fn write(path: &Path, head: &str, entries: &[Entry]) -> Result<(), NetworkError> {
    let mut text = head.to_owned();
    for Entry { address, name, owner } in entries {
        text += &format!("{address}\t{name}\t# {owner}\n");
    }
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let mut file = options.open(path).map_err(NetworkError::file("open", path))?;
    // Cut only behind what was written: a reader in between finds whole lines, some of them old.
    let write = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_len(text.len() as u64))
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o644)));
    write.map_err(NetworkError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let entry = |last, name: &str| Entry {
            address: Ipv4Addr::new(10, 1, 2, last),
            name: name.into(),
            owner: format!("{last}"),
        };
        let own = folder.path().join("own");
        fs::create_dir(&own).unwrap();
        make_own(&own.join("x"), &[("db".into(), [10, 0, 0, 1].into())]).unwrap();
        change(&path, &own, |all| all.extend([entry(2, "a"), entry(3, "b")])).unwrap();
        change(&path, &own, |all| all.retain(|entry| entry.owner != "2")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(parse(&text), [entry(3, "b")]);
        let with_own = format!("{HEAD}10.0.0.1\tdb\n10.1.2.3\tb\t# 3\n");
        assert_eq!(fs::read_to_string(own.join("x")).unwrap(), with_own);
        assert!(
            text.starts_with("127.0.0.1\tlocalhost\n") && text.ends_with("10.1.2.3\tb\t# 3\n"),
            "{text}"
        );
    }
}

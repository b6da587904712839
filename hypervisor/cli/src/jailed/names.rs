//! The files by which names are found in a jail: `/etc/hosts` and `/etc/resolv.conf`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chiton_container::instance::Instance;
use chiton_container::jail::Volume;
use chiton_kvm::{Folder, FolderOpenError, Guest};

/// Where a host's resolver keeps the servers that it asks itself, if it is at 127.0.0.53 for others.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// How many servers a resolver asks at most (resolv.conf(5)).
const SERVERS: usize = 3;

/// A name that only one instance knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddedHost(pub(crate) String, pub(crate) IpAddr);

impl FromStr for AddedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no name with an address: write db:10.0.0.5");
        let (name, address) = text.split_once(':').ok_or_else(wrong)?;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(good) {
            return Err(wrong());
        }
        Ok(Self(name.to_owned(), address.parse().map_err(|_| wrong())?))
    }
}

/// Where a guest's folder of these files is in its jail. A guest sees no file that is mounted into another folder.
const FOLDER: &str = "/run/etc";

/// The files, on the host.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The folder that they are in.
    folder: Option<PathBuf>,
    /// The servers in `resolv.conf`.
    pub(super) servers: Vec<IpAddr>,
}

impl Names {
    /// Those of an instance with this hosts file; servers are these, or those of the host that are reached from
    /// elsewhere too.
    pub(super) fn make(instance: &Instance, hosts: &Path, servers: &[IpAddr]) -> io::Result<Self> {
        let mut text = String::new();
        let mut servers = servers.to_vec();
        if servers.is_empty() {
            for path in ["/etc/resolv.conf", RESOLVED] {
                let of_host = fs::read_to_string(path).unwrap_or_default();
                servers = reachable(&of_host);
                if !servers.is_empty() {
                    let other = |line: &&str| line.starts_with("search ") || line.starts_with("options ");
                    text.extend(of_host.lines().filter(other).flat_map(|line| [line, "\n"]));
                    break;
                }
            }
        }
        servers.truncate(SERVERS);
        for server in &servers {
            text += &format!("nameserver {server}\n");
        }
        let folder = instance.dir().join("etc");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("resolv.conf"), text)?;
        // Another name of the same file, which changes as others come and go.
        let own = folder.join("hosts");
        match fs::remove_file(&own) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::hard_link(hosts, own)?,
        }
        Ok(Self {
            folder: Some(folder),
            servers,
        })
    }

    /// Those of the host.
    pub(super) fn of_host() -> Self {
        Self {
            folder: Some("/etc".into()),
            servers: Vec::new(),
        }
    }

    /// As a jail binds them: for a guest in a folder of their own, else where programs look for them.
    pub(super) fn volumes(&self, process: bool) -> Vec<Volume> {
        let Some(folder) = &self.folder else { return Vec::new() };
        let volume = |host: PathBuf, guest: PathBuf| Volume {
            host,
            guest,
            read_only: true,
        };
        if !process {
            return vec![volume(folder.clone(), FOLDER.into())];
        }
        let files = ["hosts", "resolv.conf"].map(|file| volume(folder.join(file), Path::new("/etc").join(file)));
        files.into_iter().filter(|volume| volume.host.is_file()).collect()
    }

    /// Has a guest in the jail see them.
    pub(super) fn show(&self, guest: Guest) -> Result<Guest, FolderOpenError> {
        if self.folder.is_none() {
            return Ok(guest);
        }
        let folder = Folder::open(FOLDER, false)?;
        let hosts = format!("CHITON_HOSTS={}/hosts", folder.name());
        Ok(guest.folder(folder).env(hosts))
    }
}

/// The servers of a `resolv.conf` that another network namespace reaches.
fn reachable(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let address: IpAddr = line.strip_prefix("nameserver")?.trim().parse().ok()?;
        (!address.is_loopback() && address.is_ipv4()).then_some(address)
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_added_with_its_address() {
        let added = |text: &str| text.parse::<AddedHost>();
        assert_eq!(added("db:10.0.0.5"), Ok(AddedHost("db".into(), [10, 0, 0, 5].into())));
        assert_eq!(
            added("db.example:fd00::5").map(|AddedHost(_, address)| address.is_ipv6()),
            Ok(true)
        );
        for text in [
            "",
            "db",
            ":10.0.0.5",
            "db:",
            "db:10.0.0",
            "d b:10.0.0.5",
            "d\n:10.0.0.5",
            "a#b:10.0.0.5",
        ] {
            let said = added(text).unwrap_err();
            assert!(said.contains("is no name with an address"), "{text}: {said}");
        }
    }

    #[test]
    fn servers_of_the_hosts_own_loopback_are_none_for_others() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\nsearch a\nnameserver x\n";
        assert_eq!(reachable(text), [IpAddr::from([10, 0, 0, 1])]);
    }
}

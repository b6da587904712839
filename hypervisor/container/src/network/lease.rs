//! Who has which address: a file an address, named for it, with the owner in it.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::{NetworkError, Subnet, remove};

/// The leases of a range. Whoever changes them holds the bridge's lock.
#[derive(Debug)]
pub(super) struct Leases<'a> {
    folder: &'a Path,
    subnet: Subnet,
}

impl<'a> Leases<'a> {
    pub(super) const fn new(folder: &'a Path, subnet: Subnet) -> Self {
        Self { folder, subnet }
    }

    fn path(&self, address: Ipv4Addr) -> PathBuf {
        self.folder.join(address.to_string())
    }

    /// Who has an address.
    pub(super) fn owner(&self, address: Ipv4Addr) -> Result<Option<String>, NetworkError> {
        let path = self.path(address);
        match fs::read_to_string(&path) {
            Ok(owner) => Ok(Some(owner)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(NetworkError::file("read", &path)(error)),
        }
    }

    /// Gives an address to somebody: this one, or any. The search for a free one goes on behind the one
    /// that was given last, so that an address rests before it is another's.
    pub(super) fn take(&self, owner: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, NetworkError> {
        let subnet = self.subnet;
        if let Some(address) = wanted {
            if !subnet.is_for_instances(address) {
                return Err(NetworkError::Outside { address, subnet });
            }
            if let Some(owner) = self.owner(address)? {
                return Err(NetworkError::Taken { address, owner });
            }
            self.write(address, owner)?;
            return Ok(address);
        }
        let last = self.folder.join("last");
        let start = fs::read_to_string(&last).ok().and_then(|text| text.parse::<u32>().ok());
        let start = start.map_or(0, |last| last.wrapping_add(1));
        for step in 0..subnet.count() {
            let number = (start % subnet.count() + step) % subnet.count();
            let address = subnet.nth(number);
            if !self.path(address).exists() {
                self.write(address, owner)?;
                fs::write(&last, number.to_string()).map_err(NetworkError::file("write", &last))?;
                return Ok(address);
            }
        }
        let count = subnet.count();
        Err(NetworkError::Exhausted { subnet, count })
    }

    fn write(&self, address: Ipv4Addr, owner: &str) -> Result<(), NetworkError> {
        let (path, new) = (self.path(address), self.unfinished());
        let written = fs::File::create(&new).and_then(|mut file| file.write_all(owner.as_bytes()));
        written.map_err(NetworkError::file("write", &new))?;
        fs::rename(&new, &path).map_err(NetworkError::file("rename a file to", &path))
    }

    /// Takes an address back; it may be free already.
    pub(super) fn give_back(&self, address: Ipv4Addr) -> Result<(), NetworkError> {
        remove(&self.path(address))
    }

    /// Removes what somebody left who died while it wrote a lease.
    pub(super) fn forget_unfinished(&self) -> Result<(), NetworkError> {
        remove(&self.unfinished())
    }

    fn unfinished(&self) -> PathBuf {
        self.folder.join("new")
    }

    /// All leases.
    pub(super) fn all(&self) -> Result<Vec<(Ipv4Addr, String)>, NetworkError> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.folder)
            .map_err(NetworkError::file("read", self.folder))?
            .flatten()
        {
            let address = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(address) = address else { continue };
            all.extend(self.owner(address)?.map(|owner| (address, owner)));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_given_once_and_rests_before_it_is_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::new(folder.path(), "10.1.2.0/29".parse().unwrap());
        let given: Vec<_> = (0..5).map(|n| leases.take(&n.to_string(), None).unwrap()).collect();
        assert_eq!(given.iter().map(|a| a.octets()[3]).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        let error = leases.take("x", None).unwrap_err().to_string();
        assert!(error.contains("all 5 addresses of 10.1.2.0/29 are taken"), "{error}");
        leases.give_back(given[1]).unwrap();
        leases.give_back(given[3]).unwrap();
        leases.give_back(given[3]).unwrap();
        assert_eq!(leases.take("x", None).unwrap(), given[1]);
        assert_eq!(leases.take("y", None).unwrap(), given[3]);
        assert_eq!(leases.owner(given[3]).unwrap().as_deref(), Some("y"));
        assert_eq!(leases.all().unwrap().len(), 5);
    }

    #[test]
    fn an_address_may_be_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::new(folder.path(), "10.1.2.0/29".parse().unwrap());
        let address = Ipv4Addr::new(10, 1, 2, 4);
        assert_eq!(leases.take("a", Some(address)).unwrap(), address);
        assert!(matches!(leases.take("b", Some(address)), Err(NetworkError::Taken { owner, .. }) if owner == "a"));
        for last in [0, 1, 7, 8] {
            let outside = leases.take("b", Some(Ipv4Addr::new(10, 1, 2, last)));
            assert!(matches!(outside, Err(NetworkError::Outside { .. })), "{last}");
        }
    }
}

//! A guest of an ordinary user's in the network of another, which has a bridge for it.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::bridge::{BESIDE, furnish_beside, mac_of, short};
use super::{Attached, Namespace, NetworkError, OpenTap, Request, Subnet, Tap, hosts};
use crate::jail::{Error, Keeper, Step};

/// The other, and its network.
#[derive(Debug)]
pub struct Beside<'a> {
    /// The user's namespace that it is in, and the network's.
    pub namespaces: [OwnedFd; 2],
    /// Its name.
    pub name: &'a str,
    /// Its folder, in which those beside it hold their addresses.
    pub folder: &'a Path,
    /// Its address.
    pub address: Ipv4Addr,
    /// The range that this is in.
    pub subnet: Subnet,
}

/// An address in the network of another; nobody else has it as long as this is there.
#[derive(Debug)]
pub struct Place {
    _lock: File,
}

impl Beside<'_> {
    /// Makes a place there for a guest, whose names are kept in `folder`, which is its own; its TAP device is opened by
    /// `open_tap`. The caller has one thread.
    ///
    /// # Errors
    ///
    /// Any [`NetworkError`]. Nothing is left of it then.
    pub fn join(
        self,
        folder: &Path,
        request: &Request<'_>,
        open_tap: OpenTap,
    ) -> Result<(Attached, Place), NetworkError> {
        if !request.ports.is_empty() {
            return Err(NetworkError::PortsBeside(self.name.to_owned()));
        }
        let (address, place) = self.take(request.address)?;
        let tap = format!("{BESIDE}{}", short(request.owner));
        let [users, network] = &self.namespaces;
        let open = Keeper::furnish_in([users, network], || {
            furnish_beside(&tap, request.mtu)?;
            open_tap(&tap)
        });
        let open = open.map_err(|error| match error {
            Error::Step(failure) if failure.step == Step::Network && failure.errno == libc::ENODEV => {
                NetworkError::NoBridgeInside
            }
            error => error.into(),
        })?;
        let path = folder.join("hosts");
        let own = [(request.name, address), (self.name, self.address)];
        let own = own.map(|(name, address)| (name.to_owned(), address.into()));
        hosts::make_own(&path, &[request.hosts, &own].concat())?;
        let attached = Attached {
            namespace: Some(Namespace::of_user(self.namespaces)),
            tap: Some(Tap { name: tap, open }),
            address,
            subnet: self.subnet,
            gateway: self.subnet.gateway(),
            mac: request.mac.unwrap_or_else(|| mac_of(address)),
            hosts: path,
        };
        Ok((attached, place))
    }

    /// Takes an address: this one, or the first that is free. The kernel gives back those of the dead.
    fn take(&self, wanted: Option<Ipv4Addr>) -> Result<(Ipv4Addr, Place), NetworkError> {
        let subnet = self.subnet;
        let Some(address) = wanted else {
            let free = (0..subnet.count()).map(|number| self.try_take(subnet.nth(number)));
            let count = subnet.count();
            return free
                .filter_map(Result::transpose)
                .next()
                .unwrap_or(Err(NetworkError::Exhausted { subnet, count }));
        };
        if !subnet.is_for_instances(address) {
            return Err(NetworkError::Outside { address, subnet });
        }
        let owner = self.name.to_owned();
        self.try_take(address)?.ok_or(NetworkError::Taken { address, owner })
    }

    fn try_take(&self, address: Ipv4Addr) -> Result<Option<(Ipv4Addr, Place)>, NetworkError> {
        if address == self.address {
            return Ok(None);
        }
        let path = self.folder.join(format!("beside-{address}"));
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = file.map_err(NetworkError::file("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some((address, Place { _lock: file }))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(NetworkError::file("lock", &path)(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::until;

    #[test]
    fn no_two_have_an_address_and_one_that_is_given_back_comes_again() {
        let folder = tempfile::tempdir().unwrap();
        let null = || File::open("/dev/null").unwrap().into();
        let subnet: Subnet = "10.1.2.0/29".parse().unwrap();
        let beside = Beside {
            namespaces: [null(), null()],
            name: "web",
            folder: folder.path(),
            address: subnet.nth(0),
            subnet,
        };
        let all: Vec<_> = (1..subnet.count()).map(|_| beside.take(None).unwrap()).collect();
        let addresses: Vec<_> = all.iter().map(|(address, _)| *address).collect();
        assert_eq!(
            addresses,
            (1..subnet.count()).map(|number| subnet.nth(number)).collect::<Vec<_>>()
        );
        assert!(matches!(beside.take(None), Err(NetworkError::Exhausted { .. })));
        for taken in [subnet.nth(0), subnet.nth(1)] {
            assert!(matches!(beside.take(Some(taken)), Err(NetworkError::Taken { .. })));
        }
        let outside = Some("192.0.2.1".parse().unwrap());
        assert!(matches!(beside.take(outside), Err(NetworkError::Outside { .. })));
        drop(all);
        until(|| beside.take(None).is_ok_and(|(address, _)| address == subnet.nth(1)));
    }
}

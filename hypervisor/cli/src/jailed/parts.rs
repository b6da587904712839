//! What instances share: the parent of their cgroups, the bridge, the ranges of ids. And the sweep that
//! takes down what the dead left of each.

use std::error::Error;
use std::path::Path;

use chiton_container::cgroup::{Host, Parent, Place};
use chiton_container::instance::{Home, InstanceError};
use chiton_container::jail::{RangeError, Ranges};
use chiton_container::network::{Bridge, NetworkError, Subnet};
use chiton_kvm::SocketFile;
use serde_json::Value;

use super::options::LimitOptions;
use super::report::SOCKETS;

/// What our cgroups are called, and our bridge, unless CHITON_BRIDGE says otherwise.
const NAME: &str = "chiton";
const BRIDGE: &str = "chiton0";
/// The addresses of the bridge, unless CHITON_SUBNET says otherwise.
const SUBNET: &str = "10.87.0.0/16";

/// The cgroup below which all instances are. CHITON_CGROUP says where it is to be, as `auto`, `own`, or a
/// path from the top.
pub(crate) fn cgroups() -> Result<Parent, Box<dyn Error>> {
    let place = match std::env::var("CHITON_CGROUP") {
        Ok(place) => place.parse()?,
        Err(_) => Place::Auto,
    };
    Ok(Parent::open(&Host::read()?, &place, NAME)?)
}

/// What is to be said where an ordinary user's instance, which has no limits, runs without a cgroup. One with
/// limits is refused.
pub(crate) fn lack_of_cgroups(limits: &LimitOptions) -> Option<String> {
    if rustix::process::geteuid().is_root() || limits.limits() != Default::default() {
        return None;
    }
    let error = cgroups().err()?;
    Some(format!(
        "chiton: without a cgroup, so with no limits and no accounts: {error}"
    ))
}

/// The bridge.
pub(crate) fn bridge(home: &Home) -> Result<Bridge, NetworkError> {
    let name = std::env::var("CHITON_BRIDGE").unwrap_or_else(|_| BRIDGE.into());
    bridge_called(home, &name)
}

/// A bridge of this name.
fn bridge_called(home: &Home, name: &str) -> Result<Bridge, NetworkError> {
    Bridge::open(home.path().join("network").join(name), name, subnet()?)
}

/// The addresses of a network of ours.
pub(crate) fn subnet() -> Result<Subnet, NetworkError> {
    let subnet = std::env::var("CHITON_SUBNET").unwrap_or_else(|_| SUBNET.into());
    subnet.parse()
}

/// The ranges of ids that jails made by root have; CHITON_IDS says which.
pub(crate) fn ranges() -> Result<Ranges, RangeError> {
    let text = std::env::var("CHITON_IDS").ok();
    Ranges::configured(text.as_deref())
}

/// Takes down what dead supervisors left, of at most so many that are looked at. Cgroups and ranges of ids
/// are held by locks of their own, and are swept where they are made.
pub(crate) fn sweep(home: &Home, most: usize) -> Result<usize, Box<dyn Error>> {
    home.sweep(most, |instance| {
        let report = instance.report().unwrap_or_default();
        if let Some(name) = report["network"]["bridge"].as_str() {
            bridge_called(home, name)?.leave(instance.id().as_str())?;
        }
        for path in report[SOCKETS]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            SocketFile::remove_left(Path::new(path))?;
        }
        if report["cgroup"].is_array() {
            cgroups()?.sweep()?;
        }
        Ok::<_, Box<dyn Error>>(())
    })
}

/// Takes down everything that the dead left, whoever they were.
pub(crate) fn sweep_all(home: &Home) -> Result<(), Box<dyn Error>> {
    sweep(home, usize::MAX)?;
    if rustix::process::geteuid().is_root() {
        let lives = |id: &str| home.find(id).is_ok_and(|instance| instance.is_live());
        for entry in std::fs::read_dir(home.path().join("network"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Ok(name) = entry.file_name().into_string() {
                bridge_called(home, &name)?.sweep(lives)?;
            }
        }
    }
    if let Ok(parent) = cgroups() {
        parent.sweep()?;
    }
    home.tidy().map(drop).map_err(|error: InstanceError| error.into())
}

//! Networks of jails: bridges, veth pairs, addresses, published ports.
//!
//! ```text
//!   host                                         network namespace of an instance
//!  ┌──────────────────────────────────────┐     ┌─────────────────────────────────┐
//!  │ nf_tables: NAT out, ports in         │     │  a guest's:                     │
//!  │     │                                │     │    eth0 ── br0 ── tap0 ── guest │
//!  │  chiton0 (bridge, 10.87.0.1/16) ─ vethX ═══ eth0                             │
//!  │     │                                │     │  a process's:                   │
//!  │  other instances                     │     │    eth0 with the address        │
//!  └──────────────────────────────────────┘     └─────────────────────────────────┘
//! ```
//!
//! The namespace is made and furnished before the jail, which only enters it: nobody in the jail has
//! rights over it, and what is needed of it, such as the TAP device, is open by then. It, and all devices in
//! it, are gone with the last process in it, however that ended. What stays on the host is taken down by
//! [`Bridge::leave`], or, for the dead, by [`Bridge::sweep`]: a lease of an address, a line in the hosts
//! file, an nf_tables table of the instance's own.
//!
//! All of it is done by netlink: rtnetlink(7) for devices and addresses, nf_tables for ports.

mod address;
mod beside;
mod bridge;
mod error;
mod hosts;
mod lease;
mod link;
mod namespace;
mod nat;
mod netlink;
mod port;
mod tap;
#[cfg(test)]
mod tests;
mod user;

pub use address::Subnet;
pub use beside::{Beside, Place};
pub use bridge::{Attached, Bridge, Kind, OpenTap, Request, Tap};
pub use error::NetworkError;
pub use namespace::Namespace;
pub(crate) use namespace::{LOW_PORTS, open_low_ports};
pub use port::{Port, Protocol};
pub use user::{Helper, UserNetwork};

/// Whether there is nf_tables, and this process may use it, as a [`Bridge`] does.
///
/// # Errors
///
/// What the kernel says.
pub fn has_nf_tables() -> std::io::Result<()> {
    nat::tables().map(drop)
}

/// Removes a file, which may be gone already.
fn remove(path: &std::path::Path) -> Result<(), NetworkError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(NetworkError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

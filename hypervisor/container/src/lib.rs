//! Jails for processes: what a container is made of, as a library.
//!
//! ```text
//!  image ──layers──▶ jail ──▶ a process that reaches nothing else
//!                     ▲ ▲
//!            cgroup ──┘ └── network
//! ```
//!
//! | module | what it makes |
//! |---|---|
//! | [`jail`] | namespaces, root file system, privileges: the walls round a process |
//! | [`cgroup`] | limits and accounts, on cgroup v2, v1 and hybrid hosts |
//! | [`image`] | a content-addressed store of OCI images |
//! | [`instance`] | what is kept of each jail: its life, its log, its supervisor |
//! | [`network`] | bridges, veth pairs, addresses, published ports |
//!
//! It knows nothing of virtual machines.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod cgroup;
pub mod image;
pub mod instance;
pub mod jail;
mod kernel_log;
mod lock;
pub mod network;

//! The jail round the calls: the walls that `chiton run` builds round a guest, without a record, a supervisor
//! or a control group of its own: it lives as long as the command.

use std::error::Error;
use std::fs;
use std::os::fd::RawFd;

use chiton_container::jail::seccomp::{Filter, vmm};
use chiton_container::jail::{Dev, IdMap, Init, Jail, Proc, Root, Sys};
use chiton_kvm::pool::REQUESTS;

use crate::jailed;

/// Runs this in a jail, in a copy of this process, and tells what it returned.
pub(super) fn run(kvm: RawFd, work: impl FnOnce() -> u8) -> Result<u8, Box<dyn Error>> {
    let home = crate::instance::open()?;
    // As for a guest that is a file: nobody looks into it.
    let below = home.path().join("roots").join("file");
    for place in ["proc", "tmp"] {
        fs::create_dir_all(below.join(place))?;
    }
    let root = Root {
        layers: vec![below],
        read_only: true,
        proc: Proc::Processes,
        sys: Sys::Absent,
        dev: Dev::Absent,
        ..Root::default()
    };
    let lease = rustix::process::geteuid()
        .is_root()
        .then(|| jailed::ranges()?.lease())
        .transpose()?;
    let ids = lease.as_ref().map_or_else(IdMap::rootless, |lease| lease.map());
    chiton_kvm::platform::look_ahead();
    let mut jail = Jail::new(root, ids);
    jail.init = Init::Payload;
    jail.keep = vec![kvm];
    jail.filter = Some(filter());
    let mut jailed = jail.spawn(|| work().into())?;
    Ok(jailed.wait()?.code() as u8)
}

/// The system calls that running a machine takes, and a pool: its requests, and a file that is its memory.
fn filter() -> Filter {
    vmm(REQUESTS).allow_if(
        libc::SYS_memfd_create,
        1,
        &[libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING],
    )
}

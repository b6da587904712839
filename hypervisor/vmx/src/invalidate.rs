//! INVEPT and INVVPID, where the SDM asks for them (volume 3C, section 30.4.3).
//!
//! | where | what | why |
//! |---|---|---|
//! | after VMXON | both, of everything | 30.4.3.3: what an earlier user of VMX left may be remembered still |
//! | a vCPU gets an EPTP whose root page was another's | INVEPT of this EPTP | 30.4.3.4: translations are kept by EPTP, and the page may have been a root before |
//! | an EPT entry loses rights, moves, changes its type or is split | INVEPT of this EPTP | 30.4.3.4; `core::paging` says when, by `Change::settle` |
//! | the guest gives memory back (`memory::take_out`) | INVEPT of this EPTP, once for each range of which something is mapped | 30.4.3.4, as above: entries lose all rights, and large pages are split |
//! | an EPT entry becomes present, or gains rights | nothing | 30.4.3.4: what is not present is not remembered, and a violation makes the processor forget |
//! | a vCPU gets a VPID | INVVPID of this VPID | 30.4.3.3: the VPID may have been another's |
//! | the hypervisor changes the guest's CR0.PG, CR0.WP, CR4.PAE …, CR3 or EFER for it | INVVPID of this VPID | 30.4.3.1: a guest's own write would have done it; nobody else does |
//!
//! Other processors that have run with the same EPTP would have to do the same. Here none has: each processor of a
//! guest has tables of its own.

use chiton_core::vmx::Capabilities;

use crate::{Error, instructions};

/// Of one context: an EPTP, or a VPID.
const SINGLE: u64 = 1;
/// Of all contexts.
const ALL: u64 = 2;

/// Forgets everything that an earlier user of VMX has left.
pub(crate) fn everything(capabilities: &Capabilities) -> Result<(), Error> {
    let can = capabilities.ept_vpid;
    if can.invept() && can.invept_all() {
        invept(ALL, 0)?;
    }
    if can.invvpid() && can.invvpid_all() {
        invvpid(ALL, 0)?;
    }
    Ok(())
}

/// Forgets what is remembered of the tables with this EPTP.
pub(crate) fn ept(capabilities: &Capabilities, eptp: u64) -> Result<(), Error> {
    let can = capabilities.ept_vpid;
    match (can.invept(), can.invept_single(), can.invept_all()) {
        (true, true, _) => invept(SINGLE, eptp),
        (true, false, true) => invept(ALL, 0),
        _ => Ok(()),
    }
}

/// Forgets the linear translations of a VPID. Without one there is nothing to forget: then every
/// entry and exit does it (SDM volume 3C, section 30.4.3.1).
pub(crate) fn vpid(capabilities: &Capabilities, vpid: Option<u16>) -> Result<(), Error> {
    let can = capabilities.ept_vpid;
    match (vpid, can.invvpid_single(), can.invvpid_all()) {
        (None, ..) => Ok(()),
        _ if !can.invvpid() => Ok(()),
        (Some(vpid), true, _) => invvpid(SINGLE, vpid.into()),
        (_, false, true) => invvpid(ALL, 0),
        _ => Ok(()),
    }
}

fn invept(kind: u64, eptp: u64) -> Result<(), Error> {
    // SAFETY: INVEPT (SDM volume 3C, chapter 32) is undefined outside VMX operation, or where the processor has none:
    // it is in VMX operation, and every caller asks its capabilities for the instruction.
    unsafe { instructions::invept(kind, [eptp, 0]) }.map_err(|failed| Error::Instruction {
        instruction: "INVEPT",
        failed,
        number: None,
    })
}

fn invvpid(kind: u64, vpid: u64) -> Result<(), Error> {
    // SAFETY: INVVPID (SDM volume 3C, chapter 32): as for INVEPT.
    unsafe { instructions::invvpid(kind, [vpid, 0]) }.map_err(|failed| Error::Instruction {
        instruction: "INVVPID",
        failed,
        number: None,
    })
}

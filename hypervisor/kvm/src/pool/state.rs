//! The state of a processor as a value: taken when a guest is ready, given to machines that are to be
//! copies of it, and put back after each call.

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_xsave};
use kvm_ioctls::SyncReg;

use crate::Error;
use crate::clock;
use crate::vcpu::KvmVcpu;

/// The time-stamp counter's register (SDM volume 4).
const IA32_TIME_STAMP_COUNTER: u32 = 0x10;

/// A processor of ring 3 that waits for a call. What ring 3 cannot change is what it is in a new vCPU, and
/// not kept here.
pub(super) struct State {
    /// At the exit. KVM may have left the `out` for the next entry to finish; then RIP is still at it.
    at_exit: kvm_regs,
    /// With the `out` finished.
    finished: kvm_regs,
    system: kvm_sregs,
    /// The floating-point unit, SSE and AVX.
    extended: kvm_xsave,
    /// The time-stamp counter, at this time of [`clock::now`].
    ticks: u64,
    taken: u64,
    tsc_khz: u64,
}

impl State {
    /// Takes the state of a vCPU that has just rung.
    pub(super) fn take(vcpu: &mut KvmVcpu) -> Result<Self, Error> {
        let get_regs = |vcpu: &KvmVcpu| vcpu.fd().get_regs().map_err(Error::kvm("KVM_GET_REGS"));
        let at_exit = get_regs(vcpu)?;
        vcpu.finish_exit()?;
        let fd = vcpu.fd();
        let mut ticks = Msrs::from_entries(&[kvm_msr_entry {
            index: IA32_TIME_STAMP_COUNTER,
            ..kvm_msr_entry::default()
        }])
        .map_err(|_| Error::KvmCapability("room for a register"))?;
        fd.get_msrs(&mut ticks).map_err(Error::kvm("KVM_GET_MSRS"))?;
        let taken = clock::now();
        Ok(Self {
            at_exit,
            finished: get_regs(vcpu)?,
            system: vcpu.fd().get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?,
            extended: vcpu.fd().get_xsave().map_err(Error::kvm("KVM_GET_XSAVE"))?,
            ticks: ticks.as_slice()[0].data,
            taken,
            tsc_khz: vcpu.fd().get_tsc_khz().map_err(Error::kvm("KVM_GET_TSC_KHZ"))?.into(),
        })
    }

    /// Makes a new vCPU one in this state, with the time that it is now.
    pub(super) fn give_to(&self, vcpu: &mut KvmVcpu) -> Result<(), Error> {
        let since = u128::from(clock::now().saturating_sub(self.taken));
        let passed = since * u128::from(self.tsc_khz) / 1_000_000;
        let ticks = Msrs::from_entries(&[kvm_msr_entry {
            index: IA32_TIME_STAMP_COUNTER,
            data: self.ticks.wrapping_add(passed as u64),
            ..kvm_msr_entry::default()
        }])
        .map_err(|_| Error::KvmCapability("room for a register"))?;
        vcpu.fd().set_msrs(&ticks).map_err(Error::kvm("KVM_SET_MSRS"))?;
        self.set(vcpu, self.finished)
    }

    /// Puts the state back into a vCPU that was in it, and has rung since.
    pub(super) fn put_back(&self, vcpu: &mut KvmVcpu) -> Result<(), Error> {
        // An `out` that is still to be finished advances RIP at the next entry, if RIP is at it. So RIP
        // has to be there if it was the `out` at which the state was taken, and an other one has to be
        // finished first.
        if vcpu.exit_rip() == self.at_exit.rip {
            return self.set(vcpu, self.at_exit);
        }
        vcpu.finish_exit()?;
        self.set(vcpu, self.finished)
    }

    fn set(&self, vcpu: &mut KvmVcpu, regs: kvm_regs) -> Result<(), Error> {
        let shared = vcpu.shared_registers();
        shared.regs = regs;
        shared.sregs = self.system;
        vcpu.share(SyncReg::Register);
        vcpu.share(SyncReg::SystemRegister);
        // SAFETY: the structure is the one that KVM gave, with the size that `kvm_xsave` has: no guest has
        // the features (AMX) with which it would be larger.
        unsafe { vcpu.fd().set_xsave(&self.extended) }.map_err(Error::kvm("KVM_SET_XSAVE"))
    }
}

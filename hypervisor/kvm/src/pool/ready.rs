//! The processor of a guest that is ready: given to machines that are to be copies of it, and put back after
//! each call.

use chiton_shared::boot::Generation;

use crate::Error;
use crate::clock;
use crate::host::random::random;
use crate::instance::wall_clock_ns;
use crate::state::VcpuState;
use crate::vcpu::KvmVcpu;

/// A processor that waits for a call.
pub(super) struct Ready {
    /// With the `out` finished.
    state: VcpuState,
    /// RIP as of the exit: still at the `out`, if KVM leaves that for the next entry to finish.
    rip_at_exit: u64,
    /// When it was taken, by [`clock::now`], and the wall-clock time then, in nanoseconds since 1970.
    taken: u64,
    wall_clock_ns: u64,
    tsc_khz: u64,
}

impl Ready {
    /// Takes the state of a vCPU that has just rung.
    pub(super) fn take(vcpu: &mut KvmVcpu) -> Result<Self, Error> {
        let rip_at_exit = vcpu.fd().get_regs().map_err(Error::kvm("KVM_GET_REGS"))?.rip;
        vcpu.finish_exit()?;
        Ok(Self {
            state: VcpuState::of(vcpu)?,
            rip_at_exit,
            taken: clock::now(),
            wall_clock_ns: wall_clock_ns(),
            tsc_khz: vcpu.fd().get_tsc_khz().map_err(Error::kvm("KVM_GET_TSC_KHZ"))?.into(),
        })
    }

    /// Makes a new vCPU one in this state, with the time that it is now.
    pub(super) fn give_to(&self, vcpu: &mut KvmVcpu) -> Result<(), Error> {
        let since = u128::from(clock::now().saturating_sub(self.taken));
        let passed = since * u128::from(self.tsc_khz) / 1_000_000;
        let tsc = self.state.tsc().wrapping_add(passed as u64);
        self.state.clone().with_tsc(tsc).put(vcpu)
    }

    /// What is different for a machine that is put back or copied, of this number: its counter goes on.
    pub(super) fn generation(&self, count: u32) -> Result<Generation, Error> {
        let mut fresh = [0; 48];
        random(&mut fresh).map_err(Error::system("getrandom"))?;
        let (id, seed) = fresh.split_at(16);
        let mut generation = Generation {
            count,
            wall_clock_ns: self.wall_clock_ns,
            at: self.state.tsc(),
            ..Generation::default()
        };
        generation.id.copy_from_slice(id);
        generation.seed.copy_from_slice(seed);
        Ok(generation)
    }

    /// Puts the state back into a vCPU of ring 3 that was in it, and has rung since.
    pub(super) fn put_back(&self, vcpu: &mut KvmVcpu) -> Result<(), Error> {
        // An `out` that is still to be finished advances RIP at the next entry, if RIP is at it. So RIP
        // has to be there if it was the `out` at which the state was taken, and another one has to be
        // finished first.
        if vcpu.exit_rip() == self.rip_at_exit {
            return self.state.put_back_ring_3(vcpu, self.rip_at_exit);
        }
        vcpu.finish_exit()?;
        self.state.put_back_ring_3(vcpu, self.state.rip())
    }
}

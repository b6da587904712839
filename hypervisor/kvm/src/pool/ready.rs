//! The processor of a guest that is ready: given to machines that are to be copies of it, and put back after
//! each call.

use chiton_shared::boot::Generation;

use crate::Error;
use crate::clock;
use crate::host::random::random;
use crate::instance::wall_clock_ns;
use crate::state::VcpuState;
use crate::state::vcpu::counter;
use crate::vcpu::KvmVcpu;

/// One moment by two clocks.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// The counter that a vCPU's guest reads.
    counter: u64,
    /// [`clock::now`].
    clock: u64,
}

impl Moment {
    /// How often it is tried to read both with nothing between.
    const TRIES: usize = 8;
    /// This near to each other they are read at the same time, in nanoseconds.
    const NEAR: u64 = 20_000;

    /// Of the vCPU, which does not run. A thread may lose the processor between one clock and the other, so what
    /// counts is the try that took the least.
    fn now(vcpu: &KvmVcpu) -> Result<Self, Error> {
        let read = || -> Result<_, Error> {
            let before = clock::now();
            let counter = counter(vcpu.fd())?;
            let took = clock::now().saturating_sub(before);
            let clock = before + took / 2;
            Ok((took, Self { counter, clock }))
        };
        let (mut least, mut best) = read()?;
        for _ in 1..Self::TRIES {
            if least < Self::NEAR {
                break;
            }
            let (took, moment) = read()?;
            if took < least {
                (least, best) = (took, moment);
            }
        }
        Ok(best)
    }
}

/// A processor that waits for a call.
pub(super) struct Ready {
    /// With the `out` finished.
    state: VcpuState,
    /// RIP as of the exit: still at the `out`, if KVM leaves that for the next entry to finish.
    rip_at_exit: u64,
    /// When it was taken, and the wall-clock time then, in nanoseconds since 1970.
    taken: Moment,
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
            taken: Moment::now(vcpu)?,
            wall_clock_ns: wall_clock_ns(),
            tsc_khz: vcpu.fd().get_tsc_khz().map_err(Error::kvm("KVM_GET_TSC_KHZ"))?.into(),
        })
    }

    /// Makes a new vCPU one in this state, with the time that it is now.
    pub(super) fn give_to(&self, vcpu: &mut KvmVcpu) -> Result<(), Error> {
        self.state.clone().with_tsc(self.tsc_at(clock::now())).put(vcpu)
    }

    /// What the guest's time-stamp counter would be at this time, by [`clock::now`].
    fn tsc_at(&self, clock: u64) -> u64 {
        let since = u128::from(clock.saturating_sub(self.taken.clock));
        let passed = since * u128::from(self.tsc_khz) / 1_000_000;
        self.taken.counter.wrapping_add(passed as u64)
    }

    /// What added to the counter of a copy makes it go on. Where the host's own counter is not the same on all
    /// processors, KVM begins that of a vCPU anew that comes to another one before it has run.
    pub(super) fn ticks(&self, vcpu: &KvmVcpu) -> Result<u64, Error> {
        let now = Moment::now(vcpu)?;
        Ok(self.tsc_at(now.clock).wrapping_sub(now.counter))
    }

    /// What is different for a machine that is put back or copied, of this number, with its own [`ticks`](Self::ticks).
    pub(super) fn generation(&self, count: u32, ticks: u64) -> Result<Generation, Error> {
        let mut fresh = [0; 48];
        random(&mut fresh).map_err(Error::system("getrandom"))?;
        let (id, seed) = fresh.split_at(16);
        let mut generation = Generation {
            count,
            ticks,
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

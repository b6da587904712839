//! Everything that KVM knows of a vCPU.

use std::arch::x86_64::_rdtsc;

use chiton_core::state::{Reader, StateError, Writer};
use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcr,
    kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{SyncReg, VcpuFd};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Error;
use crate::platform::KvmKind;
use crate::vcpu::KvmVcpu;

/// IA32_TIME_STAMP_COUNTER.
const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE, which is put back when the counter and the local APIC are.
const TSC_DEADLINE: u32 = 0x6e0;

/// The registers of a guest's processor that are in no other structure of KVM (SDM volume 4, table 2-2, and AMD's manual,
/// volume 2, appendix A). Code in ring 3 can change none of them. FS and GS have their bases among the segments.
const MSRS: [u32; 13] = [
    0x174,       // IA32_SYSENTER_CS
    0x175,       // IA32_SYSENTER_ESP
    0x176,       // IA32_SYSENTER_EIP
    0x1a0,       // IA32_MISC_ENABLE
    0x1d9,       // IA32_DEBUGCTL
    0x277,       // IA32_PAT
    0x2ff,       // IA32_MTRR_DEF_TYPE
    0xc000_0081, // IA32_STAR
    0xc000_0082, // IA32_LSTAR
    0xc000_0083, // IA32_CSTAR
    0xc000_0084, // IA32_FMASK
    0xc000_0102, // IA32_KERNEL_GS_BASE
    TSC_DEADLINE,
];

/// A vCPU's state, taken between two instructions of the guest.
#[derive(Clone, Debug)]
pub struct VcpuState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<[u32; 1024]>,
    xcr0: u64,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    mp: kvm_mp_state,
    msrs: Vec<(u32, u64)>,
    /// The time-stamp counter, as the guest reads it.
    tsc: u64,
    /// Only with interrupts.
    lapic: Option<Box<kvm_lapic_state>>,
}

impl VcpuState {
    /// Takes the state of a vCPU, of which no exit may be unfinished: `KVM_RUN` has returned for a signal.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`].
    pub fn of(vcpu: &KvmVcpu) -> Result<Self, Error> {
        let fd = vcpu.fd();
        let mut events = fd.get_vcpu_events().map_err(Error::kvm("KVM_GET_VCPU_EVENTS"))?;
        // Said by default to be valid, and to be set only where there is one.
        events.flags &= !kvm_bindings::KVM_VCPUEVENT_VALID_SIPI_VECTOR;
        let lapic = vcpu.has_apic().then(|| fd.get_lapic().map(Box::new)).transpose();
        Ok(Self {
            regs: fd.get_regs().map_err(Error::kvm("KVM_GET_REGS"))?,
            sregs: fd.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?,
            xsave: Box::new(fd.get_xsave().map_err(Error::kvm("KVM_GET_XSAVE"))?.region),
            xcr0: fd.get_xcrs().map_err(Error::kvm("KVM_GET_XCRS"))?.xcrs[0].value,
            debug: fd.get_debug_regs().map_err(Error::kvm("KVM_GET_DEBUGREGS"))?,
            events,
            mp: fd.get_mp_state().map_err(Error::kvm("KVM_GET_MP_STATE"))?,
            msrs: msrs(fd)?,
            tsc: counter(fd)?,
            lapic: lapic.map_err(Error::kvm("KVM_GET_LAPIC"))?,
        })
    }

    /// Gives a vCPU this state. It has the same CPUID table, and a local APIC if that one had.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`], if the state is none that this KVM can have.
    pub fn put(&self, vcpu: &mut KvmVcpu) -> Result<(), Error> {
        let fd = vcpu.fd();
        let mut xcrs = kvm_xcrs {
            nr_xcrs: 1,
            ..kvm_xcrs::default()
        };
        xcrs.xcrs[0] = kvm_xcr {
            value: self.xcr0,
            ..kvm_xcr::default()
        };
        fd.set_xcrs(&xcrs).map_err(Error::kvm("KVM_SET_XCRS"))?;
        self.put_xsave(fd)?;
        fd.set_debug_regs(&self.debug)
            .map_err(Error::kvm("KVM_SET_DEBUGREGS"))?;
        let wanted = self.msrs.iter().map(|(index, data)| (*index, *data));
        if let Some(lapic) = &self.lapic {
            // The registers of the local APIC are in the form of its mode, which is among the system registers.
            fd.set_sregs(&self.sregs).map_err(Error::kvm("KVM_SET_SREGS"))?;
            fd.set_lapic(lapic).map_err(Error::kvm("KVM_SET_LAPIC"))?;
            fd.set_mp_state(self.mp).map_err(Error::kvm("KVM_SET_MP_STATE"))?;
            set_msrs(fd, self.counter().into_iter().chain(wanted))?;
        } else {
            set_msrs(
                fd,
                self.counter()
                    .into_iter()
                    .chain(wanted.filter(|(index, _)| *index != TSC_DEADLINE)),
            )?;
        }
        let shared = vcpu.shared_registers();
        (shared.regs, shared.sregs, shared.events) = (self.regs, self.sregs, self.events);
        for set in [SyncReg::Register, SyncReg::SystemRegister, SyncReg::VcpuEvents] {
            vcpu.share(set);
        }
        Ok(())
    }

    /// Gives a vCPU back what code in ring 3 can change, and what its exits and exceptions do. It had this state before,
    /// and nothing else has changed it since. RIP is to be this.
    pub(crate) fn put_back_ring_3(&self, vcpu: &mut KvmVcpu, rip: u64) -> Result<(), Error> {
        let shared = vcpu.shared_registers();
        (shared.regs, shared.sregs, shared.events) = (self.regs, self.sregs, self.events);
        shared.regs.rip = rip;
        for set in [SyncReg::Register, SyncReg::SystemRegister, SyncReg::VcpuEvents] {
            vcpu.share(set);
        }
        self.put_xsave(vcpu.fd())
    }

    /// Of the same vCPU later, when its counter is this.
    pub(crate) const fn with_tsc(mut self, tsc: u64) -> Self {
        self.tsc = tsc;
        self
    }

    /// RIP.
    pub(crate) const fn rip(&self) -> u64 {
        self.regs.rip
    }

    fn put_xsave(&self, fd: &VcpuFd) -> Result<(), Error> {
        let xsave = kvm_xsave {
            region: *self.xsave,
            ..kvm_xsave::default()
        };
        // SAFETY: the guest's CPUID table has none of the features that are switched on dynamically, so that the kernel
        // reads no more than the structure has.
        unsafe { fd.set_xsave(&xsave) }.map_err(Error::kvm("KVM_SET_XSAVE"))
    }

    /// The counter, where it can be set: a software KVM lets the guest read that of the host.
    fn counter(&self) -> Option<(u32, u64)> {
        KvmKind::detect().runs_ring_0().then_some((TSC, self.tsc))
    }

    /// The time-stamp counter, as the guest read it.
    #[must_use]
    pub const fn tsc(&self) -> u64 {
        self.tsc
    }

    /// Whether it has a local APIC.
    #[must_use]
    pub const fn has_apic(&self) -> bool {
        self.lapic.is_some()
    }

    /// Writes it down.
    pub fn save(&self, state: &mut Writer) {
        state.raw(self.regs.as_bytes());
        state.raw(self.sregs.as_bytes());
        state.raw(self.xsave.as_bytes());
        state.u64(self.xcr0);
        state.raw(self.debug.as_bytes());
        state.raw(self.events.as_bytes());
        state.raw(self.mp.as_bytes());
        state.u64(self.tsc);
        state.u32(self.msrs.len() as u32);
        for (index, data) in &self.msrs {
            state.u32(*index);
            state.u64(*data);
        }
        state.flag(self.lapic.is_some());
        if let Some(lapic) = &self.lapic {
            state.raw(lapic.as_bytes());
        }
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// [`StateError`]. Whether KVM can have such a state is seen by who [puts](Self::put) it.
    pub fn load(state: &mut Reader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            regs: plain(state)?,
            sregs: plain(state)?,
            xsave: Box::new(plain(state)?),
            xcr0: state.u64()?,
            debug: plain(state)?,
            events: plain(state)?,
            mp: plain(state)?,
            tsc: state.u64()?,
            msrs: load_msrs(state)?,
            lapic: if state.flag()? {
                Some(Box::new(plain(state)?))
            } else {
                None
            },
        })
    }
}

/// A structure of KVM that is nothing but integers.
fn plain<T: FromBytes + IntoBytes + Immutable>(state: &mut Reader<'_>) -> Result<T, StateError> {
    let bytes = state.raw(size_of::<T>())?;
    T::read_from_bytes(bytes).map_err(|_| StateError::Short(size_of::<T>()))
}

fn load_msrs(state: &mut Reader<'_>) -> Result<Vec<(u32, u64)>, StateError> {
    let count = state.u32()?;
    if count as usize > MSRS.len() {
        return Err(StateError::value("how many registers there are", count));
    }
    let mut msrs = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (index, data) = (state.u32()?, state.u64()?);
        if !MSRS.contains(&index) {
            return Err(StateError::value("a register's number", index));
        }
        msrs.push((index, data));
    }
    Ok(msrs)
}

/// The time-stamp counter that this guest reads now.
///
/// # Errors
///
/// [`Error::Kvm`].
pub(crate) fn counter(fd: &VcpuFd) -> Result<u64, Error> {
    if !KvmKind::detect().runs_ring_0() {
        // SAFETY: every x86-64 processor has the instruction.
        return Ok(unsafe { _rdtsc() });
    }
    let values = read_msrs(fd, &[TSC])?;
    let value = values.first().map(|(_, data)| *data);
    value.ok_or_else(|| Error::kvm("KVM_GET_MSRS")(kvm_ioctls::Error::new(libc::EIO)))
}

/// Those of the list that there are.
fn msrs(fd: &VcpuFd) -> Result<Vec<(u32, u64)>, Error> {
    let mut all = Vec::with_capacity(MSRS.len());
    let mut rest = &MSRS[..];
    while !rest.is_empty() {
        let some = read_msrs(fd, rest)?;
        // KVM stops at one that the processor does not have.
        rest = rest.get(some.len() + 1..).unwrap_or_default();
        all.extend(some);
    }
    Ok(all)
}

/// The values of these registers, up to the first that there is not.
fn read_msrs(fd: &VcpuFd, indices: &[u32]) -> Result<Vec<(u32, u64)>, Error> {
    let entries: Vec<_> = indices.iter().map(|index| entry(*index, 0)).collect();
    let mut msrs = Msrs::from_entries(&entries).map_err(|_| Error::KvmCapability("room for registers"))?;
    let count = fd.get_msrs(&mut msrs).map_err(Error::kvm("KVM_GET_MSRS"))?;
    Ok(msrs
        .as_slice()
        .iter()
        .take(count)
        .map(|entry| (entry.index, entry.data))
        .collect())
}

fn set_msrs(fd: &VcpuFd, msrs: impl Iterator<Item = (u32, u64)>) -> Result<(), Error> {
    let entries: Vec<_> = msrs.map(|(index, data)| entry(index, data)).collect();
    let msrs = Msrs::from_entries(&entries).map_err(|_| Error::KvmCapability("room for registers"))?;
    let set = fd.set_msrs(&msrs).map_err(Error::kvm("KVM_SET_MSRS"))?;
    match entries.get(set) {
        None => Ok(()),
        Some(refused) => Err(Error::Register(refused.index)),
    }
}

fn entry(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    }
}

//! Turning VMX on, on this processor (SDM volume 3C, sections 25.6 to 25.8, and volume 3D, appendix A):
//!
//! ```text
//!   CPUID: is there VMX? ─▶ IA32_FEATURE_CONTROL: may it be used? ─▶ capability MSRs: is it enough?
//!     ─▶ CR0, CR4: the bits that VMX wants ─▶ VMXON ─▶ INVEPT, INVVPID: nothing is left of before
//! ```

use alloc::rc::Rc;
use core::arch::x86_64::__cpuid_count;
use core::cell::Cell;

use chiton_core::control;
use chiton_core::cpuid::GuestCpuid;
use chiton_core::local_apic::LocalApic;
use chiton_core::paging::Mtrrs;
use chiton_core::physical::{Pages, Physical};
use chiton_core::vmx::capability::{Capabilities, FeatureControl, Processor as Features};
use chiton_core::vmx::controls::{pin, primary, secondary};
use x86_64::registers::control::{Cr0, Cr4, Cr4Flags};

use crate::{Error, instructions, invalidate, msr};

/// Leaf 1 ECX: VMX.
const CPUID_VMX: u32 = 1 << 5;

/// The vector of an interrupt that the local APIC takes back.
const SPURIOUS: u8 = 0xff;

/// VMX, turned on, on the processor that called [`enable`](Self::enable).
///
/// It is not `Send`, and neither are the vCPUs made from it: a VMCS is active on one processor.
#[derive(Clone)]
pub struct Vmx {
    pub(crate) processor: Rc<Processor>,
}

/// What belongs to one processor in VMX operation.
pub(crate) struct Processor {
    pub(crate) physical: &'static dyn Physical,
    pub(crate) capabilities: Capabilities,
    /// How the machine's memory is cached.
    pub(crate) mtrrs: Mtrrs,
    /// What a guest's `cpuid` answers.
    pub(crate) cpuid: GuestCpuid,
    /// The machine's own interrupts.
    pub(crate) apic: LocalApic,
    /// The VMXON region, which is the processor's own until VMXOFF.
    _region: Pages,
    /// Address of the VMCS that is current; 0 when none is.
    pub(crate) current: Cell<u64>,
    /// The VPID of the next vCPU. 0 is the hypervisor's.
    next_vpid: Cell<u16>,
}

impl Vmx {
    /// Turns VMX on, on the processor that runs this.
    ///
    /// # Errors
    ///
    /// [`Error`] when the processor has not what it takes, or the firmware forbids it.
    pub fn enable(physical: &'static dyn Physical) -> Result<Self, Error> {
        if __cpuid_count(1, 0).ecx & CPUID_VMX == 0 {
            return Err(Error::NoVmx);
        }
        allow_by_feature_control()?;
        // SAFETY: RDMSR (SDM volume 2B) raises #GP where there is no such register: the processor has VMX, hence
        // IA32_VMX_BASIC (volume 3D, appendix A), and of the others those are read that it announces.
        let read = |register: u32| unsafe { msr::read(register) };
        let features = Features::from_cpuid(|leaf, subleaf| {
            let r = __cpuid_count(leaf, subleaf);
            [r.eax, r.ebx, r.ecx, r.edx]
        });
        let capabilities = Capabilities::read(&read, features);
        require(&capabilities)?;
        let cpuid = GuestCpuid::of(__cpuid_count);
        prepare_control_registers(&capabilities, cpuid.avx());
        let region = Pages::one(physical, "the VMXON region")?;
        region.write_u32(0, capabilities.basic.revision());
        // SAFETY: VMXON faults unless CR0, CR4 and IA32_FEATURE_CONTROL are as the SDM wants them (volume 3C, sections
        // 25.7 and 25.8), which was seen to above. The processor has the region until VMXOFF (section 26.11): it is a
        // page of its own with the revision in it, kept below.
        unsafe { instructions::vmxon(region.address()) }.map_err(|failed| Error::Instruction {
            instruction: "VMXON",
            failed,
            number: None,
        })?;
        invalidate::everything(&capabilities)?;
        let processor = Processor {
            physical,
            mtrrs: Mtrrs::read(capabilities.processor.physical_bits.into(), read),
            capabilities,
            cpuid,
            apic: LocalApic::switch_on(physical, SPURIOUS),
            _region: region,
            current: Cell::new(0),
            next_vpid: Cell::new(1),
        };
        Ok(Self {
            processor: Rc::new(processor),
        })
    }

    /// What this processor's VMX can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.processor.capabilities
    }
}

impl Processor {
    /// A VPID that no other vCPU of this processor has; `None` when they are used up, which is no
    /// trouble: the processor then forgets linear translations at each entry and exit.
    pub(crate) fn vpid(&self) -> Option<u16> {
        let vpid = self.next_vpid.get();
        self.next_vpid.set(vpid.checked_add(1)?);
        Some(vpid)
    }
}

impl Drop for Processor {
    /// Leaves VMX operation, so that the region can be used for something else. Every vCPU has
    /// cleared its VMCS by then: it holds a reference to this.
    fn drop(&mut self) {
        // SAFETY: VMXOFF (SDM volume 3C, chapter 32) is undefined outside VMX operation, and may spoil a VMCS that is
        // active (section 26.11): VMXON has succeeded, and none is active any more. CR4.VMXE can be cleared only behind
        // it (section 25.7); where it fails, the processor is left as it was, and there is nobody to tell.
        unsafe {
            if instructions::vmxoff().is_ok() {
                Cr4::write_raw(Cr4::read_raw() & !Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS.bits());
            }
        }
    }
}

/// Sees to it that VMXON is allowed outside SMX operation. A firmware that has not settled the
/// matter leaves the register unlocked; then it is settled here, since VMXON wants it locked.
fn allow_by_feature_control() -> Result<(), Error> {
    const LOCKED: u64 = 1 << 0;
    const OUTSIDE_SMX: u64 = 1 << 2;
    // SAFETY: RDMSR (SDM volume 2B) raises #GP where there is no such register; a processor with VMX has this one
    // (volume 3C, section 25.7).
    let control = FeatureControl(unsafe { msr::read(msr::FEATURE_CONTROL) });
    if !control.locked() {
        // SAFETY: WRMSR of it raises #GP once it is locked (SDM volume 3C, section 25.7). It is unlocked, so it takes
        // the bits; what they allow is what is wanted.
        unsafe { msr::write(msr::FEATURE_CONTROL, control.0 | OUTSIDE_SMX | LOCKED) };
    } else if !control.vmx_outside_smx() {
        return Err(Error::LockedOff(control.0));
    }
    Ok(())
}

/// What no guest here can do without. The rest is asked for when the controls are chosen.
fn require(capabilities: &Capabilities) -> Result<(), Error> {
    let has = |allowed: u64, bit: u64| allowed & bit != 0;
    if !has(capabilities.primary.may, primary::ACTIVATE_SECONDARY_CONTROLS)
        || !has(capabilities.secondary.may, secondary::ENABLE_EPT)
    {
        return Err(Error::NoEpt);
    }
    if !has(capabilities.secondary.may, secondary::UNRESTRICTED_GUEST) {
        return Err(Error::NoUnrestrictedGuest);
    }
    if !has(capabilities.pin.may, pin::ACTIVATE_VMX_PREEMPTION_TIMER) {
        return Err(Error::NoPreemptionTimer);
    }
    Ok(())
}

/// Sets the bits that VMX operation wants in CR0 and CR4 (SDM volume 3D, sections A.7 and A.8), and
/// those by which the guest's floating-point state can be kept; switches caches on.
fn prepare_control_registers(capabilities: &Capabilities, xsave: bool) {
    let mut wanted = Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
    wanted.set(Cr4Flags::OSXSAVE, xsave);
    let fixed = |value: u64, fixed0, fixed1| (value | fixed0) & fixed1;
    let cr0 = fixed(
        control::hypervisors_cr0(Cr0::read_raw()),
        capabilities.cr0_fixed0,
        capabilities.cr0_fixed1,
    );
    let cr4 = fixed(
        Cr4::read_raw() | wanted.bits(),
        capabilities.cr4_fixed0,
        capabilities.cr4_fixed1,
    );
    // SAFETY: MOV to control registers (SDM volume 2B) raises #GP for a bit that the processor has not: only those are
    // set that it allows (volume 3D, sections A.7 and A.8). Paging, protection and the mode stay as they are; NE, VMXE,
    // caches and the floating-point bits change nothing for code that uses no floating point. XSETBV (volume 2D) wants
    // OSXSAVE, which is then set.
    unsafe {
        Cr0::write_raw(cr0);
        Cr4::write_raw(cr4);
        if xsave {
            chiton_core::fpu::open_all();
        }
    }
}

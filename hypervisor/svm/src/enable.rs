//! Turning SVM on, on this processor (APM volume 2, sections 15.4 and 15.30):
//!
//! ```text
//!   CPUID: is there SVM? ─▶ VM_CR: may it be used? ─▶ CPUID: is it enough?
//!     ─▶ EFER.SVME ─▶ VM_HSAVE_PA: a page for the host's state ─▶ IDT, timer: time slices
//! ```

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::arch::x86_64::__cpuid_count;
use core::cell::RefCell;

use chiton_core::control;
use chiton_core::cpuid::GuestCpuid;
use chiton_core::paging::{Npt, Pat};
use chiton_core::physical::{Pages, Physical};
use chiton_core::svm::check;
use chiton_core::svm::features::{EFER, EFER_SVME, Features, VM_CR, VM_CR_LOCK, VM_CR_SVMDIS, VM_HSAVE_PA};
use x86_64::registers::control::{Cr0, Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

use crate::Error;
use crate::interrupts::Idt;
use crate::timer::Timer;

/// Leaf 0x8000_0001 ECX: SVM.
const CPUID_SVM: u32 = 1 << 2;
/// Leaf 0x8000_0001 EDX: 1 GiB pages.
const CPUID_HUGE_PAGES: u32 = 1 << 26;
/// The page attribute table (APM volume 2, section 7.8).
const PAT: u32 = 0x277;

/// SVM, turned on, on the processor that called [`enable`](Self::enable).
///
/// It is not `Send`, and neither are the vCPUs made from it: what a processor keeps of a VMCB is
/// its own.
#[derive(Clone)]
pub struct Svm {
    pub(crate) processor: Rc<Processor>,
}

/// What belongs to one processor on which SVM is on.
pub(crate) struct Processor {
    pub(crate) physical: &'static dyn Physical,
    pub(crate) features: Features,
    /// The format of nested tables.
    pub(crate) npt: Npt,
    /// What VMRUN's rules depend on.
    pub(crate) rules: check::Processor,
    /// What a guest's `cpuid` answers.
    pub(crate) cpuid: GuestCpuid,
    pub(crate) timer: Timer,
    _idt: Idt,
    /// Where VMRUN keeps the host's state.
    _host_save_area: Pages,
    /// ASIDs that no vCPU has.
    asids: RefCell<Vec<u32>>,
}

impl Svm {
    /// Turns SVM on, on the processor that runs this.
    ///
    /// # Errors
    ///
    /// [`Error`] when the processor has not what it takes, or the firmware forbids it.
    pub fn enable(physical: &'static dyn Physical) -> Result<Self, Error> {
        if __cpuid_count(0x8000_0000, 0).eax < Features::LEAF || __cpuid_count(0x8000_0001, 0).ecx & CPUID_SVM == 0 {
            return Err(Error::NoSvm);
        }
        allow_by_vm_cr()?;
        let leaf = __cpuid_count(Features::LEAF, 0);
        let features = Features::of([leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
        if !features.has(Features::NESTED_PAGING) {
            return Err(Error::NoNestedPaging);
        }
        if features.asids < 2 {
            return Err(Error::NoAsid(features.asids));
        }
        let npt = nested_format()?;
        let cpuid = GuestCpuid::of(__cpuid_count);
        prepare_control_registers(cpuid.avx());
        let host_save_area = Pages::one(physical, "the host save area")?;
        // SAFETY: WRMSR (APM volume 3) raises #GP for EFER.SVME while VM_CR.SVMDIS is set (volume 2, section 15.30.1),
        // and the firmware allows SVM. VMRUN writes to the page in VM_HSAVE_PA (section 15.30.4), which is kept below.
        unsafe {
            Msr::new(EFER).write(Msr::new(EFER).read() | EFER_SVME);
            Msr::new(VM_HSAVE_PA).write(host_save_area.address());
        }
        let idt = Idt::take_over(physical)?;
        let timer = Timer::new(physical)?;
        let processor = Processor {
            physical,
            features,
            npt,
            rules: check::Processor::of(__cpuid_count, features),
            cpuid,
            timer,
            _idt: idt,
            _host_save_area: host_save_area,
            // No more than a byte of them: nobody runs so many guests on one processor.
            asids: RefCell::new((1..features.asids.min(256)).rev().collect()),
        };
        Ok(Self {
            processor: Rc::new(processor),
        })
    }
}

impl Processor {
    /// An ASID that no other vCPU of this processor has.
    pub(crate) fn take_asid(&self) -> Result<u32, Error> {
        let asid = self.asids.borrow_mut().pop();
        asid.ok_or(Error::NoAsid(self.features.asids))
    }

    /// Gives it back.
    pub(crate) fn return_asid(&self, asid: u32) {
        self.asids.borrow_mut().push(asid);
    }
}

impl Drop for Processor {
    /// Turns SVM off, so that the host save area can be used for something else. No vCPU is left by
    /// then: each holds a reference to this.
    fn drop(&mut self) {
        // SAFETY: without EFER.SVME the instructions of SVM are undefined (APM volume 2, section 15.4); nothing here
        // needs them any more. GIF is set.
        unsafe {
            Msr::new(VM_HSAVE_PA).write(0);
            Msr::new(EFER).write(Msr::new(EFER).read() & !EFER_SVME);
        }
    }
}

/// Sees to it that EFER.SVME can be set.
fn allow_by_vm_cr() -> Result<(), Error> {
    // SAFETY: RDMSR (APM volume 3) raises #GP where there is no such register; a processor with SVM has this one
    // (volume 2, section 15.30.1).
    let control = unsafe { Msr::new(VM_CR).read() };
    if control & VM_CR_SVMDIS == 0 {
        return Ok(());
    }
    if control & VM_CR_LOCK != 0 {
        return Err(Error::LockedOff(control));
    }
    // SAFETY: VM_CR is not locked, so SVMDIS can be cleared (APM volume 2, section 15.30.1); that is all that changes.
    unsafe { Msr::new(VM_CR).write(control & !VM_CR_SVMDIS) };
    Ok(())
}

fn nested_format() -> Result<Npt, Error> {
    let huge = __cpuid_count(0x8000_0001, 0).edx & CPUID_HUGE_PAGES != 0;
    let bits = __cpuid_count(0x8000_0008, 0).eax & 0xff;
    // SAFETY: RDMSR (APM volume 3) raises #GP where there is no such register; every processor in 64-bit mode has this
    // one (volume 2, section 7.8).
    let value = unsafe { Msr::new(PAT).read() };
    let pat = Pat::new(value).ok_or(Error::Pat(value))?;
    Ok(Npt::new(huge, bits, pat))
}

/// Sets the bits of CR0 and CR4 by which the guest's floating-point state can be kept.
fn prepare_control_registers(xsave: bool) {
    let mut wanted = Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
    wanted.set(Cr4Flags::OSXSAVE, xsave);
    // SAFETY: a bit of CR4 that the processor has not, or XSETBV without OSXSAVE, faults (APM volume 3, MOV CRn; volume
    // 4, XSETBV): with AVX the processor has XSAVE, and the states that are opened. These bits, and those of CR0, change
    // nothing for code that uses no floating point.
    unsafe {
        Cr0::write_raw(control::hypervisors_cr0(Cr0::read_raw()));
        Cr4::write_raw(Cr4::read_raw() | wanted.bits());
        if xsave {
            chiton_core::fpu::open_all();
        }
    }
}

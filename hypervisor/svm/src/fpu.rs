//! The guest's x87, SSE and AVX registers, which an exit leaves as they are.
//!
//! The hypervisor is compiled without floating point, but two guests may share a processor, so each
//! has an area of its own (SDM volume 1, section 13.4). Around the guest:
//!
//! ```text
//!   XRSTOR area ─▶ XCR0 = the guest's ─▶ guest runs ─▶ XCR0 = all ─▶ XSAVE area
//! ```
//!
//! A processor without XSAVE has FXSAVE, which does the same for x87 and SSE.

use core::arch::asm;

use chiton_core::cpuid::XCR0;
use chiton_core::physical::Physical;

use crate::Error;
use crate::page::Pages;

/// Offset of MXCSR in the area (SDM volume 1, table 10-2).
const MXCSR: usize = 24;
/// MXCSR after a reset: every exception masked.
const MXCSR_AT_RESET: u32 = 0x1f80;
/// The x87 control word after a reset, as FXRSTOR takes it.
const FCW_AT_INIT: u32 = 0x37f;

/// The state of one guest.
pub(crate) struct Fpu {
    area: Pages,
    xsave: bool,
    /// The states that the guest has switched on; only with XSAVE.
    pub(crate) xcr0: u64,
}

impl Fpu {
    /// The state after a reset; `xsave` says whether the processor has XSAVE and AVX.
    pub(crate) fn new(physical: &'static dyn Physical, xsave: bool) -> Result<Self, Error> {
        let area = Pages::one(physical, "the guest's floating-point registers")?;
        // With XSAVE the header behind says that no state is saved, which stands for the initial
        // one; MXCSR is taken from here even so.
        // SAFETY: both lie in the page, which is this value's own.
        unsafe {
            area.at::<u32>(0).write(FCW_AT_INIT);
            area.at::<u32>(MXCSR).write(MXCSR_AT_RESET);
        }
        // KVM gives a guest all states from the start; so its own code need not ask for them.
        Ok(Self {
            area,
            xsave,
            xcr0: XCR0,
        })
    }

    /// Puts the guest's state into the registers.
    pub(crate) fn load(&self) {
        let area = self.area.pointer();
        if self.xsave {
            // SAFETY: the area is an aligned page with a valid image; no code of this program uses
            // these registers; XCR0 takes the guest's value, which was checked when it was set.
            unsafe {
                asm!("xrstor64 [{}]", in(reg) area, in("eax") XCR0 as u32, in("edx") 0, options(nostack));
                set_xcr0(XCR0, self.xcr0);
            }
        } else {
            // SAFETY: as above.
            unsafe { asm!("fxrstor64 [{}]", in(reg) area, options(nostack)) }
        }
    }

    /// Takes the guest's state out of the registers.
    pub(crate) fn save(&mut self) {
        let area = self.area.pointer();
        if self.xsave {
            // SAFETY: the area is an aligned page of this value's own, larger than what the states
            // in XCR0 take (832 bytes).
            unsafe {
                set_xcr0(self.xcr0, XCR0);
                asm!("xsave64 [{}]", in(reg) area, in("eax") XCR0 as u32, in("edx") 0, options(nostack));
            }
        } else {
            // SAFETY: as above.
            unsafe { asm!("fxsave64 [{}]", in(reg) area, options(nostack)) }
        }
    }
}

/// Makes every state that a guest may have the hypervisor's to save and restore.
///
/// # Safety
///
/// CR4.OSXSAVE is set, and the processor has the states.
pub(crate) unsafe fn open_all() {
    // SAFETY: the caller's promise; 0 is a value that XCR0 never has, since x87 cannot be off.
    unsafe { set_xcr0(0, XCR0) }
}

/// XSETBV, which is dear, only where it changes something.
///
/// # Safety
///
/// CR4.OSXSAVE is set, and the processor has the states.
unsafe fn set_xcr0(from: u64, to: u64) {
    if from != to {
        // SAFETY: the caller's promise.
        unsafe {
            asm!("xsetbv", in("ecx") 0, in("eax") to as u32, in("edx") (to >> 32) as u32, options(nomem, nostack));
        }
    }
}

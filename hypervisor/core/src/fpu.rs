//! The guest's x87, SSE and AVX registers on bare metal, which an exit leaves as they are, of VMX as of SVM.
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

use crate::cpuid::XCR0;
use crate::physical::{NoPage, Pages, Physical};

/// Offset of MXCSR in the area (SDM volume 1, table 10-2).
const MXCSR: usize = 24;
/// MXCSR after a reset: every exception masked.
const MXCSR_AT_RESET: u32 = 0x1f80;
/// The x87 control word after a reset, as FXRSTOR takes it.
const FCW_AT_INIT: u32 = 0x37f;

/// The state of one guest.
pub struct Fpu {
    area: Pages,
    xsave: bool,
    /// What is XCR0 while the guest runs.
    xcr0: u64,
}

impl Fpu {
    /// The state after a reset; `xsave` says whether the processor has XSAVE and AVX.
    ///
    /// # Errors
    ///
    /// [`NoPage`].
    pub fn new(physical: &'static dyn Physical, xsave: bool) -> Result<Self, NoPage> {
        let area = Pages::one(physical, "the guest's floating-point registers")?;
        // With XSAVE the header behind says that no state is saved, which stands for the initial
        // one; MXCSR is taken from here even so.
        area.write_u32(0, FCW_AT_INIT);
        area.write_u32(MXCSR, MXCSR_AT_RESET);
        // KVM gives a guest all states from the start; so its own code need not ask for them.
        Ok(Self {
            area,
            xsave,
            xcr0: XCR0,
        })
    }

    /// The states that the guest has switched on; of a meaning only with XSAVE.
    #[must_use]
    pub const fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// Switches states on and off, as XSETBV of the guest asks for: whether that is a value of XCR0.
    /// x87 is on always, AVX with SSE only, and there is nothing that the guest's CPUID does not have.
    #[must_use]
    pub fn set_xcr0(&mut self, value: u64) -> bool {
        let good = is_xcr0(value);
        if good {
            self.xcr0 = value;
        }
        good
    }

    /// Puts the guest's state into the registers.
    ///
    /// # Safety
    ///
    /// This is ring 0, and no code of this program uses these registers. With XSAVE, [`open_all`] came before.
    pub unsafe fn load(&self) {
        let area = self.area.pointer();
        if self.xsave {
            // SAFETY: the area is an aligned page with a valid image; XCR0 takes the guest's value, which
            // was checked when it was set; the rest is the caller's promise.
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
    ///
    /// # Safety
    ///
    /// As for [`load`](Self::load), and that came before.
    pub unsafe fn save(&mut self) {
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

const fn is_xcr0(value: u64) -> bool {
    matches!(value & 0b111, 0b001 | 0b011 | 0b111) && value & !XCR0 == 0
}

/// Makes every state that a guest may have the hypervisor's to save and restore.
///
/// # Safety
///
/// CR4.OSXSAVE is set, and the processor has the states.
pub unsafe fn open_all() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xcr0_takes_states_that_go_together() {
        for value in [1, 3, 7] {
            assert!(is_xcr0(value), "{value}");
        }
        for value in [0, 2, 4, 5, 6, 0xf, 0x8000_0000_0000_0001] {
            assert!(!is_xcr0(value), "{value:#x}");
        }
    }
}

//! Instructions of any ring.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc};

use crate::{Clock, Done, Meter};

/// Nothing: what the two readings of the counter cost.
///
/// # Errors
///
/// None: it is the result of a case.
pub fn null<C: Clock>(meter: &mut Meter<'_>) -> Done {
    meter.each::<C>(|| {
        // SAFETY: nothing.
        unsafe { asm!("", options(nostack)) };
    })
}

/// `cpuid`, of the leaf that says least.
///
/// # Errors
///
/// None: it is the result of a case.
pub fn cpuid<C: Clock>(meter: &mut Meter<'_>) -> Done {
    meter.each::<C>(|| {
        core::hint::black_box(__cpuid(0));
    })
}

/// `rdtsc`.
///
/// # Errors
///
/// None: it is the result of a case.
pub fn rdtsc<C: Clock>(meter: &mut Meter<'_>) -> Done {
    meter.each::<C>(|| {
        // SAFETY: nothing forbids it to rings 0 and 3.
        core::hint::black_box(unsafe { _rdtsc() });
    })
}

/// `rdtscp`.
///
/// # Errors
///
/// Where the processor has none.
pub fn rdtscp<C: Clock>(meter: &mut Meter<'_>) -> Done {
    if __cpuid(0x8000_0000).eax < 0x8000_0001 || __cpuid(0x8000_0001).edx >> 27 & 1 == 0 {
        return Err("this processor's CPUID has no RDTSCP");
    }
    meter.each::<C>(|| {
        // SAFETY: CPUID has it.
        unsafe { asm!("rdtscp", out("eax") _, out("edx") _, out("ecx") _, options(nomem, nostack)) };
    })
}

/// `rdrand`, 64 bits.
///
/// # Errors
///
/// Where the processor has none.
pub fn rdrand<C: Clock>(meter: &mut Meter<'_>) -> Done {
    if __cpuid(1).ecx >> 30 & 1 == 0 {
        return Err("this processor's CPUID has no RDRAND");
    }
    meter.each::<C>(|| {
        // SAFETY: CPUID has it.
        unsafe { asm!("rdrand {}", out(reg) _, options(nomem, nostack)) };
    })
}

/// `xgetbv` of XCR0.
///
/// # Errors
///
/// Where the operating system has not switched XSAVE on.
pub fn xgetbv<C: Clock>(meter: &mut Meter<'_>) -> Done {
    if __cpuid_count(1, 0).ecx >> 27 & 1 == 0 {
        return Err("CR4.OSXSAVE is not set here, so XGETBV is an undefined instruction");
    }
    meter.each::<C>(|| {
        // SAFETY: CPUID says that it is switched on.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") _, out("edx") _, options(nomem, nostack)) };
    })
}

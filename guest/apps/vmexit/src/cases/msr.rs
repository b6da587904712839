//! Model-specific registers.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};

use vmexit_cases::{Clock, Done, Meter};

use super::privileged::is_amd;
use super::{Case, try_once};

// Numbers of the SDM volume 4, and of the APM volume 2, appendix A.
const TSC_ADJUST: u32 = 0x3b;
const SPEC_CTRL: u32 = 0x48;
const PRED_CMD: u32 = 0x49;
const TSX_CTRL: u32 = 0x122;
const EFER: u32 = 0xc000_0080;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
/// A register that nobody has: the least of those that KVM keeps for itself, and has no use for.
const UNKNOWN: u32 = 0x4b56_4dff;

pub fn all<C: Clock>() -> [Case; 8] {
    [
        Case::ring0("wr_kernel_gs_base", |m, _| write::<C>(m, KERNEL_GS_BASE, 0)),
        Case::ring0("wr_tsx_ctrl_msr", |m, _| {
            // IA32_ARCH_CAPABILITIES has the word on it; where that is missing, so is this.
            if __cpuid_count(7, 0).edx >> 29 & 1 == 0 {
                return Err("this processor's CPUID has no IA32_ARCH_CAPABILITIES, so no IA32_TSX_CTRL");
            }
            write::<C>(m, TSX_CTRL, 0)
        }),
        Case::ring0("wr_ibrs_msr", |m, _| {
            if !has_speculation_control() {
                return Err("this processor's CPUID has no IBRS");
            }
            write::<C>(m, SPEC_CTRL, 1)?;
            // Or whatever is measured later is slower for it.
            wrmsr(SPEC_CTRL, 0);
            Ok(())
        }),
        Case::ring0("wr_ibpb_msr", |m, _| {
            if !has_barrier() {
                return Err("this processor's CPUID has no IBPB");
            }
            write::<C>(m, PRED_CMD, 1)
        }),
        Case::ring0("wr_tsc_adjust_msr", |m, _| {
            tsc_adjust()?;
            write::<C>(m, TSC_ADJUST, 0)
        }),
        Case::ring0("rd_tsc_adjust_msr", |m, _| {
            tsc_adjust()?;
            read::<C>(m, TSC_ADJUST)
        }),
        Case::ring0("rd_efer", |m, _| read::<C>(m, EFER)),
        Case::ring0("rd_unknown_msr", |m, _| {
            // Each time an exception, which is a part of what it costs.
            m.each::<C>(|| {
                let _ = crate::ring0::catch(|| rdmsr(UNKNOWN));
            })
        }),
    ]
}

fn tsc_adjust() -> Done {
    if __cpuid_count(7, 0).ebx >> 1 & 1 == 0 {
        return Err("this processor's CPUID has no IA32_TSC_ADJUST");
    }
    Ok(())
}

fn has_speculation_control() -> bool {
    if is_amd() {
        __cpuid(0x8000_0008).ebx >> 14 & 1 != 0
    } else {
        __cpuid_count(7, 0).edx >> 26 & 1 != 0
    }
}

fn has_barrier() -> bool {
    if is_amd() {
        __cpuid(0x8000_0008).ebx >> 12 & 1 != 0
    } else {
        __cpuid_count(7, 0).edx >> 26 & 1 != 0
    }
}

fn write<C: Clock>(meter: &mut Meter<'_>, register: u32, value: u64) -> Done {
    try_once("WRMSR", || wrmsr(register, value))?;
    meter.each::<C>(|| wrmsr(register, value))
}

fn read<C: Clock>(meter: &mut Meter<'_>, register: u32) -> Done {
    try_once("RDMSR", || rdmsr(register))?;
    meter.each::<C>(|| rdmsr(register))
}

/// Writes a register.
#[inline(always)]
pub fn wrmsr(register: u32, value: u64) {
    // SAFETY: the registers and values that cases write change nothing that the guest depends on.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack))
    };
}

/// Reads a register.
#[inline(always)]
pub fn rdmsr(register: u32) {
    core::hint::black_box(value_of(register));
}

/// Reads a register.
#[inline(always)]
pub fn value_of(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading has no effect.
    unsafe { asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

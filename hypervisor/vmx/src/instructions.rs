//! The VMX instructions (SDM volume 3C, chapter 32), each a function, and how they say that they
//! failed.
//!
//! None of them needs anything but privilege, so the `unsafe` of a caller is about what the
//! instruction does to the processor, and not about memory of this program.

use core::arch::asm;
use core::fmt;

/// How a VMX instruction fails (SDM volume 3C, section 32.2): by a flag, and where there is a
/// current VMCS, by a number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// VMfailInvalid, CF set: there is no current VMCS that could take a number.
    Invalid,
    /// VMfailValid, ZF set: the number is in the field "VM-instruction error".
    Valid,
}

impl Failed {
    /// From the two flags as they are behind the instruction.
    const fn from_flags(carry: u8, zero: u8) -> Result<(), Self> {
        match (carry, zero) {
            (0, 0) => Ok(()),
            (0, _) => Err(Self::Valid),
            _ => Err(Self::Invalid),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "VMfailInvalid",
            Self::Valid => "VMfailValid",
        })
    }
}

/// Declares an instruction whose operand is a 64-bit physical address in memory.
macro_rules! on_region {
    ($(#[$doc:meta])* $name:ident, $mnemonic:literal) => {
        $(#[$doc])*
        pub(crate) unsafe fn $name(region: u64) -> Result<(), Failed> {
            let (carry, zero): (u8, u8);
            // SAFETY: the operand is a local variable that the instruction reads (SDM volume 3C, chapter
            // 32); what becomes of the region is the caller's promise.
            unsafe {
                asm!(
                    concat!($mnemonic, " [{region}]"), "setc {carry}", "setz {zero}",
                    region = in(reg) &raw const region,
                    carry = lateout(reg_byte) carry,
                    zero = lateout(reg_byte) zero,
                    options(nostack),
                );
            }
            Failed::from_flags(carry, zero)
        }
    };
}

on_region! {
    /// VMXON: from here on this processor is in VMX root operation, and the region is its own.
    ///
    /// # Safety
    ///
    /// The region is a page that nobody else uses until VMXOFF (SDM volume 3C, section 26.11); CR0, CR4
    /// and IA32_FEATURE_CONTROL are as sections 25.7 and 25.8 want them, or the instruction faults.
    vmxon, "vmxon"
}
on_region! {
    /// VMCLEAR: what the processor keeps of this VMCS goes to memory, and its launch state is
    /// "clear".
    ///
    /// # Safety
    ///
    /// The processor is in VMX operation: anywhere else the instruction is undefined (SDM volume 3C,
    /// chapter 32, VMCLEAR). The region is the page of a VMCS, to which it writes.
    vmclear, "vmclear"
}
on_region! {
    /// VMPTRLD: this VMCS is the current one from here on.
    ///
    /// # Safety
    ///
    /// As for VMCLEAR; the region is not active on another processor (SDM volume 3C, section 26.11).
    vmptrld, "vmptrld"
}

/// VMXOFF: the processor leaves VMX operation.
///
/// # Safety
///
/// The processor is in VMX operation: anywhere else the instruction is undefined (SDM volume 3C, chapter
/// 32, VMXOFF). No VMCS is active on it whose data are still needed: they may be spoilt (section 26.11).
pub(crate) unsafe fn vmxoff() -> Result<(), Failed> {
    let (carry, zero): (u8, u8);
    // SAFETY: VMXOFF (SDM volume 3C, chapter 32) has no operand and touches no memory of this program; the caller has
    // promised the rest.
    unsafe {
        asm!("vmxoff", "setc {}", "setz {}", lateout(reg_byte) carry, lateout(reg_byte) zero, options(nomem, nostack));
    }
    Failed::from_flags(carry, zero)
}

/// VMREAD of the current VMCS.
///
/// # Safety
///
/// The processor is in VMX operation: anywhere else the instruction is undefined (SDM volume 3C, chapter 32,
/// VMREAD).
pub(crate) unsafe fn vmread(encoding: u32) -> Result<u64, Failed> {
    let (value, carry, zero): (u64, u8, u8);
    // SAFETY: VMREAD (SDM volume 3C, chapter 32) writes a register and flags here; the caller has promised VMX
    // operation.
    unsafe {
        asm!(
            "vmread {value}, {encoding}", "setc {carry}", "setz {zero}",
            encoding = in(reg) u64::from(encoding),
            value = lateout(reg) value,
            carry = lateout(reg_byte) carry,
            zero = lateout(reg_byte) zero,
            options(nomem, nostack),
        );
    }
    Failed::from_flags(carry, zero).map(|()| value)
}

/// VMWRITE to the current VMCS.
///
/// # Safety
///
/// The processor is in VMX operation: anywhere else the instruction is undefined (SDM volume 3C, chapter 32,
/// VMWRITE). What the field makes the processor do at the next entry or exit is the caller's: a host-state
/// field decides where this program goes on (section 26.5).
pub(crate) unsafe fn vmwrite(encoding: u32, value: u64) -> Result<(), Failed> {
    let (carry, zero): (u8, u8);
    // SAFETY: VMWRITE (SDM volume 3C, chapter 32) reads registers here; the caller has promised the rest.
    unsafe {
        asm!(
            "vmwrite {encoding}, {value}", "setc {carry}", "setz {zero}",
            encoding = in(reg) u64::from(encoding),
            value = in(reg) value,
            carry = lateout(reg_byte) carry,
            zero = lateout(reg_byte) zero,
            options(nomem, nostack),
        );
    }
    Failed::from_flags(carry, zero)
}

/// Declares an instruction that forgets translations: a type in a register, and a descriptor.
macro_rules! invalidation {
    ($(#[$doc:meta])* $name:ident, $mnemonic:literal) => {
        $(#[$doc])*
        pub(crate) unsafe fn $name(kind: u64, descriptor: [u64; 2]) -> Result<(), Failed> {
            let (carry, zero): (u8, u8);
            // SAFETY: the operand is a local variable that the instruction reads (SDM volume 3C, chapter
            // 32). Forgetting a translation changes nothing but the time of the next access.
            unsafe {
                asm!(
                    concat!($mnemonic, " {kind}, [{descriptor}]"), "setc {carry}", "setz {zero}",
                    kind = in(reg) kind,
                    descriptor = in(reg) &raw const descriptor,
                    carry = lateout(reg_byte) carry,
                    zero = lateout(reg_byte) zero,
                    options(nostack),
                );
            }
            Failed::from_flags(carry, zero)
        }
    };
}

invalidation! {
    /// INVEPT: forgets guest-physical and combined translations.
    ///
    /// # Safety
    ///
    /// The processor is in VMX operation and has the instruction: anywhere else it is undefined (SDM
    /// volume 3C, chapter 32, INVEPT).
    invept, "invept"
}
invalidation! {
    /// INVVPID: forgets linear and combined translations.
    ///
    /// # Safety
    ///
    /// As for INVEPT (SDM volume 3C, chapter 32, INVVPID).
    invvpid, "invvpid"
}

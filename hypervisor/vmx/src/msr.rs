//! Model-specific registers of this processor (SDM volume 4), as far as VMX needs them.

use x86_64::registers::model_specific::Msr;

/// Who may use VMX, and whether that is settled (SDM volume 3C, section 25.7).
pub(crate) const FEATURE_CONTROL: u32 = 0x3a;
/// The memory types that PAT entries of a page table name (SDM volume 3A, section 13.12.2).
pub(crate) const PAT: u32 = 0x277;
/// Long mode, no-execute, `syscall`.
pub(crate) const EFER: u32 = 0xc000_0080;
/// The base of FS.
pub(crate) const FS_BASE: u32 = 0xc000_0100;
/// The base of GS.
pub(crate) const GS_BASE: u32 = 0xc000_0101;
/// Where `sysenter` goes.
pub(crate) const SYSENTER_CS: u32 = 0x174;
/// The stack that `sysenter` takes.
pub(crate) const SYSENTER_ESP: u32 = 0x175;
/// Where `sysenter` goes on.
pub(crate) const SYSENTER_EIP: u32 = 0x176;

/// Reads a register.
///
/// # Safety
///
/// The processor has it: RDMSR of a register that it has not raises #GP (SDM volume 2B, RDMSR).
pub(crate) unsafe fn read(register: u32) -> u64 {
    // SAFETY: RDMSR (SDM volume 2B) wants ring 0, which this is, and touches no memory; reading has no side effect in
    // the registers above; that it exists is the caller's promise.
    unsafe { Msr::new(register).read() }
}

/// Writes a register.
///
/// # Safety
///
/// The processor has it and takes the value, or WRMSR raises #GP (SDM volume 2D, WRMSR); and what it then does
/// differently is wanted.
pub(crate) unsafe fn write(register: u32, value: u64) {
    // SAFETY: WRMSR (SDM volume 2D) wants ring 0, which this is; the rest is the caller's promise.
    unsafe { Msr::new(register).write(value) }
}

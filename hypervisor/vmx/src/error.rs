//! Why VMX cannot be used, or a guest cannot be run on it.

use alloc::string::String;

use chiton_core::paging::{self, EptError};
use chiton_core::physical::NoPage;
use chiton_core::vmx::NoSuchField;
use chiton_core::vmx::controls::Refused;
use thiserror::Error;

use crate::instructions::Failed;

/// Why VMX cannot be used, or a guest cannot be run on it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// CPUID says that there is no VMX.
    #[error(
        "this processor has no VMX (CPUID leaf 1, ECX bit 5): take one of Intel's with VT-x, or a model of the emulator that has it"
    )]
    NoVmx,
    /// The firmware has decided against VMX, and locked that.
    #[error(
        "the firmware has locked VMX off (IA32_FEATURE_CONTROL is {0:#x}): switch Intel virtualisation (VT-x) on in its setup, and the machine off and on again"
    )]
    LockedOff(u64),
    /// The processor cannot translate guest-physical addresses, or not as is needed here.
    #[error(
        "this processor has no EPT, by which guest memory is kept apart: take one from 2010 or later (Westmere), or a model of the emulator that has it"
    )]
    NoEpt,
    /// It has EPT, but not as is needed here.
    #[error("this processor's EPT is not enough: {0}")]
    Ept(#[from] EptError),
    /// Real mode and unpaged protected mode of a guest would have to be emulated.
    #[error(
        "this processor has no unrestricted guest: take one from 2010 or later (Westmere), or a model of the emulator that has it"
    )]
    NoUnrestrictedGuest,
    /// A guest could not be interrupted.
    #[error(
        "this processor has no VMX-preemption timer, by which a guest is interrupted: take one from 2010 or later (Westmere), or a model of the emulator that has it"
    )]
    NoPreemptionTimer,
    /// A control that no guest can be run without, or that no guest can be run with.
    #[error("{0}: take a newer processor, or another model of the emulator")]
    Control(#[from] Refused),
    /// Guest memory could not be mapped.
    #[error("guest memory cannot be mapped: {0}")]
    Paging(#[from] paging::Error),
    /// The machine's memory is used up.
    #[error(transparent)]
    NoMemory(#[from] NoPage),
    /// A VMX instruction failed.
    #[error("{instruction} failed with {failed}{}: this is an error of the hypervisor", Number(*.number))]
    Instruction {
        /// Its mnemonic.
        instruction: &'static str,
        /// By which flag.
        failed: Failed,
        /// The VM-instruction error, where there is one (SDM volume 3C, section 32.4).
        number: Option<u32>,
    },
    /// A field that was believed to be there.
    #[error("{0}: this is an error of the hypervisor, which has to ask the capability MSRs first")]
    Field(#[from] NoSuchField),
    /// What is to be broken is no case of the checker's.
    #[error(
        "the checker has no case {0:?} by which a VMCS could be broken: the last column of the table in docs/src/entry-checker.md has them"
    )]
    NoCase(String),
}

/// A VM-instruction error by its number.
struct Number(Option<u32>);

impl core::fmt::Display for Number {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.map_or(Ok(()), |number| write!(f, ", error {number}"))
    }
}

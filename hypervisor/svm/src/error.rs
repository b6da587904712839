//! Why SVM cannot be used, or a guest cannot be run on it.

use alloc::string::String;

use chiton_core::paging;
use chiton_core::physical::NoPage;
use thiserror::Error;

/// Why SVM cannot be used, or a guest cannot be run on it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// CPUID says that there is no SVM.
    #[error(
        "this processor has no SVM (CPUID leaf 0x80000001, ECX bit 2): take one of AMD's with AMD-V, or a model of the emulator that has it"
    )]
    NoSvm,
    /// The firmware has decided against SVM, and locked that.
    #[error(
        "the firmware has locked SVM off (VM_CR is {0:#x}): switch virtualisation (SVM, AMD-V) on in its setup, and the machine off and on again"
    )]
    LockedOff(u64),
    /// The processor cannot translate guest-physical addresses.
    #[error(
        "this processor has no nested paging, by which guest memory is kept apart: take one from 2007 or later (Barcelona), or a model of the emulator that has it"
    )]
    NoNestedPaging,
    /// It has no tag for the guest's translations.
    #[error(
        "this processor's SVM has {0} ASIDs, and a guest needs one beside the host's: take another model of the emulator"
    )]
    NoAsid(u32),
    /// The host's own PAT has no type for guest memory.
    #[error("this machine's PAT ({0:#x}) is none that guest memory can be mapped with: it is the firmware's to set")]
    Pat(u64),
    /// Guest memory could not be mapped.
    #[error("guest memory cannot be mapped: {0}")]
    Paging(#[from] paging::Error),
    /// The machine's memory is used up.
    #[error(transparent)]
    NoMemory(#[from] NoPage),
    /// The local APIC's timer stands still.
    #[error(
        "the timer of the local APIC does not count, by which a guest is interrupted: the firmware has switched the APIC off"
    )]
    NoTimer,
    /// What is to be broken is no case of the checker's.
    #[error("the checker has no case {0:?} by which a VMCB could be broken: they are such as \"CR0: bit 32 set\"")]
    NoCase(String),
}

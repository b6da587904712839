//! VMX or SVM: what the rest of the image needs of either.

mod svm;
mod vmx;

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::arch::x86_64::__cpuid;
use core::fmt;

use chiton_bare::command::Show;
use chiton_core::apic::GuestApic;
use chiton_core::explain::Location;
use chiton_core::loader::Symbols;
use chiton_core::physical::{GuestRam, Physical};
use chiton_core::space::GivenBack;
use chiton_core::vcpu::Vcpu;

/// A processor that is ready to run guests.
pub(super) trait Backend {
    /// Its virtual processors.
    type Vcpu: Report;

    /// What it is called.
    const NAME: &'static str;

    /// A virtual processor with this memory, for a guest with these functions; with a local APIC, if
    /// it has interrupts, and with what it gives back, if it has a balloon.
    ///
    /// # Errors
    ///
    /// In words.
    fn vcpu(
        &self,
        memory: GuestRam,
        show: &Show,
        symbols: Symbols<'static>,
        apic: Option<GuestApic>,
        given_back: Option<(Arc<GivenBack>, u32)>,
    ) -> Result<Self::Vcpu, Refused>;

    /// What was wanted of the processor, what it allows, and what was chosen, for people.
    fn controls(&self, vcpu: &Self::Vcpu) -> String;

    /// Runs an example of what the processor can, by its name, in this memory; returns whether it went
    /// as the processor's manual says.
    ///
    /// # Errors
    ///
    /// In words: when there is none of this name, or it fails.
    fn example(&self, name: &str, memory: GuestRam) -> Result<bool, Refused>;
}

/// A virtual processor that can be asked about what it did.
pub(super) trait Report: Vcpu<Error: fmt::Display> {
    /// Its own count of exits, those too that the run loop has never seen.
    fn counts(&self) -> String;

    /// Why it could not go on, if so.
    fn why(&self) -> String;

    /// Before how many entries all rules were checked, and held, for people; `None` where none was to be.
    fn checked(&self) -> Option<String>;

    /// What its control structure holds, for people.
    fn control_structure(&mut self) -> String;

    /// How it comes to a guest-virtual address, load by load, for people.
    fn walk(&mut self, address: u64) -> String;
}

/// An address of the guest, and the function that it is in.
fn place<'a>(symbols: &Symbols<'a>, rip: u64) -> impl fmt::Display + use<'a> {
    let location = Location::new(symbols, rip);
    fmt::from_fn(move |f| {
        write!(f, "{rip:#x}")?;
        match location.symbol {
            Some(_) => write!(f, " {location}"),
            None => Ok(()),
        }
    })
}

/// Why a backend does not run guests, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(String);

impl Refused {
    fn new(why: &impl ToString) -> Self {
        Self(why.to_string())
    }
}

/// Whoever goes on with a backend, whichever it is.
pub(super) trait With {
    /// What it comes to.
    type Output;

    /// Goes on.
    fn with<B: Backend>(self, backend: &B) -> Self::Output;
}

/// Turns on what this processor has, and goes on with it.
///
/// # Errors
///
/// If it has neither, or what it has is not enough.
pub(super) fn with<W: With>(physical: &'static dyn Physical, then: W) -> Result<W::Output, Refused> {
    /// The maker that has SVM, as CPUID leaf 0 spells it in EBX, EDX, ECX.
    const AMD: [&[u8; 4]; 3] = [b"Auth", b"enti", b"cAMD"];
    let leaf = __cpuid(0);
    let maker = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    if maker.iter().eq(AMD) {
        let svm = chiton_svm::Svm::enable(physical).map_err(|error| Refused::new(&error))?;
        return Ok(then.with(&svm));
    }
    let vmx = chiton_vmx::Vmx::enable(physical).map_err(|error| Refused::new(&error))?;
    Ok(then.with(&vmx))
}

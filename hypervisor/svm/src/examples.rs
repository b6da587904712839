//! What a backend does for a guest, each shown by a small example with a guest of its own; the same as on
//! VMX ([`chiton_core::examples`]).

use core::fmt::Write;

use chiton_core::apic::GuestApic;
use chiton_core::examples::{self, Verdict};
use chiton_core::physical::GuestRam;

use crate::{Error, Options, Svm};

/// Their names, and what they show.
pub const ALL: [(&str, &str); 4] = [
    (
        "prove",
        "a VMCB broken in every way: the rules of VMRUN and the processor compared",
    ),
    ("fpu", "floating-point registers of two guests that share a processor"),
    (
        "nmi",
        "a guest's processor sends itself NMIs: EVENTINJ, the intercept of IRET",
    ),
    ("timer", "a guest's local APIC counts: once, and again and again"),
];

/// Runs the example of this name in this memory, of which nobody needs what it holds; says what happens.
/// `None` if there is no example of this name.
///
/// # Errors
///
/// [`Error`] when SVM itself fails.
pub fn run(name: &str, svm: &Svm, ram: GuestRam, words: &mut dyn Write) -> Result<Option<Verdict>, Error> {
    let verdict = match name {
        "prove" => Verdict::of(crate::prove(svm, ram, words)?),
        "fpu" => examples::fpu::run(|| svm.vcpu(ram, Options::default()), ram, words)?,
        "nmi" => examples::nmi::run(svm.vcpu(ram, with_apic())?, ram, words)?,
        "timer" => examples::timer::run(svm.vcpu(ram, with_apic())?, ram, words)?,
        _ => return Ok(None),
    };
    Ok(Some(verdict))
}

/// The options of a guest with a local APIC, and no other processor.
fn with_apic() -> Options {
    Options {
        apic: Some(GuestApic::alone()),
        check: true,
        ..Options::default()
    }
}

//! The cases: one line each.

mod apic;
mod exceptions;
mod memory;
mod msr;
mod ports;
mod privileged;
mod processors;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use chiton_guest::entropy::{self, EntropyError};
use chiton_guest::{env, processors as machine};
use vmexit_cases::{Clock, Done, Meter, instructions};

use crate::options::Options;

/// What a case does: it measures, or says why it cannot.
pub type Run = fn(&mut Meter<'_>, &Options) -> Done;

/// One case.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Whether it runs in ring 0 only.
    pub privileged: bool,
    /// How many processors it takes.
    pub processors: u32,
    /// Does it.
    pub run: Run,
}

impl Case {
    const fn any(name: &'static str, run: Run) -> Self {
        Self {
            name,
            privileged: false,
            processors: 1,
            run,
        }
    }

    const fn ring0(name: &'static str, run: Run) -> Self {
        Self {
            privileged: true,
            ..Self::any(name, run)
        }
    }

    const fn pair(name: &'static str, privileged: bool, run: Run) -> Self {
        Self {
            privileged,
            processors: 2,
            ..Self::any(name, run)
        }
    }

    /// Whether ring and processors are there; if not, why.
    pub fn possible(&self) -> Done {
        if self.privileged && env::ring() != 0 {
            return Err("it needs ring 0, and the guest runs in ring 3");
        }
        if machine::count() < self.processors {
            return Err("it needs two processors, and this machine's guest has one");
        }
        Ok(())
    }
}

/// All cases, in the order in which they run.
pub fn all<C: Clock>() -> Vec<Case> {
    let mut all = vec![
        Case::any("null", |meter, _| instructions::null::<C>(meter)),
        Case::any("cpuid", |meter, _| instructions::cpuid::<C>(meter)),
        Case::any("rdtsc", |meter, _| instructions::rdtsc::<C>(meter)),
        Case::any("rdtscp", |meter, _| instructions::rdtscp::<C>(meter)),
        Case::any("rdrand", |meter, _| instructions::rdrand::<C>(meter)),
        Case::any("xgetbv", |meter, _| instructions::xgetbv::<C>(meter)),
        Case::any("virtio_kick", |meter, _| virtio_kick::<C>(meter)),
    ];
    all.extend(ports::all::<C>());
    all.extend(memory::all::<C>());
    all.extend(privileged::all::<C>());
    all.extend(msr::all::<C>());
    all.extend(exceptions::all::<C>());
    all.extend(apic::all::<C>());
    all.extend(processors::all::<C>());
    all
}

/// Tries what a case does once; an exception is a reason to skip it.
fn try_once(what: &'static str, operation: impl FnMut()) -> Done {
    crate::ring0::catch(operation)
        .map_err(|exception| &*String::leak(alloc::format!("{what} is answered by {exception} here")))
}

/// A request to the entropy device: the buffer is given, the device kicked, and its completion awaited.
fn virtio_kick<C: Clock>(meter: &mut Meter<'_>) -> Done {
    const FAILED: &str = "the entropy device did not answer";
    let mut bytes = [0; 16];
    match entropy::fill(&mut bytes) {
        Err(EntropyError::Missing) => return Err("this machine's guest has no virtio device to kick"),
        other => other.map_err(|_| FAILED)?,
    }
    let mut failed = false;
    meter.each::<C>(|| failed |= entropy::fill(&mut bytes).is_err())?;
    if failed { Err(FAILED) } else { Ok(()) }
}

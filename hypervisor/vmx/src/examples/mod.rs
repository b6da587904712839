//! What VMX can do beyond running a guest, each a small example with a guest of its own.
//!
//! The guests are those of [`chiton_core::examples`], or others on the same stage: protected mode without
//! paging, which is what an unrestricted guest may do.

mod eptp_switching;
mod hook;
mod monitor_trap_flag;
mod page_log;
mod report;
mod tsc;
mod virtual_apic;
mod virtualization_exception;

use core::fmt::Write;

use chiton_core::apic::GuestApic;
use chiton_core::examples::stage::Stage;
use chiton_core::examples::{self, Verdict};
use chiton_core::paging::Size;
use chiton_core::physical::GuestRam;

use crate::{Error, Options, Vmx, VmxVcpu};

/// An example.
#[derive(Clone, Copy)]
pub struct Example {
    /// Its name, as it is asked for.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    run: Run,
}

/// Runs an example in this memory, and says what happens.
type Run = fn(&Vmx, GuestRam, &mut dyn Write) -> Result<Verdict, Error>;

/// All examples.
pub const ALL: &[Example] = &[
    Example {
        name: "page-log",
        about: "which pages a guest has written to: page-modification logging",
        run: page_log::run,
    },
    Example {
        name: "eptp-switching",
        about: "a guest changes its view of memory without an exit: VMFUNC",
        run: eptp_switching::run,
    },
    Example {
        name: "ve",
        about: "an EPT violation becomes an exception of the guest: #VE",
        run: virtualization_exception::run,
    },
    Example {
        name: "hook",
        about: "a page that reads otherwise than it runs: execute-only EPT",
        run: hook::run,
    },
    Example {
        name: "tsc",
        about: "a guest's time-stamp counter, moved and slowed: TSC offset and scaling",
        run: tsc::run,
    },
    Example {
        name: "fpu",
        about: "floating-point registers of two guests that share a processor",
        run: fpu,
    },
    Example {
        name: "virtual-apic",
        about: "a guest's local APIC without exits: APIC-register virtualization, virtual-interrupt delivery",
        run: virtual_apic::run,
    },
    Example {
        name: "nmi",
        about: "a guest's processor sends itself NMIs: virtual NMIs, NMI-window exiting",
        run: nmi,
    },
    Example {
        name: "timer",
        about: "a guest's local APIC counts: once, and again and again",
        run: timer,
    },
    Example {
        name: "report",
        about: "exits after which a guest cannot go on: a task switch, an EPT misconfiguration",
        run: report::run,
    },
    Example {
        name: "mtf",
        about: "an exit after each instruction: monitor trap flag",
        run: monitor_trap_flag::run,
    },
    Example {
        name: "prove",
        about: "a VMCS broken in every way: the entry checker and the processor compared",
        run: crate::prove::run,
    },
];

impl Example {
    /// The example of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|example| example.name == name)
    }

    /// Runs it in this memory, of which nobody needs what it holds; says what happens.
    ///
    /// # Errors
    ///
    /// [`Error`] when VMX itself fails.
    pub fn run(&self, vmx: &Vmx, memory: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
        (self.run)(vmx, memory, words)
    }
}

/// A guest on its stage. EPT maps pages of 4 KiB alone.
fn stage(vmx: &Vmx, ram: GuestRam, program: &[u8], options: Options) -> Result<Stage<VmxVcpu>, Error> {
    let options = Options {
        largest_page: Size::Small,
        ..options
    };
    Stage::new(vmx.vcpu(ram, options)?, ram, program)
}

/// The options of a guest with a local APIC, and no other processor.
fn with_apic() -> Options {
    Options {
        apic: Some(GuestApic::alone()),
        check: true,
        ..Options::default()
    }
}

fn fpu(vmx: &Vmx, ram: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    examples::fpu::run(|| vmx.vcpu(ram, Options::default()), ram, words)
}

fn nmi(vmx: &Vmx, ram: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    examples::nmi::run(vmx.vcpu(ram, with_apic())?, ram, words)
}

fn timer(vmx: &Vmx, ram: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    examples::timer::run(vmx.vcpu(ram, with_apic())?, ram, words)
}

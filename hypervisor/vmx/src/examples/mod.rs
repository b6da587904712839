//! What VMX can do beyond running a guest, each a small example with a guest of its own.
//!
//! The guests are a few instructions of 32-bit code. They run in protected mode without paging, which
//! is what an unrestricted guest may do: so their linear addresses are guest-physical, and every page
//! that is spoken of is one of EPT. They talk by `out`, and end by `hlt`.
//!
//! Each example says what happens, checks it, and has a [`Verdict`].

mod eptp_switching;
mod fpu;
mod hook;
mod monitor_trap_flag;
mod nmi;
mod page_log;
mod stage;
mod tsc;
mod virtual_apic;
mod virtualization_exception;

use core::fmt::{self, Write};

use chiton_core::physical::GuestRam;

use crate::{Error, Vmx};

/// How an example went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was seen is what the SDM says.
    AsTheManualSays,
    /// It is not.
    Otherwise,
    /// This processor does not have it.
    Skipped(&'static str),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsTheManualSays => f.write_str("as the manual says"),
            Self::Otherwise => f.write_str("NOT as the manual says"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

impl Verdict {
    /// Whether something was seen that the SDM does not say.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Otherwise)
    }

    pub(crate) const fn of(good: bool) -> Self {
        if good { Self::AsTheManualSays } else { Self::Otherwise }
    }
}

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
        run: fpu::run,
    },
    Example {
        name: "virtual-apic",
        about: "a guest's local APIC without exits: APIC-register virtualization, virtual-interrupt delivery",
        run: virtual_apic::run,
    },
    Example {
        name: "nmi",
        about: "a guest's processor sends itself NMIs: virtual NMIs, NMI-window exiting",
        run: nmi::run,
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

/// Says a line. Whoever listens does not fail.
macro_rules! say {
    ($words:expr, $($line:tt)*) => {
        let _ = core::fmt::Write::write_fmt($words, format_args!("{}\n", format_args!($($line)*)));
    };
}
pub(crate) use say;

//! What whoever runs a guest decides.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use chiton_core::apic::GuestApic;
use chiton_core::paging::Size;
use chiton_core::space::GivenBack;

use crate::trace::Trace;

/// Sees an exit.
pub type Tracer = Box<dyn FnMut(&Trace<'_>)>;

/// What whoever runs a guest decides.
pub struct Options {
    /// How long the guest runs before [`Exit::Interrupted`](chiton_core::vcpu::Exit::Interrupted),
    /// in ticks of the TSC.
    pub slice: u64,
    /// The largest page that guest memory is mapped in.
    pub largest_page: Size,
    /// Whether the rules of VMRUN are checked before each, and not only when one fails.
    pub check: bool,
    /// What is broken of the VMCB before each entry: a case of the checker, by its name. To see what a broken rule
    /// looks like.
    pub broken: Option<String>,
    /// The local APIC of the guest's processor; `None` for a guest without interrupts.
    pub apic: Option<GuestApic>,
    /// Memory that the guest gives back, and which of its processors this is; `None` for a guest without a balloon.
    pub given_back: Option<(Arc<GivenBack>, u32)>,
    /// Sees each exit, before it is handled.
    pub trace: Option<Tracer>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slice: 10_000_000,
            largest_page: Size::Huge,
            check: false,
            broken: None,
            apic: None,
            given_back: None,
            trace: None,
        }
    }
}

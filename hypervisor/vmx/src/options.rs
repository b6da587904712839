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
    /// Whether EPT keeps accessed and dirty flags, where the processor can.
    pub accessed_dirty: bool,
    /// Whether guest memory is mapped from the beginning, by pages of 4 KiB whose entries no processor takes, each of
    /// which is mended at the exit that it causes: to see what an EPT misconfiguration costs.
    pub misconfigure: bool,
    /// Whether the rules of VM entries are checked before each of them, and not only when one
    /// fails.
    pub check: bool,
    /// What is broken of the VMCS before each entry: a case of the checker's table, by its name. To see what a broken
    /// rule looks like.
    pub broken: Option<String>,
    /// Whether the pages that the guest writes to are logged, where the processor can.
    pub page_log: bool,
    /// Whether the guest may change among views of its memory, where the processor can.
    pub views: bool,
    /// Whether EPT violations may become exceptions of the guest, where the processor can, and at
    /// which guest-physical address it then finds what they were.
    pub virtualization_exceptions: Option<u64>,
    /// The local APIC of the guest's processor; `None` for a guest without interrupts.
    pub apic: Option<GuestApic>,
    /// Whether the processor has the registers of that APIC and delivers its interrupts, where it can.
    pub virtual_apic: bool,
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
            accessed_dirty: true,
            misconfigure: false,
            check: false,
            broken: None,
            page_log: false,
            views: false,
            virtualization_exceptions: None,
            apic: None,
            virtual_apic: true,
            given_back: None,
            trace: None,
        }
    }
}

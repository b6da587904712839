//! The memory of the machine that a bare-metal hypervisor runs on, page by page.
//!
//! Under KVM the host's kernel has it; on bare metal VMCS, VMCB, bitmaps and second-level page
//! tables are made of it.

/// Pages of the machine that the hypervisor runs on.
pub trait Physical {
    /// A zeroed 4 KiB page, by its physical address; `None` when there is none left.
    fn allocate(&self) -> Option<u64>;

    /// Gives a page back.
    fn release(&self, page: u64);

    /// Where the page is mapped for the hypervisor.
    fn pointer(&self, physical: u64) -> *mut u8;
}

//! The control area: how the guest runs, and why it exited (APM volume 2, table B-1).

use super::fields;

fields! {
    /// The control area (APM volume 2, table B-1).
    CONTROL_AREA from 0;
    /// Bits 0 to 15: reads of CR0 to CR15; bits 16 to 31: writes.
    INTERCEPT_CR: u32, ReadWrite = 0x000, "intercepts of CRs";
    /// Bits 0 to 15: reads of DR0 to DR15; bits 16 to 31: writes.
    INTERCEPT_DR: u32, ReadWrite = 0x004, "intercepts of DRs";
    /// A bit for each exception vector.
    INTERCEPT_EXCEPTIONS: u32, ReadWrite = 0x008, "intercepts of exceptions";
    /// See [`intercept`](crate::svm::intercept).
    INTERCEPT_3: u32, ReadWrite = 0x00c, "intercepts, vector 3";
    /// See [`intercept`](crate::svm::intercept).
    INTERCEPT_4: u32, ReadWrite = 0x010, "intercepts, vector 4";
    /// See [`intercept`](crate::svm::intercept).
    INTERCEPT_5: u32, ReadWrite = 0x014, "intercepts, vector 5";
    /// In cycles; with PauseFilterThreshold.
    PAUSE_FILTER_THRESHOLD: u16, ReadWrite = 0x03c, "PAUSE filter threshold";
    /// With PauseFilter.
    PAUSE_FILTER_COUNT: u16, ReadWrite = 0x03e, "PAUSE filter count";
    /// Physical; 12 KiB.
    IOPM_BASE_PA: u64, ReadWrite = 0x040, "IOPM_BASE_PA";
    /// Physical; 8 KiB.
    MSRPM_BASE_PA: u64, ReadWrite = 0x048, "MSRPM_BASE_PA";
    /// Added to what the guest reads as TSC.
    TSC_OFFSET: u64, ReadWrite = 0x050, "TSC_OFFSET";
    /// Tags this guest's translations in the TLB. 0 is the host's.
    GUEST_ASID: u32, ReadWrite = 0x058, "guest ASID";
    /// See [`tlb`](crate::svm::tlb).
    TLB_CONTROL: u8, ReadWrite = 0x05c, "TLB_CONTROL";
    /// The virtual interrupt: bits 0 to 7 V_TPR, 8 V_IRQ, 9 VGIF, 16 to 19 V_INTR_PRIO, 20 V_IGN_TPR,
    /// 24 V_INTR_MASKING, 25 virtual GIF on, 31 AVIC on.
    VIRTUAL_INTERRUPT: u32, ReadWrite = 0x060, "virtual interrupt control";
    /// V_INTR_VECTOR.
    VIRTUAL_INTERRUPT_VECTOR: u8, ReadWrite = 0x064, "V_INTR_VECTOR";
    /// Bit 0: interrupts are blocked for one instruction. Bit 1: the guest's RFLAGS.IF, with encrypted state.
    INTERRUPT_SHADOW: u64, ReadWrite = 0x068, "interrupt shadow";
    /// Why the guest exited: see [`exit`](crate::svm::exit).
    EXITCODE: u64, ReadOnly = 0x070, "EXITCODE";
    /// More about it: see [`information`](crate::svm::information).
    EXITINFO1: u64, ReadOnly = 0x078, "EXITINFO1";
    /// Still more.
    EXITINFO2: u64, ReadOnly = 0x080, "EXITINFO2";
    /// What was being delivered when the guest exited: see [`event`](crate::svm::event).
    EXITINTINFO: u64, ReadOnly = 0x088, "EXITINTINFO";
    /// Bit 0: nested paging. The others are of encrypted guests and of later processors.
    NESTED_CONTROL: u64, ReadWrite = 0x090, "nested paging control";
    /// Physical, in the guest.
    AVIC_APIC_BAR: u64, ReadWrite = 0x098, "AVIC APIC_BAR";
    /// Physical, in the guest; of encrypted guests.
    GHCB_PA: u64, ReadWrite = 0x0a0, "GHCB address";
    /// What VMRUN delivers: see [`event`](crate::svm::event).
    EVENTINJ: u64, ReadWrite = 0x0a8, "EVENTINJ";
    /// Root of the nested page tables; physical.
    N_CR3: u64, ReadWrite = 0x0b0, "nCR3";
    /// Bit 0: branch records are the guest's own. Bit 1: VMLOAD and VMSAVE in the guest are.
    VIRTUALIZATION_EXTENSIONS: u64, ReadWrite = 0x0b8, "virtualization extensions";
    /// See [`clean`](crate::svm::clean).
    VMCB_CLEAN: u32, ReadWrite = 0x0c0, "VMCB clean bits";
    /// Where the next instruction is; with NRIPS.
    NRIP: u64, ReadOnly = 0x0c8, "nRIP";
    /// How many bytes of the instruction follow; with DecodeAssists.
    FETCHED_COUNT: u8, ReadOnly = 0x0d0, "number of bytes fetched";
    /// Physical.
    AVIC_BACKING_PAGE: u64, ReadWrite = 0x0e0, "AVIC backing page";
    /// Physical.
    AVIC_LOGICAL_TABLE: u64, ReadWrite = 0x0f0, "AVIC logical table";
    /// Physical, with the highest index in it.
    AVIC_PHYSICAL_TABLE: u64, ReadWrite = 0x0f8, "AVIC physical table";
    /// Physical; of encrypted guests.
    VMSA_PA: u64, ReadWrite = 0x108, "VMSA pointer";
    /// Of encrypted guests.
    VMGEXIT_RAX: u64, ReadOnly = 0x110, "VMGEXIT RAX";
    /// Of encrypted guests.
    VMGEXIT_CPL: u8, ReadOnly = 0x118, "VMGEXIT CPL";
    /// Counts down; with BusLockThreshold.
    BUS_LOCK_COUNTER: u16, ReadWrite = 0x120, "bus lock threshold counter";
}

/// Where the bytes of the instruction begin that [`FETCHED_COUNT`] counts.
pub const FETCHED_BYTES: u16 = 0x0d1;
/// How many there are at most.
pub const FETCHED_MAX: usize = 15;

//! The cases, one line each: what is done, which exit it causes, and what it needs of a machine.
//!
//! Names that `kvm-unit-tests` has are those of its `x86/vmexit.c`, so that figures can be laid side by side.

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it belongs with.
    pub group: &'static str,
    /// What is done, in one sentence.
    pub what: &'static str,
    /// The exit that it causes where the processor has virtualization: the basic exit reason of VMX (SDM volume 3D,
    /// appendix C) and the exit code of SVM (APM volume 2, appendix C); empty if it causes none.
    pub cause: &'static str,
    /// What it needs of a machine.
    pub needs: Needs,
    /// Whether vmexit.c has it.
    pub vmexit_c: bool,
}

/// What a case needs of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// A guest of any ring.
    Any,
    /// A guest in ring 0.
    Ring0,
    /// A guest in ring 0 with the interrupt controller of KVM.
    Interrupts,
    /// The same, and a second processor.
    Pair,
    /// A guest of any ring with a second processor.
    AnyPair,
    /// A region that is mapped by pages of each size, in memory that the host gives by small pages.
    Walk,
    /// The same, in memory that the host gives by large pages: the case of the guest is that without `_on_2m`.
    WalkLarge,
    /// A guest of any ring, whose exits the host's kernel traces.
    Traced,
    /// A guest of the library, with its devices.
    Hosted,
    /// No guest: what the host's program asks of KVM.
    Host,
    /// A hypervisor below that is told to be different, as KVM cannot be: why it cannot.
    Bare(&'static str),
}

const fn case(name: &'static str, group: &'static str, needs: Needs, cause: &'static str, what: &'static str) -> Entry {
    Entry {
        name,
        group,
        what,
        cause,
        needs,
        vmexit_c: false,
    }
}

/// One that vmexit.c has.
const fn classic(
    name: &'static str,
    group: &'static str,
    needs: Needs,
    cause: &'static str,
    what: &'static str,
) -> Entry {
    Entry {
        vmexit_c: true,
        ..case(name, group, needs, cause, what)
    }
}

use Needs::{Any, AnyPair, Bare, Host, Hosted, Interrupts, Pair, Ring0, Traced, Walk, WalkLarge};

const NONE: &str = "";
const IO: &str = "VMX 30 I/O instruction, SVM 7Bh IOIO";
const EPT: &str = "VMX 48 EPT violation, SVM 400h NPF";
const MISCONFIG: &str = "VMX 49 EPT misconfiguration or 48 EPT violation, SVM 400h NPF";
const WRMSR: &str = "VMX 32 WRMSR, SVM 7Ch MSR";
const RDMSR: &str = "VMX 31 RDMSR, SVM 7Ch MSR";
const CR: &str = "VMX 28 control-register access, SVM 10h CR0 write to 18h CR8 write";
const APIC: &str = "VMX 44 APIC access or 56 APIC write, SVM 400h NPF or 402h AVIC no acceleration";
const HLT: &str = "VMX 12 HLT, SVM 78h HLT";

/// Why there is no EPT without accessed and dirty flags on KVM.
const KVM_HAS_AD: &str = "whether EPT has these flags is a parameter of the module (kvm_intel.eptad), which takes \
                          loading it again: bare VMX measures both (`cargo xtask bench exits-bare`)";
/// Why there is no memory with misconfigured entries on KVM.
const KVM_MENDS_NONE: &str = "KVM makes such entries for device memory alone, whose cases are mmio_*: bare VMX does so \
                              for memory (`cargo xtask bench exits-bare`)";

/// All cases, in the order in which they are shown.
#[rustfmt::skip]
pub const CASES: &[Entry] = &[
    // Instructions.
    classic("cpuid", "instructions", Any, "VMX 10 CPUID, SVM 72h CPUID", "CPUID, leaf 0"),
    classic("vmcall", "instructions", Ring0, "VMX 18 VMCALL, SVM 81h VMMCALL", "VMCALL (on AMD VMMCALL) with a number that is nobody's"),
    classic("wbinvd", "instructions", Ring0, "VMX 54 WBINVD, SVM 89h WBINVD", "WBINVD"),
    classic("invd", "instructions", Ring0, "VMX 13 INVD, SVM 76h INVD", "INVD"),
    case("rdtsc", "instructions", Any, "VMX 16 RDTSC, SVM 6Eh RDTSC, if the hypervisor asks for it", "RDTSC"),
    case("rdtscp", "instructions", Any, "VMX 51 RDTSCP, SVM 87h RDTSCP, if the hypervisor asks for it", "RDTSCP"),
    case("rdpmc", "instructions", Ring0, "VMX 15 RDPMC, SVM 6Fh RDPMC", "RDPMC of counter 0"),
    case("rdrand", "instructions", Any, "VMX 57 RDRAND, if the hypervisor asks for it", "RDRAND, 64 bits"),
    case("invlpg", "instructions", Ring0, "VMX 14 INVLPG, SVM 79h INVLPG, without EPT or NPT", "INVLPG of a page that is mapped"),
    case("xgetbv", "instructions", Any, NONE, "XGETBV of XCR0"),
    case("xsetbv", "instructions", Ring0, "VMX 55 XSETBV, SVM 8Dh XSETBV", "XSETBV of XCR0 as it is"),
    // Registers.
    classic("mov_from_cr8", "registers", Ring0, "VMX 28 control-register access, SVM 8h CR8 read, unless the TPR is shadowed", "MOV from CR8, the task priority"),
    classic("mov_to_cr8", "registers", Ring0, CR, "MOV to CR8, the task priority"),
    classic("mov_dr", "registers", Ring0, "VMX 29 MOV DR, SVM 27h DR7 read", "MOV from DR7"),
    classic("toggle_cr0_wp", "registers", Ring0, CR, "CR0.WP cleared and set again: two writes"),
    classic("toggle_cr4_pge", "registers", Ring0, CR, "CR4.PGE changed and changed back: two writes"),
    case("cr3_write", "registers", Ring0, "VMX 28 control-register access, SVM 13h CR3 write, without EPT or NPT", "MOV to CR3 of what it holds"),
    case("clts", "registers", Ring0, "VMX 28 control-register access, if CR0.TS is the hypervisor's", "CLTS"),
    // Model-specific registers.
    classic("wr_kernel_gs_base", "msr", Ring0, WRMSR, "WRMSR of IA32_KERNEL_GS_BASE, which hypervisors let through"),
    classic("wr_tsx_ctrl_msr", "msr", Ring0, WRMSR, "WRMSR of IA32_TSX_CTRL"),
    classic("wr_ibrs_msr", "msr", Ring0, WRMSR, "WRMSR of IA32_SPEC_CTRL with IBRS"),
    classic("wr_ibpb_msr", "msr", Ring0, WRMSR, "WRMSR of IA32_PRED_CMD with IBPB"),
    classic("wr_tsc_adjust_msr", "msr", Ring0, WRMSR, "WRMSR of IA32_TSC_ADJUST"),
    classic("rd_tsc_adjust_msr", "msr", Ring0, RDMSR, "RDMSR of IA32_TSC_ADJUST"),
    case("rd_efer", "msr", Ring0, RDMSR, "RDMSR of IA32_EFER"),
    case("rd_unknown_msr", "msr", Ring0, RDMSR, "RDMSR of a register that is nobody's, and the #GP that answers it"),
    // Ports.
    classic("inl_from_pmtimer", "ports", Ring0, IO, "IN, 32 bits, of the ACPI timer, which the host's program answers by its clock"),
    classic("inl_from_qemu", "ports", Ring0, IO, "IN, 32 bits, of a port that the host's program answers"),
    classic("inl_from_kernel", "ports", Interrupts, IO, "IN, 8 bits, of the interrupt controller's ELCR, which KVM answers in the kernel"),
    classic("outl_to_kernel", "ports", Interrupts, IO, "OUT, 8 bits, to the interrupt controller's ELCR, in the kernel"),
    classic("pci-io-none", "ports", Any, IO, "OUT, 32 bits, that the host's program takes"),
    classic("pci-io-wildcard", "ports", Any, IO, "OUT, 32 bits, to an ioeventfd for any value"),
    classic("pci-io-datamatch", "ports", Any, IO, "OUT, 32 bits, to an ioeventfd for just this value"),
    case("coalesced_pio", "ports", Any, IO, "OUT, 32 bits, that the kernel keeps for later (coalesced I/O)"),
    case("outb", "ports", Any, IO, "OUT, 8 bits, to the doorbell that does nothing"),
    case("outw", "ports", Any, IO, "OUT, 16 bits, to the doorbell that does nothing"),
    case("outl", "ports", Any, IO, "OUT, 32 bits, to the doorbell that does nothing"),
    case("inb", "ports", Any, IO, "IN, 8 bits, of a doorbell"),
    case("inw", "ports", Any, IO, "IN, 16 bits, of a doorbell"),
    case("inl", "ports", Any, IO, "IN, 32 bits, of a doorbell"),
    case("rep_outsb", "ports", Any, IO, "REP OUTSB of 64 bytes"),
    case("rep_insb", "ports", Any, IO, "REP INSB of 64 bytes"),
    // Device registers in memory.
    classic("pci-mem-none", "device memory", Any, MISCONFIG, "A 32-bit write to device memory that the host's program takes"),
    classic("pci-mem-wildcard", "device memory", Any, MISCONFIG, "A 32-bit write to an ioeventfd for any value"),
    classic("pci-mem-datamatch", "device memory", Any, MISCONFIG, "A 32-bit write to an ioeventfd for just this value"),
    case("coalesced_mmio", "device memory", Any, MISCONFIG, "A 32-bit write that the kernel keeps for later (coalesced I/O)"),
    case("mmio_read_1", "device memory", Any, MISCONFIG, "An 8-bit read of device memory"),
    case("mmio_read_2", "device memory", Any, MISCONFIG, "A 16-bit read of device memory"),
    case("mmio_read_4", "device memory", Any, MISCONFIG, "A 32-bit read of device memory"),
    case("mmio_read_8", "device memory", Any, MISCONFIG, "A 64-bit read of device memory"),
    case("mmio_write_1", "device memory", Any, MISCONFIG, "An 8-bit write to device memory"),
    case("mmio_write_2", "device memory", Any, MISCONFIG, "A 16-bit write to device memory"),
    case("mmio_write_4", "device memory", Any, MISCONFIG, "A 32-bit write to device memory"),
    case("mmio_write_8", "device memory", Any, MISCONFIG, "A 64-bit write to device memory"),
    // A round trip to the host's program, in its parts.
    case("phase_out", "round trip", Any, IO, "From before OUT to the moment when KVM_RUN has returned"),
    case("phase_to_kernel", "round trip", Traced, IO, "From before OUT to the moment when the kernel has left the guest, by its tracepoint"),
    case("phase_to_program", "round trip", Traced, NONE, "From there to the moment when KVM_RUN has returned"),
    case("phase_dispatch", "round trip", Any, NONE, "From there through the run loop to the next KVM_RUN"),
    case("phase_back", "round trip", Any, NONE, "From there to behind OUT in the guest"),
    case("ioeventfd_kick", "round trip", Any, IO, "From OUT to an ioeventfd until the guest sees that a thread of the host has woken"),
    // The same through the hypervisor of this project, with its devices.
    case("hosted_outl", "hosted", Hosted, IO, "OUT, 32 bits, to the doorbell that does nothing, under `chiton run`"),
    case("hosted_mmio_read_4", "hosted", Hosted, MISCONFIG, "A 32-bit read where no device is, under `chiton run`"),
    case("virtio_kick", "hosted", Hosted, IO, "A request to the virtio entropy device, from the kick to its completion"),
    // Interrupts.
    classic("self_ipi_sti_nop", "interrupts", Interrupts, APIC, "An interrupt to itself by xAPIC, let in by STI and NOP, until its handler has run"),
    classic("self_ipi_sti_hlt", "interrupts", Interrupts, APIC, "The same, let in by STI and HLT"),
    classic("self_ipi_tpr", "interrupts", Interrupts, APIC, "The same, held back by the task priority, which is lowered"),
    classic("self_ipi_tpr_sti_nop", "interrupts", Interrupts, APIC, "The same with interrupts off, let in by STI and NOP"),
    classic("self_ipi_tpr_sti_hlt", "interrupts", Interrupts, APIC, "The same with interrupts off, let in by STI and HLT"),
    classic("x2apic_self_ipi_sti_nop", "interrupts", Interrupts, WRMSR, "An interrupt to itself by x2APIC, let in by STI and NOP, until its handler has run"),
    classic("x2apic_self_ipi_sti_hlt", "interrupts", Interrupts, WRMSR, "The same, let in by STI and HLT"),
    classic("x2apic_self_ipi_tpr", "interrupts", Interrupts, WRMSR, "The same, held back by the task priority, which is lowered"),
    classic("x2apic_self_ipi_tpr_sti_nop", "interrupts", Interrupts, WRMSR, "The same with interrupts off, let in by STI and NOP"),
    classic("x2apic_self_ipi_tpr_sti_hlt", "interrupts", Interrupts, WRMSR, "The same with interrupts off, let in by STI and HLT"),
    classic("tscdeadline_immed", "interrupts", Interrupts, WRMSR, "The timer set to a time that has come, until its handler has run"),
    classic("tscdeadline", "interrupts", Interrupts, WRMSR, "How much later than its deadline, 20 microseconds ahead, the timer's handler runs"),
    case("irqfd_injection", "interrupts", Interrupts, IO, "From an OUT, upon which the host writes an irqfd, to the handler"),
    case("hlt_wake", "interrupts", Interrupts, HLT, "From the timer's deadline, which a halted processor waits for, to its handler"),
    // Two processors.
    classic("ipi", "processors", Pair, WRMSR, "An interrupt to a processor that runs, until it is seen that its handler has"),
    classic("ipi_halt", "processors", Pair, WRMSR, "An interrupt to a processor that halts, until it is seen that its handler has run"),
    classic("ple_round_robin", "processors", AnyPair, "VMX 40 PAUSE, SVM 77h PAUSE, when a processor spins for long", "A turn that goes to the other processor and back; who waits spins with PAUSE"),
    // Exceptions.
    case("exception_de", "exceptions", Ring0, NONE, "#DE, which the guest handles without an exit"),
    case("exception_bp", "exceptions", Ring0, NONE, "#BP, which the guest handles without an exit unless a debugger is there"),
    case("exception_ud", "exceptions", Ring0, "VMX 0 exception, SVM 46h #UD, if the hypervisor asks for it, as KVM does", "#UD, which KVM takes first and passes on"),
    case("exception_pf", "exceptions", Ring0, "VMX 0 exception, SVM 4Eh #PF, without EPT or NPT", "#PF of an address that the guest has not mapped, which it handles"),
    // Memory.
    case("first_touch", "memory", Any, EPT, "The first write to a page of 4 KiB"),
    case("write_protected", "memory", Any, EPT, "The first write to a page that the host has protected to log writes (dirty log)"),
    case("write_read_only", "memory", Any, EPT, "A write to a page of read-only memory, which the host's program takes"),
    case("first_touch_without_ad", "memory", Bare(KVM_HAS_AD), EPT, "The first write to a page of 4 KiB, where EPT keeps no accessed and dirty flags"),
    case("first_touch_misconfigured", "memory", Bare(KVM_MENDS_NONE), "VMX 49 EPT misconfiguration", "The first write to a page of memory whose EPT entry no processor takes, until the hypervisor has mended it"),
    case("walk_heap_warm", "memory", Any, NONE, "A load, of a chase through 32 pages of the heap"),
    case("walk_heap_cold", "memory", Any, NONE, "A load, of a chase through 8 MiB of the heap"),
    case("walk_heap_warm_without_ad", "memory", Bare(KVM_HAS_AD), NONE, "The same 32 pages, where EPT keeps no accessed and dirty flags"),
    case("walk_heap_cold_without_ad", "memory", Bare(KVM_HAS_AD), NONE, "The same 8 MiB, where EPT keeps no accessed and dirty flags"),
    case("walk_4k_warm", "memory", Walk, NONE, "A load, of a chase through 32 pages that are mapped by 4 KiB"),
    case("walk_4k_cold", "memory", Walk, NONE, "A load, of a chase through 64 MiB that are mapped by 4 KiB: each has to be walked for"),
    case("walk_2m_warm", "memory", Walk, NONE, "The same 32 pages, mapped by 2 MiB"),
    case("walk_2m_cold", "memory", Walk, NONE, "The same 64 MiB, mapped by 2 MiB"),
    case("walk_1g_warm", "memory", Walk, NONE, "The same 32 pages, mapped by 1 GiB"),
    case("walk_1g_cold", "memory", Walk, NONE, "The same 64 MiB, mapped by 1 GiB"),
    case("walk_4k_cold_on_2m", "memory", WalkLarge, NONE, "64 MiB mapped by 4 KiB, in memory that the host has in large pages"),
    case("walk_2m_cold_on_2m", "memory", WalkLarge, NONE, "64 MiB mapped by 2 MiB, in memory that the host has in large pages"),
    case("walk_1g_cold_on_2m", "memory", WalkLarge, NONE, "64 MiB mapped by 1 GiB, in memory that the host has in large pages"),
    // What the host's program asks of KVM.
    case("ioctl_floor", "host", Host, NONE, "KVM_CHECK_EXTENSION: an ioctl that does next to nothing"),
    case("ioctl_get_regs", "host", Host, NONE, "KVM_GET_REGS"),
    case("ioctl_set_regs", "host", Host, NONE, "KVM_SET_REGS"),
    case("ioctl_get_sregs", "host", Host, NONE, "KVM_GET_SREGS"),
    case("ioctl_set_sregs", "host", Host, NONE, "KVM_SET_SREGS"),
    case("ioctl_get_fpu", "host", Host, NONE, "KVM_GET_FPU"),
    case("ioctl_get_msrs", "host", Host, NONE, "KVM_GET_MSRS of IA32_EFER"),
    case("ioctl_run_immediate", "host", Host, NONE, "KVM_RUN that is told to come back at once: what it takes without a guest"),
    case("ioctl_ioeventfd", "host", Host, NONE, "KVM_IOEVENTFD, made and taken away again"),
    case("ioctl_memory_region", "host", Host, NONE, "KVM_SET_USER_MEMORY_REGION of 2 MiB, made and taken away again"),
    case("ioctl_create_vcpu", "host", Host, NONE, "KVM_CREATE_VCPU"),
    case("ioctl_create_vm", "host", Host, NONE, "KVM_CREATE_VM, and its end"),
];

/// The case of the guest that an entry is measured by.
#[must_use]
pub fn of_guest(name: &'static str) -> &'static str {
    let name = name.strip_prefix("hosted_").unwrap_or(name);
    name.strip_suffix("_on_2m").unwrap_or(name)
}

/// The entry of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    CASES.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_such_that_a_guest_can_print_them_and_each_is_there_once() {
        let names: BTreeSet<_> = CASES.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), CASES.len());
        assert!(names.iter().all(|name| chiton_shared::measure::is_name(name)));
    }

    #[test]
    fn vmexit_c_has_36_of_which_two_are_measured_in_three_ways_each() {
        let classic = CASES.iter().filter(|entry| entry.vmexit_c).count();
        assert_eq!(classic, 34 + 2 * 3);
    }
}

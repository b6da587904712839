use proptest::prelude::*;

use super::*;

/// Words for a reason and a qualification, without an event.
fn words(basic: Basic, qualification: u64) -> String {
    Qualification::new(Reason(u32::from(basic.0)), qualification, Event(0)).to_string()
}

#[test]
fn each_kind_of_qualification_is_told_in_words() {
    for (reason, qualification, expected) in [
        (Basic::CPUID, 0, "none"),
        (
            Basic::START_UP_IPI,
            0x9a,
            "vector 0x9a: the processor starts at 0x9a000",
        ),
        (
            Basic::TASK_SWITCH,
            0xc000_0028,
            "to task 0x28 by a task gate in the IDT",
        ),
        (Basic::TASK_SWITCH, 0x4000_0028, "to task 0x28 by IRET"),
        (Basic::INVLPG, 0x1234_5000, "linear address 0x12345000"),
        (Basic::INVEPT, 0x10, "displacement 0x10"),
        (Basic::CONTROL_REGISTER, 0x0104, "MOV CR4, RCX"),
        (Basic::CONTROL_REGISTER, 0x0f18, "MOV R15, CR8"),
        (Basic::CONTROL_REGISTER, 0x20, "CLTS"),
        (Basic::CONTROL_REGISTER, 0x0001_0030, "LMSW 0x1"),
        (Basic::CONTROL_REGISTER, 0x0003_0070, "LMSW 0x3 from memory"),
        (Basic::MOV_DR, 0x0607, "MOV DR7, RSI"),
        (Basic::MOV_DR, 0x0016, "MOV RAX, DR6"),
        (Basic::IO_INSTRUCTION, 0x00e9_0000, "OUT of 1 byte, port 0xe9 in DX"),
        (
            Basic::IO_INSTRUCTION,
            0x0cfc_0048 | 3,
            "IN of 4 bytes, port 0xcfc in the instruction",
        ),
        (
            Basic::IO_INSTRUCTION,
            0x03f8_0030 | 1,
            "REP OUTS of 2 bytes, port 0x3f8 in DX",
        ),
        (Basic::IO_SMI, 0x00b2_0000, "OUT of 1 byte, port 0xb2 in DX"),
        (Basic::MWAIT, 1, "an address is monitored"),
        (Basic::MWAIT, 0, "nothing is monitored"),
        (Basic::ENTRY_FAILURE_GUEST_STATE, 0, "the processor does not say what"),
        (
            Basic::ENTRY_FAILURE_GUEST_STATE,
            2,
            "the page-directory-pointer-table entries",
        ),
        (
            Basic::ENTRY_FAILURE_GUEST_STATE,
            3,
            "an NMI is injected while events are blocked by STI",
        ),
        (Basic::ENTRY_FAILURE_GUEST_STATE, 4, "the VMCS link pointer"),
        (
            Basic::ENTRY_FAILURE_MSR_LOADING,
            2,
            "entry 2 of the VM-entry MSR-load area, counted from 1",
        ),
        (Basic::APIC_ACCESS, 0x1080, "write at 0x80"),
        (Basic::APIC_ACCESS, 0xf000, "guest-physical access by an instruction"),
        (
            Basic::APIC_ACCESS,
            0x1_b000,
            "guest-physical access for monitoring or a trace, asynchronous to the instruction",
        ),
        (Basic::VIRTUALIZED_EOI, 0x31, "vector 0x31"),
        (Basic::APIC_WRITE, 0x300, "offset 0x300"),
        (Basic::EPT_VIOLATION, 0x181, "read where nothing is mapped"),
        (Basic::EPT_VIOLATION, 0x1aa, "write where r-x is allowed"),
        (
            Basic::EPT_VIOLATION,
            0x083,
            "read and write of a guest page table where nothing is mapped",
        ),
        (
            Basic::EPT_VIOLATION,
            0x119c,
            "instruction fetch where rw- is allowed, IRET had unblocked NMIs",
        ),
        (Basic::PML_FULL, 1 << 12, "IRET had unblocked NMIs"),
        (Basic::SUB_PAGE_PERMISSION, 1 << 11, "a sub-page table is missing"),
        (Basic::INSTRUCTION_TIMEOUT, 1, "the guest's context is invalid"),
        (Basic::RDMSRLIST, 0x10, "register 0x10"),
    ] {
        assert_eq!(words(reason, qualification), expected, "{reason} {qualification:#x}");
    }
}

#[test]
fn an_exception_has_the_qualification_of_its_vector() {
    let exception = |vector: u32, qualification| {
        Qualification::new(Reason(0), qualification, Event(0x8000_0300 | vector)).to_string()
    };
    assert_eq!(exception(1, 1 << 14 | 1), "breakpoint 0, single step");
    assert_eq!(exception(1, 0), "no cause");
    assert_eq!(exception(14, 0xdead_b000), "linear address 0xdeadb000");
    assert_eq!(exception(13, 0), "none");
}

proptest! {
    #[test]
    fn any_qualification_of_any_reason_is_told(reason: u32, qualification: u64, event: u32) {
        prop_assert!(!Qualification::new(Reason(reason), qualification, Event(event)).to_string().is_empty());
    }

    #[test]
    fn a_port_is_put_together_from_its_parts(port: u16, size in prop::sample::select(vec![1_u8, 2, 4]), bits in 0_u64..16) {
        let qualification = u64::from(port) << 16 | bits << 3 | u64::from(size - 1);
        let decoded = Port::new(qualification);
        prop_assert_eq!((decoded.port, decoded.size), (port, size));
        let again = u64::from(decoded.input) | u64::from(decoded.string) << 1
            | u64::from(decoded.repeated) << 2 | u64::from(decoded.immediate) << 3;
        prop_assert_eq!(again, bits);
    }
}

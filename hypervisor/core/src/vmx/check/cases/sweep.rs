//! A sweep through the fields: each control bit flipped, each bit of the guest's registers, every kind of
//! event. Whether such a VMCS is good or bad, nobody says here: the checker and a processor have to agree.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Case, Change, To};
use crate::vmx::VmcsRead;
use crate::vmx::controls::{Group, pin};
use crate::vmx::field::AnyField;
use crate::vmx::fields::segments::{CS, DS, ES, FS, GS, LDTR, SS, SegmentFields, TR};
use crate::vmx::fields::*;

/// The changes of a VMCS, which is asked for the values that bits are flipped of.
///
/// What a processor takes, it does: the guest is entered. All cases are such that it comes back at once if
/// the VMX-preemption timer is active and 0, and that the hypervisor finds itself as it was. Left out
/// are therefore: the control that activates the timer and that which keeps the hypervisor in 64-bit mode, the
/// activity states shutdown and wait-for-SIPI, and values of the host state that are valid.
#[must_use]
pub fn sweep(vmcs: &dyn VmcsRead) -> Vec<Case> {
    let mut all = Vec::new();
    controls(vmcs, &mut all);
    host(vmcs, &mut all);
    registers(vmcs, &mut all);
    segments(vmcs, &mut all);
    events(&mut all);
    state(vmcs, &mut all);
    rest(&mut all);
    all
}

/// Fields that no case changes, and why.
pub const LEFT_OUT: &[(AnyField, &str)] = &[
    (PREEMPTION_TIMER_VALUE.any(), TIMER),
    (HOST_RSP.any(), LOADED),
    (HOST_SYSENTER_CS.any(), LOADED),
    (HOST_FRED_STKLVLS.any(), LOADED),
];
/// Why the timer's value is left alone.
const TIMER: &str = "it is 0, so that the guest is left before its first instruction";
/// Why valid host state is.
const LOADED: &str = "any value is valid, and would be loaded at the exit";

/// Fields of which VM entry asks nothing, or nothing without a control that is off: every value has to be taken.
const FREE: [AnyField; 45] = [
    EPTP_INDEX.any(),
    HLAT_PREFIX_SIZE.any(),
    EXECUTIVE_VMCS_POINTER.any(),
    TSC_OFFSET.any(),
    EOI_EXIT_BITMAP_0.any(),
    EOI_EXIT_BITMAP_1.any(),
    EOI_EXIT_BITMAP_2.any(),
    EOI_EXIT_BITMAP_3.any(),
    XSS_EXITING_BITMAP.any(),
    ENCLS_EXITING_BITMAP.any(),
    ENCLV_EXITING_BITMAP.any(),
    SHARED_EPT_POINTER.any(),
    PCONFIG_EXITING_BITMAP.any(),
    SPEC_CTRL_MASK.any(),
    SPEC_CTRL_SHADOW.any(),
    GUEST_DEADLINE_SHADOW.any(),
    INJECTED_EVENT_DATA.any(),
    EXCEPTION_BITMAP.any(),
    PAGE_FAULT_ERROR_CODE_MASK.any(),
    PAGE_FAULT_ERROR_CODE_MATCH.any(),
    PLE_GAP.any(),
    PLE_WINDOW.any(),
    INSTRUCTION_TIMEOUT_CONTROL.any(),
    SEAM_GUEST_KEY_ID.any(),
    CR0_GUEST_HOST_MASK.any(),
    CR4_GUEST_HOST_MASK.any(),
    CR0_READ_SHADOW.any(),
    CR4_READ_SHADOW.any(),
    CR3_TARGET_VALUE_0.any(),
    CR3_TARGET_VALUE_1.any(),
    CR3_TARGET_VALUE_2.any(),
    CR3_TARGET_VALUE_3.any(),
    GUEST_INTERRUPT_STATUS.any(),
    PML_INDEX.any(),
    GUEST_FRED_STKLVLS.any(),
    GUEST_DEADLINE.any(),
    GUEST_SMBASE.any(),
    GUEST_SYSENTER_CS.any(),
    GUEST_RSP.any(),
    GUEST_PDPTE0.any(),
    GUEST_PDPTE1.any(),
    GUEST_PDPTE2.any(),
    GUEST_PDPTE3.any(),
    LAST_PID_POINTER_INDEX.any(),
    VIRTUAL_TIMER_VECTOR.any(),
];

/// What may hold anything.
fn rest(all: &mut Vec<Case>) {
    for field in FREE {
        for value in [1, 0x5555_5555_5555_5555, 1 << 63, u64::MAX] {
            let value = value & field.encoding.size().mask();
            one(all, field, To::Value(value), &format!("{value:#x}"));
        }
    }
}

/// Adds a case of one field.
fn one(all: &mut Vec<Case>, field: AnyField, to: To, what: &str) {
    several(all, format!("{field}: {what}"), &[(field, to)]);
}

/// Adds a case of several fields.
fn several(all: &mut Vec<Case>, name: String, changes: &[(AnyField, To)]) {
    let changes = changes.iter().map(|&(field, to)| Change { field, to }).collect();
    all.push(Case {
        rule: None,
        also: &[],
        name,
        changes,
        memory: &[],
    });
}

/// Adds a case for each of some bits of a field, flipped.
fn flip(all: &mut Vec<Case>, vmcs: &dyn VmcsRead, field: AnyField, bits: impl Iterator<Item = u32>) {
    let Some(now) = vmcs.read(field.encoding) else { return };
    for bit in bits {
        if now >> bit & 1 == 0 {
            one(all, field, To::Set(1 << bit), &format!("bit {bit} set"));
        } else {
            one(all, field, To::Clear(1 << bit), &format!("bit {bit} cleared"));
        }
    }
}

/// Adds a case for each of some values of a field.
fn values(all: &mut Vec<Case>, field: AnyField, values: &[u64]) {
    for value in values {
        one(all, field, To::Value(*value), &format!("{value:#x}"));
    }
}

/// Each bit of each group of controls, and what belongs to them.
fn controls(vmcs: &dyn VmcsRead, all: &mut Vec<Case>) {
    for group in Group::ALL {
        let left_out = match group {
            Group::Pin => pin::ACTIVATE_VMX_PREEMPTION_TIMER,
            Group::Exit => crate::vmx::controls::exit::HOST_ADDRESS_SPACE_SIZE,
            // These two count only if activated; their bits are then those of the table of cases.
            Group::Tertiary | Group::SecondaryExit => !0,
            _ => 0,
        };
        flip(all, vmcs, group.field(), (0..32).filter(|bit| left_out >> bit & 1 == 0));
    }
    values(all, CR3_TARGET_COUNT.any(), &[0, 1, 4, 5, 0x100, 0xffff_ffff]);
    for address in [IO_BITMAP_A, IO_BITMAP_B, MSR_BITMAPS] {
        values(
            all,
            address.any(),
            &[1, 0x800, 1 << 36, 1 << 40, 1 << 46, 1 << 51, 1 << 52, 1 << 63],
        );
    }
    flip(all, vmcs, EPT_POINTER.any(), (0..12).chain(40..64));
    values(all, TPR_THRESHOLD.any(), &[1, 0xf, 0x10, 0xffff_ffff]);
    values(all, VIRTUAL_PROCESSOR_ID.any(), &[0, 1, 0xffff]);
    for (address, count) in [
        (EXIT_MSR_STORE_ADDRESS, EXIT_MSR_STORE_COUNT),
        (EXIT_MSR_LOAD_ADDRESS, EXIT_MSR_LOAD_COUNT),
        (ENTRY_MSR_LOAD_ADDRESS, ENTRY_MSR_LOAD_COUNT),
    ] {
        for at in [8, 1 << 52, (1 << 52) - 0x10, 1 << 63, !0xf] {
            let name = format!("{}: {at:#x}, two entries", address.any());
            several(
                all,
                name,
                &[(address.any(), To::Value(at)), (count.any(), To::Value(2))],
            );
        }
    }
}

/// What the host state must not be. Valid changes would be loaded at the exit.
fn host(vmcs: &dyn VmcsRead, all: &mut Vec<Case>) {
    for field in [
        HOST_ES_SELECTOR,
        HOST_CS_SELECTOR,
        HOST_SS_SELECTOR,
        HOST_DS_SELECTOR,
        HOST_FS_SELECTOR,
        HOST_GS_SELECTOR,
        HOST_TR_SELECTOR,
    ] {
        for bits in 1..8 {
            one(all, field.any(), To::Set(bits), &format!("bits {bits:#b} set"));
        }
    }
    values(all, HOST_CS_SELECTOR.any(), &[0]);
    values(all, HOST_TR_SELECTOR.any(), &[0]);
    const CROOKED: [u64; 4] = [1 << 62, 1 << 63, 0x7fff_ffff_ffff_ffff, 0xff7f_ffff_ffff_0000];
    for field in [HOST_FS_BASE, HOST_GS_BASE, HOST_TR_BASE, HOST_GDTR_BASE, HOST_IDTR_BASE] {
        values(all, field.any(), &CROOKED);
    }
    for field in [HOST_SYSENTER_ESP, HOST_SYSENTER_EIP, HOST_RIP] {
        values(all, field.any(), &CROOKED);
    }
    // Bits 52 and up are beyond any physical address; 61 and 62 may be those of masking.
    flip(all, vmcs, HOST_CR3.any(), (52..61).chain([63]));
    // PE, NE, PG: VMX operation needs them. 32 and up: reserved.
    flip(all, vmcs, HOST_CR0.any(), [0, 5, 31].into_iter().chain(32..64));
    // PAE, VMXE; reserved bits.
    flip(all, vmcs, HOST_CR4.any(), [5, 13, 15, 19].into_iter().chain(33..64));
}

/// Control registers, MSRs, RIP and RFLAGS.
fn registers(vmcs: &dyn VmcsRead, all: &mut Vec<Case>) {
    flip(all, vmcs, GUEST_CR0.any(), 0..64);
    flip(all, vmcs, GUEST_CR4.any(), 0..64);
    flip(all, vmcs, GUEST_CR3.any(), (0..12).chain(36..64));
    flip(all, vmcs, GUEST_EFER.any(), 0..64);
    flip(all, vmcs, GUEST_DEBUGCTL.any(), 0..64);
    flip(all, vmcs, GUEST_DR7.any(), 0..64);
    flip(all, vmcs, GUEST_RFLAGS.any(), 0..64);
    flip(all, vmcs, GUEST_PERF_GLOBAL_CTRL.any(), 0..64);
    for byte in 0..8 {
        for memory_type in [0_u64, 1, 2, 3, 4, 5, 6, 7, 8, 0x80] {
            let name = format!("{}: entry {byte} {memory_type:#x}", GUEST_PAT.any());
            let clear = (GUEST_PAT.any(), To::Clear(0xff << (8 * byte)));
            several(
                all,
                name,
                &[clear, (GUEST_PAT.any(), To::Set(memory_type << (8 * byte)))],
            );
        }
    }
    for field in [
        GUEST_SYSENTER_ESP,
        GUEST_SYSENTER_EIP,
        GUEST_RIP,
        GUEST_GDTR_BASE,
        GUEST_IDTR_BASE,
    ] {
        edges(all, field.any());
    }
    for field in [GUEST_GDTR_LIMIT, GUEST_IDTR_LIMIT] {
        values(all, field.any(), &[0, 0xffff, 0x1_0000, 0xffff_ffff]);
    }
}

/// Addresses at the edges of what is canonical with 48 and with 57 bits.
fn edges(all: &mut Vec<Case>, field: AnyField) {
    values(
        all,
        field,
        &[
            0xffff_ffff,
            1 << 32,
            (1 << 47) - 1,
            1 << 47,
            1 << 48,
            1 << 56,
            1 << 57,
            1 << 63,
            !0 << 47,
            !0 << 48,
            !0 << 49,
            !0 << 57,
        ],
    );
}

/// Selectors, bases, limits and access rights.
fn segments(vmcs: &dyn VmcsRead, all: &mut Vec<Case>) {
    for segment in [ES, CS, SS, DS, FS, GS, LDTR, TR] {
        let SegmentFields {
            selector,
            base,
            limit,
            rights,
        } = segment;
        flip(all, vmcs, selector.any(), 0..3);
        edges(all, base.any());
        values(
            all,
            limit.any(),
            &[0, 0xfff, 0x1000, 0xf_ffff, 0x10_0000, 0xffff_f000, 0xffff_ffff],
        );
        flip(all, vmcs, rights.any(), 0..32);
        // Every type of a usable segment, of level 0 and 3.
        for kind in 0..16 {
            for level in [0, 3] {
                let value = 0xa090 | kind | level << 5;
                one(all, rights.any(), To::Value(value), &format!("{value:#x}"));
            }
        }
    }
}

/// Every kind of event, with and without an error code.
fn events(all: &mut Vec<Case>) {
    let field = ENTRY_INTERRUPTION_INFORMATION.any();
    for kind in 0..8 {
        for vector in [0, 1, 2, 3, 6, 8, 9, 10, 13, 14, 15, 17, 18, 21, 31, 32, 0xff] {
            for error_code in [0, 1] {
                let event = 1 << 31 | error_code << 11 | kind << 8 | vector;
                let length = (ENTRY_INSTRUCTION_LENGTH.any(), To::Value(2));
                several(all, format!("event {event:#x}"), &[(field, To::Value(event)), length]);
            }
        }
    }
    for bit in 12..31 {
        one(
            all,
            field,
            To::Value(1 << 31 | 1 << bit | 0x306),
            &format!("#UD and bit {bit}"),
        );
    }
    for length in [0, 1, 15, 16, 0xffff_ffff] {
        let name = format!("INT 0x80 of {length} bytes");
        several(
            all,
            name,
            &[
                (field, To::Value(1 << 31 | 0x480)),
                (ENTRY_INSTRUCTION_LENGTH.any(), To::Value(length)),
            ],
        );
    }
    for bit in [0, 14, 15, 16, 31] {
        let code = (ENTRY_EXCEPTION_ERROR_CODE.any(), To::Value(1 << bit));
        several(
            all,
            format!("#GP with bit {bit} of its error code"),
            &[(field, To::Value(1 << 31 | 0xb0d)), code],
        );
    }
}

/// Activity, interruptibility, pending debug exceptions, the link pointer.
fn state(vmcs: &dyn VmcsRead, all: &mut Vec<Case>) {
    values(all, GUEST_ACTIVITY_STATE.any(), &[0, 1, 4, 5, 0xffff_ffff]);
    flip(all, vmcs, GUEST_INTERRUPTIBILITY_STATE.any(), 0..32);
    flip(all, vmcs, GUEST_PENDING_DEBUG_EXCEPTIONS.any(), 0..64);
    values(all, VMCS_LINK_POINTER.any(), &[1, 0x800, 1 << 52, 1 << 63]);
    let interrupts = (GUEST_RFLAGS.any(), To::Set(1 << 9));
    for blocking in 0..4 {
        for event in [0, 1 << 31 | 0x20, 1 << 31 | 0x202, 1 << 31 | 0x306] {
            for activity in [0, 1] {
                let changes = [
                    interrupts,
                    (GUEST_INTERRUPTIBILITY_STATE.any(), To::Value(blocking)),
                    (ENTRY_INTERRUPTION_INFORMATION.any(), To::Value(event)),
                    (GUEST_ACTIVITY_STATE.any(), To::Value(activity)),
                ];
                several(
                    all,
                    format!("blocking {blocking}, event {event:#x}, activity {activity}"),
                    &changes,
                );
            }
        }
    }
}

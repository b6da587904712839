//! Checks on guest non-register state: activity, interruptibility, pending debug exceptions, and the
//! VMCS link pointer.

use crate::vmx::check::entry::{Entry, bit};
use crate::vmx::check::{Outcome, Rule, Section};
use crate::vmx::controls::{entry, pin, secondary};
use crate::vmx::event::{Event, Kind};
use crate::vmx::fields::*;

/// Activity states (SDM volume 3C, section 26.4.2).
const ACTIVE: u32 = 0;
const HLT: u32 = 1;
const SHUTDOWN: u32 = 2;
const WAIT_FOR_SIPI: u32 = 3;

/// Bits of the interruptibility state (SDM volume 3C, table 26-3).
const BY_STI: u32 = 0;
const BY_MOV_SS: u32 = 1;
const BY_SMI: u32 = 2;
const BY_NMI: u32 = 3;
const ENCLAVE: u32 = 4;

/// Bits of the pending debug exceptions (SDM volume 3C, table 26-4).
const BUS_LOCK: u32 = 11;
const ENABLED_BREAKPOINT: u32 = 12;
const SINGLE_STEP: u32 = 14;
const RTM: u32 = 16;

/// No VMCS is linked.
const NO_LINK: u64 = !0;

/// Whether a bit of the interruptibility state is set.
fn blocked(entry: &Entry<'_>, by: u32) -> bool {
    bit(u64::from(entry.get(GUEST_INTERRUPTIBILITY_STATE)), by)
}

/// Whether an event of a kind is injected.
fn injects(entry: &Entry<'_>, kind: Kind) -> bool {
    entry.injected().is_some_and(|event| event.kind() == kind)
}

/// Whether an event may be injected into a guest that is not active.
fn may_wake(event: Event, state: u32) -> bool {
    let (kind, vector) = (event.kind(), event.vector());
    match state {
        HLT => match kind {
            Kind::ExternalInterrupt | Kind::Nmi => true,
            // #DB and #MC.
            Kind::HardwareException => matches!(vector, 1 | 18),
            Kind::Other => vector == 0,
            _ => false,
        },
        SHUTDOWN => kind == Kind::Nmi || kind == Kind::HardwareException && vector == 18,
        WAIT_FOR_SIPI => false,
        _ => true,
    }
}

/// The rules.
pub const ACTIVITY: Section = Section {
    number: "28.3.1.5",
    title: "Guest non-register state",
    outcome: Outcome::InvalidGuest,
    rules: &[
        Rule::new(
            "activity_supported",
            "it is active (0), or HLT (1), shutdown (2) or wait-for-SIPI (3) where IA32_VMX_MISC offers it",
            |entry, broken| {
                let supported = entry
                    .capabilities
                    .misc
                    .supports_activity(entry.get(GUEST_ACTIVITY_STATE));
                broken.when(!supported, GUEST_ACTIVITY_STATE);
            },
        ),
        Rule::new(
            "hlt_level",
            "it is HLT only at privilege level 0 (bits 6:5 of the access rights of SS)",
            |entry, broken| {
                let level = entry.get(GUEST_SS_ACCESS_RIGHTS) >> 5 & 3;
                broken.when(
                    entry.get(GUEST_ACTIVITY_STATE) == HLT && level != 0,
                    GUEST_ACTIVITY_STATE,
                );
            },
        ),
        Rule::new(
            "blocked_is_active",
            "it is active if events are blocked by STI or by MOV SS",
            |entry, broken| {
                let blocked = blocked(entry, BY_STI) || blocked(entry, BY_MOV_SS);
                broken.when(
                    blocked && entry.get(GUEST_ACTIVITY_STATE) != ACTIVE,
                    GUEST_ACTIVITY_STATE,
                );
            },
        ),
        Rule::new(
            "event_wakes",
            "the event that is injected ends it: HLT by an interrupt, NMI, #DB, #MC or pending monitor trap; shutdown by \
             NMI or #MC; wait-for-SIPI by none",
            |entry, broken| {
                let state = entry.get(GUEST_ACTIVITY_STATE);
                broken.when(
                    entry.injected().is_some_and(|event| !may_wake(event, state)),
                    GUEST_ACTIVITY_STATE,
                );
            },
        ),
        Rule::new(
            "smm_wait_for_sipi",
            "with \"entry to SMM\", it is not wait-for-SIPI",
            |e, broken| {
                let waits = e.get(GUEST_ACTIVITY_STATE) == WAIT_FOR_SIPI;
                broken.when(e.entry(entry::ENTRY_TO_SMM) && waits, GUEST_ACTIVITY_STATE);
            },
        ),
        Rule::new("interruptibility_reserved", "bits 31:5 are 0", |entry, broken| {
            broken.when(
                entry.get(GUEST_INTERRUPTIBILITY_STATE) >> 5 != 0,
                GUEST_INTERRUPTIBILITY_STATE,
            );
        }),
        Rule::new(
            "sti_and_mov_ss",
            "blocking by STI (bit 0) and by MOV SS (bit 1) are not both 1",
            |entry, broken| {
                let both = blocked(entry, BY_STI) && blocked(entry, BY_MOV_SS);
                broken.when(both, GUEST_INTERRUPTIBILITY_STATE);
            },
        ),
        Rule::new(
            "sti_needs_interrupts",
            "blocking by STI (bit 0) is 0 if RFLAGS.IF is 0",
            |entry, broken| {
                let off = !bit(entry.get(GUEST_RFLAGS), 9);
                broken.when(off && blocked(entry, BY_STI), GUEST_INTERRUPTIBILITY_STATE);
            },
        ),
        Rule::new(
            "interrupt_into_blocking",
            "blocking by STI (bit 0) and by MOV SS (bit 1) are 0 if an external interrupt is injected",
            |entry, broken| {
                let blocked = blocked(entry, BY_STI) || blocked(entry, BY_MOV_SS);
                broken.when(
                    injects(entry, Kind::ExternalInterrupt) && blocked,
                    GUEST_INTERRUPTIBILITY_STATE,
                );
            },
        ),
        Rule::new(
            "nmi_into_mov_ss",
            "blocking by MOV SS (bit 1) is 0 if an NMI is injected",
            |entry, broken| {
                let wrong = injects(entry, Kind::Nmi) && blocked(entry, BY_MOV_SS);
                broken.when(wrong, GUEST_INTERRUPTIBILITY_STATE);
            },
        ),
        Rule::new(
            "nmi_into_sti",
            "blocking by STI (bit 0) is 0 if an NMI is injected (a processor may demand it)",
            |entry, broken| {
                broken.when(
                    injects(entry, Kind::Nmi) && blocked(entry, BY_STI),
                    GUEST_INTERRUPTIBILITY_STATE,
                );
            },
        ),
        Rule::new(
            "smi_blocking",
            "blocking by SMI (bit 2) is 0 outside SMM, and 1 with \"entry to SMM\"",
            |e, broken| {
                let wrong = blocked(e, BY_SMI) != e.entry(entry::ENTRY_TO_SMM);
                broken.when(wrong, GUEST_INTERRUPTIBILITY_STATE);
            },
        ),
        Rule::new(
            "nmi_into_nmi",
            "with \"virtual NMIs\", blocking by NMI (bit 3) is 0 if an NMI is injected",
            |entry, broken| {
                let wrong = entry.pin(pin::VIRTUAL_NMIS) && injects(entry, Kind::Nmi) && blocked(entry, BY_NMI);
                broken.when(wrong, GUEST_INTERRUPTIBILITY_STATE);
            },
        ),
        Rule::new(
            "enclave_interruption",
            "enclave interruption (bit 4) is 1 only where SGX is, and not with blocking by MOV SS (bit 1)",
            |entry, broken| {
                let wrong = blocked(entry, BY_MOV_SS) || !entry.capabilities.processor.sgx;
                broken.when(blocked(entry, ENCLAVE) && wrong, GUEST_INTERRUPTIBILITY_STATE);
            },
        ),
        Rule::new(
            "pending_debug_reserved",
            "bits 10:4, 13, 15 and 63:17 are 0, bit 11 unless bus-lock detection is, bit 16 unless RTM is",
            |entry, broken| {
                let processor = &entry.capabilities.processor;
                let mut reserved = 0x7f << 4 | 1 << 13 | 1 << 15 | !0 << 17;
                if !processor.bus_lock_detection {
                    reserved |= 1 << BUS_LOCK;
                }
                if !processor.rtm {
                    reserved |= 1 << RTM;
                }
                let wrong = entry.get(GUEST_PENDING_DEBUG_EXCEPTIONS) & reserved != 0;
                broken.when(wrong, GUEST_PENDING_DEBUG_EXCEPTIONS);
            },
        ),
        Rule::new(
            "pending_single_step",
            "while events are blocked by STI or MOV SS, or in HLT, BS (bit 14) is 1 exactly if RFLAGS.TF is 1 and \
             IA32_DEBUGCTL.BTF is 0",
            |entry, broken| {
                let waits =
                    blocked(entry, BY_STI) || blocked(entry, BY_MOV_SS) || entry.get(GUEST_ACTIVITY_STATE) == HLT;
                let steps = bit(entry.get(GUEST_RFLAGS), 8) && !bit(entry.get(GUEST_DEBUGCTL), 1);
                let pending = bit(entry.get(GUEST_PENDING_DEBUG_EXCEPTIONS), SINGLE_STEP);
                broken.when(waits && steps != pending, GUEST_PENDING_DEBUG_EXCEPTIONS);
            },
        ),
        Rule::new(
            "pending_rtm",
            "with RTM (bit 16), bits 11:0, 15:13 and 63:17 are 0, bit 12 is 1, and events are not blocked by MOV SS",
            |entry, broken| {
                let pending = entry.get(GUEST_PENDING_DEBUG_EXCEPTIONS);
                let alone = pending == 1 << RTM | 1 << ENABLED_BREAKPOINT && !blocked(entry, BY_MOV_SS);
                let has = bit(pending, RTM) && entry.capabilities.processor.rtm;
                broken.when(has && !alone, GUEST_PENDING_DEBUG_EXCEPTIONS);
            },
        ),
        Rule::new(
            "link_pointer_page",
            "it is all ones, or a page: bits 11:0 are 0, and none beyond the physical-address width is set",
            |entry, broken| {
                let link = entry.get(VMCS_LINK_POINTER);
                broken.when(link != NO_LINK && entry.no_page(link), VMCS_LINK_POINTER);
            },
        ),
        Rule::new(
            "link_pointer_revision",
            "if it is not all ones, a VMCS is there: its first 31 bits are the revision of IA32_VMX_BASIC, and bit 31 (a \
             shadow VMCS) is as \"VMCS shadowing\"",
            |entry, broken| {
                let link = entry.get(VMCS_LINK_POINTER);
                if link == NO_LINK || entry.no_page(link) {
                    return;
                }
                let shadow = u32::from(entry.secondary(secondary::VMCS_SHADOWING)) << 31;
                if let Some(found) = entry.word(link) {
                    broken.when(found != entry.capabilities.basic.revision() | shadow, VMCS_LINK_POINTER);
                }
            },
        ),
        Rule::new("link_pointer_itself", "it is not the VMCS itself", |entry, broken| {
            let itself = entry.vmcs.region() == Some(entry.get(VMCS_LINK_POINTER));
            broken.when(itself, VMCS_LINK_POINTER);
        }),
    ],
};

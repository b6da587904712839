//! Interrupts, for guests whose manifest asks for them: a local APIC for each vCPU in the kernel,
//! and a descriptor for each queue that raises its interrupt there.
//!
//! ```text
//!  device loop ── write ──▶ eventfd ── KVM_IRQFD ──▶ route: MSI to a processor ──▶ local APIC
//!                           (one a queue)                   vector of the queue    (x2APIC)
//! ```
//!
//! The processor is the first, until the guest chooses another for a queue by the register QueueProcessor.
//!
//! There is neither PIC nor I/O APIC: the interrupt controller is *split*, and nobody asks for the
//! half that would be in this process. Other guests have none of this, and pay nothing for it.

use std::sync::{Mutex, PoisonError};

use chiton_core::devices::Transport;
use chiton_core::loader;
use chiton_shared::interrupts::{IPI, Idle, SPURIOUS, TIMER, queue_vector};
use chiton_shared::manifest::Feature;
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_MP_STATE_RUNNABLE, KvmIrqRouting, kvm_enable_cap,
    kvm_irq_routing_entry, kvm_lapic_state, kvm_mp_state, kvm_msi,
};
use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::Error;
use crate::guest::KvmSource;
use crate::platform::KvmKind;
use crate::snapshot::SnapshotError;

/// Where messages for local APICs go, with the destination from bit 12 on (SDM volume 3A, section
/// 12.11.1).
const MSI_ADDRESS: u32 = 0xfee0_0000;
/// Bits of IA32_APIC_BASE (SDM volume 3A, figure 12-26): the usual address, enabled, in x2APIC mode.
const APIC_BASE: u64 = 0xfee0_0000 | 1 << 11 | 1 << 10;
/// The processor that is started first.
const BOOTSTRAP: u64 = 1 << 8;
/// Offsets in the register page (SDM volume 3A, table 12-1), and what stands there.
const SPURIOUS_VECTOR: usize = 0xf0;
const LVT_TIMER: usize = 0x320;
const SOFTWARE_ENABLED: u32 = 1 << 8;
const TSC_DEADLINE_MODE: u32 = 0b10 << 17;

/// Whether a guest is to have interrupts, and how it waits then. Only for one that asks KVM is
/// asked.
pub(crate) fn decide(guest: &[u8], kvm: &KvmSource) -> Result<Option<Idle>, Error> {
    // What is wrong with the file is said by whoever reads all of it.
    let Ok(manifest) = loader::manifest(guest) else {
        return Ok(None);
    };
    if !manifest.required.union(manifest.optional).contains(Feature::INTERRUPTS) {
        return Ok(None);
    }
    let missing = kvm.interrupt_support()?.missing();
    let given = choose(missing, manifest.required.contains(Feature::INTERRUPTS))?;
    Ok(given.then(|| KvmKind::detect().idle()))
}

/// What a guest has that goes on from a snapshot, if this KVM can give it.
pub(crate) fn needed(interrupts: Option<Idle>, kvm: &KvmSource) -> Result<Option<Idle>, Error> {
    let Some(idle) = interrupts else { return Ok(None) };
    if let Some(what) = kvm.interrupt_support()?.missing() {
        return Err(Error::InterruptsRequired(what));
    }
    if idle != KvmKind::detect().idle() {
        return Err(SnapshotError::Option("it was taken where guests wait in another way than here").into());
    }
    Ok(interrupts)
}

/// Whether a guest that asks is given interrupts, by what KVM lacks.
const fn choose(missing: Option<&'static str>, required: bool) -> Result<bool, Error> {
    match missing {
        None => Ok(true),
        Some(what) if required => Err(Error::InterruptsRequired(what)),
        Some(_) => Ok(false),
    }
}

/// Prepares a machine that has no vCPU yet.
pub(crate) fn split_irqchip(vm: &VmFd) -> Result<(), Error> {
    let cap = kvm_enable_cap {
        cap: KVM_CAP_SPLIT_IRQCHIP,
        ..kvm_enable_cap::default()
    };
    vm.enable_cap(&cap).map_err(Error::kvm("KVM_CAP_SPLIT_IRQCHIP"))
}

/// IA32_APIC_BASE of a processor.
pub(crate) const fn apic_base(processor: u32) -> u64 {
    APIC_BASE | if processor == 0 { BOOTSTRAP } else { 0 }
}

/// Makes the local APIC of a vCPU ready: in x2APIC mode, enabled, its timer waiting for deadlines.
/// The vCPU does not wait for another one to start it.
pub(crate) fn prepare(vcpu: &VcpuFd, processor: u32) -> Result<(), Error> {
    let mut sregs = vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?;
    sregs.apic_base = apic_base(processor);
    vcpu.set_sregs(&sregs).map_err(Error::kvm("KVM_SET_SREGS"))?;
    let mut apic = vcpu.get_lapic().map_err(Error::kvm("KVM_GET_LAPIC"))?;
    put(&mut apic, SPURIOUS_VECTOR, SOFTWARE_ENABLED | u32::from(SPURIOUS));
    put(&mut apic, LVT_TIMER, TSC_DEADLINE_MODE | u32::from(TIMER));
    vcpu.set_lapic(&apic).map_err(Error::kvm("KVM_SET_LAPIC"))?;
    let running = kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    };
    vcpu.set_mp_state(running).map_err(Error::kvm("KVM_SET_MP_STATE"))
}

fn put(apic: &mut kvm_lapic_state, offset: usize, value: u32) {
    for (to, from) in apic.regs[offset..].iter_mut().zip(value.to_le_bytes()) {
        *to = from.cast_signed();
    }
}

/// Interrupts a processor as another one does by a call, which ends its `hlt`. One that has not been
/// started has no local APIC, and hears nothing.
pub(crate) fn call(vm: &VmFd, processor: u32) {
    let message = kvm_msi {
        address_lo: MSI_ADDRESS | processor << 12,
        data: IPI.into(),
        ..kvm_msi::default()
    };
    let _ = vm.signal_msi(message);
}

/// The interrupts of all queues.
pub(crate) struct QueueInterrupts {
    /// One descriptor a queue, by device.
    devices: Vec<Vec<EventFd>>,
    /// The processor that each goes to, of all devices in order.
    aimed: Mutex<Vec<u32>>,
}

impl QueueInterrupts {
    /// For devices with so many queues each.
    pub(crate) fn new(vm: &VmFd, queues: impl Iterator<Item = usize>) -> Result<Self, Error> {
        let mut devices = Vec::new();
        let mut aimed = Vec::new();
        for count in queues {
            let mut device = Vec::with_capacity(count);
            for _ in 0..count {
                aimed.push(0);
                device.push(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(Error::system("eventfd"))?);
            }
            devices.push(device);
        }
        set_routes(vm, &aimed)?;
        for (number, queue) in (0..).zip(devices.iter().flatten()) {
            vm.register_irqfd(queue, number).map_err(Error::kvm("KVM_IRQFD"))?;
        }
        let aimed = Mutex::new(aimed);
        Ok(Self { devices, aimed })
    }

    /// Sends the interrupts of a device to the processors that its driver chose. What was raised before
    /// has gone where it was to go then.
    pub(crate) fn aim(&self, vm: &VmFd, device: usize, transport: &Transport) -> Result<(), Error> {
        let first: usize = self.devices.iter().take(device).map(Vec::len).sum();
        let count = self.devices.get(device).map_or(0, Vec::len);
        let mut aimed = self.aimed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = aimed.clone();
        for (queue, processor) in wanted[first..first + count].iter_mut().enumerate() {
            *processor = transport.processor_of(queue);
        }
        if wanted != *aimed {
            set_routes(vm, &wanted)?;
            *aimed = wanted;
        }
        Ok(())
    }

    /// Raises the interrupts of those queues of a device whose bits are set.
    pub(crate) fn raise(&self, device: usize, queues: u64) {
        let Some(device) = self.devices.get(device) else { return };
        for (number, queue) in device.iter().enumerate() {
            if queues >> number & 1 != 0 {
                // It fails only if the counter overflows, and then the interrupt is pending anyway.
                let _ = queue.write(1);
            }
        }
    }
}

/// Tells the kernel the ways of all interrupts, by the processor that each goes to.
fn set_routes(vm: &VmFd, aimed: &[u32]) -> Result<(), Error> {
    let routes: Vec<_> = aimed
        .iter()
        .enumerate()
        .map(|(number, to)| route(number, *to))
        .collect();
    let too_many = |_| Error::KvmCapability("room for the interrupt routes");
    let table = KvmIrqRouting::from_entries(&routes).map_err(too_many)?;
    vm.set_gsi_routing(&table).map_err(Error::kvm("KVM_SET_GSI_ROUTING"))
}

/// The way of the interrupt of a queue, by its number in the boot page's table: to one processor,
/// edge-triggered, fixed (SDM volume 3A, section 12.11).
fn route(number: usize, processor: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi: number as u32,
        type_: KVM_IRQ_ROUTING_MSI,
        ..kvm_irq_routing_entry::default()
    };
    entry.u.msi.address_lo = MSI_ADDRESS | processor << 12;
    entry.u.msi.data = queue_vector(number).into();
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_could_do_without_does_without_and_another_is_refused() {
        assert_eq!(choose(None, true).ok(), Some(true));
        assert_eq!(choose(Some("x2APIC"), false).ok(), Some(false));
        let refused = choose(Some("x2APIC"), true).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the guest needs interrupts, and this machine's KVM lacks x2APIC: see `chiton doctor`"
        );
    }

    #[test]
    fn kvm_is_not_asked_for_a_guest_that_does_not_ask_or_is_none() {
        let nowhere = KvmSource::Path("/nonexistent/kvm".into());
        assert_eq!(decide(b"no guest", &nowhere).ok(), Some(None));
    }

    #[test]
    fn a_route_is_a_message_to_a_processor_with_the_vector_of_the_queue() {
        let entry = route(5, 3);
        assert_eq!((entry.gsi, entry.type_), (5, KVM_IRQ_ROUTING_MSI));
        // SAFETY: `route` has filled this member of the union; any bits are valid for its integers.
        let message = unsafe { entry.u.msi };
        assert_eq!(
            (message.address_lo, message.address_hi, message.data),
            (0xfee0_3000, 0, 0x35)
        );
    }
}

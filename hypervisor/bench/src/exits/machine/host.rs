//! What cases need of KVM beside a processor.

use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use chiton_kvm::Ram;
use chiton_shared::doorbell::MAILBOX_TEXT_OFFSET;
use chiton_shared::map;
use chiton_shared::measure::place::{self, Stamps};
use chiton_shared::memory::GuestMemory;
use kvm_bindings::{
    CpuId, KVM_IRQ_ROUTING_MSI, KVM_MAX_CPUID_ENTRIES, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY,
    KVM_MP_STATE_RUNNABLE, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KvmIrqRouting, kvm_device_attr,
    kvm_irq_routing_entry, kvm_mp_state, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VcpuFd, VmFd};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use vmm_sys_util::eventfd::EventFd;

use super::MEMORY;
use super::tables::{READ_ONLY, Walks};
use crate::exits::ExitsError;

/// The interrupt line of [`place::INTERRUPT`]: the first behind those of the interrupt controller.
const LINE: u32 = 24;
/// The slot of the page that may not be written: behind those of the guest's memory.
const READ_ONLY_SLOT: u32 = 8;
/// Where messages for the local APIC of processor 0 go (SDM volume 3A, section 12.11.1).
const MSI_ADDRESS: u32 = 0xfee0_0000;
/// IA32_APIC_BASE: the usual address, enabled; and the bit of the processor that starts first.
const APIC_BASE: u64 = MSI_ADDRESS as u64 | 1 << 11;
const BOOTSTRAP: u64 = 1 << 8;
/// CPUID leaf 8000_0001h, EDX: pages of 1 GiB.
const PAGES_OF_1G: u32 = 1 << 26;
/// CPUID leaf 1, ECX: x2APIC, and the TSC-deadline timer, which KVM has and does not list.
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
/// `_IOW(KVMIO, 0xe1, struct kvm_device_attr)`, which kvm-ioctls has for other architectures.
const KVM_SET_DEVICE_ATTR: libc::Ioctl = 0x4018_aee1;

/// A virtual machine with everything but processors.
pub(super) struct Host {
    vm: VmFd,
    cpuid: CpuId,
    interrupts: bool,
    pub(super) ram: Arc<Ram>,
    irq: EventFd,
    /// Those at which nobody waits.
    ignored: EventFd,
    /// Whether writes are logged.
    logged: AtomicBool,
}

impl Host {
    /// With this memory.
    pub(super) fn new(kvm: &Kvm, ram: Arc<Ram>, interrupts: bool) -> Result<Self, ExitsError> {
        let vm = kvm.create_vm().map_err(ExitsError::call("KVM_CREATE_VM"))?;
        let mut cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(ExitsError::call("KVM_GET_SUPPORTED_CPUID"))?;
        let deadline = kvm.check_extension_int(Cap::TscDeadlineTimer) > 0;
        if let Some(one) = cpuid.as_mut_slice().iter_mut().find(|entry| entry.function == 1) {
            if !interrupts {
                one.ecx &= !(X2APIC | TSC_DEADLINE);
                one.edx &= !(1 << 9);
            } else if deadline {
                one.ecx |= TSC_DEADLINE;
            }
        }
        let event =
            || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(ExitsError::system("make an eventfd"));
        let (irq, ignored) = (event()?, event()?);
        if interrupts {
            vm.create_irq_chip().map_err(ExitsError::call("KVM_CREATE_IRQCHIP"))?;
            route(&vm, &irq)?;
        }
        // SAFETY: each processor that is made for this machine has the memory too.
        unsafe { ram.attach(&vm) }?;
        let host = Self {
            vm,
            cpuid,
            interrupts,
            ram,
            irq,
            ignored,
            logged: AtomicBool::new(false),
        };
        host.make_places()?;
        host.make_read_only()?;
        host.listen()?;
        Ok(host)
    }

    /// Eventfds and zones, each at a port and an address.
    ///
    /// Those of a length come first: the kernel sorts what it has by an order in which something without a length, right
    /// behind the end of something that has one, is before or after that depending on which came first
    /// (`kvm_io_bus_cmp`); in the wrong order its search finds neither, and each write goes to the program.
    fn make_places(&self) -> Result<(), ExitsError> {
        let both = |place| {
            [
                IoEventAddress::Pio(place::port(place).into()),
                IoEventAddress::Mmio(place::address(place)),
            ]
        };
        for address in both(place::DATAMATCH) {
            self.vm
                .register_ioevent(&self.ignored, &address, place::DATA)
                .map_err(ExitsError::call("KVM_IOEVENTFD"))?;
        }
        for address in both(place::COALESCED) {
            // A KVM without has no such zone, and the case shows it: each write comes back.
            let _ = self.vm.register_coalesced_mmio(address, 4);
        }
        for address in both(place::WILDCARD) {
            self.vm
                .register_ioevent(&self.ignored, &address, NoDatamatch)
                .map_err(ExitsError::call("KVM_IOEVENTFD"))?;
        }
        Ok(())
    }

    /// Whether KVM walks pages of 1 GiB, by its table: a guest's own CPUID is no answer where the hypervisor cannot
    /// take the instruction from ring 3.
    pub(super) fn has_pages_of_1g(&self) -> bool {
        let mut entries = self.cpuid.as_slice().iter();
        entries.any(|entry| entry.function == 0x8000_0001 && entry.edx & PAGES_OF_1G != 0)
    }

    /// A page of memory that the guest may not write.
    fn make_read_only(&self) -> Result<(), ExitsError> {
        let page = Ram::new(map::PAGE)?;
        let region = |page: &Ram| {
            let window = page.window(0, map::PAGE as usize)?;
            Some(kvm_userspace_memory_region {
                slot: READ_ONLY_SLOT,
                flags: KVM_MEM_READONLY,
                guest_phys_addr: READ_ONLY,
                memory_size: map::PAGE,
                userspace_addr: window.as_ptr() as u64,
            })
        };
        if let Some(region) = region(&page) {
            // SAFETY: the page is this process's, and stays so until its end: see below.
            unsafe { self.vm.set_user_memory_region(region) }
                .map_err(ExitsError::call("KVM_SET_USER_MEMORY_REGION"))?;
        }
        // One for each machine, of which a process has one.
        std::mem::forget(page);
        Ok(())
    }

    /// Protects every page that was written since the last time from being written, until it is.
    pub(super) fn protect(&self) {
        let Some(window) = self.ram.window(0, map::PAGE as usize) else {
            return;
        };
        let size = Walks::behind(MEMORY).end();
        if !self.logged.swap(true, Ordering::Relaxed) {
            let region = kvm_userspace_memory_region {
                slot: 0,
                flags: KVM_MEM_LOG_DIRTY_PAGES,
                guest_phys_addr: 0,
                memory_size: size,
                userspace_addr: window.as_ptr() as u64,
            };
            // SAFETY: the same memory as before, which is kept as long as the machine; only the flag is new. A KVM
            // that does not log shows it by how little the case takes.
            let _ = unsafe { self.vm.set_user_memory_region(region) };
        }
        let _ = self.vm.get_dirty_log(0, size as usize);
    }

    /// A thread that waits at [`place::LISTENER`], and counts.
    fn listen(&self) -> Result<(), ExitsError> {
        let bell = EventFd::new(libc::EFD_CLOEXEC).map_err(ExitsError::system("make an eventfd"))?;
        self.vm
            .register_ioevent(
                &bell,
                &IoEventAddress::Pio(place::port(place::LISTENER).into()),
                NoDatamatch,
            )
            .map_err(ExitsError::call("KVM_IOEVENTFD"))?;
        let ram = Arc::clone(&self.ram);
        let count = map::MAILBOX + (MAILBOX_TEXT_OFFSET + offset_of!(Stamps, rung)) as u64;
        let hear = move || {
            pin(1);
            while bell.read().is_ok() {
                if let Some(window) = ram.window(count, 8) {
                    let mut bytes = [0; 8];
                    window.read(0, &mut bytes);
                    window.write(0, &(u64::from_le_bytes(bytes).wrapping_add(1)).to_le_bytes());
                }
            }
        };
        let builder = thread::Builder::new().name("listener".into());
        builder.spawn(hear).map_err(ExitsError::system("start a thread"))?;
        Ok(())
    }

    /// A processor, before it has registers.
    pub(super) fn vcpu(&self, number: u32) -> Result<VcpuFd, ExitsError> {
        let vcpu = self
            .vm
            .create_vcpu(number.into())
            .map_err(ExitsError::call("KVM_CREATE_VCPU"))?;
        let mut cpuid = self.cpuid.clone();
        for entry in cpuid.as_mut_slice() {
            match entry.function {
                1 => entry.ebx = entry.ebx & 0x00ff_ffff | number << 24,
                0xb | 0x1f => entry.edx = number,
                _ => {}
            }
        }
        vcpu.set_cpuid2(&cpuid).map_err(ExitsError::call("KVM_SET_CPUID2"))?;
        if self.interrupts {
            let running = kvm_mp_state {
                mp_state: KVM_MP_STATE_RUNNABLE,
            };
            vcpu.set_mp_state(running)
                .map_err(ExitsError::call("KVM_SET_MP_STATE"))?;
        }
        same_clock(&vcpu);
        Ok(vcpu)
    }

    /// IA32_APIC_BASE of a processor.
    pub(super) const fn apic_base(&self, number: u32) -> u64 {
        match (self.interrupts, number) {
            (false, _) => 0,
            (true, 0) => APIC_BASE | BOOTSTRAP,
            (true, _) => APIC_BASE,
        }
    }

    /// Raises the interrupt of [`place::INTERRUPT`].
    pub(super) fn interrupt(&self) {
        // It fails only if the counter overflows, and then the interrupt is pending anyway.
        let _ = self.irq.write(1);
    }
}

/// A message with the cases' vector, sent by writing to an eventfd.
fn route(vm: &VmFd, irq: &EventFd) -> Result<(), ExitsError> {
    let mut entry = kvm_irq_routing_entry {
        gsi: LINE,
        type_: KVM_IRQ_ROUTING_MSI,
        ..kvm_irq_routing_entry::default()
    };
    entry.u.msi.address_lo = MSI_ADDRESS;
    entry.u.msi.data = place::VECTOR.into();
    if let Ok(table) = KvmIrqRouting::from_entries(&[entry]) {
        vm.set_gsi_routing(&table)
            .map_err(ExitsError::call("KVM_SET_GSI_ROUTING"))?;
    }
    vm.register_irqfd(irq, LINE).map_err(ExitsError::call("KVM_IRQFD"))
}

/// Has the processor's time-stamp counter be the host's, so that stamps of both can be compared. A KVM that cannot
/// leaves it as it is, and the cases that compare say so.
fn same_clock(vcpu: &VcpuFd) {
    let offset = 0_u64;
    let attribute = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: (&raw const offset) as u64,
        flags: 0,
    };
    // SAFETY: the call reads the attribute and the offset, which live until it is over.
    let _ = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attribute) };
}

/// The processors that this program may use, as it was started: a thread that is pinned hands its one on to those that
/// it starts, so this is asked once, before any is.
fn allowed() -> &'static [usize] {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    ALLOWED.get_or_init(|| {
        let allowed = sched_getaffinity(None).unwrap_or_default();
        (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect()
    })
}

/// How many processors this program may use.
pub(crate) fn processors() -> usize {
    allowed().len()
}

/// Keeps the calling thread on one of the processors that the program may use, if there are so many. Where that is not
/// possible it stays free, and its migrations are recorded.
pub(crate) fn pin(number: usize) {
    let all = allowed();
    let Some(cpu) = all.get(number).or(all.last()) else {
        return;
    };
    let mut one = CpuSet::new();
    one.set(*cpu);
    let _ = sched_setaffinity(None, &one);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use chiton_kvm::platform::{DEV_KVM, open_kvm};
    use chiton_shared::doorbell;
    use kvm_bindings::kvm_regs;
    use kvm_ioctls::VcpuExit;

    use super::*;

    #[test]
    fn a_thread_that_a_pinned_one_starts_has_a_processor_of_its_own() {
        fn pinned(number: usize) -> Vec<usize> {
            pin(number);
            let set = sched_getaffinity(None).unwrap();
            (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
        }
        let (one, other) = std::thread::spawn(|| {
            let one = pinned(0);
            (one, std::thread::spawn(|| pinned(1)).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(one, allowed()[..1]);
        assert_eq!(other, [*allowed().get(1).unwrap_or(&allowed()[0])]);
    }

    /// The port of the first write that comes to the program, of one to this port with this value and one to EXIT.
    fn first_to_come(host: &Host, vcpu: &mut VcpuFd, port: u16, value: u32) -> u16 {
        let mut code = vec![0x66, 0xb8]; // mov eax, value
        code.extend(value.to_le_bytes());
        code.push(0xba); // mov dx, port
        code.extend(port.to_le_bytes());
        code.extend([0x66, 0xef, 0xba]); // out dx, eax; mov dx, EXIT
        code.extend(doorbell::EXIT.to_le_bytes());
        code.push(0xee); // out dx, al
        host.ram.window(0, code.len()).unwrap().write(0, &code);
        let registers = kvm_regs {
            rflags: 2,
            ..kvm_regs::default()
        };
        vcpu.set_regs(&registers).unwrap();
        match vcpu.run().unwrap() {
            VcpuExit::IoOut(port, _) => port,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_kernel_is_to_take_does_not_come_to_the_program() {
        if std::fs::File::options().read(true).write(true).open(DEV_KVM).is_err() {
            assert!(
                std::env::var_os("CHITON_STRICT").is_none(),
                "{DEV_KVM} is required here"
            );
            println!("SKIPPED: {DEV_KVM} is not there");
            return;
        }
        let kvm = open_kvm(Path::new(DEV_KVM)).unwrap();
        for interrupts in [false, true] {
            let ram = Arc::new(Ram::new(Walks::behind(MEMORY).end()).unwrap());
            let host = Host::new(&kvm, ram, interrupts).unwrap();
            let mut vcpu = host.vcpu(0).unwrap();
            // As after a reset, but from the beginning of memory on.
            let mut system = vcpu.get_sregs().unwrap();
            (system.cs.base, system.cs.selector) = (0, 0);
            vcpu.set_sregs(&system).unwrap();
            let mut first = |place, value| first_to_come(&host, &mut vcpu, place::port(place), value);
            for (place, value) in [
                (place::WILDCARD, 7),
                (place::DATAMATCH, place::DATA),
                (place::COALESCED, 7),
                (place::LISTENER, 7),
            ] {
                assert_eq!(
                    first(place, value),
                    doorbell::EXIT,
                    "{place}, with interrupts: {interrupts}"
                );
            }
            for (place, value) in [(place::NONE, 7), (place::DATAMATCH, place::DATA + 1)] {
                assert_eq!(first(place, value), place::port(place));
            }
        }
    }
}

//! A vCPU of KVM that notes when its exits came back, and answers the ports that only cases know.

use std::arch::x86_64::_rdtsc;
use std::mem::offset_of;
use std::sync::Arc;
use std::time::Instant;

use chiton_core::vcpu::{Broken, Exit, Registers, SystemRegisters, Vcpu};
use chiton_kvm::{Error, KvmVcpu, Ram};
use chiton_shared::doorbell::MAILBOX_TEXT_OFFSET;
use chiton_shared::map;
use chiton_shared::measure::place::{self, Stamps};
use chiton_shared::memory::GuestMemory;
use kvm_ioctls::VcpuFd;

use super::trace::Trace;
use crate::exits::ExitsError;

/// The ACPI timer of QEMU's machines, which vmexit.c reads; it counts at this rate (ACPI 6.5, section 4.8.3.3).
const PM_TIMER: u16 = 0xb008;
const PM_TIMER_HZ: u128 = 3_579_545;

/// The vCPU.
pub(super) struct LabVcpu {
    inner: KvmVcpu,
    ram: Arc<Ram>,
    begun: Instant,
    /// When the exit came back to which the guest wants to know it.
    left: Option<u64>,
    /// What says when it came to the kernel, if that is wanted.
    pub(super) trace: Option<Trace>,
}

impl LabVcpu {
    pub(super) fn new(mut fd: VcpuFd, apic_base: u64, ram: Arc<Ram>) -> Result<Self, ExitsError> {
        fd.map_coalesced_mmio_ring()
            .map_err(ExitsError::call("mmap of the coalesced I/O ring"))?;
        Ok(Self {
            inner: KvmVcpu::new(fd, apic_base),
            ram,
            begun: Instant::now(),
            left: None,
            trace: None,
        })
    }

    /// What the kernel says of an exit after which it cannot go on.
    pub(super) fn why_broken(&mut self) -> Broken {
        self.inner.why_broken()
    }

    /// Leaves the stamps for the guest, the last thing before it goes on.
    fn leave_stamps(&mut self, left: u64) {
        let exited = self.trace.as_mut().and_then(Trace::last_exit).unwrap_or(0);
        let text = map::MAILBOX + MAILBOX_TEXT_OFFSET as u64;
        if let Some(window) = self.ram.window(text, size_of::<Stamps>()) {
            window.write(offset_of!(Stamps, exited), &exited.to_le_bytes());
            window.write(offset_of!(Stamps, left), &left.to_le_bytes());
            window.write(offset_of!(Stamps, entered), &now().to_le_bytes());
        }
    }
}

fn now() -> u64 {
    // SAFETY: every processor of 64 bits has the instruction, and Linux allows it to programs.
    unsafe { _rdtsc() }
}

impl Vcpu for LabVcpu {
    type Error = Error;

    fn run(&mut self) -> Result<Exit<'_>, Error> {
        // What the kernel has kept is taken whenever there is an occasion, as device models do.
        while let Ok(Some(_)) = self.inner.fd_mut().coalesced_mmio_read() {}
        if let Some(left) = self.left.take() {
            self.leave_stamps(left);
        }
        let exit = self.inner.run()?;
        let left = now();
        match exit {
            Exit::Out { port, .. } if port == place::port(place::STAMPS) => self.left = Some(left),
            // The run loop answers with all ones, as for any port; what counts is what a clock takes.
            Exit::In { port: PM_TIMER, .. } => {
                std::hint::black_box(self.begun.elapsed().as_nanos() * PM_TIMER_HZ / 1_000_000_000);
            }
            _ => {}
        }
        Ok(exit)
    }

    fn registers(&mut self) -> Result<Registers, Error> {
        self.inner.registers()
    }

    fn system_registers(&mut self) -> Result<SystemRegisters, Error> {
        self.inner.system_registers()
    }

    fn set_registers(&mut self, registers: &Registers, system: &SystemRegisters) -> Result<(), Error> {
        self.inner.set_registers(registers, system)
    }
}

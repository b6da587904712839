//! A KVM vCPU.

use chiton_core::vcpu::{Broken, Exit, Registers, Segment, SystemRegisters, Table, Vcpu};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs, kvm_sync_regs};
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd};

use crate::Error;

/// A KVM vCPU. Its registers go to KVM in the shared page (`KVM_CAP_SYNC_REGS`), which costs no system
/// call. They come back by one: the shared page would have them at every exit, which takes a
/// twentieth of it, and they are read once.
#[derive(Debug)]
pub struct KvmVcpu {
    fd: VcpuFd,
    /// IA32_APIC_BASE; 0 without a local APIC.
    apic_base: u64,
}

impl KvmVcpu {
    /// Of what KVM has made; `apic_base` is IA32_APIC_BASE, 0 without a local APIC.
    #[must_use]
    pub const fn new(fd: VcpuFd, apic_base: u64) -> Self {
        Self { fd, apic_base }
    }

    /// KVM's descriptor.
    #[must_use]
    pub const fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// The same, to be changed.
    pub const fn fd_mut(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }

    /// Whether it has a local APIC.
    pub(crate) const fn has_apic(&self) -> bool {
        self.apic_base != 0
    }

    /// Registers that go to KVM when it runs next, as far as they are [shared](Self::share).
    pub(crate) fn shared_registers(&mut self) -> &mut kvm_sync_regs {
        self.fd.sync_regs_mut()
    }

    /// Has KVM take these of the [shared registers](Self::shared_registers) when it runs next.
    pub(crate) fn share(&mut self, registers: SyncReg) {
        self.fd.set_sync_dirty_reg(registers);
    }

    /// The byte that makes the next `KVM_RUN` return at once.
    pub(crate) fn immediate_exit(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }

    /// Has KVM leave the general registers in the shared page at each exit.
    pub(crate) fn show_registers(&mut self) {
        self.fd.set_sync_valid_reg(SyncReg::Register);
    }

    /// RIP as of the last exit, for who asked to be [shown](Self::show_registers).
    pub(crate) fn exit_rip(&mut self) -> u64 {
        self.fd.sync_regs_mut().regs.rip
    }

    /// Finishes the instruction of the last exit, without entering the guest.
    pub(crate) fn finish_exit(&mut self) -> Result<(), Error> {
        self.fd.set_kvm_immediate_exit(1);
        let finished = self.fd.run().map(|_| ()).map_err(|errno| errno.errno());
        self.fd.set_kvm_immediate_exit(0);
        match finished {
            Ok(()) | Err(libc::EINTR) => Ok(()),
            Err(errno) => Err(Error::kvm("KVM_RUN")(kvm_ioctls::Error::new(errno))),
        }
    }

    /// What the kernel says of an exit that ended in [`Exit::Broken`].
    pub fn why_broken(&mut self) -> Broken {
        const EMULATION: u32 = kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
        const HAS_BYTES: u64 = kvm_bindings::KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES as u64;
        let run = self.fd.get_kvm_run();
        if run.exit_reason != kvm_bindings::KVM_EXIT_INTERNAL_ERROR {
            return Broken::Unknown(run.exit_reason);
        }
        // SAFETY: the kernel fills this member of the union for KVM_EXIT_INTERNAL_ERROR, which the
        // exit is; every bit pattern is valid for its integers.
        let internal = unsafe { run.__bindgen_anon_1.internal };
        if internal.suberror != EMULATION {
            return Broken::Unknown(run.exit_reason);
        }
        let mut bytes = [0; 15];
        let mut len = 0;
        if internal.ndata >= 3 && internal.data[0] & HAS_BYTES != 0 {
            let words = [internal.data[1].to_le_bytes(), internal.data[2].to_le_bytes()];
            let flat = words.as_flattened();
            len = flat[0].min(15);
            bytes.copy_from_slice(&flat[1..16]);
        }
        Broken::Emulation { bytes, len }
    }
}

impl Vcpu for KvmVcpu {
    type Error = Error;

    fn run(&mut self) -> Result<Exit<'_>, Error> {
        let exit = match self.fd.run() {
            Ok(exit) => exit,
            Err(errno) if matches!(errno.errno(), libc::EINTR | libc::EAGAIN) => return Ok(Exit::Interrupted),
            Err(errno) => return Err(Error::kvm("KVM_RUN")(errno)),
        };
        Ok(match exit {
            VcpuExit::IoOut(port, data) => Exit::Out { port, data },
            VcpuExit::IoIn(port, data) => Exit::In { port, data },
            VcpuExit::MmioRead(address, data) => Exit::MmioRead { address, data },
            VcpuExit::MmioWrite(address, data) => Exit::MmioWrite { address, data },
            VcpuExit::Hlt => Exit::Halt,
            VcpuExit::Shutdown => Exit::Shutdown,
            VcpuExit::Intr => Exit::Interrupted,
            VcpuExit::FailEntry(reason, _) => Exit::EntryFailed { reason: Some(reason) },
            // `why_broken` tells more, once nothing of the exit is borrowed any longer.
            _ => Exit::Broken(Broken::Unknown(0)),
        })
    }

    fn registers(&mut self) -> Result<Registers, Error> {
        Ok(registers_from(&self.fd.get_regs().map_err(Error::kvm("KVM_GET_REGS"))?))
    }

    fn system_registers(&mut self) -> Result<SystemRegisters, Error> {
        Ok(system_from(&self.fd.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?))
    }

    fn set_registers(&mut self, registers: &Registers, system: &SystemRegisters) -> Result<(), Error> {
        let apic_base = self.apic_base;
        let shared = self.fd.sync_regs_mut();
        shared.regs = registers_to(registers);
        shared.sregs = kvm_sregs {
            apic_base,
            ..system_to(system)
        };
        self.fd.set_sync_dirty_reg(SyncReg::Register);
        self.fd.set_sync_dirty_reg(SyncReg::SystemRegister);
        Ok(())
    }
}

fn registers_to(r: &Registers) -> kvm_regs {
    kvm_regs {
        rax: r.rax,
        rbx: r.rbx,
        rcx: r.rcx,
        rdx: r.rdx,
        rsi: r.rsi,
        rdi: r.rdi,
        rsp: r.rsp,
        rbp: r.rbp,
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        rip: r.rip,
        rflags: r.rflags,
    }
}

fn registers_from(r: &kvm_regs) -> Registers {
    Registers {
        rax: r.rax,
        rbx: r.rbx,
        rcx: r.rcx,
        rdx: r.rdx,
        rsi: r.rsi,
        rdi: r.rdi,
        rsp: r.rsp,
        rbp: r.rbp,
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        rip: r.rip,
        rflags: r.rflags,
    }
}

/// Splits the access rights into the fields KVM has for them.
fn segment_to(s: &Segment) -> kvm_segment {
    let bit = |n: u16| (s.access >> n & 1) as u8;
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: (s.access & 0xf) as u8,
        s: bit(4),
        dpl: (s.access >> 5 & 3) as u8,
        present: bit(7),
        avl: bit(12),
        l: bit(13),
        db: bit(14),
        g: bit(15),
        unusable: 1 - bit(7),
        padding: 0,
    }
}

fn segment_from(s: &kvm_segment) -> Segment {
    let bit = |value: u8, n: u16| u16::from(value & 1) << n;
    Segment {
        selector: s.selector,
        base: s.base,
        limit: s.limit,
        access: u16::from(s.type_ & 0xf)
            | bit(s.s, 4)
            | u16::from(s.dpl & 3) << 5
            | bit(s.present, 7)
            | bit(s.avl, 12)
            | bit(s.l, 13)
            | bit(s.db, 14)
            | bit(s.g, 15),
    }
}

fn table_to(t: Table) -> kvm_bindings::kvm_dtable {
    kvm_bindings::kvm_dtable {
        base: t.base,
        limit: t.limit,
        padding: [0; 3],
    }
}

fn table_from(t: &kvm_bindings::kvm_dtable) -> Table {
    Table {
        base: t.base,
        limit: t.limit,
    }
}

fn system_to(s: &SystemRegisters) -> kvm_sregs {
    kvm_sregs {
        cs: segment_to(&s.cs),
        ds: segment_to(&s.ds),
        es: segment_to(&s.es),
        fs: segment_to(&s.fs),
        gs: segment_to(&s.gs),
        ss: segment_to(&s.ss),
        tr: segment_to(&s.tr),
        ldt: segment_to(&s.ldt),
        gdt: table_to(s.gdt),
        idt: table_to(s.idt),
        cr0: s.cr0,
        cr2: s.cr2,
        cr3: s.cr3,
        cr4: s.cr4,
        efer: s.efer,
        ..kvm_sregs::default()
    }
}

fn system_from(s: &kvm_sregs) -> SystemRegisters {
    SystemRegisters {
        cr0: s.cr0,
        cr2: s.cr2,
        cr3: s.cr3,
        cr4: s.cr4,
        efer: s.efer,
        cs: segment_from(&s.cs),
        ds: segment_from(&s.ds),
        es: segment_from(&s.es),
        fs: segment_from(&s.fs),
        gs: segment_from(&s.gs),
        ss: segment_from(&s.ss),
        tr: segment_from(&s.tr),
        ldt: segment_from(&s.ldt),
        gdt: table_from(&s.gdt),
        idt: table_from(&s.idt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_survives_the_way_to_kvm_and_back() {
        for access in [0, 0x9b, 0xa0fb, 0xc0f3, 0x8b, 0xf0ff] {
            let segment = Segment {
                selector: 0x33,
                base: 0x1000,
                limit: 0xffff,
                access,
            };
            assert_eq!(segment_from(&segment_to(&segment)), segment, "{access:#x}");
        }
    }
}

//! The ioctls, bare.

use core::{
    ffi::{CStr, c_ulong},
    ptr,
};

use kvm_bindings::{
    KVM_EXIT_IO, kvm_cpuid_entry2, kvm_cpuid2, kvm_regs, kvm_run, kvm_segment, kvm_sregs, kvm_userspace_memory_region,
};

/// Guest memory, in bytes.
const MEMORY: usize = 2 << 20;
/// How many CPUID leaves there is room for.
const LEAVES: usize = 100;

// Linux, include/uapi/linux/kvm.h; `_IO*` encode direction, size, 0xAE and number.
const KVM_CREATE_VM: c_ulong = io(0, 0, 0x01);
const KVM_GET_VCPU_MMAP_SIZE: c_ulong = io(0, 0, 0x04);
const KVM_GET_SUPPORTED_CPUID: c_ulong = io(3, size_of::<kvm_cpuid2>(), 0x05);
const KVM_CREATE_VCPU: c_ulong = io(0, 0, 0x41);
const KVM_SET_USER_MEMORY_REGION: c_ulong = io(1, size_of::<kvm_userspace_memory_region>(), 0x46);
const KVM_RUN: c_ulong = io(0, 0, 0x80);
const KVM_SET_REGS: c_ulong = io(1, size_of::<kvm_regs>(), 0x82);
const KVM_GET_SREGS: c_ulong = io(2, size_of::<kvm_sregs>(), 0x83);
const KVM_SET_SREGS: c_ulong = io(1, size_of::<kvm_sregs>(), 0x84);
const KVM_SET_CPUID2: c_ulong = io(1, size_of::<kvm_cpuid2>(), 0x90);

const fn io(direction: u64, size: usize, number: u64) -> c_ulong {
    direction << 30 | (size as u64) << 16 | 0xAE << 8 | number
}

/// `kvm_cpuid2` with its entries behind it.
#[repr(C)]
struct Cpuid {
    head: kvm_cpuid2,
    entries: [kvm_cpuid_entry2; LEAVES],
}

/// A machine with one vCPU.
pub struct Machine {
    memory: &'static mut [u8],
    vcpu: i32,
    run: *mut kvm_run,
}

impl Machine {
    /// A machine with 2 MiB of memory at address 0, of the KVM that [`open`] opened; `None` if KVM refuses.
    pub fn new(kvm: i32) -> Option<Self> {
        let memory = map(MEMORY, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
        // SAFETY: so many bytes are mapped for as long as the process lives, and nobody else has them.
        Self::with_memory(kvm, unsafe { core::slice::from_raw_parts_mut(memory, MEMORY) })
    }

    /// A machine with this memory at address 0; `None` if KVM refuses.
    pub fn with_memory(kvm: i32, memory: &'static mut [u8]) -> Option<Self> {
        let vm = ioctl(kvm, KVM_CREATE_VM, 0)?;
        let region = kvm_userspace_memory_region {
            memory_size: memory.len() as u64,
            userspace_addr: memory.as_ptr() as u64,
            ..Default::default()
        };
        ioctl(vm, KVM_SET_USER_MEMORY_REGION, ptr::from_ref(&region) as c_ulong)?;
        let vcpu = ioctl(vm, KVM_CREATE_VCPU, 0)?;
        let size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)?;
        let run = map(size as usize, libc::MAP_SHARED, vcpu)?.cast();

        let mut cpuid = Cpuid {
            head: kvm_cpuid2::default(),
            entries: [kvm_cpuid_entry2::default(); LEAVES],
        };
        cpuid.head.nent = LEAVES as u32;
        ioctl(kvm, KVM_GET_SUPPORTED_CPUID, ptr::from_mut(&mut cpuid) as c_ulong)?;
        ioctl(vcpu, KVM_SET_CPUID2, ptr::from_ref(&cpuid) as c_ulong)?;
        Some(Self { memory, vcpu, run })
    }

    /// Guest memory. The vCPU does not run while somebody holds it.
    pub fn memory(&mut self) -> &mut [u8] {
        self.memory
    }

    /// Makes the vCPU begin at `code` in long mode and ring 3, with a task state segment of two pages
    /// at `tss`.
    pub fn enter(&mut self, code: usize, page_tables: usize, tss: usize) -> Option<()> {
        let mut sregs = kvm_sregs::default();
        ioctl(self.vcpu, KVM_GET_SREGS, ptr::from_mut(&mut sregs) as c_ulong)?;
        let flat = kvm_segment {
            limit: u32::MAX,
            present: 1,
            dpl: 3,
            s: 1,
            g: 1,
            ..Default::default()
        };
        let data = kvm_segment {
            selector: 0x1b,
            type_: 3,
            db: 1,
            ..flat
        };
        sregs.cs = kvm_segment {
            selector: 0x23,
            type_: 11,
            l: 1,
            ..flat
        };
        (sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs) = (data, data, data, data, data);
        sregs.tr = kvm_segment {
            base: tss as u64,
            limit: 0x1fff,
            selector: 0x28,
            type_: 11,
            present: 1,
            ..Default::default()
        };
        sregs.cr0 = 0x8000_0033; // PG, NE, ET, MP, PE
        sregs.cr3 = page_tables as u64;
        sregs.cr4 = 0x20; // PAE
        sregs.efer = 0x500; // LMA, LME
        ioctl(self.vcpu, KVM_SET_SREGS, ptr::from_ref(&sregs) as c_ulong)?;
        // IOPL 3 beside the I/O map: each of the two is what some KVM goes by.
        let regs = kvm_regs {
            rip: code as u64,
            rflags: 0x3002,
            ..Default::default()
        };
        ioctl(self.vcpu, KVM_SET_REGS, ptr::from_ref(&regs) as c_ulong)?;
        Some(())
    }

    /// Runs until the guest writes to a port, and returns the port; `None` at any other exit.
    pub fn run(&mut self) -> Option<u16> {
        ioctl(self.vcpu, KVM_RUN, 0)?;
        // SAFETY: `new` mapped the structure, and the kernel writes it only inside KVM_RUN; for
        // KVM_EXIT_IO it has filled in the union's `io`.
        unsafe { ((*self.run).exit_reason == KVM_EXIT_IO).then(|| (*self.run).__bindgen_anon_1.io.port) }
    }
}

/// KVM's descriptor; `None` if it cannot be opened.
pub fn open() -> Option<i32> {
    // SAFETY: a C string and flags, no pointers that outlive the call.
    checked(unsafe { libc::open(c"/dev/kvm".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })
}

/// So many MiB of a file as memory: to be written, or copy-on-write.
pub fn image(path: &CStr, mib: u32, write: bool) -> Option<&'static mut [u8]> {
    let len = (mib as usize) << 20;
    let (flags, kind) = if write {
        (libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, libc::MAP_SHARED)
    } else {
        (libc::O_RDONLY, libc::MAP_PRIVATE)
    };
    // SAFETY: a C string, flags and a mode.
    let fd = checked(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) })?;
    if write {
        // SAFETY: no memory is involved.
        checked(unsafe { libc::ftruncate(fd, len as libc::off_t) })?;
    }
    let memory = map(len, kind, fd)?;
    // SAFETY: so many bytes are mapped for as long as the process lives, and nobody else has this mapping.
    Some(unsafe { core::slice::from_raw_parts_mut(memory, len) })
}

fn ioctl(fd: i32, request: c_ulong, argument: c_ulong) -> Option<i32> {
    // SAFETY: each caller passes the structure that its request names, alive for the call.
    checked(unsafe { libc::ioctl(fd, request as _, argument) })
}

fn map(size: usize, flags: i32, fd: i32) -> Option<*mut u8> {
    // SAFETY: a new mapping at an address the kernel picks touches no other.
    let at = unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
    (at != libc::MAP_FAILED).then_some(at.cast())
}

fn checked(result: i32) -> Option<i32> {
    (result >= 0).then_some(result)
}

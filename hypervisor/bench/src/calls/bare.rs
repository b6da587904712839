//! The floor: a machine made of bare ioctls, whose guest in ring 3 writes a word to each of some pages and rings,
//! again and again.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Instant;

use kvm_bindings::{
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_MEM_LOG_DIRTY_PAGES, kvm_enable_cap, kvm_regs, kvm_segment, kvm_sregs,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, SyncReg, VcpuExit, VcpuFd, VmFd};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{Error, nanoseconds};

/// Guest memory, in bytes.
pub(super) const MEMORY: usize = 16 << 20;
pub(super) const PAGE: usize = 4096;
/// The PML4; below it a PDPT, a directory, and eight tables.
const PAGE_TABLES: usize = 0x1000;
/// The tables with the entries of pages.
pub(super) const LAST_TABLES: usize = PAGE_TABLES + 3 * PAGE;
const TSS: usize = 0x1_0000;
const CODE: usize = 0x2_0000;
/// The pages that the guest writes.
pub(super) const DATA: usize = 2 << 20;
const PORT: u16 = 0xc24;
/// Present, writable, user, accessed, dirty.
const ENTRY: u64 = 0x67;

/// The guest's memory before it has run.
pub(super) fn image(pages: u32) -> Vec<u8> {
    let mut memory = vec![0; MEMORY];
    let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
    put(PAGE_TABLES, &((PAGE_TABLES + PAGE) as u64 | ENTRY).to_le_bytes());
    put(
        PAGE_TABLES + PAGE,
        &((PAGE_TABLES + 2 * PAGE) as u64 | ENTRY).to_le_bytes(),
    );
    for table in 0..MEMORY >> 21 {
        let entry = (LAST_TABLES + table * PAGE) as u64 | ENTRY;
        put(PAGE_TABLES + 2 * PAGE + 8 * table, &entry.to_le_bytes());
    }
    for page in 0..MEMORY / PAGE {
        put(LAST_TABLES + 8 * page, &((page * PAGE) as u64 | ENTRY).to_le_bytes());
    }
    // Where the I/O map begins; it is all zero.
    put(TSS + 102, &104_u16.to_le_bytes());
    let mut code = vec![0xbf]; // mov edi, DATA
    code.extend((DATA as u32).to_le_bytes());
    code.push(0xb9); // mov ecx, pages
    code.extend(pages.to_le_bytes());
    code.extend([0xe3, 0x0c]); // jrcxz behind the loop
    code.extend([0xff, 0x07]); // inc dword [rdi]
    code.extend([0x81, 0xc7, 0x00, 0x10, 0x00, 0x00]); // add edi, 4096
    code.extend([0xff, 0xc9, 0x75, 0xf4]); // dec ecx; jnz to the inc
    code.push(0xba); // mov edx, PORT
    code.extend(u32::from(PORT).to_le_bytes());
    code.push(0xef); // out dx, eax
    let back = -(code.len() as i8) - 2;
    code.extend([0xeb, back.cast_unsigned()]); // jmp to the first
    put(CODE, &code);
    memory
}

/// A piece of address space.
pub(super) struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    pub(super) fn new(len: usize, flags: i32, file: Option<&File>) -> Result<Self, Error> {
        let fd = file.map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: a new mapping at an address that the kernel picks touches no other.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    pub(super) const fn start(&self) -> *mut u8 {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made; nobody has references into it.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// How the machine's memory is made, and watched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// From a file, of which a page becomes the machine's own when it is written.
    pub(super) from_file: bool,
    /// With KVM's dirty log.
    pub(super) log: bool,
    /// Which protects a page again only when it is told to.
    pub(super) manual: bool,
}

/// The machine.
pub(super) struct Machine {
    vcpu: VcpuFd,
    pub(super) vm: VmFd,
    pub(super) memory: Mapping,
    pub(super) sregs: kvm_sregs,
    _file: Option<File>,
}

impl Machine {
    pub(super) fn new(image: &[u8], how: Memory) -> Result<Self, Error> {
        let kvm = Kvm::new()?;
        let vm = kvm.create_vm()?;
        let file = if how.from_file {
            let file = memfd_create("pages", MemfdFlags::CLOEXEC).map_err(std::io::Error::from)?;
            let mut file = File::from(file);
            file.write_all(image)?;
            Some(file)
        } else {
            None
        };
        let anonymous = if how.from_file { 0 } else { libc::MAP_ANONYMOUS };
        let memory = Mapping::new(MEMORY, libc::MAP_PRIVATE | anonymous, file.as_ref())?;
        if !how.from_file {
            let image = &image[..MEMORY];
            // SAFETY: both are of this length, and different memory.
            unsafe { ptr::copy_nonoverlapping(image.as_ptr(), memory.start(), MEMORY) };
        }
        if how.manual {
            vm.enable_cap(&kvm_enable_cap {
                cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                args: [1, 0, 0, 0],
                ..kvm_enable_cap::default()
            })?;
        }
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: if how.log { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: memory.start() as u64,
        };
        // SAFETY: the memory stays mapped as long as the machine, which is dropped first.
        unsafe { vm.set_user_memory_region(region)? };
        let vcpu = vm.create_vcpu(0)?;
        vcpu.set_cpuid2(&kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)?)?;
        let sregs = sregs(vcpu.get_sregs()?);
        vcpu.set_sregs(&sregs)?;
        vcpu.set_regs(&kvm_regs {
            rip: CODE as u64,
            // IOPL 3 beside the I/O map: each of the two is what some KVM goes by.
            rflags: 0x3002,
            ..kvm_regs::default()
        })?;
        Ok(Self {
            vcpu,
            vm,
            memory,
            sregs,
            _file: file,
        })
    }

    /// Runs until the guest rings.
    pub(super) fn run(&mut self) -> Result<(), Error> {
        match self.vcpu.run()? {
            VcpuExit::IoOut(PORT, _) => Ok(()),
            other => Err(std::io::Error::other(format!("{other:?}")).into()),
        }
    }

    /// Has KVM take these system registers at the next entry.
    pub(super) fn share(&mut self, sregs: kvm_sregs) {
        self.vcpu.sync_regs_mut().sregs = sregs;
        self.vcpu.set_sync_dirty_reg(SyncReg::SystemRegister);
    }

    /// Copies a page of the image back.
    pub(super) fn put_back(&self, image: &[u8], page: usize) {
        let from = &image[page * PAGE..][..PAGE];
        // SAFETY: the page lies within guest memory, which has the size of the image; the guest does not run.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), self.memory.start().add(page * PAGE), PAGE) };
    }
}

/// Long mode, ring 3.
fn sregs(old: kvm_sregs) -> kvm_sregs {
    let flat = kvm_segment {
        limit: u32::MAX,
        present: 1,
        dpl: 3,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment {
        selector: 0x1b,
        type_: 3,
        db: 1,
        ..flat
    };
    kvm_sregs {
        cs: kvm_segment {
            selector: 0x23,
            type_: 11,
            l: 1,
            ..flat
        },
        ss: data,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        tr: kvm_segment {
            base: TSS as u64,
            limit: 0x1fff,
            selector: 0x28,
            type_: 11,
            present: 1,
            ..kvm_segment::default()
        },
        cr0: 0x8000_0033, // PG, NE, ET, MP, PE
        cr3: PAGE_TABLES as u64,
        cr4: 0x20,   // PAE
        efer: 0x500, // LMA, LME
        ..old
    }
}

/// What the floor does beside an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floor {
    Exit,
    Reset,
}

/// The time of each round, in nanoseconds.
pub(super) fn floor(floor: Floor, rounds: usize) -> Result<Vec<u64>, Error> {
    const PAGES: u32 = 8;
    let pages = if floor == Floor::Reset { PAGES } else { 0 };
    let image = image(pages);
    let reset = floor == Floor::Reset;
    let how = Memory {
        from_file: reset,
        log: reset,
        manual: reset,
    };
    let mut machine = Machine::new(&image, how)?;
    machine.run()?;
    let (regs, sregs) = (machine.vcpu.get_regs()?, machine.sregs);
    let xsave = machine.vcpu.get_xsave()?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let began = Instant::now();
        machine.run()?;
        if reset {
            super::dirty::log_of(&machine, |page| machine.put_back(&image, page))?;
            // SAFETY: the structure is the one that KVM gave, of a guest without AMX.
            unsafe { machine.vcpu.set_xsave(&xsave)? };
            machine.vcpu.sync_regs_mut().regs = regs;
            machine.vcpu.set_sync_dirty_reg(SyncReg::Register);
            machine.share(sregs);
        }
        times.push(nanoseconds(began.elapsed()));
    }
    Ok(times)
}

//! Instructions of ring 0, and control registers.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};

use vmexit_cases::Clock;

use super::{Case, try_once};

/// CR0.WP (SDM volume 3A, section 2.5).
const WRITE_PROTECT: u64 = 1 << 16;
/// CR4.PGE.
const GLOBAL_PAGES: u64 = 1 << 7;
/// CR4.OSXSAVE.
const OSXSAVE: u64 = 1 << 18;

/// A case that is an instruction: it is tried once under the eyes of a handler, then measured.
macro_rules! instruction {
    ($name:literal, $what:literal, $($asm:tt)*) => {
        Case::ring0($name, |meter, _| {
            // SAFETY: what it does to the machine is undone, or nothing that the guest depends on.
            let mut operation = || unsafe { asm!($($asm)*) };
            try_once($what, &mut operation)?;
            meter.each::<C>(operation)
        })
    };
}

pub fn all<C: Clock>() -> [Case; 13] {
    [
        Case::ring0("vmcall", |meter, _| {
            // The hypercall 0xffff_ffff is nobody's: KVM says so, and changes nothing else.
            let mut intel = || {
                // SAFETY: a hypervisor that does not know the number leaves memory alone.
                unsafe {
                    asm!("mov {kept}, rbx", "vmcall", "mov rbx, {kept}", kept = out(reg) _,
                              inout("eax") u32::MAX => _, out("ecx") _, out("edx") _, options(nostack))
                };
            };
            let mut amd = || {
                // SAFETY: as above.
                unsafe {
                    asm!("mov {kept}, rbx", "vmmcall", "mov rbx, {kept}", kept = out(reg) _,
                              inout("eax") u32::MAX => _, out("ecx") _, out("edx") _, options(nostack))
                };
            };
            // The one of the other maker is an undefined instruction, or the hypervisor patches it.
            if is_amd() {
                try_once("VMMCALL", &mut amd)?;
                meter.each::<C>(amd)
            } else {
                try_once("VMCALL", &mut intel)?;
                meter.each::<C>(intel)
            }
        }),
        instruction!("wbinvd", "WBINVD", "wbinvd", options(nostack)),
        instruction!("invd", "INVD", "invd", options(nostack)),
        instruction!("mov_from_cr8", "MOV from CR8", "mov {}, cr8", out(reg) _, options(nostack)),
        instruction!("mov_to_cr8", "MOV to CR8", "mov cr8, {}", in(reg) 0_u64, options(nostack)),
        instruction!("mov_dr", "MOV from DR7", "mov {}, dr7", out(reg) _, options(nostack)),
        instruction!("cr3_write", "MOV to CR3", "mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack)),
        instruction!("invlpg", "INVLPG", "invlpg [{}]", in(reg) chiton_guest::shared::map::MAILBOX, options(nostack)),
        instruction!("rdpmc", "RDPMC", "rdpmc", in("ecx") 0, out("eax") _, out("edx") _, options(nostack)),
        Case::ring0("clts", |meter, _| {
            // SAFETY: CR0.TS is clear anyway.
            let operation = || unsafe { asm!("clts", options(nostack)) };
            try_once("CLTS", operation)?;
            meter.each::<C>(operation)
        }),
        Case::ring0("xsetbv", |meter, _| {
            if __cpuid(1).ecx >> 26 & 1 == 0 {
                return Err("this processor's CPUID has no XSAVE");
            }
            let supported = __cpuid_count(0xd, 0).eax & 0b111;
            let before = cr4();
            set_cr4(before | OSXSAVE);
            let operation = || {
                // SAFETY: x87, SSE and AVX, as far as they are there.
                unsafe { asm!("xsetbv", in("ecx") 0, in("eax") supported, in("edx") 0, options(nostack)) };
            };
            let done = try_once("XSETBV", operation).and_then(|()| meter.each::<C>(operation));
            // With it on, each exit after this case may switch XCR0.
            set_cr4(before);
            done
        }),
        Case::ring0("toggle_cr0_wp", |meter, _| {
            let cr0: u64;
            // SAFETY: it is read.
            unsafe { asm!("mov {}, cr0", out(reg) cr0, options(nostack)) };
            let toggle = || {
                // SAFETY: write protection is off for no instruction that writes.
                unsafe {
                    asm!("mov cr0, {}", "mov cr0, {}", in(reg) cr0 & !WRITE_PROTECT, in(reg) cr0, options(nostack))
                };
            };
            try_once("MOV to CR0", toggle)?;
            meter.each::<C>(toggle)
        }),
        Case::ring0("toggle_cr4_pge", |meter, _| {
            let cr4 = cr4();
            let toggle = || {
                set_cr4(cr4 ^ GLOBAL_PAGES);
                set_cr4(cr4);
            };
            try_once("MOV to CR4", toggle)?;
            meter.each::<C>(toggle)
        }),
    ]
}

/// Whether the processor is AMD's.
pub fn is_amd() -> bool {
    __cpuid(0).ecx == u32::from_le_bytes(*b"cAMD")
}

fn cr4() -> u64 {
    let cr4;
    // SAFETY: it is read.
    unsafe { asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack)) };
    cr4
}

fn set_cr4(cr4: u64) {
    // SAFETY: the bits that are changed are those of global pages, of which there are none, and of XSAVE.
    unsafe { asm!("mov cr4, {}", in(reg) cr4, options(nostack)) };
}

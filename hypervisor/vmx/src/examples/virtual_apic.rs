//! The same guest with its local APIC by exits alone, and with the processor's virtual APIC (SDM volume
//! 3C, chapter 31): what it finds is the same, and what it costs is not.
//!
//! ```text
//!   TPR = 0x50 ─▶ self-IPI 0x41 ─▶ IRR has it, nothing comes
//!   TPR = 0    ─▶ handler: PPR is 0x40, end of interrupt
//!   self-IPI of vector 15 ─▶ none has it: the error register says so
//! ```

use core::fmt::Write;

use chiton_core::examples::Verdict;
use chiton_core::examples::stage::{Did, PAGES};
use chiton_core::physical::GuestRam;
use chiton_core::vmx::exit::Basic;
use chiton_core::{program, say};

use super::{stage, with_apic};
use crate::{Error, Options, Vmx, virtual_apic};

/// The vector that the guest sends itself.
const VECTOR: u8 = 0x41;
/// Where the handler begins in the program.
const HANDLER: u64 = 0x80;

const _: () = assert!(PAGES == 0x10_0000, "the program has the address in it");

program! {
    "chiton_virtual_apic",
    "xor edx, edx",
    "mov eax, 0x50",
    "mov ecx, 0x808",
    "wrmsr",
    "mov eax, 0x41",
    "mov ecx, 0x83f",
    "wrmsr",
    "sti",
    "mov ecx, 0x822", // IRR of 0x40 to 0x5f
    "rdmsr",
    "out 0x10, eax",
    "xor eax, eax",
    "xor edx, edx",
    "mov ecx, 0x808",
    "wrmsr",
    "mov eax, dword ptr [0x100000]",
    "out 0x10, eax",
    "mov eax, 15",
    "mov ecx, 0x83f",
    "wrmsr",
    "xor eax, eax",
    "mov ecx, 0x828",
    "wrmsr",
    "rdmsr",
    "out 0x10, eax",
    "hlt",
    ".balign 0x80, 0x90",
    "mov ecx, 0x80a", // the handler: PPR
    "rdmsr",
    "mov dword ptr [0x100000], eax",
    "xor eax, eax",
    "mov ecx, 0x80b",
    "wrmsr",
    "iretd",
}

/// What the guest says: its request waits; the priority in the handler; "sent illegal vector".
const EXPECTED: [Did; 4] = [Did::Out(0x10, 2), Did::Out(0x10, 0x40), Did::Out(0x10, 0x20), Did::Halt];

pub(super) fn run(vmx: &Vmx, ram: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    let mut good = true;
    let mut totals = [0; 2];
    for (virtual_apic, total) in [false, true].into_iter().zip(&mut totals) {
        if virtual_apic && virtual_apic::controls(vmx.capabilities()) == 0 {
            return Ok(Verdict::Skipped("this processor has no virtual APIC, or not all of it"));
        }
        let options = Options {
            virtual_apic,
            ..with_apic()
        };
        let mut stage = stage(vmx, ram, program(), options)?;
        stage.set_gate(VECTOR, HANDLER);
        let found = [stage.go()?, stage.go()?, stage.go()?, stage.go()?];
        good &= found == EXPECTED;
        let counts = stage.vcpu.counts();
        *total = counts.of(Basic::RDMSR) + counts.of(Basic::WRMSR) + counts.of(Basic::APIC_WRITE);
        let how = if virtual_apic {
            "with the virtual APIC"
        } else {
            "by exits alone"
        };
        say!(words, "{how} the guest finds {found:x?}");
        say!(
            words,
            "{how} it exits for its APIC {total} times: RDMSR {}, WRMSR {}, APIC write {}",
            counts.of(Basic::RDMSR),
            counts.of(Basic::WRMSR),
            counts.of(Basic::APIC_WRITE)
        );
    }
    // By exits: three reads, six writes. Of these only the error register's still exits, and the vector
    // that is none does so behind the write.
    Ok(Verdict::of(good && totals == [9, 2]))
}

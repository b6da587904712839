//! Exceptions: those that the guest's own table takes, and those that the hypervisor sees first.

use core::arch::asm;

use vmexit_cases::{Clock, Done, Meter};

use super::Case;
use crate::ring0::{self, go_on, skip_two_bytes, skip_two_bytes_and_code};

const DIVIDE: u8 = 0;
const BREAKPOINT: u8 = 3;
const UNDEFINED: u8 = 6;
const PAGE_FAULT: u8 = 14;

pub fn all<C: Clock>() -> [Case; 4] {
    [
        Case::ring0("exception_de", |meter, _| {
            with_gate::<C>(meter, DIVIDE, skip_two_bytes, || {
                // SAFETY: the handler goes on behind the two bytes.
                unsafe { asm!("div {0:l}", in(reg_abcd) 0_u32, inout("ax") 1_u16 => _) };
            })
        }),
        Case::ring0("exception_bp", |meter, _| {
            with_gate::<C>(meter, BREAKPOINT, go_on, || {
                // SAFETY: the handler goes on behind it.
                unsafe { asm!("int3") };
            })
        }),
        Case::ring0("exception_ud", |meter, _| {
            with_gate::<C>(meter, UNDEFINED, skip_two_bytes, || {
                // SAFETY: the handler goes on behind the two bytes.
                unsafe { asm!("ud2") };
            })
        }),
        Case::ring0("exception_pf", |meter, _| {
            with_gate::<C>(meter, PAGE_FAULT, skip_two_bytes_and_code, || {
                // SAFETY: nothing is mapped there; the handler goes on behind the two bytes.
                unsafe { asm!("mov al, [rcx]", in("rcx") 0x10_u64, out("al") _) };
            })
        }),
    ]
}

/// Measures an exception that this handler takes.
fn with_gate<C: Clock>(meter: &mut Meter<'_>, vector: u8, handler: extern "C" fn(), operation: impl FnMut()) -> Done {
    ring0::set_gate(vector, handler as *const () as u64);
    let done = meter.each::<C>(operation);
    ring0::reset_gate(vector);
    done
}

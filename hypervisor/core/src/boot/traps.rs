//! The trap stubs: what runs in ring 0 when the guest meets an exception.
//!
//! Each stub pushes what its exception did not, then all save the registers in the same way and
//! ring the doorbell with the address of the [`TrapFrame`](doorbell::TrapFrame) they made:
//!
//! ```text
//!   stub n:  push 0            unless the processor pushed an error code
//!            push n
//!            jmp common
//!   common:  push rax … push r15
//!            mov rax, cr2
//!            push rax
//!            mov edx, TRAP
//!            mov eax, esp
//!            out dx, eax       the host ends the guest here
//!       1:   hlt
//!            jmp 1b
//! ```
//!
//! Plain instructions only: a software KVM interprets ring 0 one instruction at a time and knows
//! few of them.

use chiton_shared::{doorbell, map};

/// How many exceptions there are (SDM volume 3A, section 7.2).
pub(super) const VECTORS: usize = 32;

/// Distance from one stub to the next, in bytes.
const STUB_SIZE: usize = 16;
/// Where the common part begins.
const COMMON: usize = VECTORS * STUB_SIZE;
/// Size of the common part, in bytes.
const COMMON_SIZE: usize = 40;

/// Exceptions that push an error code (SDM volume 3A, table 7-1): #DF, #TS, #NP, #SS, #GP, #PF,
/// #AC, #CP, and of AMD (APM volume 2, section 8.2) #VC and #SX.
const WITH_ERROR_CODE: u32 =
    1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

/// Registers in the order in which they are pushed, by their number in an instruction: rax, rbx,
/// rcx, rdx, rsi, rdi, rbp, r8 to r15.
const PUSHED: [u8; 15] = [0, 3, 1, 2, 6, 7, 5, 8, 9, 10, 11, 12, 13, 14, 15];

/// Address of the stub for a vector.
pub(super) const fn stub(vector: usize) -> u64 {
    map::TRAP_STUBS + (vector * STUB_SIZE) as u64
}

/// The IST entry for a vector, which is the number of its trap stack. #DF, NMI and #MC may strike
/// while another stub runs, so each has a stack of its own.
pub(super) const fn stack(vector: usize) -> u64 {
    match vector {
        8 => 2,
        2 => 3,
        18 => 4,
        _ => 1,
    }
}

/// The code at [`map::TRAP_STUBS`].
pub(super) static STUBS: [u8; COMMON + COMMON_SIZE] = {
    let mut code = Code {
        bytes: [INT3; COMMON + COMMON_SIZE],
        at: 0,
    };
    let mut vector = 0;
    while vector < VECTORS {
        code.at = vector * STUB_SIZE;
        if WITH_ERROR_CODE >> vector & 1 == 0 {
            code = code.emit(&[PUSH_IMM8, 0]);
        }
        code = code.emit(&[PUSH_IMM8, vector as u8]);
        let distance = COMMON - (code.at + 5);
        code = code.emit(&[JMP_REL32]).emit(&(distance as u32).to_le_bytes());
        vector += 1;
    }
    code.at = COMMON;
    let mut i = 0;
    while i < PUSHED.len() {
        code = code.push(PUSHED[i]);
        i += 1;
    }
    code = code.emit(&[0x0f, 0x20, 0xd0]).push(RAX); // mov rax, cr2
    code = code.emit(&[MOV_EDX]).emit(&(doorbell::TRAP as u32).to_le_bytes());
    code = code.emit(&[0x89, 0xe0, OUT_DX_EAX]); // mov eax, esp
    code = code.emit(&[HLT, JMP_REL8, (-3_i8).cast_unsigned()]);
    assert!(code.at <= code.bytes.len() && code.bytes.len() as u64 <= map::PAGE);
    code.bytes
};

const INT3: u8 = 0xcc;
const PUSH_IMM8: u8 = 0x6a;
const PUSH: u8 = 0x50;
const REX_B: u8 = 0x41;
const JMP_REL32: u8 = 0xe9;
const JMP_REL8: u8 = 0xeb;
const MOV_EDX: u8 = 0xba;
const OUT_DX_EAX: u8 = 0xef;
const HLT: u8 = 0xf4;
const RAX: u8 = 0;

/// Code under construction, at compile time.
struct Code<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Code<N> {
    const fn emit(mut self, bytes: &[u8]) -> Self {
        let mut i = 0;
        while i < bytes.len() {
            self.bytes[self.at] = bytes[i];
            self.at += 1;
            i += 1;
        }
        self
    }

    const fn push(self, register: u8) -> Self {
        if register < 8 {
            self.emit(&[PUSH + register])
        } else {
            self.emit(&[REX_B, PUSH + register - 8])
        }
    }
}

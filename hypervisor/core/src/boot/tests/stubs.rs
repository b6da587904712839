//! The trap stubs, disassembled and played through.

use std::collections::HashMap;

use chiton_shared::doorbell::{self, TrapFrame};
use chiton_shared::map;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Register};

use crate::boot::traps::{STUBS, VECTORS, stub};

fn decode(address: u64) -> Instruction {
    let offset = (address - map::TRAP_STUBS) as usize;
    Decoder::with_ip(64, &STUBS[offset..], address, DecoderOptions::NONE).decode()
}

/// What each register holds before the stub: something that tells them apart.
fn registers() -> HashMap<Register, u64> {
    use Register::{CR2, R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI};
    let all = [
        CR2, R15, R14, R13, R12, R11, R10, R9, R8, RBP, RDI, RSI, RDX, RCX, RBX, RAX,
    ];
    all.into_iter().zip(1000..).collect()
}

/// Plays a stub from its first instruction to the doorbell. The stack begins with what the
/// processor pushed, first push first; it comes back with what the stub pushed, and the
/// registers as the doorbell finds them.
fn play(vector: usize, mut stack: Vec<u64>, stack_top: u64) -> (Vec<u64>, HashMap<Register, u64>) {
    let mut registers = registers();
    let mut address = stub(vector);
    for _ in 0..40 {
        let i = decode(address);
        address = i.next_ip();
        match i.code() {
            Code::Pushq_imm8 => stack.push(i.immediate8to64() as u64),
            Code::Push_r64 => stack.push(registers[&i.op0_register()]),
            Code::Jmp_rel32_64 | Code::Jmp_rel8_64 => address = i.near_branch64(),
            Code::Mov_r64_cr => {
                registers.insert(i.op0_register(), registers[&i.op1_register()]);
            }
            Code::Mov_r32_imm32 => {
                registers.insert(i.op0_register(), i.immediate32().into());
            }
            Code::Mov_rm32_r32 => {
                assert_eq!((i.op0_register(), i.op1_register()), (Register::EAX, Register::ESP));
                registers.insert(Register::EAX, stack_top - 8 * stack.len() as u64);
            }
            Code::Out_DX_EAX => {
                let (halt, jump) = (decode(address), decode(address + 1));
                assert_eq!(halt.code(), Code::Hlt);
                assert_eq!((jump.code(), jump.near_branch64()), (Code::Jmp_rel8_64, address));
                return (stack, registers);
            }
            other => panic!("vector {vector}: {other:?} is no plain instruction"),
        }
    }
    panic!("vector {vector}: no doorbell");
}

#[test]
#[cfg_attr(
    miri,
    ignore = "the disassembler builds large tables first; no unsafe code is involved"
)]
fn each_stub_leaves_a_trap_frame_and_rings_with_its_address() {
    const WITH_ERROR_CODE: [usize; 10] = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];
    let top = map::trap_stack(1).1;
    for vector in 0..VECTORS {
        // SS, RSP, RFLAGS, CS, RIP (SDM volume 3A, figure 7-8).
        let mut pushed = vec![22, 21, 20, 19, 18];
        let error_code = if WITH_ERROR_CODE.contains(&vector) { 0x1234 } else { 0 };
        if error_code != 0 {
            pushed.push(error_code);
        }
        let (stack, registers) = play(vector, pushed, top);
        let bytes: Vec<u8> = stack.iter().rev().flat_map(|word| word.to_le_bytes()).collect();
        let frame = TrapFrame::from_bytes(&bytes.try_into().expect("exactly a frame"));
        let expected = TrapFrame {
            cr2: 1000,
            r15: 1001,
            r14: 1002,
            r13: 1003,
            r12: 1004,
            r11: 1005,
            r10: 1006,
            r9: 1007,
            r8: 1008,
            rbp: 1009,
            rdi: 1010,
            rsi: 1011,
            rdx: 1012,
            rcx: 1013,
            rbx: 1014,
            rax: 1015,
            vector: vector as u64,
            error_code,
            rip: 18,
            cs: 19,
            rflags: 20,
            rsp: 21,
            ss: 22,
        };
        assert_eq!(frame, expected);
        assert_eq!(registers[&Register::EDX], doorbell::TRAP.into());
        assert_eq!(registers[&Register::EAX], top - TrapFrame::SIZE as u64);
    }
}

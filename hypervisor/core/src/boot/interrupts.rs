//! Interrupt stubs and gates: what runs in ring 0 of a guest that asked for interrupts.
//!
//! ```text
//!   stub v:    mov byte gs:[pending + v], 1
//!              jmp common
//!   common:    push rax, rcx, rdx
//!              wrmsr EOI, 0                    end of interrupt
//!              mov dword gs:[news], 1; the same for deferred
//!              cmp dword gs:[masked], 0
//!              jne back
//!              mov rax, gs:[handler]
//!              test rax, rax
//!              je back
//!              is RIP in this page (a processor that halted)?
//!              je back
//!              mov dword gs:[masked], 1
//!              RIP, RFLAGS, RSP ─▶ gs:[…]; handler ─▶ RIP
//!   back:      pop rdx, rcx, rax
//!              iretq
//!
//!   int3:      rcx = GATE + …: one of the gates, else a trap as ever
//!   SET_TIMER: wrmsr TSC_DEADLINE, rax
//!   CALL:      wrmsr ICR, eax : IPI
//!   HALT:      if news = 0: sti; hlt; cli
//!              news = 0
//! ```
//!
//! `GS` is the mailbox of the processor in every ring: no selector that ring 3 can load has another
//! base but 0, where nothing is mapped, and `wrgsbase` is undefined, as CR4.FSGSBASE is not set. (A
//! software KVM runs ring 3 with the CR4 of the host, where it is not. There a guest that aims GS at
//! the stacks of ring 0 can make itself ring 0, which is its own affair: every ring of a guest is the
//! same to the host.) Interrupts come onto the stack of the traps, which never
//! meet: both run with interrupts off, and a trap is the end. Gates have the stack of RSP0, so that
//! an interrupt may come while a processor halts in one.
//!
//! What a guest writes into the area decides only where its own code goes on, in the ring that was
//! interrupted: CS and SS stay on the stack of ring 0. An address that is no address faults in
//! `iretq`, and is explained as a fault of the stub.
//!
//! As in the trap stubs, there are only instructions that a software KVM knows.

use alloc::vec;
use alloc::vec::Vec;
use core::mem::offset_of;

use chiton_shared::interrupts::{AREA, Area, CALL, GATE, HALT, IPI, QUEUES_LAST, SET_TIMER, SPURIOUS, TIMER};
use chiton_shared::map;

use super::descriptors;
use super::traps::{self, VECTORS};

/// Distance from one stub to the next, in bytes.
const STUB_SIZE: usize = 16;
/// How many interrupts have a stub.
const STUBS: usize = (QUEUES_LAST - TIMER) as usize + 1;

/// End of interrupt (SDM volume 3A, table 12-6).
const EOI: u32 = 0x80b;
/// The interrupt command register, whose upper half is the destination (SDM volume 3A, section
/// 12.12.9).
const ICR: u32 = 0x830;
/// Edge-triggered, fixed, to a physical destination, with the level that this takes (SDM volume 3A,
/// figure 12-28).
const ICR_IPI: u32 = 1 << 14 | IPI as u32;
/// The timer's deadline (SDM volume 3A, section 12.5.4.1).
const TSC_DEADLINE: u32 = 0x6e0;

/// The exception that `int3` raises.
const BREAKPOINT: usize = 3;

/// How many vectors the IDT has with interrupts.
pub(super) const IDT_VECTORS: usize = 256;

/// The bytes that a guest with interrupts has beside the others.
#[derive(Clone, Debug)]
pub(super) struct Interrupts {
    /// The page at [`map::INTERRUPT_STUBS`].
    pub(super) stubs: Vec<u8>,
    /// The whole IDT.
    pub(super) idt: Vec<u8>,
}

impl Interrupts {
    pub(super) fn new() -> Self {
        let mut code = Code::default();
        for vector in TIMER..=QUEUES_LAST {
            code.at(stub_offset(vector));
            code.emit(&[GS, 0xc6, 0x04, 0x25])
                .area(offset_of!(Area, pending) + vector as usize)
                .emit(&[1]);
            let distance = STUBS * STUB_SIZE - (code.0.len() + 5);
            code.emit(&[JMP_REL32]).emit(&(distance as u32).to_le_bytes());
        }
        code.at(STUBS * STUB_SIZE);
        common(&mut code);
        let spurious = code.next();
        code.emit(&IRETQ);
        let gates = code.next();
        self::gates(&mut code);
        debug_assert!(code.0.len() as u64 <= map::PAGE);
        let mut idt = vec![0; IDT_VECTORS * 16];
        idt[..descriptors::IDT.len()].copy_from_slice(&descriptors::IDT);
        let mut set = |vector: u8, offset: usize, stack, dpl| {
            let gate = descriptors::gate(map::INTERRUPT_STUBS + offset as u64, stack, dpl);
            idt[usize::from(vector) * 16..][..16].copy_from_slice(&gate.to_le_bytes());
        };
        for vector in TIMER..=QUEUES_LAST {
            set(vector, stub_offset(vector), 1, 0);
        }
        set(SPURIOUS, spurious, 1, 0);
        set(BREAKPOINT as u8, gates, 0, 3);
        Self { stubs: code.0, idt }
    }
}

const fn stub_offset(vector: u8) -> usize {
    (vector - TIMER) as usize * STUB_SIZE
}

/// What every interrupt does after it has left its mark.
fn common(code: &mut Code) {
    code.emit(&[PUSH_RAX, PUSH_RCX, PUSH_RDX]);
    code.emit(&[0x31, 0xc0, 0x31, 0xd2]); // xor eax, eax; xor edx, edx
    code.wrmsr(EOI);
    code.store_area(offset_of!(Area, news), 1);
    code.store_area(offset_of!(Area, deferred), 1);
    code.compare_area(offset_of!(Area, masked));
    let masked = code.jump(JNE);
    code.emit(&[GS, 0x48, 0x8b, 0x04, 0x25]).area(offset_of!(Area, handler)); // mov rax, gs:[handler]
    code.emit(&[0x48, 0x85, 0xc0]); // test rax, rax
    let nowhere = code.jump(JE);
    code.emit(&[0x48, 0x8b, 0x4c, 0x24, 24]); // mov rcx, [rsp + 24]: RIP
    code.emit(&[0x48, 0x89, 0xca, 0x48, 0xc1, 0xea, 12]); // mov rdx, rcx; shr rdx, 12
    code.emit(&[0x48, 0x81, 0xfa])
        .emit(&((map::INTERRUPT_STUBS >> 12) as u32).to_le_bytes()); // cmp rdx, this page
    let halted = code.jump(JE);
    code.store_area(offset_of!(Area, masked), 1);
    code.emit(&[GS, 0x48, 0x89, 0x0c, 0x25]).area(offset_of!(Area, rip));
    code.emit(&[0x48, 0x8b, 0x4c, 0x24, 40]); // mov rcx, [rsp + 40]: RFLAGS
    code.emit(&[GS, 0x48, 0x89, 0x0c, 0x25]).area(offset_of!(Area, rflags));
    code.emit(&[0x48, 0x8b, 0x4c, 0x24, 48]); // mov rcx, [rsp + 48]: RSP
    code.emit(&[GS, 0x48, 0x89, 0x0c, 0x25]).area(offset_of!(Area, rsp));
    code.emit(&[0x48, 0x89, 0x44, 0x24, 24]); // mov [rsp + 24], rax
    for jump in [masked, nowhere, halted] {
        code.land(jump);
    }
    code.emit(&[POP_RDX, POP_RCX, POP_RAX]).emit(&IRETQ);
}

/// What `int3` does: a gate, or the trap it is else.
fn gates(code: &mut Code) {
    code.emit(&[PUSH_RDX, 0x48, 0xba]).emit(&GATE.to_le_bytes()); // push rdx; mov rdx, GATE
    code.emit(&[0x48, 0x31, 0xca]); // xor rdx, rcx
    let [timer, call, halt] = [SET_TIMER, CALL, HALT].map(|gate| {
        code.emit(&[0x48, 0x83, 0xfa, (gate - GATE) as u8]); // cmp rdx, number
        code.jump(JE)
    });
    code.emit(&[POP_RDX]);
    let from = map::INTERRUPT_STUBS + code.0.len() as u64 + 5;
    let distance = traps::stub(BREAKPOINT).wrapping_sub(from);
    code.emit(&[JMP_REL32]).emit(&(distance as u32).to_le_bytes());

    code.land(timer);
    code.emit(&[PUSH_RAX, PUSH_RCX]);
    code.emit(&[0x48, 0x89, 0xc2, 0x48, 0xc1, 0xea, 32]); // mov rdx, rax; shr rdx, 32
    code.wrmsr(TSC_DEADLINE);
    code.emit(&[POP_RCX, POP_RAX, POP_RDX]).emit(&IRETQ);

    code.land(call);
    code.emit(&[PUSH_RAX, PUSH_RCX]);
    code.emit(&[0x89, 0xc2, MOV_EAX]).emit(&ICR_IPI.to_le_bytes()); // mov edx, eax; mov eax, …
    code.wrmsr(ICR);
    code.emit(&[POP_RCX, POP_RAX, POP_RDX]).emit(&IRETQ);

    code.land(halt);
    code.emit(&[POP_RDX]);
    code.compare_area(offset_of!(Area, news));
    let news = code.jump(JNE);
    // `sti` takes effect behind the next instruction, so nothing comes between the two.
    code.emit(&[0xfb, 0xf4, 0xfa]); // sti; hlt; cli
    code.land(news);
    code.store_area(offset_of!(Area, news), 0);
    code.emit(&IRETQ);
}

const INT3: u8 = 0xcc;
const GS: u8 = 0x65;
const JMP_REL32: u8 = 0xe9;
const JE: u8 = 0x74;
const JNE: u8 = 0x75;
const MOV_EAX: u8 = 0xb8;
const MOV_ECX: u8 = 0xb9;
const PUSH_RAX: u8 = 0x50;
const PUSH_RCX: u8 = 0x51;
const PUSH_RDX: u8 = 0x52;
const POP_RAX: u8 = 0x58;
const POP_RCX: u8 = 0x59;
const POP_RDX: u8 = 0x5a;
const IRETQ: [u8; 2] = [0x48, 0xcf];

/// Code under construction.
#[derive(Default)]
struct Code(Vec<u8>);

/// A short jump whose end is not known yet: where its distance is to stand.
struct Jump(usize);

impl Code {
    /// Goes on where a stub may begin, which is there.
    fn next(&mut self) -> usize {
        let offset = self.0.len().next_multiple_of(STUB_SIZE);
        self.at(offset);
        offset
    }

    /// Goes on at an offset; what is between is no code.
    fn at(&mut self, offset: usize) {
        self.0.resize(offset, INT3);
    }

    fn emit(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The displacement of a field of the area.
    fn area(&mut self, field: usize) -> &mut Self {
        self.emit(&((AREA + field) as u32).to_le_bytes())
    }

    /// `mov dword gs:[field], value`.
    fn store_area(&mut self, field: usize, value: u32) {
        self.emit(&[GS, 0xc7, 0x04, 0x25])
            .area(field)
            .emit(&value.to_le_bytes());
    }

    /// `cmp dword gs:[field], 0`.
    fn compare_area(&mut self, field: usize) {
        self.emit(&[GS, 0x83, 0x3c, 0x25]).area(field).emit(&[0]);
    }

    /// `mov ecx, register; wrmsr`.
    fn wrmsr(&mut self, register: u32) {
        self.emit(&[MOV_ECX]).emit(&register.to_le_bytes()).emit(&[0x0f, 0x30]);
    }

    fn jump(&mut self, condition: u8) -> Jump {
        self.emit(&[condition, 0]);
        Jump(self.0.len() - 1)
    }

    fn land(&mut self, jump: Jump) {
        self.0[jump.0] = (self.0.len() - jump.0 - 1) as u8;
    }
}

const _: () = assert!(TIMER as usize == VECTORS);

//! The interrupt stubs and gates, disassembled and played through.

use std::collections::BTreeMap;
use std::mem::offset_of;

use chiton_shared::interrupts::{
    AREA, Area, CALL, GATE, HALT, IPI, Idle, QUEUES, QUEUES_LAST, SET_TIMER, SPURIOUS, TIMER,
};
use chiton_shared::map;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};

use crate::boot::interrupts::Interrupts;
use crate::boot::traps;
use crate::boot::{Options, Place};
use crate::loader::tests::elf::Elf;

/// What RIP, CS, RFLAGS, RSP and SS are before.
const INTERRUPTED: [u64; 5] = [0x20_1234, 0x23, 0x3202, 0x30_0000, 0x1b];
const HANDLER: u64 = 0x20_5000;

/// A processor that runs a stub: registers, its area, its stack, and what it did beside.
struct Player {
    code: Interrupts,
    registers: BTreeMap<Register, u64>,
    area: BTreeMap<usize, u64>,
    stack: Vec<u64>,
    zero: bool,
    /// MSRs written, in order, and `hlt` as MSR 0.
    done: Vec<(u64, u64)>,
}

impl Player {
    fn new() -> Self {
        use Register::{RAX, RBX, RCX, RDX};
        Self {
            code: Interrupts::new(),
            registers: [(RAX, 101), (RBX, 102), (RCX, 103), (RDX, 104)].into(),
            area: BTreeMap::new(),
            stack: INTERRUPTED.into_iter().rev().collect(),
            zero: false,
            done: Vec::new(),
        }
    }

    fn with(mut self, field: usize, value: u64) -> Self {
        self.area.insert(field, value);
        self
    }

    fn set(mut self, register: Register, value: u64) -> Self {
        self.registers.insert(register, value);
        self
    }

    /// The gate of a vector: address, IST, type and DPL.
    fn gate(&self, vector: u8) -> Option<(u64, u8, u8)> {
        let gate = &self.code.idt[usize::from(vector) * 16..][..16];
        let word = |at: usize, len: usize| gate[at..at + len].iter().rev().fold(0, |v, b| v << 8 | u64::from(*b));
        let address = word(0, 2) | word(6, 2) << 16 | word(8, 4) << 32;
        (gate != [0; 16]).then_some((address, gate[4], gate[5]))
    }

    fn slot(&self, i: &Instruction) -> Slot {
        if i.segment_prefix() == Register::GS {
            return Slot::Area(i.memory_displacement64() as usize - AREA);
        }
        assert_eq!(i.memory_base(), Register::RSP);
        let index = self.stack.len() - 1 - i.memory_displacement64() as usize / 8;
        Slot::Stack(index)
    }

    fn load(&self, i: &Instruction, operand: u32) -> u64 {
        match i.op_kind(operand) {
            OpKind::Register => self.registers[&whole(i.op_register(operand))],
            OpKind::Memory => match self.slot(i) {
                Slot::Area(field) => self.area.get(&field).copied().unwrap_or(0),
                Slot::Stack(index) => self.stack[index],
            },
            _ => i.immediate(operand),
        }
    }

    fn store(&mut self, i: &Instruction, value: u64) {
        match i.op0_kind() {
            OpKind::Register => {
                self.registers.insert(whole(i.op0_register()), value);
            }
            _ => match self.slot(i) {
                Slot::Area(field) => {
                    self.area.insert(field, value);
                }
                Slot::Stack(index) => self.stack[index] = value,
            },
        }
    }

    /// Runs from an address to `iretq`, or to the trap stubs, whose address comes back.
    fn play(&mut self, mut address: u64) -> Option<u64> {
        for _ in 0..60 {
            let Some(offset) = address.checked_sub(map::INTERRUPT_STUBS) else {
                return Some(address);
            };
            let bytes = &self.code.stubs[offset as usize..];
            let i = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
            address = i.next_ip();
            match i.code() {
                Code::Push_r64 => self.stack.push(self.load(&i, 0)),
                Code::Pop_r64 => {
                    let value = self.stack.pop().expect("something was pushed");
                    self.store(&i, value);
                }
                Code::Mov_rm8_imm8
                | Code::Mov_rm32_imm32
                | Code::Mov_r32_imm32
                | Code::Mov_r64_imm64
                | Code::Mov_r64_rm64
                | Code::Mov_rm64_r64 => self.store(&i, self.load(&i, 1)),
                Code::Mov_rm32_r32 => self.store(&i, self.load(&i, 1) & 0xffff_ffff),
                Code::Xor_rm32_r32 | Code::Xor_rm64_r64 => self.store(&i, self.load(&i, 0) ^ self.load(&i, 1)),
                Code::Shr_rm64_imm8 => self.store(&i, self.load(&i, 0) >> i.immediate8()),
                Code::Test_rm64_r64 => self.zero = self.load(&i, 0) & self.load(&i, 1) == 0,
                Code::Cmp_rm32_imm8 | Code::Cmp_rm64_imm8 | Code::Cmp_rm64_imm32 => {
                    self.zero = self.load(&i, 0) == self.load(&i, 1);
                }
                Code::Je_rel8_64 if self.zero => address = i.near_branch64(),
                Code::Jne_rel8_64 if !self.zero => address = i.near_branch64(),
                Code::Je_rel8_64 | Code::Jne_rel8_64 => {}
                Code::Jmp_rel32_64 => address = i.near_branch64(),
                Code::Wrmsr => {
                    let [a, c, d] = [Register::RAX, Register::RCX, Register::RDX].map(|r| self.registers[&r]);
                    self.done.push((c, d << 32 | a & 0xffff_ffff));
                }
                Code::Sti => {
                    let halt = Decoder::with_ip(64, &self.code.stubs[offset as usize + 1..], 0, DecoderOptions::NONE);
                    assert_eq!({ halt }.decode().code(), Code::Hlt, "nothing between `sti` and `hlt`");
                }
                Code::Hlt => self.done.push((0, 0)),
                Code::Cli => {}
                Code::Iretq => return None,
                other => panic!("{other:?} is no plain instruction"),
            }
        }
        panic!("no end");
    }

    fn interrupt(&mut self, vector: u8) {
        let (address, ist, kind) = self.gate(vector).expect("a gate");
        assert_eq!((ist, kind), (1, 0x8e), "the traps' stack, not to be raised by ring 3");
        assert_eq!(self.play(address), None);
    }

    fn int3(&mut self) -> Option<u64> {
        let (address, ist, kind) = self.gate(3).expect("a gate");
        assert_eq!((ist, kind), (0, 0xee), "the stack of RSP0, for every ring");
        self.play(address)
    }

    fn field(&self, field: usize) -> u64 {
        self.area.get(&field).copied().unwrap_or(0)
    }

    /// Registers and stack as before, but for where it goes on.
    fn assert_back(&self, rip: u64) {
        use Register::{RAX, RBX, RCX, RDX};
        assert_eq!([RAX, RBX, RDX].map(|r| self.registers[&r]), [101, 102, 104]);
        assert!(self.registers[&RCX] == 103 || self.registers[&RCX] >= GATE);
        let mut frame = INTERRUPTED;
        frame[0] = rip;
        frame.reverse();
        assert_eq!(self.stack, frame);
    }
}

/// The register of 64 bits that this is a part of.
fn whole(register: Register) -> Register {
    match register {
        Register::EAX => Register::RAX,
        Register::ECX => Register::RCX,
        Register::EDX => Register::RDX,
        register => register,
    }
}

enum Slot {
    Area(usize),
    Stack(usize),
}

const EOI: (u64, u64) = (0x80b, 0);

#[test]
#[cfg_attr(miri, ignore = "the disassembler builds large tables first")]
fn each_interrupt_leaves_its_mark_and_goes_back() {
    for vector in TIMER..=QUEUES_LAST {
        let mut player = Player::new();
        player.interrupt(vector);
        player.assert_back(INTERRUPTED[0]);
        assert_eq!(player.done, [EOI]);
        let marks: Vec<_> = player.area.into_iter().collect();
        let pending = offset_of!(Area, pending) + usize::from(vector);
        let expected = [
            (offset_of!(Area, news), 1),
            (offset_of!(Area, deferred), 1),
            (pending, 1),
        ];
        assert_eq!(marks, expected, "{vector:#x}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "the disassembler builds large tables first")]
fn a_handler_is_where_it_goes_on_with_the_rest_in_the_area() {
    let mut player = Player::new().with(offset_of!(Area, handler), HANDLER);
    player.interrupt(QUEUES);
    player.assert_back(HANDLER);
    let saved = [offset_of!(Area, rip), offset_of!(Area, rflags), offset_of!(Area, rsp)].map(|f| player.field(f));
    assert_eq!(saved, [INTERRUPTED[0], INTERRUPTED[2], INTERRUPTED[3]]);
    assert_eq!(player.field(offset_of!(Area, masked)), 1);
}

#[test]
#[cfg_attr(miri, ignore = "the disassembler builds large tables first")]
fn no_handler_is_called_if_masked_or_for_a_processor_that_halts() {
    let mut masked = Player::new()
        .with(offset_of!(Area, handler), HANDLER)
        .with(offset_of!(Area, masked), 1);
    masked.interrupt(TIMER);
    masked.assert_back(INTERRUPTED[0]);
    for address in [map::INTERRUPT_STUBS, map::INTERRUPT_STUBS + map::PAGE - 1] {
        let mut halted = Player::new().with(offset_of!(Area, handler), HANDLER);
        halted.stack[4] = address;
        halted.interrupt(TIMER);
        halted.assert_back(address);
        assert_eq!(halted.field(offset_of!(Area, masked)), 0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "the disassembler builds large tables first")]
fn gates_reach_the_timer_and_other_processors() {
    let mut timer = Player::new().set(Register::RCX, SET_TIMER);
    timer.registers.insert(Register::RAX, 0x1234_5678_9abc_def0);
    assert_eq!(timer.int3(), None);
    assert_eq!(timer.done, [(0x6e0, 0x1234_5678_9abc_def0)]);
    timer.set(Register::RAX, 101).assert_back(INTERRUPTED[0]);

    let mut call = Player::new().set(Register::RCX, CALL);
    call.registers.insert(Register::RAX, 0xffff_ffff_0000_0007);
    assert_eq!(call.int3(), None);
    assert_eq!(call.done, [(0x830, 7 << 32 | 1 << 14 | u64::from(IPI))]);
    call.set(Register::RAX, 101).assert_back(INTERRUPTED[0]);
}

#[test]
#[cfg_attr(miri, ignore = "the disassembler builds large tables first")]
fn a_processor_halts_only_without_news_and_forgets_them() {
    for (news, done) in [(0, vec![(0, 0)]), (1, vec![])] {
        let mut player = Player::new()
            .set(Register::RCX, HALT)
            .with(offset_of!(Area, news), news);
        assert_eq!(player.int3(), None);
        player.assert_back(INTERRUPTED[0]);
        assert_eq!((player.done.clone(), player.field(offset_of!(Area, news))), (done, 0));
    }
}

#[test]
#[cfg_attr(miri, ignore = "the disassembler builds large tables first")]
fn any_other_breakpoint_is_a_trap() {
    for rcx in [0, 103, GATE - 1, HALT + 1, u64::MAX] {
        let mut player = Player::new().set(Register::RCX, rcx);
        assert_eq!(player.int3(), Some(traps::stub(3)), "{rcx:#x}");
        assert_eq!(player.registers[&Register::RDX], 104);
        assert_eq!(player.stack.len(), 5);
    }
}

#[test]
fn the_other_exceptions_have_the_gates_of_every_guest_and_nothing_else_has_one() {
    let player = Player::new();
    let plain = &crate::boot::descriptors::IDT;
    for vector in (0..32).filter(|vector| *vector != 3) {
        assert_eq!(player.code.idt[vector * 16..][..16], plain[vector * 16..][..16]);
    }
    for vector in QUEUES_LAST + 1..SPURIOUS {
        assert_eq!(player.gate(vector), None, "{vector:#x}");
    }
    assert!(player.code.stubs.len() as u64 <= map::PAGE);
}

#[test]
#[cfg_attr(miri, ignore = "the disassembler builds large tables first")]
fn a_spurious_interrupt_is_no_interrupt() {
    let mut player = Player::new();
    player.interrupt(SPURIOUS);
    player.assert_back(INTERRUPTED[0]);
    assert!(player.done.is_empty() && player.area.is_empty());
}

#[test]
fn only_a_guest_that_asked_has_stubs_a_longer_idt_and_the_interrupt_flag() {
    let options = |interrupts| Options {
        interrupts,
        processors: 2,
        ..Options::new(super::MEMORY)
    };
    for (interrupts, limit, flags, there) in [(None, 511, 0x3002, 0), (Some(Idle::Halt), 4095, 0x3202, 1)] {
        super::with_world(&Elf::good(), &options(interrupts), |world| {
            assert_eq!((world.system.idt.limit, world.registers.rflags), (limit, flags));
            let (other, system) = world.processor_registers().next().expect("processor 1");
            assert_eq!((system.idt.limit, other.rflags), (limit, flags));
            assert_eq!((world.boot_page.interrupts, world.boot_page.idle), (there, there));
            let stubs = world.pieces().filter(|piece| piece.place == Place::InterruptStubs);
            assert_eq!(stubs.count(), there as usize);
            let place = world.describe(map::INTERRUPT_STUBS);
            assert_eq!(place == Place::InterruptStubs, interrupts.is_some(), "{place}");
        });
    }
}

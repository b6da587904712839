use std::vec::Vec;

use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, OpKind};
use proptest::prelude::*;

use super::execute::DF;
use super::*;
use crate::vcpu::Exit;

/// Registers by the disassembler's names, smallest part to largest.
fn name(register: Register, width: Width) -> iced_x86::Register {
    use iced_x86::Register as R;
    if register.high {
        return [R::AH, R::CH, R::DH, R::BH][usize::from(register.number)];
    }
    let first = match width {
        // AL to BL, then AH to BH, then SPL and the others.
        Width::Byte if register.number >= 4 => R::SPL as u32 - 4,
        Width::Byte => R::AL as u32,
        Width::Word => R::AX as u32,
        Width::Doubleword => R::EAX as u32,
        Width::Quadword => R::RAX as u32,
    };
    R::values()
        .find(|r| *r as u32 == first + u32::from(register.number))
        .expect("every number has a register")
}

const ARITHMETIC: [(Mnemonic, Arithmetic); 9] = [
    (Mnemonic::Add, Arithmetic::Add),
    (Mnemonic::Or, Arithmetic::Or),
    (Mnemonic::Adc, Arithmetic::Adc),
    (Mnemonic::Sbb, Arithmetic::Sbb),
    (Mnemonic::And, Arithmetic::And),
    (Mnemonic::Sub, Arithmetic::Sub),
    (Mnemonic::Xor, Arithmetic::Xor),
    (Mnemonic::Cmp, Arithmetic::Cmp),
    (Mnemonic::Test, Arithmetic::Test),
];

fn is_memory(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Memory
            | OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI
            | OpKind::MemoryESDI
    )
}

/// Whether the disassembler says it is one of the instructions meant.
fn known(i: &iced_x86::Instruction) -> bool {
    let plain = matches!(
        i.mnemonic(),
        Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd | Mnemonic::Xchg
    ) || ARITHMETIC.iter().any(|(mnemonic, _)| *mnemonic == i.mnemonic());
    let string = matches!(
        i.mnemonic(),
        Mnemonic::Movsb
            | Mnemonic::Movsw
            | Mnemonic::Movsd
            | Mnemonic::Movsq
            | Mnemonic::Stosb
            | Mnemonic::Stosw
            | Mnemonic::Stosd
            | Mnemonic::Stosq
            | Mnemonic::Lodsb
            | Mnemonic::Lodsw
            | Mnemonic::Lodsd
            | Mnemonic::Lodsq
    );
    let unusual = i.has_repne_prefix()
        || i.has_rep_prefix() && !string
        // Segment registers, the two narrow forms of movsxd, and an alias of test.
        || matches!(
            i.code(),
            Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg
                | Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 | Code::Mov_Sreg_r64m16
                | Code::Movsxd_r16_rm16 | Code::Movsxd_r32_rm32
                | Code::Test_rm8_imm8_F6r1 | Code::Test_rm16_imm16_F7r1
                | Code::Test_rm32_imm32_F7r1 | Code::Test_rm64_imm32_F7r1
                | Code::Movsd_xmm_xmmm64 | Code::Movsd_xmmm64_xmm
        );
    (plain || string) && (0..i.op_count()).any(|n| is_memory(i.op_kind(n))) && !unusual
}

/// What must be the same.
fn compare(ours: &Instruction, i: &iced_x86::Instruction) {
    assert_eq!(usize::from(ours.len), i.len());
    assert_eq!(ours.width.bytes(), i.memory_size().size());
    let source = |source: Source, operand: u32| match source {
        Source::Register(register) => assert_eq!(name(register, ours.width), i.op_register(operand)),
        Source::Immediate(value) => assert_eq!(value, i.immediate(operand) & ours.width.mask()),
    };
    let arithmetic = |meant: Arithmetic| {
        assert!(ARITHMETIC.contains(&(i.mnemonic(), meant)), "{meant:?}");
    };
    let string = |repeat: Repeat, mnemonics: [Mnemonic; 4], short: OpKind| {
        assert_eq!(mnemonics[ours.width.bytes().ilog2() as usize], i.mnemonic());
        assert_eq!(repeat.counted, i.has_rep_prefix());
        let kinds = [i.op0_kind(), i.op1_kind()];
        assert_eq!(repeat.short, kinds.contains(&short));
    };
    match ours.operation {
        Operation::Store(from) => {
            assert_eq!(i.mnemonic(), Mnemonic::Mov);
            assert!(is_memory(i.op0_kind()));
            source(from, 1);
        }
        Operation::Load { to, width, extend } => {
            let expected: &[Mnemonic] = match extend {
                Extend::Zero if width == ours.width => &[Mnemonic::Mov, Mnemonic::Movzx],
                Extend::Zero => &[Mnemonic::Movzx],
                Extend::Sign => &[Mnemonic::Movsx, Mnemonic::Movsxd],
            };
            assert!(expected.contains(&i.mnemonic()));
            assert_eq!(name(to, width), i.op0_register());
            assert!(is_memory(i.op1_kind()));
        }
        Operation::Update(meant, from) => {
            arithmetic(meant);
            assert!(is_memory(i.op0_kind()));
            source(from, 1);
        }
        Operation::Combine(meant, to) => {
            arithmetic(meant);
            assert_eq!(name(to, ours.width), i.op0_register());
            assert!(is_memory(i.op1_kind()));
        }
        Operation::Exchange(register) => {
            assert_eq!(i.mnemonic(), Mnemonic::Xchg);
            source(Source::Register(register), 1);
        }
        Operation::StoreString(repeat) => string(
            repeat,
            [Mnemonic::Stosb, Mnemonic::Stosw, Mnemonic::Stosd, Mnemonic::Stosq],
            OpKind::MemoryESEDI,
        ),
        Operation::LoadString(repeat) => string(
            repeat,
            [Mnemonic::Lodsb, Mnemonic::Lodsw, Mnemonic::Lodsd, Mnemonic::Lodsq],
            OpKind::MemorySegESI,
        ),
        Operation::MoveString(repeat, segment) => {
            string(
                repeat,
                [Mnemonic::Movsb, Mnemonic::Movsw, Mnemonic::Movsd, Mnemonic::Movsq],
                OpKind::MemoryESEDI,
            );
            let expected = match i.segment_prefix() {
                iced_x86::Register::FS => Segment::Fs,
                iced_x86::Register::GS => Segment::Gs,
                _ => Segment::Flat,
            };
            assert_eq!(segment, expected);
        }
    }
}

/// Bytes that are often an instruction: prefixes, an opcode, and whatever follows.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop::sample::select(vec![
        0x66_u8, 0x67, 0xf0, 0xf2, 0xf3, 0x64, 0x65, 0x26, 0x2e, 0x36, 0x3e, 0x40, 0x41, 0x44, 0x45, 0x48, 0x4c, 0x4f,
    ]);
    let opcode = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        (0_u8..0x40).prop_map(|byte| vec![byte]),
        (0x80_u8..0x8c).prop_map(|byte| vec![byte]),
        (0xa0_u8..0xb0).prop_map(|byte| vec![byte]),
        prop::sample::select(vec![0x63_u8, 0xc6, 0xc7, 0xf6, 0xf7]).prop_map(|byte| vec![byte]),
        (0xb0_u8..0xc0).prop_map(|byte| vec![0x0f, byte]),
    ];
    (
        prop::collection::vec(prefix, 0..4),
        opcode,
        prop::collection::vec(any::<u8>(), 0..14),
    )
        .prop_map(|(prefixes, opcode, rest)| [prefixes, opcode, rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    #[cfg_attr(miri, ignore = "the disassembler builds large tables first; no unsafe code is involved")]
    fn a_disassembler_written_by_others_agrees(bytes in likely()) {
        let theirs = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
        match decode(&bytes) {
            Ok(ours) => {
                prop_assert!(known(&theirs), "{:?} of {:02x?}", theirs.code(), bytes);
                compare(&ours, &theirs);
            }
            Err(refused) => {
                prop_assert!(theirs.is_invalid() || !known(&theirs), "{} is refused: {refused}", theirs);
                let ended = theirs.is_invalid() && bytes.len() < LONGEST;
                prop_assert!(refused.why != Why::Truncated || ended, "{refused}");
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        match decode(&bytes) {
            Ok(instruction) => prop_assert!((1..=LONGEST.min(bytes.len())).contains(&instruction.len.into())),
            Err(refused) => prop_assert_eq!(usize::from(refused.len), bytes.len().min(LONGEST)),
        }
    }

    #[test]
    fn flags_and_results_are_those_of_arithmetic(first: u64, second: u64, carry: bool, width in widths()) {
        let (first, second) = (first & width.mask(), second & width.mask());
        let sign = |value: u64| i128::from(width.sign_extend(value).cast_signed());
        let (a, b, c) = (i128::from(first), i128::from(second), i128::from(carry));
        let cases = [
            (Arithmetic::Add, a + b, sign(first) + sign(second), (a & 15) + (b & 15)),
            (Arithmetic::Adc, a + b + c, sign(first) + sign(second) + c, (a & 15) + (b & 15) + c),
            (Arithmetic::Sub, a - b, sign(first) - sign(second), (a & 15) - (b & 15)),
            (Arithmetic::Cmp, a - b, sign(first) - sign(second), (a & 15) - (b & 15)),
            (Arithmetic::Sbb, a - b - c, sign(first) - sign(second) - c, (a & 15) - (b & 15) - c),
            (Arithmetic::And, a & b, sign(first & second), 0),
            (Arithmetic::Test, a & b, sign(first & second), 0),
            (Arithmetic::Or, a | b, sign(first | second), 0),
            (Arithmetic::Xor, a ^ b, sign(first ^ second), 0),
        ];
        for (operation, unsigned, signed, half) in cases {
            let mut flags = DF | 2 | u64::from(carry);
            let result = operation.compute(&mut flags, width, first, second);
            prop_assert_eq!(result, (unsigned as u64) & width.mask());
            let flag = |bit: u32| flags >> bit & 1 == 1;
            prop_assert_eq!(flag(0), i128::from(result) != unsigned, "CF of {:?}", operation);
            prop_assert_eq!(flag(2), (result & 0xff).count_ones() % 2 == 0, "PF of {:?}", operation);
            prop_assert_eq!(flag(4), !(0..16).contains(&half), "AF of {:?}", operation);
            prop_assert_eq!(flag(6), result == 0, "ZF of {:?}", operation);
            prop_assert_eq!(flag(7), sign(result) < 0, "SF of {:?}", operation);
            prop_assert_eq!(flag(11), sign(result) != signed, "OF of {:?}", operation);
            prop_assert_eq!(flags & (DF | 2), DF | 2, "the others stay");
        }
    }
}

fn widths() -> impl Strategy<Value = Width> {
    prop::sample::select(vec![Width::Byte, Width::Word, Width::Doubleword, Width::Quadword])
}

const DEVICE: u64 = 0xd000_0000;

/// Runs one instruction against a register that holds `memory`; says what was written to it.
fn run(bytes: &[u8], registers: &mut Registers, memory: u64, writes: bool) -> Option<Vec<u8>> {
    let instruction = decode(bytes).unwrap();
    let no_memory = |_: u64, _: &mut [u8]| panic!("only `movs` has another operand");
    let mut access = Access::begin(instruction, registers, (0, 0), (DEVICE, writes), no_memory).unwrap();
    let mut written = None;
    for _ in 0..2 {
        match access.exit() {
            Exit::MmioRead { address: DEVICE, data } => data.copy_from_slice(&memory.to_le_bytes()[..data.len()]),
            Exit::MmioWrite { address: DEVICE, data } => written = Some(data.to_vec()),
            other => panic!("{other:?}"),
        }
        match access
            .complete(registers, |_, _| panic!("only `movs` has another operand"))
            .unwrap()
        {
            Some(next) => access = next,
            None => return written,
        }
    }
    panic!("no third access");
}

#[test]
fn a_store_gives_the_width_that_was_meant() {
    let mut registers = Registers {
        rax: 0x1122_3344_5566_7788,
        ..Registers::default()
    };
    assert_eq!(run(&[0x88, 0x27], &mut registers, 0, true).unwrap(), [0x77], "AH");
    assert_eq!(run(&[0x66, 0x89, 0x07], &mut registers, 0, true).unwrap(), [0x88, 0x77]);
    assert_eq!(
        run(&[0x48, 0x89, 0x07], &mut registers, 0, true).unwrap(),
        registers.rax.to_le_bytes()
    );
    assert_eq!(registers.rip, 2 + 3 + 3);
    let negative = [0x48, 0xc7, 0x07, 0xfe, 0xff, 0xff, 0xff];
    assert_eq!(run(&negative, &mut registers, 0, true).unwrap(), (-2_i64).to_le_bytes());
}

#[test]
fn a_load_of_32_bits_clears_the_rest_and_a_smaller_one_leaves_it() {
    let mut registers = Registers {
        rbx: u64::MAX,
        rcx: u64::MAX,
        rdx: u64::MAX,
        ..Registers::default()
    };
    let value = 0x8081_8283;
    assert_eq!(run(&[0x8b, 0x1f], &mut registers, value, false), None);
    run(&[0x8a, 0x2f], &mut registers, value, false);
    run(&[0x48, 0x0f, 0xbf, 0x17], &mut registers, value, false);
    assert_eq!(registers.rbx, value);
    assert_eq!(registers.rcx, 0xffff_ffff_ffff_83ff, "CH");
    assert_eq!(registers.rdx, 0xffff_ffff_ffff_8283);
}

#[test]
fn an_update_reads_and_writes_back() {
    let mut registers = Registers {
        rax: 0xf0,
        ..Registers::default()
    };
    // or [rdi], eax, whichever of the two the processor reports.
    for writes in [false, true] {
        assert_eq!(
            run(&[0x09, 0x07], &mut registers, 0x0f, writes).unwrap(),
            [0xff, 0, 0, 0]
        );
    }
    assert_eq!(registers.rip, 4);
    assert_eq!(
        run(&[0x87, 0x07], &mut registers, 7, true).unwrap(),
        [0xf0, 0, 0, 0],
        "xchg"
    );
    assert_eq!(registers.rax, 7);
    assert_eq!(run(&[0x39, 0x07], &mut registers, 7, false), None, "cmp writes nothing");
    assert_eq!(registers.rflags & 0x40, 0x40, "and its operands are equal");
}

#[test]
fn an_instruction_that_does_not_write_as_the_processor_says_is_refused() {
    let load = decode(&[0x8b, 0x07]).unwrap();
    let begin = |writes| Access::begin(load, &Registers::default(), (0, 0), (DEVICE, writes), |_, _| true);
    assert_eq!(begin(true), Err(AccessError::Otherwise));
    assert!(begin(false).is_ok());
}

#[test]
fn repeated_stores_go_one_by_one_and_pass_the_instruction_at_the_end() {
    let mut registers = Registers {
        rax: 5,
        rcx: 3,
        rdi: 0x1000,
        rflags: DF,
        ..Registers::default()
    };
    for left in (0..3).rev() {
        assert_eq!(run(&[0xf3, 0xab], &mut registers, 0, true).unwrap(), [5, 0, 0, 0]);
        assert_eq!(registers.rcx, left);
        assert_eq!(registers.rip, if left == 0 { 2 } else { 0 });
    }
    assert_eq!(registers.rdi, 0x1000 - 12);
}

#[test]
fn a_copy_reads_memory_for_a_register_and_writes_memory_from_one() {
    let movs = decode(&[0x64, 0xa4]).unwrap();
    let mut registers = Registers {
        rsi: 0x1000,
        rdi: 0x2000,
        ..Registers::default()
    };
    let read = |address: u64, data: &mut [u8]| {
        assert_eq!((address, data.len()), (0x5000, 1));
        data[0] = 9;
        true
    };
    let mut access = Access::begin(movs, &registers, (0x4000, 0), (DEVICE, true), read).unwrap();
    assert_eq!(
        access.exit(),
        Exit::MmioWrite {
            address: DEVICE,
            data: &[9]
        }
    );
    assert_eq!(access.complete(&mut registers, |_, _| false), Ok(None));
    assert_eq!((registers.rsi, registers.rdi, registers.rip), (0x1001, 0x2001, 2));

    let before = registers;
    let mut access = Access::begin(movs, &registers, (0, 0), (DEVICE, false), |_, _| false).unwrap();
    let Exit::MmioRead { data, .. } = access.exit() else {
        panic!("it reads")
    };
    data[0] = 8;
    assert_eq!(
        access.complete(&mut registers, |_, _| false),
        Err(AccessError::NoMemory(0x2001))
    );
    assert_eq!(registers, before);
    let mut seen = (0, Vec::new());
    let done = access.complete(&mut registers, |address, data| {
        seen = (address, data.to_vec());
        true
    });
    assert_eq!((done, seen), (Ok(None), (0x2001, vec![8])));
}

#[test]
fn lengths_of_instructions_without_operands_count_their_prefixes() {
    const CPUID: &[u8] = &[0x0f, 0xa2];
    assert_eq!(length_of(&[0x0f, 0xa2, 0x90], CPUID), Some(2));
    assert_eq!(length_of(&[0x66, 0x48, 0x0f, 0xa2], CPUID), Some(4));
    assert_eq!(length_of(&[0x0f, 0x0b], CPUID), None);
    assert_eq!(length_of(&[0x0f], CPUID), None);
    assert_eq!(length_of(&[0x66; 20], CPUID), None);
}

#[test]
fn the_last_segment_prefix_counts() {
    let outsb = |prefixes: &[u8]| segment_of(&[prefixes, &[0x6e]].concat());
    assert_eq!(outsb(&[]), None);
    for (prefix, number) in [(0x26, 0), (0x2e, 1), (0x36, 2), (0x3e, 3), (0x64, 4), (0x65, 5)] {
        assert_eq!(outsb(&[0xf3, 0x26, prefix]), Some(number));
    }
}

#[test]
fn a_refusal_shows_the_bytes() {
    assert_eq!(
        decode(&[0x0f, 0x0b]).unwrap_err().to_string(),
        "no instruction that is known to reach a device register: 0f 0b"
    );
    assert_eq!(decode(&[0x66; 20]).unwrap_err().why, Why::TooLong);
    assert_eq!(decode(&[0x89, 0xc0]).unwrap_err().why, Why::NoMemory);
    assert_eq!(decode(&[]).unwrap_err().why, Why::Truncated);
    // Group 1 with a mandatory opcode extension, `lock mov`, `repne stosb`, `rep mov`.
    for bytes in [
        &[0xc6, 0x0f, 0][..],
        &[0xf0, 0x89, 0x07],
        &[0xf2, 0xaa],
        &[0xf3, 0x89, 0x07],
    ] {
        assert_eq!(decode(bytes).unwrap_err().why, Why::Unknown, "{bytes:02x?}");
    }
}

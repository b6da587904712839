//! Any bytes as an instruction that reaches a device register, carried out.
#![no_main]

use chiton_core::decode::{Access, LONGEST, decode};
use chiton_core::vcpu::{Exit, Registers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((told, bytes)) = data.split_first() else {
        return;
    };
    let Ok(instruction) = decode(bytes) else {
        return;
    };
    let len = usize::from(instruction.len);
    assert!((1..=LONGEST).contains(&len) && len <= bytes.len());
    // What follows an instruction does not change it, and no part of it is another.
    assert_eq!(decode(&bytes[..len]), Ok(instruction));
    assert!(decode(&bytes[..len - 1]).is_err());

    let mut registers = Registers {
        rcx: u64::from(told >> 4),
        rflags: u64::from(told & 2) << 9,
        ..Registers::default()
    };
    let begun = Access::begin(instruction, &registers, (0, 0), (0, told & 1 != 0), |_, memory| {
        memory.fill(0xa5);
        told & 4 != 0
    });
    let Ok(mut access) = begun else {
        return;
    };
    let mut exits = 0;
    loop {
        exits += 1;
        assert!(exits <= 2);
        match access.exit() {
            Exit::MmioRead { data, .. } => data.fill(0x5a),
            Exit::MmioWrite { data, .. } => assert_eq!(data.len(), instruction.width.bytes()),
            other => panic!("{other:?} is no access to a register"),
        }
        match access.complete(&mut registers, |_, _| told & 8 != 0) {
            Ok(Some(next)) => access = next,
            Ok(None) => break,
            Err(_) => return,
        }
    }
    assert!(registers.rip == 0 || registers.rip == u64::from(instruction.len));
});

//! Descriptor tables: constant, the same for every guest.
//!
//! They are mapped read-only. The processor would write the accessed bits of the GDT and the busy
//! bit of the TSS, so these are set from the start.

use chiton_shared::{doorbell, map, processor};
use x86_64::PrivilegeLevel;
use x86_64::structures::gdt::DescriptorFlags;
use x86_64::structures::gdt::SegmentSelector;

use super::traps;
use crate::vcpu::{Segment, Table};

/// Code of ring 0.
pub(super) const KERNEL_CODE: SegmentSelector = SegmentSelector::new(1, PrivilegeLevel::Ring0);
/// Data of ring 0.
pub(super) const KERNEL_DATA: SegmentSelector = SegmentSelector::new(2, PrivilegeLevel::Ring0);
/// Data of ring 3; below the code, as `sysret` wants it.
pub(super) const USER_DATA: SegmentSelector = SegmentSelector::new(3, PrivilegeLevel::Ring3);
/// Code of ring 3.
pub(super) const USER_CODE: SegmentSelector = SegmentSelector::new(4, PrivilegeLevel::Ring3);
/// The task state segment, two entries.
pub(super) const TASK: SegmentSelector = SegmentSelector::new(5, PrivilegeLevel::Ring0);

/// A busy 64-bit TSS (SDM volume 3A, table 3-2).
const BUSY_TSS: u64 = 0xb;
/// A 64-bit interrupt gate (SDM volume 3A, table 3-2), which clears the interrupt flag.
const INTERRUPT_GATE: u64 = 0xe;
/// The present bit of a descriptor's second word.
const PRESENT: u64 = 1 << 47;

/// Size of the TSS without its I/O permission map (SDM volume 3A, figure 9-11), in bytes.
const TSS_FIXED: usize = 104;
/// The ports that the I/O permission map is about: all up to the last doorbell.
const IO_MAP_PORTS: usize = doorbell::kick(map::DEVICE_MAX - 1) as usize + 4;
/// Size of the TSS with its I/O permission map, and the byte of ones behind that (SDM volume 1,
/// section 20.5.2).
pub(super) const TSS_SIZE: usize = TSS_FIXED + IO_MAP_PORTS / 8 + 1;

const DESCRIPTORS: [u64; 7] = [
    0,
    DescriptorFlags::KERNEL_CODE64.bits(),
    DescriptorFlags::KERNEL_DATA.bits(),
    DescriptorFlags::USER_DATA.bits(),
    DescriptorFlags::USER_CODE64.bits(),
    (TSS_SIZE as u64 - 1) | (map::TSS & 0xff_ffff) << 16 | BUSY_TSS << 40 | PRESENT | (map::TSS >> 24 & 0xff) << 56,
    map::TSS >> 32,
];

/// The global descriptor table.
pub(super) static GDT: [u8; DESCRIPTORS.len() * 8] = flatten(&DESCRIPTORS);

/// The task state segment: the stacks of traps, and an I/O permission map that opens the doorbells
/// to ring 3. (IOPL 3 opens them too, and the rest, where a KVM does not forget it.)
pub(super) static TSS: [u8; TSS_SIZE] = tss(
    map::trap_stack(0).1,
    map::trap_stack(1).1,
    map::trap_stack(2).1 - map::trap_stack(1).1,
);

/// A task state segment with these ends of stacks: for RSP0, for IST 1, and so far from there to
/// each of the next.
pub(super) const fn tss(rsp0: u64, ist: u64, step: u64) -> [u8; TSS_SIZE] {
    let mut tss = [0; TSS_SIZE];
    tss = put(tss, 4, rsp0);
    let mut entry = 1;
    while entry < map::TRAP_STACK_COUNT {
        tss = put(tss, 36 + 8 * (entry as usize - 1), ist + (entry - 1) * step);
        entry += 1;
    }
    tss[102] = TSS_FIXED as u8;
    let mut byte = TSS_FIXED;
    while byte < TSS_SIZE {
        let first_port = (byte - TSS_FIXED) * 8;
        let open = first_port >= doorbell::EXIT as usize && first_port < IO_MAP_PORTS;
        tss[byte] = if open { 0 } else { 0xff };
        byte += 1;
    }
    tss
}

/// The interrupt descriptor table: a gate for each exception, and none for anything else.
pub(super) static IDT: [u8; traps::VECTORS * 16] = {
    let mut gates = [0; traps::VECTORS * 2];
    let mut vector = 0;
    while vector < traps::VECTORS {
        // Only a breakpoint may be raised by an `int` instruction in ring 3.
        let dpl = if vector == 3 { 3 } else { 0 };
        let gate = gate(traps::stub(vector), traps::stack(vector), dpl);
        gates[vector * 2] = gate as u64;
        gates[vector * 2 + 1] = (gate >> 64) as u64;
        vector += 1;
    }
    flatten(&gates)
};

/// An interrupt gate to an address of ring 0: onto the stack of this IST entry (0 for that of the
/// ring), for `int` instructions of rings up to this.
pub(super) const fn gate(address: u64, ist: u64, dpl: u64) -> u128 {
    let low = address & 0xffff
        | (KERNEL_CODE.0 as u64) << 16
        | ist << 32
        | INTERRUPT_GATE << 40
        | dpl << 45
        | PRESENT
        | (address >> 16 & 0xffff) << 48;
    low as u128 | (address as u128 >> 32) << 64
}

const _: () = assert!(doorbell::EXIT.is_multiple_of(8) && IO_MAP_PORTS.is_multiple_of(8));
const _: () = assert!(TSS_SIZE <= processor::TSS_STRIDE as usize);
const _: () = assert!(GDT_LIMIT < map::PAGE as u16);
const GDT_LIMIT: u16 = DESCRIPTORS.len() as u16 * 8 - 1;

/// The register that leads to the GDT.
pub(super) const GDT_TABLE: Table = Table {
    base: map::GDT,
    limit: GDT_LIMIT,
};
/// The register that leads to an IDT of so many gates.
pub(super) const fn idt_table(gates: usize) -> Table {
    Table {
        base: map::IDT,
        limit: (gates * 16 - 1) as u16,
    }
}

/// A segment register as if it had been loaded from the GDT.
pub(super) fn segment(selector: SegmentSelector) -> Segment {
    // Limit bits 16 to 19 stand between the access bytes.
    let access = (DESCRIPTORS[(selector.0 >> 3) as usize] >> 40) as u16 & 0xf0ff;
    Segment {
        selector: selector.0,
        base: 0,
        limit: u32::MAX,
        access,
    }
}

/// The task register, for a task state segment at this address. The GDT's own entry is that of
/// processor 0; nobody loads it again.
pub(super) const fn task_register(base: u64) -> Segment {
    Segment {
        selector: TASK.0,
        base,
        limit: TSS_SIZE as u32 - 1,
        access: (DESCRIPTORS[5] >> 40) as u16 & 0xf0ff,
    }
}

const fn put<const N: usize>(mut bytes: [u8; N], at: usize, value: u64) -> [u8; N] {
    let value = value.to_le_bytes();
    let mut i = 0;
    while i < 8 {
        bytes[at + i] = value[i];
        i += 1;
    }
    bytes
}

const fn flatten<const N: usize>(words: &[u64]) -> [u8; N] {
    let mut bytes = [0; N];
    let mut i = 0;
    while i < words.len() {
        bytes = put(bytes, i * 8, words[i]);
        i += 1;
    }
    bytes
}

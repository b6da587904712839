//! The memory type range registers (SDM volume 3A, section 13.11): which memory type the host's
//! firmware has chosen for which physical addresses.
//!
//! The processor does not ask them for an access through EPT: the type in the EPT entry stands in
//! their place (SDM volume 3C, section 30.3.7.2). So the hypervisor has to ask them, and to write
//! the answer into the entry. To an access through NPT they still apply (APM volume 2, section
//! 15.25.8).

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::{MemoryType, Size};

/// IA32_MTRRCAP: how many variable ranges there are, and whether there are fixed ones.
const CAPABILITY: u32 = 0xfe;
/// IA32_MTRR_DEF_TYPE: the type of all else, and what is enabled.
const DEFAULT: u32 = 0x2ff;
/// IA32_MTRR_PHYSBASE0; its mask is the next, then comes the next range.
const VARIABLE: u32 = 0x200;

/// The fixed ranges end here.
const FIXED_END: u64 = 1 << 20;

/// A run of fixed-range registers: the first, how many, where their ranges begin, and how long
/// one of the eight ranges of each is (SDM volume 3A, table 13-9).
const FIXED: [(u32, usize, u64, u64); 3] = [
    (0x250, 1, 0, 64 << 10),
    (0x258, 2, 0x8_0000, 16 << 10),
    (0x268, 8, 0xc_0000, 4 << 10),
];

/// A variable range: addresses that have the bits of `base` where `mask` has ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Variable {
    base: u64,
    mask: u64,
    memory_type: MemoryType,
}

impl Variable {
    const fn contains(&self, address: u64) -> bool {
        address & self.mask == self.base & self.mask
    }

    /// Addresses of a block of so many bytes, as much aligned, are in the range together or out
    /// of it together.
    const fn block(&self) -> u64 {
        1 << self.mask.trailing_zeros()
    }
}

/// What the registers of a processor say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mtrrs {
    enabled: bool,
    default: MemoryType,
    /// The registers of [`FIXED`], if they are enabled.
    fixed: Option<[u64; 11]>,
    variable: Vec<Variable>,
    address_bits: u32,
}

impl Mtrrs {
    /// Reads the registers of a processor whose physical addresses have so many bits. `read` reads
    /// an MSR; it is asked for none that IA32_MTRRCAP does not promise. Only a processor with
    /// MTRRs may be asked at all (CPUID 1:EDX\[12\]).
    #[must_use]
    pub fn read(address_bits: u32, mut read: impl FnMut(u32) -> u64) -> Self {
        let (capability, default) = (read(CAPABILITY), read(DEFAULT));
        let fixed = capability >> 8 & 1 != 0 && default >> 10 & 1 != 0;
        let fixed = fixed.then(|| {
            let mut values = [0; 11];
            let registers = FIXED.into_iter().flat_map(|(first, count, ..)| (first..).take(count));
            for (value, register) in values.iter_mut().zip(registers) {
                *value = read(register);
            }
            values
        });
        let addresses = (1 << address_bits.min(52)) - Size::Small.bytes();
        let mut variable = Vec::new();
        for n in 0..capability as u32 & 0xff {
            let (base, mask) = (read(VARIABLE + 2 * n), read(VARIABLE + 2 * n + 1));
            // A range with no address bit in its mask would be all of memory; it has no block size.
            if mask >> 11 & 1 != 0 && mask & addresses != 0 {
                variable.push(Variable {
                    base: base & addresses,
                    mask: mask & addresses,
                    memory_type: type_of(base as u8),
                });
            }
        }
        Self {
            enabled: default >> 11 & 1 != 0,
            default: type_of(default as u8),
            fixed,
            variable,
            address_bits,
        }
    }

    /// The memory type of a physical address (SDM volume 3A, section 13.11.4.1): that of the fixed
    /// range, below 1 MiB; else that of the variable ranges it lies in; else the default.
    #[must_use]
    pub fn memory_type(&self, address: u64) -> MemoryType {
        if !self.enabled {
            return MemoryType::Uncacheable;
        }
        if let Some(fixed) = self.fixed(address) {
            return fixed;
        }
        let matching = self.variable.iter().filter(|range| range.contains(address));
        let types = matching.map(|range| range.memory_type);
        types.reduce(overlap).unwrap_or(self.default)
    }

    /// The type of an address in a fixed range.
    fn fixed(&self, address: u64) -> Option<MemoryType> {
        let fixed = self.fixed.as_ref()?;
        let mut before = 0;
        for (_, count, start, len) in FIXED {
            let end = start + count as u64 * 8 * len;
            if (start..end).contains(&address) {
                let byte = ((address - start) / len) as usize;
                return Some(type_of(fixed[before + byte / 8].to_le_bytes()[byte % 8]));
            }
            before += count;
        }
        None
    }

    /// The runs of addresses of one type that a range of physical addresses is made of.
    pub fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, MemoryType)> + '_ {
        let mut start = range.start;
        core::iter::from_fn(move || {
            if start >= range.end {
                return None;
            }
            let memory_type = self.memory_type(start);
            let mut end = self.boundary(start);
            while end < range.end && self.memory_type(end) == memory_type {
                end = self.boundary(end);
            }
            let run = start..end.min(range.end);
            start = run.end;
            Some((run, memory_type))
        })
    }

    /// The next address above this one at which the type may be another.
    fn boundary(&self, address: u64) -> u64 {
        if !self.enabled {
            return u64::MAX;
        }
        if address < FIXED_END && self.fixed.is_some() {
            // No range is longer than 64 KiB, and all shorter lengths divide it.
            let len = FIXED
                .into_iter()
                .rfind(|fixed| fixed.2 <= address)
                .map_or(4 << 10, |fixed| fixed.3);
            return address - address % len + len;
        }
        let addresses = (1_u64 << self.address_bits.min(52)) - 1;
        let edges = self.variable.iter().flat_map(|range| {
            let block = range.block();
            let whole = range.mask | (block - 1) == addresses;
            // One block, unless the mask has gaps; then any block may be in it.
            let (first, second) = if whole {
                (range.base & range.mask, (range.base & range.mask) + block)
            } else {
                (address - address % block + block, u64::MAX)
            };
            [first, second]
        });
        edges.filter(|edge| *edge > address).min().unwrap_or(u64::MAX)
    }
}

/// A type as a register has it. A processor refuses to hold a reserved one (#GP).
const fn type_of(number: u8) -> MemoryType {
    match MemoryType::of(number) {
        Some(MemoryType::UncacheableMinus) | None => MemoryType::Uncacheable,
        Some(known) => known,
    }
}

/// The type where two variable ranges overlap. Two types for which the SDM has no rule are a
/// mistake of the firmware; without a cache nothing goes wrong.
fn overlap(one: MemoryType, other: MemoryType) -> MemoryType {
    use MemoryType::{Uncacheable, WriteBack, WriteThrough};
    match (one, other) {
        _ if one == other => one,
        (WriteThrough, WriteBack) | (WriteBack, WriteThrough) => WriteThrough,
        _ => Uncacheable,
    }
}

impl fmt::Display for Mtrrs {
    /// A line for each run of addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = 1 << self.address_bits.min(52);
        for (range, memory_type) in self.runs(0..end) {
            writeln!(f, "{:>13x} {:>13x} {memory_type}", range.start, range.end)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use MemoryType::*;

    const VALID: u64 = 1 << 11;
    const MASK_2G: u64 = 0x7f_8000_0000 | VALID;

    /// Registers with so many variable ranges, the default type, and these beside.
    fn mtrrs(count: u64, default: u64, others: &[(u32, u64)]) -> Mtrrs {
        let mut registers = BTreeMap::from([(CAPABILITY, 1 << 10 | 1 << 8 | count), (DEFAULT, default)]);
        for n in 0..2 * count as u32 {
            registers.insert(VARIABLE + n, 0);
        }
        for (first, many, ..) in FIXED {
            registers.extend((first..).take(many).map(|register| (register, 0x0606_0606_0606_0606)));
        }
        registers.extend(others.iter().copied());
        Mtrrs::read(39, |register| registers[&register])
    }

    #[test]
    fn everything_is_uncacheable_while_they_are_off() {
        let off = mtrrs(1, 6 | 1 << 10, &[(0x200, 6), (0x201, MASK_2G)]);
        assert_eq!(off.memory_type(0), Uncacheable);
        assert_eq!(off.memory_type(1 << 30), Uncacheable);
        assert_eq!(off.runs(0..1 << 39).collect::<Vec<_>>(), [(0..1 << 39, Uncacheable)]);
    }

    #[test]
    fn the_fixed_ranges_speak_first_below_1_mib() {
        let all = VALID | 1 << 10 | 6;
        let some = [
            (0x250, 0x0006_0606_0606_0606),
            (0x259, 0),
            (0x26f, 0x0505_0505_0505_0505),
            (0x200, 0),
            (0x201, MASK_2G),
        ];
        let fixed = mtrrs(1, all, &some);
        let runs: Vec<_> = fixed.runs(0..4 << 30).collect();
        let expected = [
            (0..0x7_0000, WriteBack),
            (0x7_0000..0x8_0000, Uncacheable),
            (0x8_0000..0xa_0000, WriteBack),
            (0xa_0000..0xc_0000, Uncacheable),
            (0xc_0000..0xf_8000, WriteBack),
            (0xf_8000..0x10_0000, WriteProtected),
            (0x10_0000..0x8000_0000, Uncacheable),
            (0x8000_0000..0x1_0000_0000, WriteBack),
        ];
        assert_eq!(runs, expected);
        let without = mtrrs(1, VALID | 6, &some);
        assert_eq!(without.memory_type(0xf_8000), Uncacheable, "their enable bit is 0");
    }

    #[test]
    fn ranges_that_overlap_follow_the_rules() {
        let types = [Uncacheable, WriteCombining, WriteThrough, WriteProtected, WriteBack];
        for one in types {
            for other in types {
                let two = [
                    (0x200, one as u64),
                    (0x201, MASK_2G),
                    (0x202, 1 << 30 | other as u64),
                    (0x203, 0x7f_c000_0000 | VALID),
                ];
                let expected = match (one, other) {
                    _ if one == other => one,
                    (Uncacheable, _) | (_, Uncacheable) => Uncacheable,
                    (WriteThrough, WriteBack) | (WriteBack, WriteThrough) => WriteThrough,
                    _ => Uncacheable,
                };
                let overlapping = mtrrs(2, VALID | WriteBack as u64, &two);
                assert_eq!(overlapping.memory_type(0), one);
                assert_eq!(overlapping.memory_type(1 << 30), expected, "{one} with {other}");
                assert_eq!(overlapping.memory_type(2 << 30), WriteBack, "the default");
            }
        }
    }

    #[test]
    fn a_mask_with_gaps_is_a_range_with_gaps() {
        // Every second 4 MiB of the first 2 GiB.
        let gaps = [(0x200, 0), (0x201, 0x7f_8040_0000 | VALID)];
        let gaps = mtrrs(1, VALID | 6, &gaps);
        let runs: Vec<_> = gaps.runs(0..16 << 20).collect();
        let mib4 = 4 << 20;
        let expected = [
            (0..mib4, Uncacheable),
            (mib4..2 * mib4, WriteBack),
            (2 * mib4..3 * mib4, Uncacheable),
            (3 * mib4..4 * mib4, WriteBack),
        ];
        assert_eq!(runs, expected);
        assert_eq!(gaps.runs(2 << 30..4 << 30).count(), 1);
    }

    #[test]
    fn registers_that_are_not_promised_are_not_read() {
        let read = Mtrrs::read(39, |register| match register {
            CAPABILITY => 0,
            DEFAULT => VALID | 1 << 10 | 6,
            _ => panic!("{register:#x} is not there"),
        });
        assert_eq!(read.memory_type(0xa_0000), WriteBack);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig {
            cases: if cfg!(miri) { 2 } else { 256 },
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn runs_say_what_the_addresses_say(
            default in 0_u64..8,
            flags in 0_u64..4,
            values in proptest::collection::vec((0_u64..8, 0_u64..64, 0_u64..64, proptest::bool::ANY), 0..4),
            address in 0_u64..1 << 20,
        ) {
            let mut others = Vec::new();
            for (n, (number, base, mask, valid)) in values.iter().enumerate() {
                // Of 512 MiB, in units of 8 MiB, so that the ranges meet.
                others.push((VARIABLE + 2 * n as u32, number | base << 23));
                let mask = 0x7f_e000_0000 | mask << 23 | u64::from(*valid) << 11;
                others.push((VARIABLE + 2 * n as u32 + 1, mask));
            }
            let all = mtrrs(values.len() as u64, default | flags << 10, &others);
            let address = address << 9;
            let end = 1 << 29;
            let runs: Vec<_> = all.runs(address..end).collect();
            let mut next = address;
            for (n, (run, memory_type)) in runs.iter().enumerate() {
                proptest::prop_assert_eq!(run.start, next);
                next = run.end;
                proptest::prop_assert!(n == 0 || runs[n - 1].1 != *memory_type);
                for part in 0..8 {
                    let inside = run.start + (run.end - run.start) / 8 * part;
                    proptest::prop_assert_eq!(all.memory_type(inside), *memory_type);
                }
                proptest::prop_assert_eq!(all.memory_type(run.end - 1), *memory_type);
            }
            proptest::prop_assert_eq!(next, end);
        }
    }
}

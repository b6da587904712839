//! Any memory as the firmware's tables, with their checksums right or as they are.
#![no_main]

use chiton_bare::acpi::{MAX_PROCESSORS, processors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((told, memory)) = data.split_first() else {
        return;
    };
    let mut memory = memory.to_vec();
    if told & 1 != 0 {
        // Nearly all that is found by chance is refused for its sum.
        let lengths = [(0x24, 0x28), (0x80, 0x84)].map(|(at, length)| (at, length_at(&memory, length)));
        for (at, length, sum) in [
            (0, 20, 8),
            (0, 36, 32),
            (lengths[0].0, lengths[0].1, 9),
            (lengths[1].0, lengths[1].1, 9),
        ] {
            if let Some(table) = memory.get_mut(at..at + length).filter(|table| table.len() > sum) {
                table[sum] = 0;
                table[sum] = table.iter().fold(0, |sum, byte| sum.wrapping_sub(*byte));
            }
        }
    }
    let read = |address: u64, to: &mut [u8]| {
        let from = usize::try_from(address).ok().and_then(|address| memory.get(address..));
        let from = from.and_then(|from| from.get(..to.len()));
        from.inspect(|from| to.copy_from_slice(from)).is_some()
    };
    if let Ok(found) = processors(0, &read) {
        assert!(found.len() <= MAX_PROCESSORS);
        let mut each = found.clone();
        each.sort_unstable();
        each.dedup();
        assert_eq!(each.len(), found.len());
    }
});

/// The length that a table says it has, as far as it can be one.
fn length_at(memory: &[u8], at: usize) -> usize {
    let bytes = memory.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, |bytes| u32::from_le_bytes(bytes) as usize & 0xffff)
}

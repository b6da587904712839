//! Where the memory of a guest is taken from the machine's.

use chiton_shared::map::LARGE_PAGE;

/// A page of 1 GiB.
const HUGE_PAGE: u64 = 1 << 30;

/// Where a block of so many bytes begins that lies above `least` and ends at `end` or before: at a multiple of 1 GiB if it
/// is as long as that and there is room, so that second-level tables map it by pages of 1 GiB; else of 2 MiB.
#[must_use]
pub fn below(end: u64, bytes: u64, least: u64) -> Option<u64> {
    let highest = end.checked_sub(bytes)?;
    let [huge, large] = [HUGE_PAGE, LARGE_PAGE].map(|page| Some(highest & !(page - 1)).filter(|start| *start > least));
    huge.filter(|_| bytes >= HUGE_PAGE).or(large)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn a_block_begins_where_large_pages_do() {
        assert_eq!(below(8 * GIB - 8 * MIB, 16 * MIB, 4 * GIB), Some(8 * GIB - 24 * MIB));
        assert_eq!(below(8 * GIB - 9 * MIB, 16 * MIB, 4 * GIB), Some(8 * GIB - 26 * MIB));
        assert_eq!(below(8 * GIB - 8 * MIB, 2 * GIB, 4 * GIB), Some(5 * GIB));
        let tight = below(8 * GIB - 8 * MIB, 2 * GIB, 5 * GIB + MIB);
        assert_eq!(tight, Some(6 * GIB - 8 * MIB), "there is no room for more");
    }

    #[test]
    fn there_is_none_where_there_is_no_room() {
        assert_eq!(below(GIB, 2 * GIB, 0), None);
        assert_eq!(below(GIB, GIB, 0), None, "some is left for others");
        assert_eq!(below(64 * MIB, 32 * MIB, 32 * MIB), None);
        assert_eq!(below(64 * MIB, 30 * MIB, 32 * MIB), Some(34 * MIB));
    }
}

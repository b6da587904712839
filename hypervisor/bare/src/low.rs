//! Pages below 1 MiB: a processor begins there, in real mode, and its first tables have to be where 32-bit code
//! can name them.
//!
//! The machine's memory at large may begin above 4 GiB: of several free pieces the largest is used, and a machine with
//! more than 6 GiB or so has that one up there.

use core::ops::Range;

/// The size of a page.
const PAGE: u64 = 4096;
/// Where the memory ends that a start-up message leads to; what is between here and 1 MiB is no memory.
const END: u64 = 0xa_0000;

/// So many pages, each aligned, all in one of the usable regions and none at address 0; the highest first.
pub fn pages<const N: usize>(usable: impl Iterator<Item = Range<u64>>) -> Option<[u64; N]> {
    let (mut found, mut count) = ([0; N], 0);
    let mut add = |page: u64| {
        // Sorted, so that the last one is the one to give way.
        let at = found[..count].partition_point(|other| *other > page);
        if at < N {
            count = (count + 1).min(N);
            found[at..count].rotate_right(1);
            found[at] = page;
        }
    };
    for region in usable {
        let start = region.start.max(PAGE).next_multiple_of(PAGE);
        let end = region.end.min(END) / PAGE * PAGE;
        (start..end).step_by(PAGE as usize).for_each(&mut add);
    }
    (count == N).then_some(found)
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "a list of regions, of which there is one"
)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_pages_are_taken_wherever_they_are() {
        let pc = [0..0x9_fc00, 0x10_0000..0xc000_0000, 1 << 32..8 << 32];
        assert_eq!(
            pages(pc.iter().cloned()),
            Some([0x9_e000, 0x9_d000, 0x9_c000, 0x9_b000])
        );
        let pieces = [
            0x8_7000..0x9_0000,
            0x5_8000..0x5_9000,
            0x3000..0x6_0000,
            0x8_0000..0x8_1fff,
        ];
        assert_eq!(pages(pieces[1..].iter().cloned()), Some([0x8_0000, 0x5_f000, 0x5_e000]));
        assert_eq!(pages(pieces.into_iter()), Some([0x8_f000, 0x8_e000]));
    }

    #[test]
    fn none_at_address_0_none_that_is_cut_and_none_above() {
        assert_eq!(pages([0..0x2000].into_iter()), Some([0x1000]));
        assert_eq!(pages::<2>([0..0x2000].into_iter()), None);
        assert_eq!(pages::<1>([0x1001..0x2fff].into_iter()), None);
        assert_eq!(pages::<1>([0x9_f800..0xa_0000, 0xa_0000..1 << 40].into_iter()), None);
        assert_eq!(pages([0x9_f000..u64::MAX].into_iter()), Some([0x9_f000]));
        assert_eq!(pages::<1>([].into_iter()), None);
    }
}

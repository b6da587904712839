use std::sync::{Arc, Mutex};
use std::vec::Vec;

use chiton_shared::virtio::balloon::REPORTING;
use proptest::prelude::*;

use super::super::testing::{BUFFERS, Memory, Rig, WORLD, config};
use super::*;

/// Notes how long each release was, and fills the pages with zeros.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<usize>>>, Arc<Mutex<Told>>);

/// Statistics: whether new ones are wanted, and those that came.
#[derive(Default)]
struct Told {
    wanted: bool,
    came: Vec<Statistics>,
}

impl Pages for Noted {
    fn release(&mut self, pages: Window<'_>) -> Result<(), PagesError> {
        assert!(!pages.is_empty() && pages.len().is_multiple_of(PAGE as usize));
        pages.write(0, &vec![0; pages.len()]);
        self.0.lock().unwrap().push(pages.len());
        Ok(())
    }

    fn target(&self) -> u32 {
        7
    }

    fn wants_statistics(&mut self) -> bool {
        std::mem::take(&mut self.1.lock().unwrap().wanted)
    }

    fn statistics(&mut self, statistics: &Statistics) {
        self.1.lock().unwrap().came.push(*statistics);
    }
}

/// End of the memory of these tests: four pages are the guest's own.
const TOP: u64 = map::GUEST + 4 * PAGE;

fn numbers(addresses: &[u64]) -> Vec<u8> {
    let number = |address: &u64| ((address / PAGE) as u32).to_le_bytes();
    addresses.iter().flat_map(number).collect()
}

fn page(index: u64) -> u64 {
    map::GUEST + index * PAGE
}

#[test]
#[cfg_attr(miri, ignore = "a megabyte of memory")]
fn pages_in_the_balloon_are_released_neighbours_together() {
    let (memory, noted) = (Memory::up_to(TOP), Noted::default());
    let mut rig = Rig::new(&memory, Balloon::new(noted.clone()));
    for i in 0..4 {
        memory.write(page(i), &[1; PAGE as usize]);
    }
    let chain = [
        rig.readable(&numbers(&[page(0), page(1)])),
        rig.readable(&numbers(&[page(3)])),
    ];
    let _ = rig.submit(INFLATE, &chain);
    assert_eq!(rig.take(INFLATE), Some(0));
    assert_eq!(*noted.0.lock().unwrap(), [8192, 4096]);
    assert_eq!([0, 1, 2, 3].map(|i| memory.read(page(i), 1)[0]), [0, 0, 1, 0]);
    let back = [rig.readable(&numbers(&[page(0)]))];
    let _ = rig.submit(DEFLATE, &back);
    assert_eq!((rig.take(DEFLATE), rig.transport.failures()), (Some(0), 0));
    assert_eq!(rig.entry.config[..8], [7, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
#[cfg_attr(miri, ignore = "a megabyte of memory")]
fn what_is_not_the_guests_is_passed_over() {
    let (memory, noted) = (Memory::up_to(TOP), Noted::default());
    let mut rig = Rig::new(&memory, Balloon::new(noted.clone()));
    let foreign = [
        0,
        WORLD,
        map::PAGE_TABLES,
        map::QUEUES,
        BUFFERS,
        TOP,
        u64::from(u32::MAX) * PAGE,
    ];
    let chain = [rig.readable(&numbers(&foreign))];
    memory.write(WORLD, &[1; 64]);
    let _ = rig.submit(INFLATE, &chain);
    assert_eq!(
        (rig.take(INFLATE), rig.transport.failures()),
        (Some(0), foreign.len() as u64)
    );
    for (address, len) in [
        (WORLD, 4096),
        (map::QUEUES, 4096),
        (TOP - 4096, 8192),
        (u64::MAX - 4095, 4095),
    ] {
        let _ = rig.submit(REPORTING, &[Buffer::writable(address, len)]);
        assert!(rig.take(REPORTING).is_some());
    }
    assert_eq!(memory.read(WORLD, 64), [1; 64]);
    assert!(noted.0.lock().unwrap().is_empty());
}

#[test]
#[cfg_attr(miri, ignore = "a megabyte of memory")]
fn of_a_free_range_only_whole_pages_are_released() {
    let (memory, noted) = (Memory::up_to(TOP), Noted::default());
    let mut rig = Rig::new(&memory, Balloon::new(noted.clone()));
    memory.write(page(0), &[1; 4 * PAGE as usize]);
    let _ = rig.submit(REPORTING, &[Buffer::writable(page(0) + 1, 3 * PAGE as u32)]);
    assert_eq!(rig.take(REPORTING), Some(0));
    assert_eq!(*noted.0.lock().unwrap(), [8192]);
    assert_eq!([0, 1, 2, 3].map(|i| memory.read(page(i), 1)[0]), [1, 0, 0, 1]);
    let _ = rig.submit(REPORTING, &[Buffer::writable(page(0) + 1, 4096)]);
    assert_eq!(noted.0.lock().unwrap().len(), 1);
}

#[test]
#[cfg_attr(miri, ignore = "a megabyte of memory")]
fn a_long_list_is_read_in_pieces_so_that_others_get_their_turn() {
    let (memory, noted) = (Memory::up_to(TOP), Noted::default());
    let mut rig = Rig::new(&memory, Balloon::new(noted.clone()));
    // The same numbers again and again, one more than a call reads.
    let part = rig.readable(&numbers(&vec![page(0); 2 * BATCH]));
    let chain = vec![part; PER_CALL / (2 * BATCH) + 1];
    assert!(rig.submit(INFLATE, &chain).more);
    assert_eq!(rig.take(INFLATE), None);
    rig.process_all();
    assert_eq!(rig.take(INFLATE), Some(0));
    assert_eq!(noted.0.lock().unwrap().len(), PER_CALL + 2 * BATCH);
}

#[test]
#[cfg_attr(miri, ignore = "megabytes of memory")]
fn the_same_pages_reported_over_and_over_keep_nobody_busy() {
    /// Counts the bytes.
    struct Counted(Arc<Mutex<u64>>);
    impl Pages for Counted {
        fn release(&mut self, pages: Window<'_>) -> Result<(), PagesError> {
            *self.0.lock().unwrap() += pages.len() as u64;
            Ok(())
        }

        fn target(&self) -> u32 {
            0
        }
    }
    const LEN: u64 = 18 << 20;
    let (memory, bytes) = (Memory::up_to(map::GUEST + LEN), Arc::default());
    let mut rig = Rig::new(&memory, Balloon::new(Counted(Arc::clone(&bytes))));
    let all = Buffer::writable(map::GUEST, LEN as u32);
    assert!(!rig.submit(REPORTING, &[all]).more);
    assert!(rig.submit(REPORTING, &[all, all]).more, "others get their turn");
    assert_eq!(*bytes.lock().unwrap(), 3 * LEN);
    let _ = rig.submit(REPORTING, &[all; 60]);
    assert_eq!(*bytes.lock().unwrap(), 3 * LEN + MOST_FREE / LEN * LEN);
    assert_eq!([(); 3].map(|()| rig.take(REPORTING)), [Some(0); 3]);
}

#[test]
fn the_driver_says_how_many_pages_it_gave_and_nothing_else() {
    let mut balloon = Balloon::new(Noted::default());
    let all = |balloon: &Balloon<Noted>| {
        let mut bytes = [0xff; 10];
        balloon.read_config(0, &mut bytes);
        bytes
    };
    balloon.write_config(4, &9_u32.to_le_bytes());
    balloon.write_config(0, &8_u32.to_le_bytes());
    balloon.write_config(6, &[1; 8]);
    balloon.write_config(usize::MAX, &[1]);
    assert_eq!(all(&balloon), [7, 0, 0, 0, 9, 0, 0, 0, 0, 0]);
    balloon.reset();
    assert_eq!(all(&balloon), [7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn statistics_are_kept_until_new_ones_are_wanted() {
    let (memory, noted) = (Memory::new(), Noted::default());
    let mut rig = Rig::new(&memory, Balloon::new(noted.clone()));
    let free = [4, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    let unknown = [200, 1, 9, 9, 9, 9, 9, 9, 9, 9];
    // Cut anywhere, with a tag that nobody knows, and a piece of another.
    let pieces = [
        rig.readable(&free[..1]),
        rig.readable(&free[1..]),
        rig.readable(&unknown),
        rig.readable(&free[..5]),
    ];
    let _ = rig.submit(STATS, &pieces);
    assert_eq!((rig.take(STATS), rig.transport.failures()), (None, 0));
    rig.process_all();
    assert_eq!(rig.take(STATS), None);
    noted.1.lock().unwrap().wanted = true;
    assert!(rig.process().notify);
    assert_eq!(rig.take(STATS), Some(0));
    let total = [5, 0, 7, 0, 0, 0, 0, 0, 0, 0];
    let next = [rig.readable(&total)];
    let _ = rig.submit(STATS, &next);
    let came = &noted.1.lock().unwrap().came;
    let statistics = |free, total| Statistics {
        free,
        total,
        ..Statistics::default()
    };
    assert_eq!(came[..], [statistics(Some(9), None), statistics(None, Some(7))]);
}

#[test]
fn any_number_of_statistics_is_read_as_far_as_there_are_some() {
    let (memory, noted) = (Memory::new(), Noted::default());
    let mut rig = Rig::new(&memory, Balloon::new(noted.clone()));
    let many = rig.readable(&[4, 0, 9, 0, 0, 0, 0, 0, 0, 0].repeat(300));
    let _ = rig.submit(STATS, &[many]);
    assert_eq!(noted.1.lock().unwrap().came.len(), 1);
    // A second chain waits: a driver that keeps the rules has none.
    let more = rig.readable(&[]);
    let second = rig.readable(&[0; 10]);
    let _ = rig.submit(STATS, &[more, second]);
    assert_eq!(noted.1.lock().unwrap().came.len(), 1);
}

proptest! {
    #![proptest_config(config())]

    /// Whatever the list says, nothing below the guest's own memory is touched, and the device ends.
    #[test]
    #[cfg_attr(miri, ignore = "a megabyte of memory")]
    fn any_list_touches_the_guests_own_pages_alone(bytes in prop::collection::vec(any::<u8>(), 1..64), near in any::<bool>()) {
        let (memory, noted) = (Memory::up_to(TOP), Noted::default());
        let mut rig = Rig::new(&memory, Balloon::new(noted));
        memory.write(WORLD, &[1; 4096]);
        let mut list = bytes;
        if near {
            // Numbers around the border.
            for number in list.chunks_mut(4) {
                let index = u32::from(number[0] % 16) + (map::GUEST / PAGE) as u32 - 8;
                let len = number.len();
                number.copy_from_slice(&index.to_le_bytes()[..len]);
            }
        }
        let chain = [rig.readable(&list)];
        let _ = rig.submit(INFLATE, &chain);
        rig.process_all();
        prop_assert_eq!(rig.take(INFLATE), Some(0));
        prop_assert_eq!(memory.read(WORLD, 4096), vec![1; 4096]);
        prop_assert_eq!(rig.bytes(chain[0]), list);
    }
}

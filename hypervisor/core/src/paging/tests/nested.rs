//! The two-dimensional walk.

use proptest::prelude::*;

use super::super::testing::Pages;
use super::super::*;
use super::walker::Stop;
use super::{CAPABILITY, GIB, MIB2, assert_in_book, ept, never, npt, page};
use crate::boot::tests::memory::Memory;
use crate::explain::WalkEnd;

const CR3: u64 = 0x1_0000;
const LINEAR: u64 = 0x40_3123;

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

const READ: Access = Access {
    rights: Rights::READ,
    user: true,
};
const WRITES: Access = Access {
    rights: Rights::new(false, true, false),
    user: true,
};

/// A guest of 64 KiB of tables, whose page at [`LINEAR`] is of a size: itself, its entry having
/// these flags.
fn guest(size: Size, flags: u64) -> Memory {
    let memory = Memory::new(0x2_0000);
    let to_table = PRESENT | WRITE | USER;
    for (level, table) in [(4, CR3), (3, CR3 + 0x1000), (2, CR3 + 0x2000), (1, CR3 + 0x3000)] {
        let index = LINEAR >> (12 + 9 * (level - 1)) & 511;
        let leaf = level == u64::from(size.level());
        let entry = match (leaf, level) {
            (false, _) => (table + 0x1000) | to_table,
            (true, 1) => LINEAR & !0xfff | flags,
            (true, _) => LINEAR & !(size.bytes() - 1) | flags | LARGE,
        };
        memory.put(table + 8 * index, entry);
        if leaf {
            break;
        }
    }
    memory
}

/// Tables of the host in which the guest's memory lies from 4 GiB on, in such pages: of small ones
/// those that the walks come to.
fn host<F: Format>(pages: &Pages, format: F, size: Size) -> Table<'_, F> {
    let mut table = Table::new(pages, format).unwrap();
    let ranges = match size {
        Size::Small => vec![(0, 0x2_0000), (LINEAR & !0xfff, 0x2000)],
        Size::Large => vec![(0, 4 * MIB2)],
        Size::Huge => vec![(0, GIB)],
    };
    for (start, len) in ranges {
        table
            .map(start, len, page(4 * GIB + start, size))
            .settle(never)
            .unwrap();
    }
    table
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn large_pages_save_loads_in_both_dimensions() {
    let pages = Pages::new(100);
    let sizes = [Size::Small, Size::Large, Size::Huge];
    let mut shown = String::from("     4K  2M  1G");
    for of_guest in sizes {
        let memory = guest(of_guest, PRESENT | USER);
        shown += &format!("\n{of_guest} ");
        for of_host in sizes {
            let table = host(&pages, ept(), of_host);
            let walk = walk(&memory, &table, CR3, LINEAR, READ);
            // Each of the guest's levels costs a way and a load, the page a way.
            let (ways, way) = (5 - usize::from(of_guest.level()), 5 - usize::from(of_host.level()));
            assert_eq!(walk.loads(), ways * (way + 1) + way, "{of_guest} by {of_host}");
            assert_eq!(walk.saved(), Some(24 - walk.loads()));
            shown += &format!("  {:>2}", walk.loads());
            let host = 4 * GIB + LINEAR;
            let size = of_guest.min(of_host).bytes();
            assert_eq!(walk.end, NestedEnd::Host { host, size });
        }
    }
    assert_in_book(&shown);
}

#[test]
fn every_load_is_shown_with_what_the_processor_sets() {
    let pages = Pages::new(100);
    let memory = guest(Size::Small, PRESENT | WRITE | USER | NO_EXECUTE | ACCESSED);
    let table = host(&pages, ept(), Size::Large);
    let picture = walk(&memory, &table, CR3, LINEAR, WRITES).to_string();
    assert_in_book(&picture);
    assert_eq!(
        picture.lines().filter(|line| line.contains('+')).count(),
        19,
        "{picture}"
    );
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn a_walk_counts_as_a_write_where_flags_are_kept() {
    let pages = Pages::new(100);
    let memory = guest(Size::Small, PRESENT | USER | ACCESSED);
    // The flags are set already, so that the walk has nothing to write.
    for table in [CR3, CR3 + 0x1000, CR3 + 0x2000] {
        let entry = table + 8 * if table == CR3 + 0x2000 { 2 } else { 0 };
        memory.put(entry, memory.u64(entry) | ACCESSED);
    }
    fn end<F: Format>(pages: &Pages, memory: &Memory, format: F) -> NestedEnd {
        let mut table = host(pages, format, Size::Small);
        table.protect(CR3, 0x1000, Rights::READ).settle(|_| ()).unwrap();
        walk(memory, &table, CR3, LINEAR, READ).end
    }
    for end in [end(&pages, &memory, ept()), end(&pages, &memory, npt())] {
        let NestedEnd::Violation(violation, Cause::Forbidden(step, Rights::READ)) = end else {
            panic!("{end:?}");
        };
        assert_eq!(
            (violation.purpose, violation.guest, step.level),
            (Purpose::Tables, CR3, 1)
        );
        assert!(violation.access.write);
    }
    let plain = ept().without_accessed_dirty();
    assert!(matches!(end(&pages, &memory, plain), NestedEnd::Host { .. }));
    // An accessed flag that has to be set is a write after all.
    memory.put(CR3, memory.u64(CR3) & !ACCESSED);
    assert!(matches!(end(&pages, &memory, plain), NestedEnd::Violation(..)));
}

#[test]
fn without_flags_none_are_set() {
    let pages = Pages::new(100);
    let memory = guest(Size::Small, PRESENT | WRITE | USER | ACCESSED | DIRTY);
    let table = host(&pages, ept().without_accessed_dirty(), Size::Huge);
    let picture = walk(&memory, &table, CR3, LINEAR, WRITES).to_string();
    let ept_lines = picture.lines().filter(|line| line.contains("EPT"));
    assert_eq!(ept_lines.clone().count(), 10);
    assert!(ept_lines.clone().all(|line| !line.contains('+')), "{picture}");
    assert!(
        picture.contains("0x403000 present writable user accessed dirty\n"),
        "{picture}"
    );
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn a_walk_ends_at_the_first_thing_that_stops_it() {
    let pages = Pages::new(100);
    let walk_of = |memory: &Memory, table: &Table<'_, Ept>, access| walk(memory, table, CR3, LINEAR, access);

    // Nothing is mapped for the guest yet: the first load of the root is all.
    let memory = guest(Size::Small, PRESENT | USER);
    let empty = Table::new(&pages, ept()).unwrap();
    let first = walk_of(&memory, &empty, READ);
    assert_eq!(first.loads(), 1);
    assert_eq!(
        first.to_string().lines().skip(1).collect::<Vec<_>>(),
        [
            "  1     EPT PML4 0x100000[0] = 0x0000000000000000  not present",
            "an exit, after 1 load: read and write at the guest-physical address 0x10000, where a table of the guest's \
             own paging is, for the linear address 0x403123",
            "EPT entry 0 of the PML4 is not present",
        ]
    );

    // The guest forbids writes: its own page fault, for which nobody looks where the page is.
    let table = host(&pages, ept(), Size::Small);
    let fault = walk_of(&memory, &table, WRITES);
    assert_eq!((fault.end, fault.loads()), (NestedEnd::Fault, 20));
    let last = fault.to_string();
    let last = last.lines().last().unwrap();
    assert!(
        last.starts_with("a page fault of the guest's own, after 20 loads: 0x403123 is 0x403123"),
        "{last}"
    );
    let memory = guest(Size::Small, PRESENT | WRITE);
    assert_eq!(walk_of(&memory, &table, READ).end, NestedEnd::Fault, "ring 0 alone");
    let system = Access { user: false, ..READ };
    assert!(matches!(walk_of(&memory, &table, system).end, NestedEnd::Host { .. }));
    let memory = guest(Size::Small, 0);
    let absent = walk_of(&memory, &table, READ);
    assert_eq!(
        (absent.guest.end, absent.end, absent.loads()),
        (WalkEnd::NotPresent, NestedEnd::Fault, 20)
    );
    assert!(absent.to_string().ends_with("20 loads: 0x403123 is not mapped"));

    // The host forbids it, at the page itself.
    let memory = guest(Size::Small, PRESENT | WRITE | USER);
    let mut table = host(&pages, ept(), Size::Small);
    table
        .protect(LINEAR & !0xfff, 0x1000, Rights::READ_EXECUTE)
        .settle(|_| ())
        .unwrap();
    let stopped = walk_of(&memory, &table, WRITES);
    assert_eq!(stopped.loads(), 24);
    let end: Vec<_> = stopped
        .to_string()
        .lines()
        .skip(24 + 5 + 1)
        .map(str::to_owned)
        .collect();
    assert_in_book(&end.join("\n"));
    assert!(
        stopped.to_string().ends_with(
            "an exit, after 24 loads: write at the guest-physical address 0x403123, for the linear address 0x403123
EPT entry 3 of the PT allows r-x"
        ),
        "{stopped}"
    );
    table.unmap(LINEAR & !0xfff, 0x1000).settle(|_| ()).unwrap();
    let stopped = walk_of(&memory, &table, READ);
    assert!(matches!(stopped.end, NestedEnd::Violation(_, Cause::NotPresent(step)) if step.level == 1));

    // A table that the second level maps and that is not the guest's memory.
    memory.put(CR3, 0x7f_0000 | PRESENT | WRITE | USER);
    let lost = walk_of(&memory, &host(&pages, ept(), Size::Large), READ);
    assert_eq!((lost.end, lost.saved(), lost.loads()), (NestedEnd::NoTable, None, 7));
    memory.put(CR3, 0x7000_0000 | PRESENT | WRITE | USER);
    let lost = walk_of(&memory, &host(&pages, ept(), Size::Large), READ);
    let NestedEnd::Violation(violation, Cause::NotPresent(step)) = lost.end else {
        panic!("{lost}");
    };
    assert_eq!(
        (violation.guest, violation.purpose, step.level),
        (0x7000_0000, Purpose::Tables, 3)
    );
    let odd = walk(&memory, &table, CR3, 1 << 47, READ);
    assert_eq!((odd.end, odd.loads()), (NestedEnd::Fault, 0));
}

#[test]
fn a_processor_without_huge_pages_needs_more_loads() {
    let pages = Pages::new(100);
    let memory = guest(Size::Huge, PRESENT | USER);
    let format = Ept::new(CAPABILITY & !(1 << 17), 39).unwrap();
    let table = host(&pages, format, Size::Huge);
    assert_eq!(walk(&memory, &table, CR3, LINEAR, READ).loads(), 11);
}

/// What is put in the place of entries of a good guest's tables: entries that lead to one another,
/// to pages, and astray.
fn hostile() -> impl Strategy<Value = Vec<(usize, u64, u64)>> {
    let flags = prop::sample::select(vec![
        0x7_u64,
        0x27,
        0x67,
        0x87,
        0xe7,
        0x5,
        0x3,
        0x0,
        0x8000_0000_0000_0007,
    ]);
    let target = prop_oneof![
        8 => (0_u64..6).prop_map(|table| CR3 + 0x1000 * table),
        2 => (0_u64..512).prop_map(|page| page * 0x20_0000),
        1 => any::<u64>().prop_map(|any| any & 0x000f_ffff_ffff_f000),
    ];
    prop::collection::vec(
        (0_usize..24, target, flags).prop_map(|(at, to, flags)| (at, to, flags)),
        4..40,
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 1024 },
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn any_tables_of_a_guest_are_walked_as_the_manuals_say(
        entries in hostile(),
        holes in prop::collection::vec((0_u64..32, any::<bool>()), 0..4),
        write in any::<bool>(),
        user in any::<bool>(),
        fetch in any::<bool>(),
    ) {
        let memory = guest(Size::Small, PRESENT | WRITE | USER);
        for (at, to, flags) in entries {
            // Six tables, of each the four entries that the address below leads through.
            let index = [LINEAR >> 39, LINEAR >> 30, LINEAR >> 21, LINEAR >> 12][at % 4] & 511;
            memory.put(CR3 + 0x1000 * (at as u64 / 4) + 8 * index, to | flags);
        }
        let pages = Pages::new(100);
        let mut table = host(&pages, ept(), Size::Large);
        for (page, gone) in holes {
            let (at, len) = (CR3 - 0x1000 + page * 0x1000, 0x1000);
            if gone {
                table.unmap(at, len).settle(|_| ()).unwrap();
            } else {
                table.protect(at, len, Rights::READ).settle(|_| ()).unwrap();
            }
        }
        let rights = Rights::new(!write && !fetch, write && !fetch, fetch);
        let walk = walk(&memory, &table, CR3, LINEAR, Access { rights, user });
        prop_assert!(walk.loads() <= MOST_LOADS);
        prop_assert!(!walk.to_string().is_empty());
        let access = super::walker::Access { write: rights.write, execute: rights.execute, user };
        let by_the_manual = super::walker::nested(&pages, table.pointer(), 39, &memory, CR3, LINEAR, access);
        match walk.end {
            NestedEnd::Host { host, size } => {
                prop_assert_eq!(by_the_manual, Ok((host, size, walk.loads())));
            }
            NestedEnd::Fault => prop_assert_eq!(by_the_manual, Err(Stop::PageFault)),
            NestedEnd::Violation(violation, _) => {
                prop_assert_eq!(by_the_manual, Err(Stop::Violation(violation.guest)));
            }
            NestedEnd::NoTable => prop_assert_eq!(by_the_manual, Err(Stop::OutsideOfMemory)),
        }
    }
}

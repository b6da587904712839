//! What the tables say after a change, and what the change asks for.

mod nested;
mod properties;
mod walker;

use super::testing::Pages;
use super::*;

const GIB: u64 = 1 << 30;
const MIB2: u64 = 2 << 20;

/// What a processor with everything has in IA32_VMX_EPT_VPID_CAP (Skylake).
const CAPABILITY: u64 = 0xf01_0633_4141;

fn ept() -> Ept {
    Ept::new(CAPABILITY, 39).unwrap()
}

fn npt() -> Npt {
    Npt::new(true, 48, Pat::RESET)
}

/// The page of the book on these tables shows this, in a block of its own.
#[track_caller]
pub(super) fn assert_in_book(text: &str) {
    const BOOK: &str = include_str!("../../../../docs/src/ept.md");
    let block = format!("```text\n{text}\n```\n");
    // Miri takes long to search a page.
    assert!(
        cfg!(miri) || BOOK.contains(&block),
        "docs/src/ept.md does not show\n{text}"
    );
}

fn page(host: u64, size: Size) -> Page {
    Page {
        host,
        size,
        rights: Rights::ALL,
        memory_type: MemoryType::WriteBack,
    }
}

fn never(_: u64) {
    panic!("nothing was to be invalidated");
}

fn sizes<F: Format>(table: &Table<'_, F>, start: u64, end: u64) -> Vec<(u64, Size)> {
    let pages = table.pages(start..end);
    pages.map(|(guest, path)| (guest, path.page().unwrap().size)).collect()
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn the_largest_pages_that_fit_are_used() {
    fn check<F: Format>(format: F) {
        let pages = Pages::new(100);
        let mut table = Table::new(&pages, format).unwrap();
        let change = table.map(GIB - 0x1000, GIB + MIB2 + 0x2000, page(3 * GIB - 0x1000, Size::Huge));
        assert_eq!(change.needs(), Invalidation::None);
        change.settle(never).unwrap();
        let expected = [
            (GIB - 0x1000, Size::Small),
            (GIB, Size::Huge),
            (2 * GIB, Size::Large),
            (2 * GIB + MIB2, Size::Small),
        ];
        assert_eq!(sizes(&table, 0, 4 * GIB), expected);
        let (host, page) = table.translate(GIB + 0x1234_5678).unwrap();
        assert_eq!(host, 3 * GIB + 0x1234_5678);
        assert_eq!((page.rights, page.memory_type), (Rights::ALL, MemoryType::WriteBack));
        assert_eq!(table.translate(GIB - 0x1001), None);
        assert_eq!(table.translate(2 * GIB + MIB2 + 0x1000), None);
        drop(table);
        assert_eq!(pages.taken(), 0);
    }
    check(ept());
    check(npt());
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn a_page_that_is_unmapped_from_a_large_one_splits_it() {
    fn check<F: Format>(format: F) {
        let pages = Pages::new(100);
        let mut table = Table::new(&pages, format).unwrap();
        table.map(0, GIB, page(GIB, Size::Huge)).settle(never).unwrap();
        let mut told = None;
        let change = table.unmap(MIB2 + 0x3000, 0x1000);
        assert_eq!(change.needs(), Invalidation::Context);
        change.settle(|pointer| told = Some(pointer)).unwrap();
        assert_eq!(told, Some(table.pointer()));
        assert_eq!(sizes(&table, 0, GIB).len(), 511 + 511);
        assert_eq!(table.translate(MIB2 + 0x3000), None);
        assert_eq!(table.translate(MIB2 + 0x4000).unwrap().0, GIB + MIB2 + 0x4000);
        assert_eq!(pages.taken(), 4);
        table.unmap(0, GIB).settle(|_| ()).unwrap();
        assert_eq!(pages.taken(), 1, "the root alone is left");
    }
    check(ept());
    check(npt());
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn a_violation_is_answered_with_the_largest_page_that_its_region_allows() {
    fn check<F: Format>(format: F) {
        let pages = Pages::new(100);
        let mut table = Table::new(&pages, format).unwrap();
        // The region begins 4 KiB before 2 MiB and ends 4 KiB after 1 GiB + 4 MiB.
        let region = MIB2 - 0x1000..GIB + 2 * MIB2 + 0x1000;
        let ram = page(4 * GIB + MIB2 - 0x1000, Size::Huge);
        let mut ask = |guest: u64| {
            table.populate(guest, region.clone(), ram).settle(never).unwrap();
            let (host, page) = table.translate(guest).unwrap();
            assert_eq!(host, 4 * GIB + guest);
            page.size
        };
        assert_eq!(ask(MIB2 - 1), Size::Small);
        assert_eq!(ask(MIB2 + 0x12_3456), Size::Large);
        assert_eq!(ask(GIB), Size::Large, "1 GiB from there on is not all in the region");
        assert_eq!(ask(GIB + 2 * MIB2), Size::Small);
        let change = table.populate(MIB2, region.clone(), ram);
        assert_eq!(change.settle(never), Err(Error::Mapped { address: MIB2 }));
        let outside = table.populate(region.end, region.clone(), ram).settle(never);
        assert!(matches!(outside, Err(Error::Beyond { .. })), "{outside:?}");

        let mut table = Table::new(&pages, format).unwrap();
        let ram = page(0, Size::Huge);
        table.map(0, 0x1000, ram).settle(never).unwrap();
        table.populate(GIB - 1, 0..8 * GIB, ram).settle(never).unwrap();
        let found = sizes(&table, 0, 8 * GIB);
        assert_eq!(
            found,
            [(0, Size::Small), (GIB - MIB2, Size::Large)],
            "a page is in the way of 1 GiB"
        );
        table.populate(5 * GIB + 7, 0..8 * GIB, ram).settle(never).unwrap();
        assert_eq!(table.translate(5 * GIB).unwrap().1.size, Size::Huge);
    }
    check(ept());
    check(npt());
}

/// One 4 KiB page of RAM at guest-physical 0x5000 in tables of this format.
fn one_page<F: Format>(pages: &Pages, format: F, rights: Rights) -> Table<'_, F> {
    let mut table = Table::new(pages, format).unwrap();
    let page = Page {
        rights,
        ..page(0x20_0000, Size::Small)
    };
    table.map(0x5000, 0x1000, page).settle(never).unwrap();
    table
}

#[test]
fn what_a_change_asks_for_is_what_the_sdm_says() {
    let pages = Pages::new(100);
    let needs = |format: Ept, before: u64, after: u64| {
        assert_eq!(Invalidation::of(&format, after, after), Invalidation::None);
        Invalidation::of(&format, before, after)
    };
    let entry = ept().page(page(0x20_0000, Size::Small)).unwrap();
    use Invalidation::*;
    let cases = [
        ("not present to present", 0, entry, None),
        ("present to not present", entry, 0, Context),
        ("a right taken", entry, entry & !2, Context),
        ("a right given", entry & !2, entry, MayFault),
        ("a right given and one taken", entry & !4, entry & !2, Context),
        ("another address", entry, entry + 0x1000, Context),
        ("another memory type", entry, entry & !(7 << 3), Context),
        ("PAT ignored", entry, entry | 1 << 6, Context),
        (
            "a table in place of a large page",
            entry | 1 << 7,
            entry & 0xf_ffff_f007,
            Context,
        ),
        ("accessed cleared", entry | 1 << 8, entry, Context),
        ("dirty cleared", entry | 1 << 9, entry, Context),
        ("accessed and dirty set", entry, entry | 3 << 8, None),
        ("accessed set with a right given", entry & !2, entry | 1 << 8, MayFault),
        ("violations to the guest", entry | 1 << 63, entry, Context),
    ];
    for (what, before, after, expected) in cases {
        assert_eq!(needs(ept(), before, after), expected, "{what}");
    }
    // Several changes that nobody has settled ask for the most that one of them asks for.
    let mut table = one_page(&pages, ept(), Rights::READ);
    assert_eq!(table.protect(0x5000, 0x1000, Rights::ALL).needs(), MayFault);
    assert_eq!(table.unmap(0x5000, 0x1000).needs(), Context);
    let mut told = 0;
    table
        .map(0, 0x1000, page(0, Size::Small))
        .settle(|_| told += 1)
        .unwrap();
    assert_eq!(told, 1);
    table.unmap(0x7000, 0x1000).settle(never).unwrap();
}

#[test]
fn pages_of_tables_are_given_back_after_the_invalidation() {
    let pages = Pages::new(600);
    let mut table = one_page(&pages, ept(), Rights::ALL);
    assert_eq!(pages.taken(), 4);
    let change = table.unmap(0, GIB);
    assert_eq!(pages.taken(), 4);
    change
        .settle(|_| assert_eq!(pages.taken(), 4, "the processor may still walk them"))
        .unwrap();
    assert_eq!(pages.taken(), 1);
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn a_change_without_a_page_left_says_so_and_owes_what_it_did() {
    let pages = Pages::new(3);
    let mut table = Table::new(&pages, ept()).unwrap();
    table.map(0, GIB, page(0, Size::Huge)).settle(never).unwrap();
    let mut told = 0;
    // The directory is the last page; the page table there is none.
    let failed = table.protect(0, 0x1000, Rights::READ).settle(|_| told += 1);
    assert_eq!(failed, Err(Error::NoPages));
    assert_eq!(failed.unwrap_err().to_string(), "no page is left for a page table");
    assert_eq!(told, 1, "1 GiB has become 512 pages of 2 MiB");
    assert_eq!(sizes(&table, 0, GIB).len(), 512);
    table.unmap(0, GIB).settle(|_| ()).unwrap();
    let failed = table.map(0, 0x1000, page(0, Size::Small)).settle(|_| ());
    assert_eq!(
        (failed, pages.taken()),
        (Err(Error::NoPages), 1),
        "half a way is taken back"
    );
    assert!(Table::new(&Pages::new(0), ept()).is_err());
}

// The whole table is read after each refusal, which goes no other way to memory than the properties do.
#[test]
#[cfg_attr(miri, ignore)]
fn what_cannot_be_mapped_is_refused_and_changes_nothing() {
    let pages = Pages::new(100);
    let mut table = one_page(&pages, ept(), Rights::ALL);
    let small = page(0, Size::Small);
    let refused = |table: &mut Table<'_, Ept>, guest, len, page, words: &str| {
        let refused = table.map(guest, len, page).settle(never).unwrap_err();
        assert_eq!(refused.to_string(), words);
        assert_eq!(sizes(table, 0, 0x10_0000), [(0x5000, Size::Small)]);
        assert_eq!(pages.taken(), 4);
    };
    refused(
        &mut table,
        0x10,
        0x1000,
        small,
        "the guest-physical address 0x10 is not a multiple of 4 KiB",
    );
    refused(&mut table, 0, 0x10, small, "the length 0x10 is not a multiple of 4 KiB");
    let host = page(0x10, Size::Small);
    refused(
        &mut table,
        0,
        0x1000,
        host,
        "the host-physical address 0x10 is not a multiple of 4 KiB",
    );
    refused(
        &mut table,
        GUEST_END - 0x1000,
        0x2000,
        small,
        "0x2000 bytes at the guest-physical address 0xfffffffff000 reach beyond 0x1000000000000, where such addresses end",
    );
    refused(
        &mut table,
        0,
        0x2000,
        page((1 << 39) - 0x1000, Size::Small),
        "0x2000 bytes at the host-physical address 0x7ffffff000 reach beyond 0x8000000000, where such addresses end",
    );
    refused(
        &mut table,
        0,
        0x8000,
        small,
        "the guest-physical address 0x5000 is mapped already: unmap it first, or remap it",
    );
    let write_only = Page {
        rights: Rights::new(false, true, false),
        ..small
    };
    refused(
        &mut table,
        0,
        0x1000,
        write_only,
        "no EPT entry of this processor can allow -w-",
    );
    let nothing = Page {
        rights: Rights::NONE,
        ..small
    };
    refused(
        &mut table,
        0,
        0x1000,
        nothing,
        "no EPT entry of this processor can allow ---",
    );
    let odd = Page {
        memory_type: MemoryType::UncacheableMinus,
        ..small
    };
    refused(
        &mut table,
        0,
        0x1000,
        odd,
        "no EPT entry of this processor can have the memory type UC-",
    );

    let mut nested = Table::new(&pages, npt()).unwrap();
    let combining = Page {
        memory_type: MemoryType::WriteCombining,
        ..small
    };
    let refused = nested.map(0, 0x1000, combining).settle(never).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no NPT entry of this processor can have the memory type WC"
    );
}

#[test]
fn execute_only_is_for_processors_that_offer_it() {
    let pages = Pages::new(100);
    let table = one_page(&pages, ept(), Rights::EXECUTE);
    assert_eq!(table.translate(0x5000).unwrap().1.rights, Rights::EXECUTE);
    let without = Ept::new(CAPABILITY & !1, 39).unwrap();
    let mut table = one_page(&pages, without, Rights::ALL);
    let refused = table.protect(0x5000, 0x1000, Rights::EXECUTE).settle(never);
    assert_eq!(refused, Err(Error::Rights(Rights::EXECUTE, "EPT")));
    let mut table = one_page(&pages, npt(), Rights::ALL);
    let refused = table.protect(0x5000, 0x1000, Rights::EXECUTE).settle(never);
    assert_eq!(refused, Err(Error::Rights(Rights::EXECUTE, "NPT")));
}

#[test]
fn the_eptp_names_the_memory_type_the_levels_and_the_flags() {
    let pages = Pages::new(100);
    let table = Table::new(&pages, ept()).unwrap();
    assert_eq!(
        table.pointer(),
        table.root() | 0x5e,
        "WB, four levels, accessed and dirty flags"
    );
    let table = Table::new(&pages, ept().without_accessed_dirty()).unwrap();
    assert_eq!(table.pointer(), table.root() | 0x1e);
    let uncacheable = Ept::new(CAPABILITY & !(1 << 14) | 1 << 8, 39).unwrap();
    let table = Table::new(&pages, uncacheable).unwrap();
    assert_eq!(table.pointer(), table.root() | 0x58);
    let table = Table::new(&pages, npt()).unwrap();
    assert_eq!(table.pointer(), table.root());
}

#[test]
fn a_processor_without_what_is_needed_is_refused_with_the_bit_that_is_missing() {
    let words = |capability: u64| Ept::new(capability, 39).unwrap_err().to_string();
    let four = words(CAPABILITY & !(1 << 6));
    assert!(
        four.ends_with("offers no EPT page walk of four levels: bit 6 is 0"),
        "{four}"
    );
    let invept = words(CAPABILITY & !(1 << 25));
    assert!(
        invept.ends_with("offers no single-context INVEPT: bits 20 and 25 are not both 1"),
        "{invept}"
    );
    let types = words(CAPABILITY & !(1 << 14 | 1 << 8));
    assert!(types.ends_with("neither bit 8 (UC) nor bit 14 (WB)"), "{types}");
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn large_pages_are_used_as_far_as_the_processor_has_them() {
    let pages = Pages::new(2000);
    let count = |format: Ept| {
        let mut table = Table::new(&pages, format).unwrap();
        table.map(0, GIB, page(0, Size::Huge)).settle(never).unwrap();
        (sizes(&table, 0, GIB).len(), table.translate(0).unwrap().1.size)
    };
    assert_eq!(count(ept()), (1, Size::Huge));
    assert_eq!(
        count(Ept::new(CAPABILITY & !(1 << 17), 39).unwrap()),
        (512, Size::Large)
    );
    let small = Ept::new(CAPABILITY & !(3 << 16), 39).unwrap();
    assert_eq!(count(small), (512 * 512, Size::Small));
    let mut nested = Table::new(&pages, Npt::new(false, 48, Pat::RESET)).unwrap();
    nested.map(0, GIB, page(0, Size::Huge)).settle(never).unwrap();
    assert_eq!(nested.translate(0).unwrap().1.size, Size::Large);
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn dirty_pages_are_found_once_and_asked_to_be_forgotten() {
    fn check<F: Format>(format: F) {
        let pages = Pages::new(100);
        let mut table = Table::new(&pages, format).unwrap();
        table.map(0, 4 * MIB2, page(0, Size::Large)).settle(never).unwrap();
        table.split(0, MIB2, Size::Small).settle(|_| ()).unwrap();
        let mark = |table: &Table<'_, F>, guest, flags| {
            let step = *table.path(guest).last().unwrap();
            let entry = table.entry(step.table, usize::from(step.index));
            entry.fetch_or(flags, std::sync::atomic::Ordering::Relaxed);
        };
        mark(&table, 0x3000, F::ACCESSED | F::DIRTY);
        mark(&table, 0x4000, F::ACCESSED);
        mark(&table, 2 * MIB2 + 0x1000, F::ACCESSED | F::DIRTY);
        let mut found = Vec::new();
        let change = table.take(Mark::Dirty, 0, 4 * MIB2, |guest, size| found.push((guest, size)));
        assert_eq!(change.needs(), Invalidation::Context);
        change.settle(|_| ()).unwrap();
        assert_eq!(found, [(0x3000, Size::Small), (2 * MIB2, Size::Large)]);
        assert!(table.path(0x3000).marked(Mark::Accessed));
        assert!(!table.path(0x3000).marked(Mark::Dirty));
        table
            .take(Mark::Dirty, 0, 4 * MIB2, |_, _| panic!("there is none"))
            .settle(never)
            .unwrap();
        let mut found = Vec::new();
        table
            .take(Mark::Accessed, 0, MIB2, |guest, _| found.push(guest))
            .settle(|_| ())
            .unwrap();
        assert_eq!(found, [0x3000, 0x4000]);
        // The pieces of a page that was dirty are dirty.
        mark(&table, 3 * MIB2, F::ACCESSED | F::DIRTY);
        table.split(3 * MIB2, MIB2, Size::Small).settle(|_| ()).unwrap();
        assert!(table.path(3 * MIB2 + 0x7000).marked(Mark::Dirty));
    }
    check(ept());
    check(npt());
}

#[test]
fn violations_are_explained_by_the_way_as_it_is() {
    let pages = Pages::new(100);
    let mut table = one_page(&pages, ept(), Rights::READ_EXECUTE);
    let write = Violation::of_ept(0b1_1010_1010, 0x5123, 0x5123);
    let cause = |table: &Table<'_, Ept>| write.cause(&table.path(0x5123)).to_string();
    assert_eq!(cause(&table), "entry 5 of the PT allows r-x");
    table.protect(0x5000, 0x1000, Rights::ALL).settle(never).unwrap();
    assert_eq!(
        cause(&table),
        "the tables allow it now; the processor used what it remembered"
    );
    table.unmap(0x5000, 0x1000).settle(|_| ()).unwrap();
    assert_eq!(cause(&table), "entry 0 of the PML4 is not present");
    let far = Violation {
        guest: GUEST_END + 0x5123,
        ..write
    };
    let path = table.path(far.guest);
    assert_eq!(
        far.cause(&path).to_string(),
        "tables of four levels end at the address 0x1000000000000"
    );
    assert_eq!((path.page(), table.translate(far.guest)), (None, None));
}

#[test]
fn pages_are_misconfigured_on_purpose_and_mended_one_by_one_without_an_invalidation() {
    let pages = Pages::new(100);
    let mut table = Table::new(&pages, ept()).unwrap();
    table
        .map(0, 0x4000, page(0x20_0000, Size::Small))
        .settle(|_| ())
        .unwrap();
    let change = table.misconfigure(0x1000, 0x2000, true);
    // A processor may remember that they could be read.
    assert_eq!(change.needs(), Invalidation::Context);
    change.settle(|_| ()).unwrap();
    let broken = |table: &Table<'_, Ept>| [0, 0x1000, 0x2000, 0x3000].map(|at| table.path(at).broken().is_some());
    assert_eq!(broken(&table), [false, true, true, false]);
    assert_eq!(table.translate(0x1000), None);
    let change = table.misconfigure(0x1000, 0x1000, false);
    assert_ne!(change.needs(), Invalidation::Context);
    change.settle(|_| panic!("nothing is remembered of it")).unwrap();
    assert_eq!(broken(&table), [false, false, true, false]);
    assert_eq!(table.translate(0x1008), Some((0x20_1008, page(0x20_1000, Size::Small))));
}

#[test]
fn every_misconfiguration_is_named_with_its_bits() {
    let pages = Pages::new(100);
    let small = ept().page(page(0x20_0000, Size::Small)).unwrap();
    let large = ept().page(page(0x20_0000, Size::Large)).unwrap();
    let huge = ept().page(page(0x4000_0000, Size::Huge)).unwrap();
    let link = ept().table(0x3000);
    let all = ept();
    let modest = Ept::new(CAPABILITY & !(3 << 16 | 1), 39).unwrap();
    let cases = [
        (
            all,
            1,
            small & !1,
            0b111,
            "writes are allowed (bit 1) and reads are not (bit 0)",
        ),
        (
            all,
            4,
            link & !5,
            0b111,
            "writes are allowed (bit 1) and reads are not (bit 0)",
        ),
        (
            modest,
            1,
            small & !3,
            0b111,
            "fetches are allowed (bit 2) and reads are not (bit 0), which this processor does not offer \
             (IA32_VMX_EPT_VPID_CAP bit 0 is 0)",
        ),
        (
            all,
            1,
            small | 1 << 39,
            0x000f_ff80_0000_0000,
            "the address has bits that this processor's physical addresses do not have",
        ),
        (all, 4, link | 1 << 7, 0xf8, "bits 7:3 of a PML4 entry are reserved"),
        (all, 4, link | 1 << 3, 0xf8, "bits 7:3 of a PML4 entry are reserved"),
        (
            all,
            3,
            link | 1 << 6,
            0x78,
            "bits 6:3 of an entry that leads to a table are reserved",
        ),
        (
            all,
            2,
            link | 1 << 4,
            0x78,
            "bits 6:3 of an entry that leads to a table are reserved",
        ),
        (modest, 3, huge, 0x80, "this processor has no pages of that size"),
        (modest, 2, large, 0x80, "this processor has no pages of that size"),
        (
            all,
            3,
            huge | 1 << 21,
            0x3fff_f000,
            "the address of a large page is not a multiple of its size",
        ),
        (
            all,
            2,
            large | 1 << 12,
            0x1f_f000,
            "the address of a large page is not a multiple of its size",
        ),
        (
            all,
            1,
            small & !0x38 | 2 << 3,
            0x38,
            "the memory type is one of the reserved: 2, 3 and 7",
        ),
        (
            all,
            2,
            large & !0x38 | 3 << 3,
            0x38,
            "the memory type is one of the reserved: 2, 3 and 7",
        ),
        (
            all,
            3,
            huge | 7 << 3,
            0x38,
            "the memory type is one of the reserved: 2, 3 and 7",
        ),
    ];
    for (format, level, entry, bits, why) in cases {
        assert_eq!(
            format.broken(level, entry),
            Some(Broken { bits, why }),
            "{entry:#x} of level {level}"
        );
    }
    for (level, entry) in [
        (1, small),
        (2, large),
        (3, huge),
        (4, link),
        (3, link),
        (2, link),
        (1, small | 1 << 7),
    ] {
        assert_eq!(ept().broken(level, entry), None, "{entry:#x} of level {level}");
        assert_eq!(
            ept().broken(level, entry & !7 | 0xff8 | 1 << 50),
            None,
            "what is not present is never wrong"
        );
    }

    let mut table = one_page(&pages, ept(), Rights::ALL);
    let entry = table.path(0x5000).last().unwrap().entry;
    // SAFETY: no processor uses these tables, and the entry maps a page.
    unsafe { table.overwrite(0x5000, 1, entry & !0x38 | 2 << 3) }
        .settle(|_| ())
        .unwrap();
    assert_eq!(table.translate(0x5000), None);
    let path = table.path(0x5123).to_string();
    let last = path.lines().last().unwrap();
    assert_eq!(
        last,
        "0x5123 leads to a PT entry that the processor refuses, for its bits 0x10: the memory type is one of the \
         reserved: 2, 3 and 7"
    );
    let read = Violation::of_ept(0b1_1000_0001, 0x5123, 0x5123);
    assert_eq!(
        read.cause(&table.path(0x5123)).to_string(),
        "entry 5 of the PT is refused for its bits 0x10: the memory type is one of the reserved: 2, 3 and 7"
    );
}

#[test]
fn nested_entries_with_reserved_bits_are_named_too() {
    let small = npt().page(page(0x20_0000, Size::Small)).unwrap();
    let large = npt().page(page(0x20_0000, Size::Large)).unwrap();
    let link = npt().table(0x3000);
    let bits = |level, entry| npt().broken(level, entry).map(|broken| broken.bits);
    assert_eq!(bits(4, link | 1 << 7), Some(0x80));
    assert_eq!(bits(2, large | 1 << 13), Some(0x1f_e000), "bit 12 selects from the PAT");
    assert_eq!(bits(2, large | 1 << 12), None);
    assert_eq!(bits(1, small | 1 << 48), Some(0x000f_0000_0000_0000));
    assert_eq!(bits(1, small | 1 << 7), None);
    assert_eq!(
        Npt::new(false, 48, Pat::RESET)
            .broken(3, large & !0xf_ffff_f000)
            .map(|broken| broken.bits),
        Some(0x80)
    );
}

#[test]
fn the_violations_of_a_range_can_go_to_the_guest() {
    let pages = Pages::new(100);
    let mut table = Table::new(&pages, ept().suppressing_ve()).unwrap();
    let bit = |table: &Table<'_, Ept>, guest| table.path(guest).last().unwrap().entry >> 63;
    table.map(0, MIB2, page(0, Size::Large)).settle(never).unwrap();
    assert_eq!((bit(&table, 0), bit(&table, GIB)), (1, 1));
    table.convert(0x1000, 0x1000, true).settle(|_| ()).unwrap();
    assert_eq!((bit(&table, 0), bit(&table, 0x1000), bit(&table, 0x2000)), (1, 0, 1));
    table.convert(GIB + 0x1000, 0x1000, true).settle(never).unwrap();
    assert_eq!(
        (bit(&table, GIB), bit(&table, GIB + 0x1000), bit(&table, GIB + MIB2)),
        (1, 0, 1)
    );
    table.unmap(0, 2 * GIB).settle(|_| ()).unwrap();
    table.convert(0, GUEST_END, false).settle(|_| ()).unwrap();
    assert_eq!(bit(&table, GIB + 0x1000), 1);
}

#[test]
fn a_way_is_shown_entry_by_entry() {
    let pages = Pages::new(100);
    let table = one_page(&pages, ept(), Rights::READ_EXECUTE);
    assert_eq!(
        table.path(0x5123).to_string(),
        "EPT PML4 0x100000[0] = 0x0000000000103007  to 0x103000 rwx
EPT PDPT 0x103000[0] = 0x0000000000106007  to 0x106000 rwx
EPT PD   0x106000[0] = 0x0000000000109007  to 0x109000 rwx
EPT PT   0x109000[5] = 0x0000000000200035  to 0x200000 r-x page 4K WB
0x5123 is 0x200123 in a page of 4K, r-x, WB"
    );
    let nested = one_page(&pages, npt(), Rights::READ);
    let path = nested.path(0x7123).to_string();
    let lines: Vec<_> = path.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(
        lines[3].ends_with("[7] = 0x0000000000000000  not present"),
        "{}",
        lines[3]
    );
    assert_eq!(lines[4], "0x7123 is not mapped");
}

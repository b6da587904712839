//! What the tables say after a change, and what the change asks for.

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

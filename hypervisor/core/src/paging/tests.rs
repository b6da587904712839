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

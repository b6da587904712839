//! Any sequence of changes against a flat model of what is mapped, and against the independent
//! walker.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::testing::Pages;
use super::super::*;
use super::walker::{self, Found};

/// Pages of 4 KiB that the changes are about: three windows of so many, each over a border of
/// larger pages.
const WINDOW: u64 = if cfg!(miri) { 3 } else { 520 };

/// Where the windows begin: before a border of 1 GiB, of 512 GiB, and at 0.
const STARTS: [u64; 3] = [0, (1 << 30) - 0x20_0000, (1 << 39) - 0x1000];

/// What one 4 KiB page is to be: where, with which rights and type.
type Model = BTreeMap<u64, (u64, Rights, MemoryType)>;

/// A range of pages: which window, where in it, how long; the last may be stretched to 2 MiB.
type Where = (usize, u64, u64, bool);

#[derive(Clone, Debug)]
enum Op {
    Map {
        at: Where,
        host: u64,
        rights: Rights,
        memory_type: MemoryType,
        largest: Size,
        again: bool,
    },
    Unmap(Where),
    Protect(Where, Rights),
    Split(Where, Size),
    Populate {
        at: Where,
        host: u64,
        largest: Size,
    },
}

fn range((window, first, count, large): Where) -> (u64, u64) {
    let start = STARTS[window % 3] + first % WINDOW * 0x1000;
    if large {
        // Whole large pages, so that large pages come into being.
        return (start & !0x1f_ffff, 0x20_0000 * (1 + count % 2));
    }
    (start, (1 + count % WINDOW) * 0x1000)
}

fn op() -> impl Strategy<Value = Op> {
    // Under Miri 512 pages at a time are too many.
    let large = if cfg!(miri) { 0.0 } else { 0.3 };
    let at = move || (0_usize..3, 0..WINDOW, 0..WINDOW, prop::bool::weighted(large));
    let rights = prop::sample::select(vec![
        Rights::ALL,
        Rights::READ,
        Rights::READ_WRITE,
        Rights::READ_EXECUTE,
        Rights::EXECUTE,
    ]);
    let memory_type = prop::sample::select(vec![
        MemoryType::WriteBack,
        MemoryType::Uncacheable,
        MemoryType::WriteThrough,
        MemoryType::WriteCombining,
    ]);
    let size = prop::sample::select(vec![Size::Small, Size::Large, Size::Huge]);
    // Hosts that are aligned as the guest's addresses are, and such that are not.
    let host = prop_oneof![3 => Just(0), 1 => (1_u64..600).prop_map(|page| page * 0x1000)];
    prop_oneof![
        4 => (at(), host.clone(), rights.clone(), memory_type, size.clone(), any::<bool>()).prop_map(
            |(at, host, rights, memory_type, largest, again)| Op::Map { at, host, rights, memory_type, largest, again }
        ),
        2 => at().prop_map(Op::Unmap),
        2 => (at(), rights).prop_map(|(at, rights)| Op::Protect(at, rights)),
        1 => (at(), size.clone()).prop_map(|(at, size)| Op::Split(at, size)),
        2 => (at(), host, size).prop_map(|(at, host, largest)| Op::Populate { at, host, largest }),
    ]
}

/// Makes one change in the tables and in the model.
fn apply<F: Format>(table: &mut Table<'_, F>, model: &mut Model, op: &Op) {
    let (Op::Map { at, .. } | Op::Unmap(at) | Op::Protect(at, _) | Op::Split(at, _) | Op::Populate { at, .. }) = op;
    let (guest, len) = range(*at);
    let each = || (guest..guest + len).step_by(0x1000);
    let mut told = false;
    let before = model.clone();
    match *op {
        Op::Map {
            host,
            rights,
            memory_type,
            largest,
            again,
            ..
        } => {
            let page = Page {
                host: (guest & 0xfff_ffff) + host,
                size: largest,
                rights,
                memory_type,
            };
            let change = if again {
                table.remap(guest, len, page)
            } else {
                table.map(guest, len, page)
            };
            match change.settle(|_| told = true) {
                Ok(()) => {
                    assert!(again || each().all(|guest| !model.contains_key(&guest)));
                    model.extend(each().map(|at| (at, (page.host + at - guest, rights, memory_type))));
                }
                Err(Error::Mapped { address }) => {
                    let first = each().find(|guest| model.contains_key(guest));
                    assert!(!again && first.is_some_and(|first| address <= first));
                }
                Err(Error::Rights(..)) => assert!(F::NAME == "NPT" && !rights.read),
                Err(Error::MemoryType(..)) => {
                    assert!(F::NAME == "NPT" && memory_type == MemoryType::WriteCombining);
                }
                Err(other) => panic!("{other}"),
            }
        }
        Op::Unmap(_) => {
            table.unmap(guest, len).settle(|_| told = true).unwrap();
            model.retain(|at, _| !(guest..guest + len).contains(at));
        }
        Op::Protect(_, rights) => match table.protect(guest, len, rights).settle(|_| told = true) {
            Ok(()) => {
                for (_, page) in model.range_mut(guest..guest + len) {
                    page.1 = rights;
                }
            }
            Err(_) => assert!(F::NAME == "NPT" && !rights.read),
        },
        Op::Split(_, largest) => {
            table.split(guest, len, largest).settle(|_| told = true).unwrap();
            for guest in each() {
                assert!(table.path(guest).page().is_none_or(|page| page.size <= largest));
            }
        }
        Op::Populate { host, largest, .. } => {
            let page = Page {
                host: (guest & 0xfff_ffff) + host,
                size: largest,
                rights: Rights::ALL,
                memory_type: MemoryType::WriteBack,
            };
            let at = guest + len / 2;
            match table.populate(at, guest..guest + len, page).settle(|_| told = true) {
                Ok(()) => {
                    let made = table.path(at).page().unwrap().size.bytes();
                    let start = at & !(made - 1);
                    assert!(guest <= start && start + made <= guest + len);
                    for at in (start..start + made).step_by(0x1000) {
                        let new = (page.host + at - guest, page.rights, page.memory_type);
                        assert_eq!(model.insert(at, new), None);
                    }
                }
                Err(Error::Mapped { .. }) => assert!(model.contains_key(&(at & !0xfff))),
                Err(other) => panic!("{other}"),
            }
        }
    }
    // A processor that remembers what was there must be told if that is no longer so.
    let lost = before.iter().any(|(at, (host, rights, memory_type))| {
        !model
            .get(at)
            .is_some_and(|now| now.0 == *host && now.1.contains(*rights) && now.2 == *memory_type)
    });
    assert!(told || !lost, "{op:?}");
}

/// Compares the tables with the model, and their path with the walker's, at every so many-th page.
fn compare<F: Format>(table: &Table<'_, F>, model: &Model, every: usize, walk: &dyn Fn(u64) -> Option<Found>) {
    let windows = STARTS.iter().flat_map(|start| {
        let pages = (0..WINDOW + 1024).step_by(every);
        pages.map(move |page| (start & !0x1f_ffff) + page * 0x1000)
    });
    for at in windows.chain(model.keys().copied().step_by(every)) {
        let expected = model.get(&at);
        let found = walk(at + 0x123);
        let path = table.translate(at + 0x123);
        let Some((host, rights, memory_type)) = expected else {
            assert_eq!((found, path), (None, None), "{at:#x}");
            continue;
        };
        let found = found.unwrap_or_else(|| panic!("{at:#x} is mapped and the walker does not find it"));
        assert_eq!(found.host, host + 0x123, "{at:#x}");
        assert_eq!(Rights::new(found.read, found.write, found.execute), *rights, "{at:#x}");
        assert_eq!(found.memory_type, *memory_type as u8, "{at:#x}");
        let (host, page) = path.unwrap();
        assert_eq!(
            (host, page.rights, page.memory_type),
            (found.host, *rights, *memory_type)
        );
        assert_eq!(page.size.bytes(), 1 << found.page_bits);
    }
}

/// All changes, one after the other; at the end no page may be left behind.
fn run<F: Format>(format: F, ops: &[Op], walk: impl Fn(&Pages, u64, u64) -> Option<Found>) {
    let pages = Pages::new(10_000);
    let mut table = Table::new(&pages, format).unwrap();
    let mut model = Model::new();
    for op in ops {
        apply(&mut table, &mut model, op);
        let pointer = table.pointer();
        compare(&table, &model, if cfg!(miri) { 170 } else { 31 }, &|address| {
            walk(&pages, pointer, address)
        });
    }
    let pointer = table.pointer();
    compare(&table, &model, if cfg!(miri) { 50 } else { 1 }, &|address| {
        walk(&pages, pointer, address)
    });
    table.unmap(0, GUEST_END).settle(|_| ()).unwrap();
    assert_eq!(pages.taken(), 1, "the root alone");
    drop(table);
    assert_eq!(pages.taken(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 24 },
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn ept_does_what_the_model_does(ops in prop::collection::vec(op(), 1..if cfg!(miri) { 5 } else { 30 })) {
        for capability in [super::CAPABILITY, super::CAPABILITY & !(1 << 17), super::CAPABILITY & !(3 << 16)] {
            let format = Ept::new(capability, 39).unwrap();
            run(format, &ops, |pages, pointer, address| walker::ept(pages, pointer, 39, address));
        }
    }

    #[test]
    fn npt_does_what_the_model_does(ops in prop::collection::vec(op(), 1..if cfg!(miri) { 5 } else { 30 })) {
        let pat = Pat::new(0x0007_0401_0007_0406).unwrap();
        for (pages_1g, pat) in [(true, Pat::RESET), (false, pat)] {
            let walk = |pages: &Pages, pointer, address| walker::npt(pages, pointer, 48, pat.value(), address);
            run(Npt::new(pages_1g, 48, pat), &ops, walk);
        }
    }
}

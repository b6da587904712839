//! The page tables, read back by a walker that shares nothing with the code that wrote them.

use std::collections::HashMap;

use chiton_shared::manifest::{Manifest, Ring};
use chiton_shared::{map, processor};
use goblin::elf::program_header::{PF_R, PF_W, PF_X};
use proptest::prelude::*;

use crate::boot::{BootError, MAX_MEMORY, Options, Place, World};
use crate::loader::tests::cases;
use crate::loader::tests::elf::{Elf, Load};
use crate::loader::{Image, MAX_SEGMENTS};

/// A run of bytes that is mapped in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u64,
    end: u64,
    write: bool,
    execute: bool,
    user: bool,
    cached: bool,
}

/// Puts runs that touch and agree into one.
fn merged(mut runs: Vec<Run>) -> Vec<Run> {
    runs.retain(|run| run.start < run.end);
    runs.sort_by_key(|run| run.start);
    let mut merged: Vec<Run> = vec![];
    for run in runs {
        match merged.last_mut() {
            Some(last)
                if *last
                    == (Run {
                        start: last.start,
                        end: run.start,
                        ..run
                    }) =>
            {
                last.end = run.end
            }
            _ => merged.push(run),
        }
    }
    merged
}

/// Everything the page tables map, by recursive descent from CR3.
struct Walker {
    entries: HashMap<u64, u64>,
    runs: Vec<Run>,
    tables: usize,
}

impl Walker {
    fn walk(world: &World<'_>) -> Self {
        let mut entries = HashMap::new();
        for piece in world.pieces().filter(|p| p.place == Place::PageTables) {
            for (i, entry) in piece.bytes.chunks_exact(8).enumerate() {
                entries.insert(
                    piece.address + 8 * i as u64,
                    u64::from_le_bytes(entry.try_into().unwrap()),
                );
            }
        }
        let mut walker = Self {
            entries,
            runs: vec![],
            tables: 0,
        };
        walker.table(world.system.cr3, 39, 0, true);
        walker
    }

    fn table(&mut self, table: u64, shift: u32, base: u64, user: bool) {
        assert!((map::PAGE_TABLES..map::PAGE_TABLES_END).contains(&table));
        self.tables += 1;
        for index in 0..512 {
            let entry = self.entries.get(&(table + 8 * index)).copied().unwrap_or(0);
            if entry & 1 == 0 {
                assert_eq!(entry, 0, "what is not present is zero");
                continue;
            }
            let start = base + (index << shift);
            let address = entry & 0x000f_ffff_ffff_f000;
            assert_ne!(entry & 1 << 5, 0, "accessed");
            let leaf = shift == 12 || entry & 1 << 7 != 0;
            if !leaf {
                assert_eq!(entry >> 63, 0, "no-execute is for the leaf to say");
                assert_ne!(entry & 2, 0);
                self.table(address, shift - 9, start, user && entry & 4 != 0);
                continue;
            }
            assert!(shift == 12 || shift == 21, "no pages of 1 GiB");
            assert_eq!(address, start, "virtual is physical");
            let (write, execute) = (entry & 2 != 0, entry >> 63 == 0);
            assert!(!(write && execute), "{start:#x} is writable and executable");
            assert!(!write || entry & 1 << 6 != 0, "dirty");
            let user = user && entry & 4 != 0;
            let cached = match entry >> 3 & 3 {
                0 => true,
                3 => false,
                other => panic!("PWT and PCD are {other}"),
            };
            self.runs.push(Run {
                start,
                end: start + (1 << shift),
                write,
                execute,
                user,
                cached,
            });
        }
    }
}

/// What is to be mapped beside the image, from the documentation of the map.
fn expected_beside_the_image(world: &World<'_>, user: bool) -> Vec<Run> {
    let run = |start, len, write, execute, user| Run {
        start,
        end: start + len,
        write,
        execute,
        user,
        cached: true,
    };
    let page = &world.boot_page;
    let mut runs = vec![
        run(0x1_0000, 0x1_0000, false, false, user),
        run(0x2_0000, 0x3000, false, false, false),
        run(0x2_3000, 0x1000, false, true, false),
        run(0xf_0000, 0x1000, true, false, user),
        run(0x10_0000, 0x10_0000, true, false, user),
        run(page.stack_start, page.stack_size, true, false, user),
        run(page.heap_start, page.heap_size, true, false, user),
        Run {
            cached: false,
            ..run(0xd000_0000, 0x1_0000, true, false, user)
        },
    ];
    runs.extend((0..5).map(|n| run(0x3_1000 + 0x2000 * n, 0x1000, true, false, false)));
    let others = u64::from(page.processors) - 1;
    if others > 0 {
        let pages = |bytes: u64| bytes.next_multiple_of(0x1000);
        runs.push(run(0xd_8000, pages(512 * others), false, false, false));
        runs.push(run(0xd_c000, pages(2560 * others), true, false, false));
    }
    for n in 0..others {
        let block = page.processor_blocks + n * page.processor_stride;
        runs.push(run(block, 0x1000, true, false, user));
        runs.push(run(block + 0x2000, page.stack_size, true, false, user));
    }
    runs
}

#[derive(Clone, Debug)]
struct Plan {
    elf: Elf,
    memory: u64,
    ring: Ring,
}

/// Segments from a few bytes to some MiB, in any order of permissions, with and without gaps.
fn plan() -> impl Strategy<Value = Plan> {
    let segment = (0..3_u32, 0..3_u64, any::<bool>(), 1..0x50_0000_u64, any::<bool>());
    let segments = prop::collection::vec(segment, 1..7);
    let ring = prop_oneof![Just(Ring::User), Just(Ring::Kernel)];
    let size = prop_oneof![Just(0), 1..10_000_000_u64];
    let memory = prop_oneof![0..1_u64 << 26, 0..MAX_MEMORY];
    (segments, ring, size.clone(), size, memory, 0..4_u64, any::<bool>()).prop_map(
        |(segments, ring, stack, heap, memory, relro_pages, fixed)| {
            let mut elf = if fixed { Elf::fixed(0x80_0000) } else { Elf::good() };
            let mut next = elf.loads[0].address;
            elf.dynamic.clear();
            elf.relro.clear();
            elf.loads.clear();
            for (i, (kind, gap, align, size, few)) in segments.into_iter().enumerate() {
                next += gap * map::PAGE;
                if align {
                    next = next.next_multiple_of(map::LARGE_PAGE);
                }
                let size = if few { size % 0x3000 + 1 } else { size };
                let flags = if i == 0 {
                    PF_R | PF_X
                } else {
                    PF_R | [0, PF_W, PF_X][kind as usize]
                };
                elf.loads.push(Load::new(next, flags, b"x").sized(size));
                next = (next + size).next_multiple_of(map::PAGE);
            }
            elf.entry = elf.loads[0].address;
            if let Some(load) = elf.loads.iter().find(|load| load.flags & PF_W != 0) {
                elf.relro = vec![(load.address, relro_pages * map::PAGE)];
            }
            let elf = elf.manifest(Manifest::new(ring).stack(stack).heap(heap));
            Plan { elf, memory, ring }
        },
    )
}

impl Plan {
    /// What is to be mapped of the image.
    fn expected_image(&self, bias: u64) -> Vec<Run> {
        let user = self.ring == Ring::User;
        let relro = self
            .elf
            .relro
            .first()
            .map_or(0..0, |(start, size)| start + bias..start + size + bias);
        let mut runs = vec![];
        for load in &self.elf.loads {
            let (start, end) = (
                load.address + bias,
                (load.address + load.size).next_multiple_of(0x1000) + bias,
            );
            let (write, execute) = (load.flags & PF_W != 0, load.flags & PF_X != 0);
            let run = Run {
                start,
                end,
                write,
                execute,
                user,
                cached: true,
            };
            if write {
                let (first, last) = (relro.start.clamp(start, end), relro.end.clamp(start, end));
                runs.extend([Run { end: first, ..run }, Run { start: last, ..run }]);
                runs.push(Run {
                    start: first,
                    end: last,
                    write: false,
                    ..run
                });
            } else {
                runs.push(run);
            }
        }
        runs
    }
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    #[cfg_attr(miri, ignore = "maps many GiB, page by page")]
    fn exactly_what_is_listed_is_mapped_and_exactly_so(plan in plan(), processors in 1..=processor::MAX) {
        let bytes = plan.elf.build();
        let image = Image::parse(&bytes).unwrap();
        let least = World::minimum_memory(&image);
        let memory = (least + plan.memory).min(MAX_MEMORY) & !0xfff;
        let options = Options { processors, ..Options::new(memory) };
        let world = match World::build(&image, &options) {
            // Stacks of so many processors may be too much for the memory, or for the tables.
            Err(BootError::MemoryTooSmall { .. } | BootError::TablesFull) if processors > 1 => return Ok(()),
            world => world.unwrap(),
        };

        let mut expected = plan.expected_image(image.bias());
        expected.extend(expected_beside_the_image(&world, plan.ring == Ring::User));
        let walker = Walker::walk(&world);
        prop_assert_eq!(walker.tables, world.table_count());
        let mapped = merged(walker.runs.clone());
        prop_assert_eq!(&mapped, &merged(expected));

        // The list for people says the same as the tables, page by page in size too.
        for mapping in world.mappings() {
            let leaves: Vec<_> = walker.runs.iter().filter(|run| mapping.contains(run.start)).collect();
            prop_assert!(leaves.iter().all(|run| run.end - run.start == mapping.page.bytes()));
            prop_assert_eq!(leaves.len() as u64, (mapping.end - mapping.start) / mapping.page.bytes());
        }
        let listed: u64 = world.mappings().iter().map(|m| m.end - m.start).sum();
        prop_assert_eq!(listed, mapped.iter().map(|run| run.end - run.start).sum::<u64>());
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps many GiB, page by page")]
fn a_large_heap_takes_no_small_tables() {
    let bytes = Elf::good().build();
    let image = Image::parse(&bytes).unwrap();
    let tables = |memory| World::build(&image, &Options::new(memory)).unwrap().table_count();
    assert_eq!(
        tables(16 << 20),
        7,
        "root, pointers, two directories, and a table for each of three ragged ends"
    );
    assert_eq!(tables(1 << 30), 7);
    assert_eq!(tables(2 << 30), 8, "a directory more");
}

#[test]
#[cfg_attr(miri, ignore = "maps many GiB, page by page")]
fn the_worst_guest_in_the_largest_memory_fits_the_table_area() {
    let mut elf = Elf::fixed(map::GUEST);
    elf.dynamic.clear();
    elf.loads.clear();
    for i in 0..MAX_SEGMENTS as u64 {
        let flags = if i == 0 { PF_R | PF_X } else { PF_R | PF_W };
        let load = Load::new(map::GUEST + i * (3 << 21) + 0x1000, flags, b"x").sized(2 << 21);
        elf.loads.push(load);
    }
    elf.entry = elf.loads[0].address;
    elf.relro = vec![(elf.loads[5].address, 1 << 21)];
    let bytes = elf.build();
    let image = Image::parse(&bytes).unwrap();
    let world = World::build(&image, &Options::new(MAX_MEMORY)).unwrap();
    let room = ((map::PAGE_TABLES_END - map::PAGE_TABLES) / map::PAGE) as usize;
    assert!(
        world.table_count() > room - 10 && world.table_count() <= room,
        "{}",
        world.table_count()
    );
}

//! Every part of a world, looked at without a machine.

mod interrupts;
pub(crate) mod memory;
mod stubs;
mod tables;

use chiton_shared::boot::{DeviceEntry, Strings};
use chiton_shared::doorbell::LogLevel;
use chiton_shared::manifest::{Manifest, Ring};
use chiton_shared::memory::GuestMemory;
use chiton_shared::{doorbell, map, processor};

use proptest::prelude::*;

use super::traps::VECTORS;
use super::*;
use crate::explain::Inspect;
use crate::loader::tests::cases;
use crate::loader::tests::elf::{DATA, Elf, Load, RELRO, TEXT};
use goblin::elf::program_header::{PF_R, PF_W};
use memory::Memory;

/// Enough for the good file of the loader's tests.
const MEMORY: u64 = 4 << 20;

fn strings(strings: &[&str]) -> Vec<String> {
    strings.iter().map(ToString::to_string).collect()
}

/// Builds the world of a file and hands it over.
fn with_world<T>(elf: &Elf, options: &Options<'_>, look: impl FnOnce(&World<'_>) -> T) -> T {
    let bytes = elf.build();
    let image = Image::parse(&bytes).unwrap();
    look(&World::build(&image, options).unwrap())
}

fn refusal(elf: &Elf, options: &Options<'_>) -> BootError {
    let bytes = elf.build();
    let image = Image::parse(&bytes).unwrap();
    World::build(&image, options).expect_err("a refusal")
}

#[track_caller]
fn says(error: &BootError, words: &str) {
    let sentence = error.to_string();
    assert!(sentence.contains(words), "{sentence:?} does not say {words:?}");
}

#[test]
fn image_stack_and_heap_follow_each_other_with_guards_between() {
    with_world(&Elf::good(), &Options::new(MEMORY), |world| {
        let layout = world.layout();
        assert_eq!(layout.image, map::GUEST..map::GUEST + 0x6000);
        assert_eq!(layout.stack, map::GUEST + 0x7000..map::GUEST + 0xa000);
        assert_eq!(layout.heap, map::GUEST + 0xb000..MEMORY);
        let page = &world.boot_page;
        assert_eq!((page.stack_start, page.stack_size), (map::GUEST + 0x7000, 0x3000));
        assert_eq!(
            (page.heap_start, page.heap_size),
            (map::GUEST + 0xb000, MEMORY - map::GUEST - 0xb000)
        );
        assert_eq!((page.memory, page.load_bias, page.ring), (MEMORY, map::GUEST, 3));
    });
}

#[test]
fn entry_is_like_a_call_in_ring_3() {
    with_world(&Elf::good(), &Options::new(MEMORY), |world| {
        let (r, s) = (&world.registers, &world.system);
        assert_eq!((r.rip, r.rdi, r.rbp), (map::GUEST + TEXT, map::BOOT_PAGE, 0));
        assert_eq!(r.rsp % 16, 8, "as after a call");
        assert_eq!(r.rsp + 8, world.layout().stack.end);
        assert_eq!(r.rflags, 0x3002, "IOPL 3, interrupts off");
        assert_eq!(
            (s.cr0, s.cr4, s.efer, s.cr3),
            (0x8001_0033, 0x620, 0xd00, map::PAGE_TABLES)
        );
        assert_eq!((s.cs.selector, s.cs.access, s.cs.limit), (0x23, 0xa0fb, u32::MAX));
        for (data, base) in [(s.ss, 0), (s.ds, 0), (s.es, 0), (s.fs, 0), (s.gs, map::MAILBOX)] {
            assert_eq!((data.selector, data.access, data.base), (0x1b, 0xc0f3, base));
        }
        assert_eq!(
            (s.tr.selector, s.tr.base, s.tr.limit, s.tr.access),
            (0x28, map::TSS, 504, 0x8b)
        );
        assert_eq!(s.ldt, crate::vcpu::Segment::default());
    });
}

#[test]
fn each_further_processor_has_a_block_of_its_own() {
    let options = Options {
        processors: 3,
        look_ns: 7,
        ..Options::new(MEMORY)
    };
    with_world(&Elf::good(), &options, |world| {
        let (page, layout) = (&world.boot_page, world.layout());
        assert_eq!(page.look_ns, 7);
        assert_eq!(
            (page.processors, page.processor_blocks),
            (3, layout.stack.end + map::PAGE)
        );
        assert_eq!(layout.heap.start, page.processor_blocks + 2 * page.processor_stride);
        let registers: Vec<_> = world.processor_registers().collect();
        assert_eq!(registers.len(), 2);
        for (n, (r, s)) in (0_u32..).zip(registers) {
            let block = page.processor_blocks + u64::from(n) * page.processor_stride;
            let (tss, stacks) = (processor::tss(n + 1), processor::trap_stacks(n + 1));
            assert_eq!((s.tr.base, s.gs.base), (tss, block));
            assert_eq!((s.cr3, s.cs), (world.system.cr3, world.system.cs));
            assert_eq!(
                (r.rsp, r.rflags),
                (block + page.processor_stride - map::PAGE - 8, 0x3002)
            );
            let at = |address| world.describe(address);
            let places = [at(tss), at(stacks), at(block), at(r.rsp)];
            let expected = [Place::Tss, Place::ProcessorTrapStacks, Place::Mailbox, Place::Stack];
            assert_eq!(places, expected);
            assert_eq!(
                [at(block + map::PAGE), at(r.rsp + 8)],
                [Place::BelowStack, Place::AboveStack]
            );
            let piece = |address| {
                world
                    .pieces()
                    .find(|piece| piece.address == address)
                    .map(|p| p.bytes.to_vec())
            };
            assert_eq!(piece(block + 16), Some(u64::from(n + 1).to_le_bytes().to_vec()));
            let tss = piece(tss).expect("a TSS");
            assert_eq!(tss[4..12], (stacks + 512).to_le_bytes(), "RSP0");
            for ist in 0..4 {
                let end = stacks + (ist as u64 + 2) * 512;
                assert_eq!(tss[36 + 8 * ist..44 + 8 * ist], end.to_le_bytes(), "IST {}", ist + 1);
            }
        }
    });
}

#[test]
fn there_is_a_bound_on_processors() {
    let bytes = Elf::good().build();
    let image = Image::parse(&bytes).unwrap();
    let build = |processors, memory| {
        let options = Options {
            processors,
            ..Options::new(memory)
        };
        World::build(&image, &options).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(build(0, MEMORY), "a guest cannot have 0 processors: choose 1 to 32");
    assert_eq!(build(33, MEMORY), "a guest cannot have 33 processors: choose 1 to 32");
    assert!(
        build(32, World::minimum_memory(&image)).contains("this guest needs at least"),
        "no memory for so many stacks"
    );
}

#[test]
fn the_manifest_or_the_option_chooses_ring_0() {
    let kernel = Elf::good().manifest(Manifest::new(Ring::Kernel));
    with_world(&kernel, &Options::new(MEMORY), |world| {
        assert_eq!((world.system.cs.selector, world.system.cs.access), (8, 0xa09b));
        assert_eq!((world.system.ss.selector, world.system.ss.access), (0x10, 0xc093));
        assert_eq!((world.boot_page.ring, world.ring()), (0, Ring::Kernel));
        assert!(world.mappings().iter().all(|m| !m.user));
    });
    let override_ = Options {
        ring: Some(Ring::User),
        ..Options::new(MEMORY)
    };
    with_world(&kernel, &override_, |world| assert_eq!(world.ring(), Ring::User));
}

#[test]
fn xsave_is_the_callers_choice() {
    let options = Options {
        xsave: true,
        ..Options::new(MEMORY)
    };
    with_world(&Elf::good(), &options, |world| assert_eq!(world.system.cr4, 0x4_0620));
}

#[test]
fn the_gdt_holds_what_the_registers_say() {
    let gdt: Vec<u64> = descriptors::GDT
        .as_chunks::<8>()
        .0
        .iter()
        .map(|e| u64::from_le_bytes(*e))
        .collect();
    assert_eq!(gdt[0], 0);
    assert_eq!(
        gdt[1..5],
        [
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff
        ],
        "kernel code and data, user data and code; accessed"
    );
    assert_eq!(gdt[5..], [0x0000_8b02_1000_01f8, 0], "a busy TSS at 0x21000");
}

#[test]
fn traps_find_their_stacks_in_the_tss() {
    let word = |at: usize| u64::from_le_bytes(descriptors::TSS[at..at + 8].try_into().unwrap());
    assert_eq!(word(4), map::trap_stack(0).1, "RSP0");
    let ist: Vec<_> = (0..4).map(|n| word(36 + 8 * n)).collect();
    assert_eq!(ist, (1..5).map(|n| map::trap_stack(n).1).collect::<Vec<_>>());
}

#[test]
#[cfg_attr(miri, ignore = "looks at every port, in safe code")]
fn the_io_permission_map_opens_the_doorbells_and_no_other_port() {
    assert_eq!(descriptors::TSS[102..104], [104, 0], "where the map begins");
    let is_open = |port: u16| {
        let byte = descriptors::TSS.get(104 + usize::from(port / 8));
        byte.is_some_and(|bits| bits >> (port % 8) & 1 == 0)
    };
    for port in 0..=u16::MAX {
        let doorbell = (doorbell::EXIT..doorbell::kick(map::DEVICE_MAX - 1) + 4).contains(&port);
        assert_eq!(is_open(port), doorbell, "port {port:#x}");
    }
    assert_eq!(descriptors::TSS.last(), Some(&0xff), "the byte behind the map");
}

#[test]
fn each_exception_has_a_gate_to_its_stub() {
    for (vector, gate) in descriptors::IDT.chunks_exact(16).enumerate() {
        let word = |at: usize, len: usize| gate[at..at + len].iter().rev().fold(0, |v, b| v << 8 | u64::from(*b));
        let address = word(0, 2) | word(6, 2) << 16 | word(8, 4) << 32;
        assert_eq!(address, map::TRAP_STUBS + 16 * vector as u64);
        assert_eq!(word(2, 2), 8, "kernel code");
        let ist = match vector {
            8 => 2,
            2 => 3,
            18 => 4,
            _ => 1,
        };
        assert_eq!(word(4, 1), ist, "{vector}");
        assert_eq!(
            word(5, 1),
            if vector == 3 { 0xee } else { 0x8e },
            "{vector}: an interrupt gate"
        );
        assert_eq!(word(12, 4), 0);
    }
    assert_eq!(
        descriptors::idt_table(VECTORS).limit,
        511,
        "nothing beyond the exceptions"
    );
}

#[test]
fn strings_lie_where_the_boot_page_says() {
    let (args, env) = (strings(&["hello", "", "naïve"]), strings(&["A=1", "B="]));
    let options = Options {
        args: &args,
        env: &env,
        ..Options::new(MEMORY)
    };
    with_world(&Elf::good(), &options, |world| {
        assert_eq!(
            world.boot_page.args,
            Strings {
                start: map::BOOT_STRINGS,
                len: 14,
                count: 3
            }
        );
        assert_eq!(
            world.boot_page.env,
            Strings {
                start: map::BOOT_STRINGS + 14,
                len: 7,
                count: 2
            }
        );
        let memory = Memory::new(MEMORY);
        world.write_to(&memory).unwrap();
        assert_eq!(
            memory.bytes(map::BOOT_STRINGS, 22),
            "hello\0\0naïve\0A=1\0B=\0\0".as_bytes()
        );
    });
}

#[test]
fn devices_and_log_level_reach_the_boot_page() {
    let devices = [
        DeviceEntry {
            id: 3,
            ..DeviceEntry::default()
        },
        DeviceEntry {
            id: 4,
            ..DeviceEntry::default()
        },
    ];
    let options = Options {
        devices: &devices,
        log_level: Some(LogLevel::Debug),
        ..Options::new(MEMORY)
    };
    with_world(&Elf::good(), &options, |world| {
        assert_eq!(
            world.boot_page.devices().iter().map(|d| d.id).collect::<Vec<_>>(),
            [3, 4]
        );
        assert_eq!(world.boot_page.log_level, 4);
    });
}

#[test]
fn memory_holds_the_image_with_its_relocations_applied() {
    with_world(&Elf::good(), &Options::new(MEMORY), |world| {
        let memory = Memory::new(MEMORY);
        world.write_to(&memory).unwrap();
        assert_eq!(memory.bytes(map::GUEST, 9), b"read-only");
        assert_eq!(memory.bytes(map::GUEST + TEXT, 32), [0x90; 32]);
        assert_eq!(memory.u64(map::GUEST + RELRO), 0x7777_7777_7777_7777);
        assert_eq!(memory.u64(map::GUEST + RELRO + 8), map::GUEST + TEXT + 1);
        assert_eq!(memory.u64(map::GUEST + DATA), map::GUEST + DATA + 8);
        assert_eq!(memory.u64(map::GUEST + DATA + 8), 0x5555_5555_5555_5555);
        assert_eq!(memory.u64(map::GUEST + DATA + 16), 0, "zero-filled");
        assert_eq!(memory.bytes(map::BOOT_PAGE, 6), b"CHITON");
        assert_eq!(memory.bytes(map::TRAP_STUBS, 4), traps::STUBS[..4]);
        for piece in world
            .pieces()
            .filter(|p| ![Place::Data, Place::Relro].contains(&p.place))
        {
            assert_eq!(
                memory.bytes(piece.address, piece.bytes.len()),
                piece.bytes,
                "{}",
                piece.place
            );
        }
    });
}

#[test]
fn pieces_do_not_overlap_and_most_are_borrowed() {
    let file = Elf::good().build();
    let image = Image::parse(&file).unwrap();
    let world = World::build(&image, &Options::new(MEMORY)).unwrap();
    let mut pieces: Vec<_> = world.pieces().collect();
    pieces.sort_by_key(|p| p.address);
    assert!(pieces.is_sorted_by(|a, b| a.address + a.bytes.len() as u64 <= b.address));
    let text = pieces.iter().find(|p| p.place == Place::Text).unwrap();
    assert!(
        file.as_ptr_range().contains(&text.bytes.as_ptr()),
        "copied once only, from the file"
    );
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    with_world(&Elf::good(), &Options::new(MEMORY), |world| {
        let error = world.write_to(&Memory::new(map::GUEST)).unwrap_err();
        assert_eq!(
            error,
            BootError::NoMemory {
                address: map::GUEST,
                len: 72
            }
        );
        says(&error, "no 72 bytes at 0x200000");
    });
}

#[test]
#[cfg_attr(miri, ignore = "builds worlds in safe code, and writes none to memory")]
fn too_little_memory_is_told_with_what_is_needed() {
    let elf = Elf::good();
    let bytes = elf.build();
    let needs = World::minimum_memory(&Image::parse(&bytes).unwrap());
    assert_eq!(needs, map::GUEST + 0x6000 + 0x1000 + 0x3000 + 0x1000 + 0x4000);
    with_world(&elf, &Options::new(needs), |world| {
        assert_eq!(world.boot_page.heap_size, 0x4000)
    });
    for memory in [0, 0x1000, map::GUEST, needs - map::PAGE] {
        let error = refusal(&elf, &Options::new(memory));
        assert_eq!(error, BootError::MemoryTooSmall { memory, needs });
        says(&error, "this guest needs at least 3 MiB (--memory 3M)");
    }
}

#[test]
fn needs_that_no_memory_can_meet_are_told_as_such() {
    let elf = Elf::good().manifest(Manifest::new(Ring::User).stack(1 << 45).heap(1 << 45));
    says(
        &refusal(&elf, &Options::new(MEMORY)),
        "needs 67111937 MiB of memory, more than the 78848 MiB there can be",
    );
    let mut elf = Elf::good();
    elf.loads[3].size = 1 << 46;
    assert!(matches!(
        refusal(&elf, &Options::new(MAX_MEMORY)),
        BootError::NeedsTooMuch(_)
    ));
}

#[test]
#[cfg_attr(miri, ignore = "maps many GiB, page by page")]
fn absurd_memory_is_refused() {
    says(
        &refusal(&Elf::good(), &Options::new(MAX_MEMORY + map::PAGE)),
        "are too much: the most is 78848 MiB",
    );
    says(&refusal(&Elf::good(), &Options::new(u64::MAX)), "are too much");
    says(
        &refusal(&Elf::good(), &Options::new(MEMORY + 1)),
        "4194305 bytes of memory are not a whole number",
    );
    with_world(&Elf::good(), &Options::new(MAX_MEMORY), |world| {
        assert_eq!(world.layout().heap, map::HIGH_MEMORY..MAX_MEMORY + (1 << 30));
    });
}

#[test]
fn a_fixed_segment_must_be_in_memory() {
    for address in [
        0x40_0000 - 0x2000,
        0x1000_0000,
        map::LOW_MEMORY_END - 0x1000,
        map::DEVICES,
        map::HIGH_MEMORY,
    ] {
        let error = refusal(&Elf::fixed(address), &Options::new(MEMORY));
        assert!(
            matches!(error, BootError::SegmentOutside { .. }),
            "{address:#x}: {error}"
        );
    }
    says(
        &refusal(&Elf::fixed(0x1000_0000), &Options::new(MEMORY)),
        "the segment at 0x10000000 to 0x10000048 lies outside the guest's 4 MiB of memory: raise --memory",
    );
    let error = refusal(&Elf::fixed(map::DEVICES), &Options::new(MAX_MEMORY));
    assert!(
        matches!(error, BootError::SegmentOutside { .. }),
        "memory has a hole there"
    );
}

#[test]
#[cfg_attr(miri, ignore = "maps many GiB, page by page")]
fn the_heap_is_the_larger_piece_on_either_side_of_the_hole() {
    let heap = |memory: u64| with_world(&Elf::good(), &Options::new(memory), |world| world.layout().heap.clone());
    assert_eq!(heap(3 << 30).end, map::LOW_MEMORY_END);
    assert_eq!(
        heap(4 << 30).end,
        map::LOW_MEMORY_END,
        "3 GiB below are more than 1 above"
    );
    assert_eq!(heap(7 << 30), map::HIGH_MEMORY..8 << 30);
    let high = Elf::fixed(map::HIGH_MEMORY);
    with_world(&high, &Options::new(4 << 30), |world| {
        assert_eq!(world.layout().heap, map::HIGH_MEMORY + 0xb000..5 << 30);
    });
}

#[test]
#[cfg_attr(miri, ignore = "maps many GiB, page by page")]
fn a_stack_that_does_not_fit_below_the_hole_goes_above() {
    let elf = Elf::fixed(map::LOW_MEMORY_END - 0x8000);
    with_world(&elf, &Options::new(4 << 30), |world| {
        assert_eq!(world.layout().stack, map::HIGH_MEMORY..map::HIGH_MEMORY + 0x3000);
        assert_eq!(world.describe(map::HIGH_MEMORY - 1), Place::BelowStack);
    });
    let bytes = elf.build();
    let needs = World::minimum_memory(&Image::parse(&bytes).unwrap());
    assert_eq!(needs, (3 << 30) + 0x3000 + 0x1000 + 0x4000);
}

#[test]
#[cfg_attr(miri, ignore = "builds worlds in safe code, and writes none to memory")]
fn strings_must_fit_and_make_sense() {
    let build = |args: &[String], env: &[String]| {
        let options = Options {
            args,
            env,
            ..Options::new(MEMORY)
        };
        let bytes = Elf::good().build();
        let image = Image::parse(&bytes).unwrap();
        World::build(&image, &options).map(drop)
    };
    let room = (map::BOOT_STRINGS_END - map::BOOT_STRINGS) as usize;
    assert_eq!(build(&["x".repeat(room - 1)], &[]), Ok(()));
    let error = build(&["x".repeat(room - 1)], &strings(&["A=1"])).unwrap_err();
    says(
        &error,
        &format!("take {} bytes, and there is room for {room}", room + 4),
    );
    says(
        &build(&strings(&["a", "b\0c"]), &[]).unwrap_err(),
        "argument number 1 contains a NUL",
    );
    says(
        &build(&[], &strings(&["A=\0"])).unwrap_err(),
        "environment variable number 0 contains a NUL",
    );
    for variable in ["A", "", "=x"] {
        says(
            &build(&[], &strings(&[variable])).unwrap_err(),
            "is not of the form KEY=VALUE",
        );
    }
}

#[test]
fn there_is_room_for_sixteen_devices() {
    let devices = [DeviceEntry::default(); 17];
    let options = |count: usize| Options {
        devices: &devices[..count],
        ..Options::new(MEMORY)
    };
    with_world(&Elf::good(), &options(16), |world| {
        assert_eq!(world.boot_page.devices().len(), 16)
    });
    says(
        &refusal(&Elf::good(), &options(17)),
        "17 devices are too many: the most is 16",
    );
}

#[test]
fn every_address_has_a_name() {
    with_world(&Elf::good(), &Options::new(MEMORY), |world| {
        let g = map::GUEST;
        let expected = [
            (0, Place::Null),
            (map::NULL_END - 1, Place::Null),
            (map::BOOT_PAGE, Place::BootPage),
            (map::BOOT_STRINGS, Place::Strings),
            (map::GDT, Place::Gdt),
            (map::TSS, Place::Tss),
            (map::IDT, Place::Idt),
            (map::TRAP_STUBS, Place::TrapStubs),
            (map::TRAP_STUBS + map::PAGE, Place::Unmapped),
            (map::TRAP_STACKS, Place::TrapStackGuard),
            (map::trap_stack(2).0, Place::TrapStack(2)),
            (map::trap_stack(4).1, Place::TrapStackGuard),
            (map::trap_stack(4).1 + map::PAGE, Place::Unmapped),
            (map::PAGE_TABLES, Place::PageTables),
            (map::MAILBOX, Place::Mailbox),
            (map::QUEUES_END - 1, Place::Queues),
            (g, Place::ReadOnlyData),
            (g + TEXT, Place::Text),
            (g + RELRO, Place::Relro),
            (g + DATA, Place::Data),
            (g + 0x6000, Place::BelowStack),
            (g + 0x7000, Place::Stack),
            (g + 0xa000, Place::AboveStack),
            (g + 0xb000, Place::Heap),
            (MEMORY, Place::NoMemory),
            (map::device_registers(0), Place::Device(0)),
            (map::device_registers(15) + 4095, Place::Device(15)),
            (map::device_registers(15) + 4096, Place::NoMemory),
            (1 << 47, Place::NonCanonical),
            ((1 << 47) - 1, Place::NoMemory),
            (u64::MAX, Place::NoMemory),
            (0xdead_beef_dead_beef, Place::NonCanonical),
        ];
        for (address, place) in expected {
            assert_eq!(world.describe(address), place, "{address:#x}");
        }
    });
}

#[test]
fn a_mapping_reads_as_one_line() {
    with_world(&Elf::good(), &Options::new(MEMORY), |world| {
        let line = |place| world.mappings().iter().find(|m| m.place == place).unwrap().to_string();
        assert_eq!(
            line(Place::Text),
            "      201000       202000      1 x 4K r-x user       code"
        );
        assert_eq!(
            line(Place::Gdt),
            "       20000        21000      1 x 4K r-- supervisor global descriptor table"
        );
        assert!(line(Place::Devices).ends_with("rw- user       device registers, uncached"));
    });
}

#[test]
fn segments_with_the_same_permissions_may_share_a_page() {
    let mut elf = Elf::good();
    elf.loads.push(Load::new(DATA + 0x2400, PF_R | PF_W, b"shared"));
    with_world(&elf, &Options::new(MEMORY), |world| {
        let data: Vec<_> = world.mappings().iter().filter(|m| m.place == Place::Data).collect();
        assert_eq!(data.len(), 1, "mapped once");
        assert_eq!(
            (data[0].start, data[0].end),
            (map::GUEST + DATA, map::GUEST + DATA + 0x3000)
        );
    });
}

#[test]
fn fresh_memory_is_touched_only_where_needed() {
    with_world(&Elf::good(), &Options::new(MEMORY), |world| {
        let memory = Memory::new(MEMORY);
        world.write_to(&memory).unwrap();
        let heap = world.layout().heap.clone();
        let len = (heap.end - heap.start) as usize;
        assert!(memory.window(heap.start, len).is_some());
        let pages: u64 = world.pieces().map(|p| (p.bytes.len() as u64).div_ceil(map::PAGE)).sum();
        assert!(pages < 24, "{pages} pages");
    });
}

proptest! {
    #![proptest_config(cases(1000))]

    /// The path of a fuzzer: whatever passes the loader and the builder can be written, inspected
    /// and explained.
    #[test]
    fn a_changed_file_builds_a_sound_world_or_none(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        memory in (0..64_u64).prop_map(|pages| MEMORY + pages * map::PAGE),
        ring in prop_oneof![Just(None), Just(Some(Ring::User)), Just(Some(Ring::Kernel))],
    ) {
        let mut bytes = Elf::good().build();
        let len = bytes.len();
        changes.into_iter().for_each(|(index, value)| bytes[index.index(len)] = value);
        let Ok(image) = Image::parse(&bytes) else { return Ok(()) };
        let Ok(world) = World::build(&image, &Options { ring, ..Options::new(memory) }) else { return Ok(()) };
        prop_assert_eq!(world.write_to(&Memory::new(memory)), Ok(()));
        prop_assert!(world.mappings().is_sorted_by(|a, b| a.end <= b.start));
        prop_assert_eq!(world.describe(image.entry()), Place::Text);
        let text = Inspect::new(&world, &image.symbols()).to_string();
        prop_assert!(text.contains("map of"));
    }
}

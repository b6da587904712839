//! Every reason to refuse a file, one at a time, and what a good file becomes.

pub(crate) mod elf;

use chiton_shared::manifest::{Feature, Manifest, ManifestError, Ring};
use goblin::elf::header::{EM_AARCH64, ET_REL};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_INTERP, PT_NOTE, PT_TLS};
use proptest::prelude::*;

use super::*;
use elf::{DATA, DATA_SIZE, Elf, Load, RELRO, RODATA, TEXT, rela};

fn refusal(elf: &Elf) -> LoadError {
    refusal_of(&elf.build())
}

fn refusal_of(bytes: &[u8]) -> LoadError {
    Image::parse(bytes).expect_err("a refusal")
}

/// A good file with one change.
fn but(change: impl FnOnce(&mut Elf)) -> Elf {
    let mut elf = Elf::good();
    change(&mut elf);
    elf
}

/// The bytes of a good file with one place of the header overwritten.
fn patched(offset: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = Elf::good().build();
    bytes[offset..offset + with.len()].copy_from_slice(with);
    bytes
}

#[track_caller]
fn says(error: &LoadError, words: &str) {
    let sentence = error.to_string();
    assert!(sentence.contains(words), "{sentence:?} does not say {words:?}");
}

#[test]
fn a_static_pie_moves_to_where_guest_memory_begins() {
    let bytes = Elf::good().build();
    let image = Image::parse(&bytes).unwrap();
    assert_eq!(image.kind(), Kind::PositionIndependent);
    assert_eq!((image.bias(), image.entry()), (map::GUEST, map::GUEST + TEXT));
    let segments: Vec<_> = image
        .segments()
        .iter()
        .map(|s| (s.address - map::GUEST, s.size, s.access))
        .collect();
    assert_eq!(
        segments,
        [
            (RODATA, 72, Access::Read),
            (TEXT, 32, Access::Execute),
            (RELRO, 24, Access::Write),
            (DATA, DATA_SIZE, Access::Write),
        ]
    );
    assert_eq!(image.segments()[0].bytes.get(..9), Some(b"read-only".as_slice()));
    assert_eq!(image.segments()[3].bytes, [0x55; 16]);
    assert_eq!(image.pages(), map::GUEST..map::GUEST + 0x6000);
    assert_eq!(image.relro(), Some(map::GUEST + RELRO..map::GUEST + DATA));
    assert_eq!(image.manifest().stack, 0x3000);
}

#[test]
fn relocations_become_values_to_store() {
    let bytes = Elf::good().build();
    let image = Image::parse(&bytes).unwrap();
    let relocations: Vec<_> = image.relocations().collect();
    let at = |address, value| Relocation {
        address: map::GUEST + address,
        value: map::GUEST.wrapping_add(value),
    };
    assert_eq!(
        relocations,
        [
            at(RELRO + 8, TEXT + 1),
            at(DATA, DATA + 8),
            at(RELRO + 16, 0x7777_7777_7777_7777)
        ],
        "two with explicit addends, one packed with its addend in place"
    );
}

#[test]
fn a_packed_map_means_the_63_words_behind_the_last_address() {
    let elf = but(|elf| {
        elf.loads[0].bytes.truncate(64);
        for word in [DATA, 1 << 63 | 0b101 << 1 | 1, 0b11] {
            elf.loads[0].bytes.extend(u64::to_le_bytes(word));
        }
        elf.loads[0].size = 88;
        elf.dynamic = vec![(36, 64), (35, 24), (0, 0)];
    });
    let bytes = elf.build();
    let image = Image::parse(&bytes).unwrap();
    let words: Vec<_> = image
        .relocations()
        .map(|r| (r.address - map::GUEST - DATA) / 8)
        .collect();
    assert_eq!(words, [0, 1, 3, 63, 64]);
}

#[test]
fn a_pie_linked_elsewhere_keeps_its_alignment() {
    let elf = but(|elf| {
        elf.dynamic.clear();
        elf.relro.clear();
        elf.entry += 0x7000_1000;
        elf.loads.iter_mut().for_each(|load| load.address += 0x7000_1000);
        elf.loads[1].align = 0x4000;
    });
    let bytes = elf.build();
    let image = Image::parse(&bytes).unwrap();
    assert_eq!(image.segments()[0].address, map::GUEST + 0x1000);
    assert_eq!(image.entry(), map::GUEST + 0x1000 + TEXT);
}

#[test]
fn a_fixed_image_stays_where_it_is() {
    let bytes = Elf::fixed(0x40_0000).build();
    let image = Image::parse(&bytes).unwrap();
    assert_eq!(
        (image.kind(), image.bias(), image.entry()),
        (Kind::Fixed, 0, 0x40_0000 + TEXT)
    );
    assert_eq!(image.relocations().count(), 0);
}

#[test]
fn functions_are_found_by_any_address_inside() {
    let bytes = Elf::good().build();
    let symbols = Image::parse(&bytes).unwrap().symbols();
    let name = |offset| symbols.find(map::GUEST + offset).map(|s| s.name);
    assert_eq!(name(TEXT), Some("_ZN5guest4main17h0123456789abcdefE"));
    assert_eq!(name(TEXT + 15), Some("_ZN5guest4main17h0123456789abcdefE"));
    assert_eq!(name(TEXT + 16), Some("_ZN5guest4helpE"));
    assert_eq!(name(TEXT + 32), None, "behind the last function");
    assert_eq!(name(TEXT - 1), None);
}

#[test]
fn a_stripped_file_loads_without_symbols() {
    let bytes = but(|elf| elf.section_headers = false).build();
    assert!(Image::parse(&bytes).unwrap().symbols().as_slice().is_empty());
}

#[test]
fn relro_leaves_pages_with_other_data_writable() {
    let relro = |change: fn(&mut Elf)| {
        let bytes = but(change).build();
        Image::parse(&bytes)
            .unwrap()
            .relro()
            .map(|r| r.start - map::GUEST..r.end - map::GUEST)
    };
    assert_eq!(
        relro(|elf| elf.relro = vec![(RELRO, 24)]),
        Some(RELRO..DATA),
        "the linker did not round"
    );
    assert_eq!(
        relro(|elf| elf.relro = vec![(RELRO + 8, 16)]),
        None,
        "8 writable bytes before"
    );
    assert_eq!(
        relro(|elf| elf.relro = vec![(RELRO, 16)]),
        None,
        "8 writable bytes behind"
    );
    assert_eq!(
        relro(|elf| elf.relro = vec![(RELRO, 0x1010)]),
        Some(RELRO..DATA),
        "the next page is data"
    );
    assert_eq!(
        relro(|elf| elf.relro = vec![(TEXT, 0x1000)]),
        None,
        "code is read-only anyway"
    );
    assert_eq!(relro(|elf| elf.relro = vec![(0, u64::MAX)]), Some(RELRO..DATA + 0x3000));
}

#[test]
fn what_is_no_elf_file_is_refused() {
    assert_eq!(refusal_of(b""), LoadError::Empty);
    for bytes in [&b"#!/bin/sh"[..], b"MZ", b"\x7fEL?", &[0; 4096]] {
        assert_eq!(refusal_of(bytes), LoadError::NotElf);
    }
    says(&LoadError::NotElf, "not an ELF file");
}

#[test]
fn another_kind_of_machine_is_named() {
    assert_eq!(refusal_of(&patched(4, &[1])), LoadError::Bits32);
    says(&LoadError::Bits32, "32-bit");
    assert_eq!(refusal_of(&patched(5, &[2])), LoadError::BigEndian);
    says(&LoadError::BigEndian, "big-endian");
    says(
        &refusal(&but(|elf| elf.machine = EM_AARCH64)),
        "built for the processor AARCH64 (e_machine 183)",
    );
}

#[test]
fn a_damaged_header_is_named_by_field() {
    says(&refusal_of(&patched(4, &[7])), "EI_CLASS is 7");
    says(&refusal_of(&patched(5, &[0])), "EI_DATA is 0");
    says(&refusal_of(&patched(20, &[2])), "e_version is 2");
    says(&refusal_of(&patched(54, &[55])), "e_phentsize is 55");
    says(&refusal_of(&patched(58, &[40])), "e_shentsize is 40");
}

#[test]
fn what_is_not_a_linked_program_is_refused() {
    says(
        &refusal(&but(|elf| elf.file_type = ET_REL)),
        "an object file, not a program",
    );
    says(&refusal(&but(|elf| elf.file_type = 4)), "a core dump, not a program");
    says(
        &refusal(&but(|elf| elf.file_type = 77)),
        "an ELF file of type 77, not a program",
    );
}

#[test]
fn what_needs_a_dynamic_linker_is_refused() {
    let interpreter = b"/lib64/ld-linux-x86-64.so.2\0".to_vec();
    says(
        &refusal(&but(|elf| elf.others.push((PT_INTERP, interpreter, 28)))),
        "needs the dynamic linker \"/lib64/ld-linux-x86-64.so.2\"",
    );
    assert_eq!(
        refusal(&but(|elf| elf.dynamic.insert(0, (1, 5)))),
        LoadError::NeedsLibraries
    );
    says(&LoadError::NeedsLibraries, "DT_NEEDED");
    assert_eq!(
        refusal(&but(|elf| elf.others.push((PT_TLS, vec![], 8)))),
        LoadError::ThreadLocal
    );
    says(&LoadError::ThreadLocal, "thread-local");
}

#[test]
fn every_prefix_of_a_good_file_is_refused() {
    let bytes = Elf::good().build();
    assert!(Image::parse(&bytes).is_ok());
    // Natively every one; Miri is a thousand times slower.
    for len in (0..bytes.len()).step_by(if cfg!(miri) { 29 } else { 1 }) {
        match refusal_of(&bytes[..len]) {
            LoadError::Empty => assert_eq!(len, 0),
            LoadError::Truncated { needs, has, .. } => {
                assert!(
                    has == len as u64 && needs > has && needs <= bytes.len() as u64,
                    "{len}: {needs} {has}"
                );
            }
            other => panic!("prefix of {len} bytes: {other}"),
        }
    }
    says(
        &refusal_of(&bytes[..bytes.len() - 1]),
        "its section header table should reach to byte",
    );
    says(
        &refusal_of(&bytes[..40]),
        "ends too early, at byte 40: its ELF header should reach to byte 64",
    );
}

#[test]
fn without_a_section_table_what_is_needed_must_still_be_there() {
    let bytes = but(|elf| elf.section_headers = false).build();
    let needed = 64 + 56 * 7 + bytes[64 + 56 * 7..].len() - 24 * 3 - 52;
    for len in (0..needed).step_by(if cfg!(miri) { 29 } else { 1 }) {
        assert!(Image::parse(&bytes[..len]).is_err(), "{len}");
    }
}

#[test]
fn segments_must_fit_into_file_and_address_space() {
    says(&refusal(&but(|elf| elf.loads.clear())), "no loadable segment");
    says(
        &refusal(&but(|elf| elf.loads[1].size = 5)),
        "has 32 bytes in the file but only 5 in memory",
    );
    for size in [u64::MAX, u64::MAX - DATA, 1 << 47] {
        says(
            &refusal(&but(|elf| elf.loads[3].size = size)),
            "reaches beyond the address space",
        );
    }
    for align in [3, 1 << 22, u64::MAX] {
        says(&refusal(&but(|elf| elf.loads[3].align = align)), "wants alignment");
    }
    let many = but(|elf| {
        elf.loads
            .extend((0..40).map(|i| Load::new(0x10_0000 + i * 0x1000, PF_R, b"x")))
    });
    says(&refusal(&many), "has 44 loadable segments, more than the 32");
}

#[test]
fn a_segment_of_no_bytes_is_nothing() {
    let bytes = but(|elf| elf.loads.push(Load::new(0xdead_beef, PF_R | PF_W | PF_X, b""))).build();
    assert_eq!(Image::parse(&bytes).unwrap().segments().len(), 4);
}

#[test]
fn permissions_must_be_possible_and_apart() {
    assert_eq!(
        refusal(&but(|elf| elf.loads[3].flags = PF_R | PF_W | PF_X)),
        LoadError::WritableCode(DATA)
    );
    says(
        &LoadError::WritableCode(DATA),
        "the segment at 0x3000 is both writable and executable",
    );
    assert_eq!(
        refusal(&but(|elf| elf.loads[1].flags = PF_X)),
        LoadError::Unreadable(TEXT)
    );
    says(&LoadError::Unreadable(TEXT), "not readable");
    let shared = but(|elf| elf.loads.push(Load::new(TEXT + 0x800, PF_R, b"x")));
    assert_eq!(refusal(&shared), LoadError::SharedPage(TEXT, TEXT + 0x800));
    says(
        &LoadError::SharedPage(TEXT, TEXT + 0x800),
        "share a page but not their permissions",
    );
    let same = but(|elf| elf.loads.push(Load::new(TEXT + 0x800, PF_R | PF_X, b"x")));
    assert!(Image::parse(&same.build()).is_ok());
}

#[test]
fn overlapping_segments_are_refused() {
    let error = refusal(&but(|elf| elf.loads.push(Load::new(DATA + 8, PF_R | PF_W, &[0; 8]))));
    assert_eq!(error, LoadError::Overlap(DATA, DATA + 8));
    says(&error, "the segments at 0x3000 and 0x3008 overlap");
}

#[test]
fn a_fixed_image_must_not_claim_the_hosts_world() {
    let error = refusal(&Elf::fixed(map::GUEST - 0x1000));
    assert_eq!(error, LoadError::BelowGuest(map::GUEST - 0x1000));
    says(&error, "the segment at 0x1ff000 lies below 0x200000");
}

#[test]
fn the_entry_must_be_code() {
    for entry in [0, RODATA, DATA, TEXT - 1, TEXT + 32, u64::MAX] {
        assert_eq!(refusal(&but(|elf| elf.entry = entry)), LoadError::Entry(entry));
    }
    says(
        &LoadError::Entry(0x3000),
        "the entry point 0x3000 is not in an executable segment",
    );
}

#[test]
fn there_must_be_one_manifest() {
    assert_eq!(refusal(&but(|elf| elf.notes.clear())), LoadError::NoManifest);
    assert_eq!(
        refusal(&but(|elf| elf.notes[0].0 = "GNU".to_string())),
        LoadError::NoManifest
    );
    assert_eq!(refusal(&but(|elf| elf.notes[0].1 = 2)), LoadError::NoManifest);
    says(&LoadError::NoManifest, "no .note.chiton note");
    assert_eq!(
        refusal(&but(|elf| elf.notes.push(elf.notes[0].clone()))),
        LoadError::TwoManifests
    );
    says(&LoadError::TwoManifests, "more than one manifest");
    let foreign = but(|elf| elf.notes.insert(0, ("GNU".to_string(), 3, vec![1; 20])));
    assert!(
        Image::parse(&foreign.build()).is_ok(),
        "a note of someone else before it"
    );
    let damaged = but(|elf| elf.others.push((PT_NOTE, vec![0xff; 20], 20)));
    says(&refusal(&damaged), "notes at file offset");
}

#[test]
fn a_manifest_must_be_of_this_version() {
    assert_eq!(
        refusal(&but(|elf| elf.notes[0].2[0] = 9)),
        LoadError::Manifest(ManifestError::Abi(9))
    );
    says(
        &LoadError::Manifest(ManifestError::Abi(9)),
        "speaks ABI version 9, this hypervisor version 1",
    );
    says(
        &refusal(&but(|elf| elf.notes[0].2.truncate(36))),
        "the manifest is 36 bytes long instead of 40",
    );
    says(
        &refusal(&but(|elf| elf.notes[0].2[4] = 1)),
        "asks for ring 1: there are only ring 3 and ring 0",
    );
    let manifest = Manifest {
        required: Feature(1 << 40 | 1 << 50 | 1),
        ..Manifest::new(Ring::User)
    };
    says(
        &refusal(&Elf::good().manifest(manifest)),
        "requires feature bits 40, 50, which",
    );
    let manifest = Manifest {
        required: Feature(1 << 63),
        ..Manifest::new(Ring::User)
    };
    says(
        &refusal(&Elf::good().manifest(manifest)),
        "requires feature bit 63, which",
    );
    let manifest = Manifest {
        optional: Feature(1 << 63),
        ..Manifest::new(Ring::User)
    };
    assert!(
        Image::parse(&Elf::good().manifest(manifest).build()).is_ok(),
        "what is optional may be unknown"
    );
    says(
        &refusal(&Elf::good().manifest(Manifest::new(Ring::User).stack(u64::MAX))),
        "asks for a stack of 0xfff",
    );
    says(
        &refusal(&Elf::good().manifest(Manifest::new(Ring::User).heap(u64::MAX))),
        "asks for a heap of 0xfff",
    );
}

#[test]
fn other_relocations_are_refused_by_name() {
    let with = |bytes: Vec<u8>| but(|elf| elf.loads[0].bytes[16..40].copy_from_slice(&bytes));
    says(
        &refusal(&with(rela(DATA, 37, 0))),
        "relocation of type X86_64_IRELATIVE (37)",
    );
    says(&refusal(&with(rela(DATA, 1, 0))), "relocation of type X86_64_64 (1)");
    says(
        &refusal(&with(rela(TEXT, 8, 0))),
        "a relocation changes 0x1000, which is not in a writable segment",
    );
    says(
        &refusal(&with(rela(DATA + DATA_SIZE - 7, 8, 0))),
        "a relocation changes 0x533e",
    );
    says(
        &refusal(&with(rela(u64::MAX, 8, 0))),
        "a relocation changes 0xffffffffffffffff",
    );
    assert!(
        Image::parse(&with(rela(0, 0, 0)).build()).is_ok(),
        "R_X86_64_NONE does nothing"
    );
    says(
        &refusal(&but(|elf| {
            elf.loads[0].bytes[64..].copy_from_slice(&TEXT.to_le_bytes())
        })),
        "changes 0x1000",
    );
}

#[test]
fn relocation_tables_must_be_of_the_usual_form_and_in_the_image() {
    let with = |tag, value| refusal(&but(|elf| elf.dynamic.insert(0, (tag, value))));
    says(&with(17, 0), "DT_REL,");
    says(&with(20, 17), "DT_PLTREL other than DT_RELA");
    says(&with(9, 16), "DT_RELAENT other than 24");
    says(&with(37, 4), "DT_RELRENT other than 8");
    let table = |address, size| refusal(&but(|elf| elf.dynamic = vec![(7, address), (8, size)]));
    says(
        &table(16, 1 << 40),
        "the relocation table DT_RELA at 0x10 of 0x10000000000 bytes is not in a segment",
    );
    says(&table(u64::MAX - 3, 24), "not in a segment");
    says(&table(DATA + 0x1000, 24), "not in a segment's file bytes");
}

#[test]
fn only_one_relro_range_is_possible() {
    assert_eq!(refusal(&but(|elf| elf.relro.push((DATA, 8)))), LoadError::Relro);
    says(&LoadError::Relro, "PT_GNU_RELRO");
}

/// Fewer cases where each costs a thousand times as much.
pub(crate) fn cases(natively: u32) -> ProptestConfig {
    let cases = if cfg!(miri) { 4 } else { natively };
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// Whatever a file says, looking at all of it neither panics nor runs on for ever.
fn look_at_everything(bytes: &[u8]) {
    if let Ok(image) = Image::parse(bytes) {
        assert!(
            image
                .relocations()
                .all(|r| image.segments().iter().any(|s| s.contains(r.address, 8)))
        );
        assert!(
            image
                .symbols()
                .find(u64::MAX)
                .is_none_or(|s| s.size > 0 || s.name.len() <= 1024)
        );
        assert!(image.segments().is_sorted_by(|a, b| a.end() <= b.address));
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn arbitrary_bytes_are_no_danger(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        look_at_everything(&bytes);
        let mut elf = Elf::good().build();
        elf.truncate(64);
        elf.extend(bytes);
        look_at_everything(&elf);
    }

    #[test]
    fn a_good_file_with_some_bytes_changed_is_no_danger(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 1..8),
    ) {
        let mut bytes = Elf::good().build();
        for (index, value) in changes {
            let len = bytes.len();
            bytes[index.index(len)] = value;
        }
        look_at_everything(&bytes);
    }
}

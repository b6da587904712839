//! Faults made by hand, and what is said of them.

use chiton_shared::doorbell::TrapFrame;
use chiton_shared::manifest::{Feature, Manifest, Ring};
use chiton_shared::map;
use proptest::prelude::*;

use super::*;
use crate::boot::Options;
use crate::boot::tests::memory::Memory;
use crate::loader::Image;
use crate::loader::tests::cases;
use crate::loader::tests::elf::{DATA, Elf, TEXT};
use crate::machine::End;
use crate::vcpu::Registers;

const MEMORY: u64 = 4 << 20;
/// `guest::main`, 16 bytes, and `guest::help` behind it.
const MAIN: u64 = map::GUEST + TEXT;
const HELP: u64 = MAIN + 16;
/// The stack of the good file: 12 KiB.
const STACK: u64 = map::GUEST + 0x7000;
const STACK_END: u64 = STACK + 0x3000;

/// Hands over a guest that has been put into memory.
fn with_view<T>(look: impl FnOnce(&View<'_>, &Memory) -> T) -> T {
    let manifest = Manifest::new(Ring::User)
        .stack(0x3000)
        .require(Feature::CONSOLE.union(Feature::SSE));
    let bytes = Elf::good().manifest(manifest).build();
    let image = Image::parse(&bytes).unwrap();
    let world = World::build(&image, &Options::new(MEMORY)).unwrap();
    let memory = Memory::new(MEMORY);
    world.write_to(&memory).unwrap();
    look(&View::new(&world, &image.symbols(), &memory), &memory)
}

/// A page fault of ring 3 in `guest::main`.
fn page_fault(address: u64, error_code: u64) -> TrapFrame {
    TrapFrame {
        vector: 14,
        cr2: address,
        error_code,
        rip: MAIN + 5,
        cs: 0x23,
        ss: 0x1b,
        rsp: STACK_END - 0x100,
        rflags: 0x3002,
        ..TrapFrame::default()
    }
}

/// Another exception at the same place.
fn exception(vector: u64, error_code: u64) -> TrapFrame {
    TrapFrame {
        vector,
        ..page_fault(0, error_code)
    }
}

#[track_caller]
fn diagnosed(frame: &TrapFrame, sentence: &str) {
    with_view(|view, _| assert_eq!(view.fault(frame).diagnosis.to_string(), sentence));
}

const READ: u64 = 4;
const WRITE: u64 = 6;
const FETCH: u64 = 0x14;
const FORBIDDEN: u64 = 1;

#[test]
fn null_pointers_are_called_that() {
    diagnosed(&page_fault(0, READ), "null pointer read");
    diagnosed(&page_fault(0x10, READ), "null pointer read at offset 0x10");
    diagnosed(&page_fault(0x10, WRITE), "null pointer write at offset 0x10");
    diagnosed(&page_fault(0, FETCH), "call through a null function pointer");
    let without_the_fetch_bit = TrapFrame {
        rip: 0,
        ..page_fault(0, READ)
    };
    diagnosed(&without_the_fetch_bit, "call through a null function pointer");
}

#[test]
fn a_stack_overflow_is_told_from_a_wild_write() {
    let sentence = "the stack overflowed: it has 12 KiB, and the manifest can ask for more";
    diagnosed(&page_fault(STACK - 8, WRITE), sentence);
    diagnosed(&page_fault(STACK - map::PAGE, READ), sentence);
    let over_the_guard = TrapFrame {
        rsp: STACK - 0x1800,
        ..page_fault(map::GUEST + TEXT, WRITE | FORBIDDEN)
    };
    diagnosed(&over_the_guard, sentence);
    diagnosed(
        &page_fault(STACK_END + 8, READ),
        "read beyond the upper end of the stack",
    );
}

#[test]
fn writes_to_what_is_read_only_say_what_it_is() {
    let write = |address, sentence| diagnosed(&page_fault(address, WRITE | FORBIDDEN), sentence);
    write(MAIN + 5, "write to read-only code");
    write(MAIN, "write to read-only code");
    write(map::GUEST, "write to read-only data");
    write(map::GUEST + 0x2000, "write to data that is read-only after relocation");
    write(map::BOOT_PAGE, "write to the boot page, which is read-only");
    write(
        map::IDT,
        "write to the interrupt descriptor table, which only the host may do",
    );
    write(map::PAGE_TABLES, "write to the page tables, which only the host may do");
}

#[test]
fn jumps_and_wild_pointers_say_where_they_led() {
    diagnosed(
        &page_fault(map::GUEST + DATA, FETCH | FORBIDDEN),
        "jump into the data, which is not code",
    );
    diagnosed(
        &page_fault(STACK + 8, FETCH | FORBIDDEN),
        "jump into the stack, which is not code",
    );
    diagnosed(
        &page_fault(0x5000_0000, WRITE),
        "write through a wild pointer to an address without memory",
    );
    diagnosed(
        &page_fault(0x5000_0000, FETCH),
        "jump through a wild pointer to an address without memory",
    );
    diagnosed(
        &page_fault(map::MAILBOX + map::PAGE, READ),
        "read through a wild pointer to unmapped memory",
    );
}

#[test]
fn other_exceptions_have_their_own_sentences() {
    diagnosed(
        &exception(0, 0),
        "divide by zero, or a quotient too large for its register",
    );
    diagnosed(&exception(3, 0), "int3 instruction, and no debugger is there");
    diagnosed(
        &exception(6, 0),
        "not an instruction on this processor: 90 90 90 90 90 90 90 90",
    );
    diagnosed(&exception(8, 0), "a fault while another was being handled");
    diagnosed(
        &exception(13, 0x80 << 3 | 2),
        "int 0x80, an interrupt that guests cannot raise",
    );
    diagnosed(
        &exception(13, 0),
        "an access or instruction that is not allowed, or a misaligned SSE operand",
    );
    let wild = TrapFrame {
        rbx: 0xdead_beef_dead_beef,
        ..exception(13, 0)
    };
    diagnosed(
        &wild,
        "probably a wild pointer: rbx holds the non-canonical address 0xdeadbeefdeadbeef",
    );
    diagnosed(&exception(1, 0), "an exception that this guest does not handle");
}

#[test]
fn instructions_are_read_to_tell_what_they_are() {
    with_view(|view, memory| {
        let at = |bytes: &[u8], vector| {
            memory.window(MAIN + 5, bytes.len()).unwrap().write(0, bytes);
            view.fault(&exception(vector, 0)).diagnosis
        };
        assert_eq!(at(&[0x0f, 0x0b], 6), Diagnosis::Trap);
        assert_eq!(at(&[0x0f, 0x30], 13), Diagnosis::Privileged);
        assert_eq!(at(&[0xf4], 13), Diagnosis::Privileged);
        for (second, write) in [(0x32, false), (0x30, true)] {
            memory.window(MAIN + 5, 2).unwrap().write(0, &[0x0f, second]);
            let in_ring_0 = TrapFrame {
                cs: 8,
                rcx: 0xffff_ffff_1234_5678,
                ..exception(13, 0)
            };
            let diagnosis = view.fault(&in_ring_0).diagnosis;
            let register = 0x1234_5678;
            assert_eq!(diagnosis, Diagnosis::NoRegister { register, write });
            let sentence = diagnosis.to_string();
            assert!(
                sentence.contains("the register 0x12345678, which this processor does not have"),
                "{sentence}"
            );
        }
        assert_eq!(at(&[0xcd, 0x80], 6), Diagnosis::NoGate(0x80));
        assert_eq!(at(&[0x0f, 0x05], 6), Diagnosis::Syscall(MAIN + 5));
        let landed = TrapFrame {
            rip: 0,
            rcx: MAIN + 7,
            ..page_fault(0, FETCH)
        };
        let sentence = view.fault(&landed).diagnosis.to_string();
        assert_eq!(
            sentence,
            "syscall instruction at 0x201005, and a guest has no kernel to call"
        );
    });
    let nowhere = TrapFrame {
        rip: MEMORY + 1,
        ..exception(6, 0)
    };
    with_view(|view, _| {
        assert_eq!(
            view.fault(&nowhere).diagnosis,
            Diagnosis::Undefined { bytes: [0; 8], len: 0 }
        );
    });
}

#[test]
fn error_codes_are_decoded_in_words() {
    let words = |vector, code| ErrorCode::new(vector, code).to_string();
    assert_eq!(words(14, 6), "0x6: write from ring 3, no page is there");
    assert_eq!(words(14, 5), "0x5: read from ring 3, the page forbids it");
    assert_eq!(
        words(14, 0x11),
        "0x11: instruction fetch from ring 0, the page forbids it"
    );
    assert_eq!(
        words(14, 0xd),
        "0xd: read from ring 3, the page forbids it, a reserved bit is set in the page tables"
    );
    assert_eq!(words(13, 0), "0: no descriptor is to blame");
    assert_eq!(words(13, 0x28), "0x28: descriptor 5 of the GDT");
    assert_eq!(words(13, 0x2c), "0x2c: descriptor 5 of the LDT");
    assert_eq!(
        words(13, 0x403),
        "0x403: gate 0x80 of the IDT, while an event was delivered"
    );
    assert_eq!(words(8, 0), "0x0");
    assert_eq!(ErrorCode::new(0, 0), ErrorCode::None);
}

#[test]
fn every_exception_has_a_name_of_its_own() {
    let mut names: Vec<_> = (0..32).map(|vector| Exception(vector).to_string()).collect();
    assert_eq!(
        (names[14].as_str(), names[9].as_str()),
        ("page fault (#PF)", "reserved exception 9")
    );
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 32);
}

/// Puts a frame on the stack: the caller's frame pointer and the return address.
fn put_frame(memory: &Memory, at: u64, above: u64, caller: u64) {
    memory.put(at, above);
    memory.put(at + 8, caller);
}

fn lines(trace: &Backtrace<'_>) -> Vec<(String, usize)> {
    trace
        .frames
        .iter()
        .map(|frame| (frame.location.to_string(), frame.times))
        .collect()
}

fn line(words: &str, times: usize) -> (String, usize) {
    (words.to_string(), times)
}

#[test]
fn a_backtrace_follows_frame_pointers_to_the_entry() {
    with_view(|view, memory| {
        let (inner, outer) = (STACK_END - 0x100, STACK_END - 0x80);
        put_frame(memory, inner, outer, HELP + 9);
        put_frame(memory, outer, 0, MAIN + 7);
        let frame = TrapFrame {
            rip: HELP + 3,
            rbp: inner,
            ..exception(0, 0)
        };
        let trace = view.fault(&frame).backtrace;
        assert_eq!(
            lines(&trace),
            [
                line("guest::help+0x3", 1),
                line("guest::help+0x9", 1),
                line("guest::main+0x7", 1)
            ]
        );
        assert!(!trace.cut);
    });
}

#[test]
fn a_call_at_the_end_of_a_function_belongs_to_it() {
    with_view(|view, memory| {
        put_frame(memory, STACK_END - 16, 0, HELP);
        let frame = TrapFrame {
            rip: HELP + 3,
            rbp: STACK_END - 16,
            ..exception(0, 0)
        };
        assert_eq!(lines(&view.fault(&frame).backtrace)[1], line("guest::main+0x10", 1));
    });
}

#[test]
fn recursion_is_counted_not_repeated() {
    with_view(|view, memory| {
        for i in 0..100 {
            put_frame(memory, STACK + 16 * i, STACK + 16 * (i + 1), HELP + 4);
        }
        put_frame(memory, STACK + 1600, 0, MAIN + 7);
        let frame = TrapFrame {
            rip: HELP + 2,
            rbp: STACK,
            ..page_fault(STACK - 8, WRITE)
        };
        let fault = view.fault(&frame);
        assert_eq!(
            lines(&fault.backtrace),
            [
                line("guest::help+0x2", 1),
                line("guest::help+0x4", 100),
                line("guest::main+0x7", 1)
            ]
        );
        assert!(
            fault
                .to_string()
                .contains("guest::help+0x4  (100 times in a row)\n   101  0x0000201007"),
            "{fault}"
        );
    });
}

#[test]
fn a_function_that_has_made_no_frame_yet_has_a_caller_too() {
    with_view(|view, memory| {
        let rsp = STACK_END - 0x200;
        memory.put(rsp, MAIN + 7);
        for (rip, rsp) in [(HELP, rsp), (HELP + 1, rsp - 8), (map::GUEST + DATA, rsp), (0, rsp)] {
            let frame = TrapFrame {
                rip,
                rsp,
                ..page_fault(0, READ)
            };
            assert_eq!(
                lines(&view.fault(&frame).backtrace)[1],
                line("guest::main+0x7", 1),
                "{rip:#x}"
            );
        }
    });
}

#[test]
fn broken_chains_end() {
    with_view(|view, memory| {
        let trace = |rbp| {
            view.place(&Registers {
                rip: HELP + 3,
                rbp,
                ..Registers::default()
            })
            .backtrace
        };
        let at = STACK + 0x800;
        put_frame(memory, at, at, MAIN + 7);
        assert_eq!(trace(at).frames.len(), 2, "a loop");
        put_frame(memory, at, at - 8, MAIN + 7);
        assert_eq!(trace(at).frames.len(), 2, "downwards");
        for rbp in [
            0,
            1,
            at + 1,
            STACK - 8,
            STACK_END - 8,
            map::GUEST + DATA,
            u64::MAX,
            1 << 63,
        ] {
            assert!(trace(rbp).frames.len() <= 2, "{rbp:#x}");
        }
        for i in 0..300 {
            put_frame(memory, STACK + 16 * i, STACK + 16 * (i + 1), MAIN + i);
        }
        assert!(trace(STACK).cut, "forty lines are enough");
    });
}

#[test]
fn a_fault_reads_from_what_to_where_to_who() {
    with_view(|view, memory| {
        put_frame(memory, STACK_END - 16, 0, MAIN + 7);
        let frame = TrapFrame {
            rip: HELP + 3,
            rbp: STACK_END - 16,
            rax: 0xabc,
            ..page_fault(STACK - 8, WRITE)
        };
        let expected = "\
page fault (#PF) in ring 3: the stack overflowed: it has 12 KiB, and the manifest can ask for more
  at        0x201013 in guest::help+0x3
  address   0x206ff8: guard page below the stack
  error     0x6: write from ring 3, no page is there
  registers
    rax 0000000000000abc   rbx 0000000000000000   rcx 0000000000000000   rdx 0000000000000000
    rsi 0000000000000000   rdi 0000000000000000   rbp 0000000000209ff0   rsp 0000000000209f00
     r8 0000000000000000    r9 0000000000000000   r10 0000000000000000   r11 0000000000000000
    r12 0000000000000000   r13 0000000000000000   r14 0000000000000000   r15 0000000000000000
    rip 0000000000201013 flags 0000000000003002    cs 0000000000000023    ss 000000000000001b
  backtrace
     0  0x0000201013  guest::help+0x3
     1  0x0000201007  guest::main+0x7";
        assert_eq!(view.fault(&frame).to_string(), expected);
    });
}

#[test]
fn a_fault_in_ring_0_is_explained_as_well() {
    let frame = TrapFrame {
        cs: 8,
        ss: 0x10,
        ..page_fault(0x10, 0)
    };
    with_view(|view, _| {
        let text = view.fault(&frame).to_string();
        assert!(
            text.starts_with("page fault (#PF) in ring 0: null pointer read at offset 0x10"),
            "{text}"
        );
        assert!(text.contains("read from ring 0, no page is there"), "{text}");
    });
}

#[test]
fn a_guest_that_spins_is_located() {
    with_view(|view, memory| {
        put_frame(memory, STACK_END - 16, 0, MAIN + 7);
        let place = view.place(&Registers {
            rip: HELP + 2,
            rbp: STACK_END - 16,
            ..Registers::default()
        });
        assert!(
            place
                .to_string()
                .starts_with("at guest::help+0x2\n  backtrace\n     0  "),
            "{place}"
        );
        assert_eq!(place.backtrace.frames.len(), 2);
        let place = view.place(&Registers {
            rip: map::TRAP_STUBS,
            ..Registers::default()
        });
        assert!(place.to_string().starts_with("at 0x23000, trap stubs\n"), "{place}");
    });
}

/// What is said of a guest that was not entered, with the backend's words.
fn not_entered(reason: Option<u64>, why: &str) -> String {
    with_view(|view, _| {
        let backend = Backend { name: "VMX", why };
        match view.ended(&End::EntryFailed { reason }, &Registers::default(), backend) {
            Some(Ended::Fault { report }) => report,
            other => panic!("{other:?}"),
        }
    })
}

#[test]
fn an_entry_that_fails_is_told_with_every_rule_that_is_broken() {
    use crate::vmx::check::{Findings, NoMemory, check, sample};
    use crate::vmx::fields::{HOST_CS_SELECTOR, VIRTUAL_PROCESSOR_ID};

    let vmcs = sample::vmcs().with(VIRTUAL_PROCESSOR_ID, 0).with(HOST_CS_SELECTOR, 0xb);
    let broken = check(&vmcs, &sample::capabilities(), &NoMemory);
    assert_eq!(broken.len(), 2);
    let findings = Findings(&broken).to_string();
    let told = not_entered(Some(7), &findings);
    let first = "the processor refused to enter the guest (hardware reason 0x7)\nentry check: 2 fields break 2 of ";
    assert!(told.starts_with(first), "{told}");
    for violation in &broken {
        // Field, value, rule and section.
        assert!(told.contains(&format!("\n  {violation}\n")), "{violation}\n{told}");
    }
    let foreseen = not_entered(None, &findings);
    let first = "the processor would refuse to enter the guest, so it was not tried\nentry check: ";
    assert!(foreseen.starts_with(first), "{foreseen}");
}

#[test]
fn an_entry_that_fails_without_a_word_of_the_backend_is_told_by_its_number() {
    let told = not_entered(Some(0x8000_0021), "");
    let first = "the processor refused to enter the guest (hardware reason 0x80000021)\nat ";
    assert!(told.starts_with(first), "{told}");
}

#[test]
fn a_walk_shows_each_level() {
    with_view(|view, _| {
        let walk = view.walk(MAIN + 5);
        assert_eq!(
            walk.end,
            WalkEnd::Mapped {
                physical: MAIN + 5,
                page: 4096,
                write: false,
                user: true,
                execute: true
            }
        );
        let expected = "\
PML4 0x40000[0] = 0x0000000000041027  to 0x41000 present writable user accessed
PDPT 0x41000[0] = 0x0000000000042027  to 0x42000 present writable user accessed
PD   0x42000[1] = 0x0000000000044027  to 0x44000 present writable user accessed
PT   0x44000[1] = 0x0000000000201025  to 0x201000 present user accessed
0x201005 is 0x201005 in a page of 4 KiB that every ring may read and execute";
        assert_eq!(walk.to_string(), expected);
    });
}

#[test]
fn a_walk_ends_where_the_tables_end() {
    with_view(|view, memory| {
        let end = |address| view.walk(address).end;
        assert_eq!(end(0), WalkEnd::NotPresent);
        assert_eq!(view.walk(0).steps.iter().flatten().count(), 4);
        assert_eq!(end(1 << 47), WalkEnd::NonCanonical);
        assert_eq!(end(u64::MAX), WalkEnd::NotPresent);
        assert_eq!(view.walk(u64::MAX).steps.iter().flatten().count(), 1);
        let gdt = WalkEnd::Mapped {
            physical: map::GDT,
            page: 4096,
            write: false,
            user: false,
            execute: false,
        };
        assert_eq!(end(map::GDT), gdt);
        // A large page is 2 MiB of heap; then the same entry with things wrong.
        let (address, entry) = (map::GUEST + map::LARGE_PAGE / 2, map::PAGE_TABLES + 2 * map::PAGE + 8);
        let large = map::GUEST | 0xe7;
        memory.put(entry, large);
        let page = WalkEnd::Mapped {
            physical: address,
            page: 2 << 20,
            write: true,
            user: true,
            execute: true,
        };
        assert_eq!(end(address), page);
        memory.put(entry, large | 0x2000);
        assert_eq!(end(address), WalkEnd::Reserved);
        memory.put(entry, 0x7fff_ffff_f027);
        assert_eq!(end(address), WalkEnd::NoTable);
        memory.put(map::PAGE_TABLES, 0x410a7);
        assert_eq!(end(address), WalkEnd::Reserved, "no pages of 512 GiB");
    });
}

#[test]
fn the_world_can_be_read_through_its_own_tables() {
    with_view(|view, memory| {
        let mut bytes = [0; 9];
        assert_eq!(view.read(map::GUEST, &mut bytes), 9);
        assert_eq!(&bytes, b"read-only");
        memory.put(STACK_END - 8, 0x1234);
        assert_eq!(view.read_u64(STACK_END - 8), Some(0x1234));
        assert_eq!(view.read(STACK_END - 4, &mut bytes), 4, "up to the guard page");
        assert_eq!(view.read(map::PAGE_TABLES, &mut bytes), 0, "in memory, but not mapped");
    });
}

#[test]
fn an_inspection_shows_manifest_segments_and_map() {
    with_view(|view, _| {
        let text = Inspect::new(view.world, view.symbols).to_string();
        for expected in [
            "program   static PIE, entry 0x201000 (guest::main)\n",
            "3 relocations, 2 function symbols",
            "manifest  ABI version 1, ring 3\n",
            "requires console, sse; can use nothing",
            "stack 12 KiB, heap at least 256 KiB: runs in 3 MiB of memory or more",
            "              203000       205345       9029         16 rw-\n",
            "map of 4 MiB in ring 3, in 7 page tables; what is not listed is not mapped",
            "              207000       20a000      3 x 4K rw- user       stack\n",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
    });
}

#[test]
fn sizes_use_the_largest_unit_that_divides_them() {
    let text = |bytes| Size(bytes).to_string();
    assert_eq!(
        [text(0), text(1000), text(0x3000), text(5 << 20)],
        ["0 bytes", "1000 bytes", "12 KiB", "5 MiB"]
    );
}

/// Values that lead somewhere, and values that do not.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..MEMORY,
        STACK - 0x2000..STACK_END + 0x2000,
        (STACK / 8..STACK_END / 8).prop_map(|v| v * 8),
        MAIN..HELP + 20,
        Just(u64::MAX),
    ]
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes; the tests above go the same ways")]
    fn no_frame_and_no_stack_is_a_danger(
        words in prop::collection::vec(value(), 23),
        vector in 0..40_u64,
        stack in prop::collection::vec(value(), 0..64),
        table in prop::option::of((0..7 * 512_u64, any::<u64>())),
    ) {
        with_view(|view, memory| {
            for (i, value) in stack.iter().enumerate() {
                memory.put(STACK_END - 8 * (i as u64 + 1), *value);
            }
            // A ring-0 guest may have changed its page tables.
            if let Some((index, entry)) = table {
                memory.put(map::PAGE_TABLES + 8 * index, entry);
            }
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let frame = TrapFrame { vector, ..TrapFrame::from_bytes(&bytes.try_into().expect("23 words")) };
            let fault = view.fault(&frame);
            assert!(fault.to_string().lines().count() < 60);
            let place = view.place(&Registers { rip: frame.rip, rsp: frame.rsp, rbp: frame.rbp, ..Registers::default() });
            assert!(place.backtrace.frames.len() <= 40 && place.place == view.world.describe(frame.rip));
        });
    }
}

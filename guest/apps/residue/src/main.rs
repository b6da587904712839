//! A function that leaves a word of its own wherever a program of ring 3 can, and looks for it: `leave` does the
//! one, `look` the other. After `leave elsewhere`, `leave trap` and `leave segments` it rings in another way.
//!
//! `look` replies with the places where it finds something, one a line. Called in pristine state it finds nothing.
#![no_std]
#![no_main]

extern crate alloc;

mod ring;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::asm;
use core::convert::Infallible;
use core::hint::black_box;
use core::ops::Range;

use chiton_guest::shared::call::Call;
use chiton_guest::shared::doorbell::MAILBOX_TEXT_OFFSET;
use chiton_guest::shared::map;
use chiton_guest::{boot, print, println};
use ring::{NAMES, Place, Registers};

chiton_guest::entry!(main, stack = 64 * KIB, heap = 2 * MIB);

/// Flags of arithmetic, and the direction flag.
const FLAGS: u64 = 0xcd5;
const TRAP: u64 = 0x100;
const STATIC: usize = 64 << 10;

static mut BUFFER: [u64; STATIC / 8] = [0; STATIC / 8];

/// The word that is left. It stands nowhere in the file.
fn word() -> u64 {
    black_box(0x0ddb_a11d_0ddb_a11d_u64) ^ black_box(0x5ec2_e75e_c2e7_5ec2)
}

fn main() -> Infallible {
    // The console has a place in the middle of its queues, which a call then moves.
    println!("ready");
    let mut first = Registers::filled(0x1000, 0x10, (0x37f, 0x1f80), 0);
    first.selectors = selectors();
    let mut found = Registers::ZERO;
    let mut request = [0_u8; 256];
    let (mut loaded, mut place, mut reply) = (first.clone(), Place::Usual, Vec::new());
    loop {
        call(place, &loaded, &mut found, &mut request, &reply);
        let len = record().request_len as usize;
        (loaded, place) = (first.clone(), Place::Usual);
        reply = match &request[..len.min(request.len())] {
            b"look" => look(&first, &found).into_bytes(),
            other => {
                leave();
                let flags = if other == b"leave trap" { FLAGS | TRAP } else { FLAGS };
                loaded = Registers::filled(word(), 0xee, (0x27f, 0x7f80), flags);
                if other == b"leave elsewhere" {
                    place = Place::Elsewhere;
                }
                if other == b"leave segments" {
                    // SAFETY: null selectors are allowed in these, which nothing uses in long mode.
                    unsafe { asm!("mov ds, {0:e}", "mov es, {0:e}", "mov fs, {0:e}", in(reg) 0) };
                }
                Vec::new()
            }
        };
    }
}

/// DS, ES, FS and GS.
fn selectors() -> [u64; 4] {
    let mut selectors = [0; 4];
    let [ds, es, fs, gs] = &mut selectors;
    // SAFETY: reading a selector has no effect.
    unsafe {
        asm!(
            "mov {0:e}, ds",
            "mov {1:e}, es",
            "mov {2:e}, fs",
            "mov {3:e}, gs",
            out(reg) * ds,
            out(reg) * es,
            out(reg) * fs,
            out(reg) * gs
        );
    }
    selectors
}

/// The record in the mailbox.
fn record() -> Call {
    let mut bytes = [0; Call::SIZE];
    for (i, byte) in bytes.iter_mut().enumerate() {
        let place = (map::MAILBOX as usize + MAILBOX_TEXT_OFFSET + i) as *const u8;
        // SAFETY: the mailbox is mapped by the contract.
        *byte = unsafe { place.read_volatile() };
    }
    Call::from_bytes(&bytes)
}

/// Leaves the record, and rings.
fn call(place: Place, loaded: &Registers, found: &mut Registers, request: &mut [u8], reply: &[u8]) {
    let call = Call {
        request: request.as_mut_ptr().expose_provenance() as u64,
        room: request.len() as u64,
        reply: reply.as_ptr().expose_provenance() as u64,
        reply_len: reply.len() as u64,
        ..Call::default()
    };
    for (i, byte) in call.to_bytes()[..32].iter().enumerate() {
        let place = (map::MAILBOX as usize + MAILBOX_TEXT_OFFSET + i) as *mut u8;
        // SAFETY: the mailbox is mapped by the contract, and written by nobody else.
        unsafe { place.write_volatile(*byte) };
    }
    ring::ring(place, loaded, found);
}

/// Everything that ring 3 may write, but for what holds this program itself, with a step between words.
fn places() -> [(&'static str, Range<u64>, usize); 5] {
    let page = boot::page();
    let here = 0_u8;
    let stack = (&raw const here).expose_provenance() as u64 & !7;
    let start = (&raw const BUFFER).expose_provenance() as u64;
    [
        ("the mailbox", map::MAILBOX + 1024..map::MAILBOX + map::PAGE, 8),
        ("the queues", map::QUEUES..map::QUEUES_END, 64),
        ("statics", start..start + STATIC as u64, 8),
        ("the stack", page.stack_start..stack - 4096, 8),
        (
            "the heap",
            page.heap_start + (1 << 20)..page.heap_start + page.heap_size,
            4096,
        ),
    ]
}

fn leave() {
    // Something that is on its way when the doorbell is rung.
    print!("left {}", "behind ".repeat(100));
    let word = word();
    for (_, range, step) in places() {
        for address in range.step_by(step) {
            // SAFETY: mapped writable by the contract. What is destroyed there is not used any more: the heap's first
            // MiB holds all that there is, and devices cope.
            unsafe { (address as *mut u64).write_volatile(word) };
        }
    }
}

/// Where something is that was not there when the guest was ready.
fn look(first: &Registers, found: &Registers) -> String {
    let mut text = String::new();
    let word = word();
    for (name, range, step) in places() {
        // SAFETY: mapped by the contract.
        let is_left = |address: &u64| unsafe { (*address as *const u64).read_volatile() } == word;
        let count = range.step_by(step).filter(is_left).count();
        if count > 0 {
            text += &format!("{name}: {count} words\n");
        }
    }
    for (name, (first, found)) in NAMES.iter().zip(first.general.iter().zip(&found.general)) {
        if first != found {
            text += &format!("{name}: {found:#x}\n");
        }
    }
    // Those that programs set: the others are the host's.
    if found.flags & (FLAGS | TRAP) != first.flags & (FLAGS | TRAP) {
        text += &format!("flags: {:#x}\n", found.flags);
    }
    if found.selectors != first.selectors {
        text += &format!("selectors: {:x?}\n", found.selectors);
    }
    if ring::has_xsave() {
        // What the header says is for whoever restores it, and the processor's own.
        let parts = [
            ("x87 control", 0..2),
            ("mxcsr", 24..28),
            ("x87", 32..160),
            ("sse", 160..416),
            ("avx", 576..832),
        ];
        for (name, range) in parts {
            if first.extended[range.clone()] != found.extended[range] {
                text += &format!("{name} registers\n");
            }
        }
    }
    text
}

//! Changes a page table under another processor, and has it forget the old page: `shootdown [ROUNDS]`.
//!
//! It runs in ring 0 with page tables of its own, so it needs a hardware KVM and `--cpus 2`.
//! Processor 1 reads one address again and again. Processor 0 puts one frame after the other behind
//! that address. After each shoot-down the next read must see the new frame; before, it may see
//! either, and how often it saw the old one is printed.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::alloc::{Layout, alloc_zeroed};
use alloc::string::String;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use chiton_guest::{env, interrupts, println, processors, tlb};

chiton_guest::entry!(main, heap = 2 * MIB, ring = 0, needs = &[INTERRUPTS]);

/// Bits of an entry (SDM volume 3A, table 5-20): present, writable; large page.
const PRESENT: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const UNCACHED: u64 = 0b11 << 3;

/// The address whose page changes: nothing of the guest is near it.
const WINDOW: u64 = 1 << 39;

/// How many reads processor 1 has done, and what the last one saw.
static READS: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
/// Where the tables are; zero when it is over.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// A fresh page of zeros, as 512 words.
fn page() -> *mut u64 {
    let layout = Layout::from_size_align(4096, 4096).expect("a page is a layout");
    // SAFETY: the size is not zero.
    let page = unsafe { alloc_zeroed(layout) };
    assert!(!page.is_null(), "no memory for a page");
    page.cast()
}

fn put(table: *mut u64, index: usize, entry: u64) {
    // SAFETY: `table` is a page of `page`, and `index` below 512. Processors read it at any time.
    unsafe { table.add(index).write_volatile(entry) };
}

fn frame(number: u64) -> *mut u64 {
    let frame = page();
    put(frame, 0, number);
    frame
}

/// The first 4 GiB as they are, the devices uncached, and the window. Returns the root, and the table
/// whose first entry is the window's.
fn tables() -> (*mut u64, *mut u64) {
    let (root, low) = (page(), page());
    put(root, 0, low as u64 | PRESENT);
    for gib in 0..4 {
        let directory = page();
        put(low, gib, directory as u64 | PRESENT);
        for n in 0..512 {
            let device = if gib == 3 { UNCACHED } else { 0 };
            put(directory, n, ((gib << 30 | n << 21) as u64) | PRESENT | LARGE | device);
        }
    }
    let (pointers, directory, table) = (page(), page(), page());
    put(root, (WINDOW >> 39) as usize, pointers as u64 | PRESENT);
    put(pointers, 0, directory as u64 | PRESENT);
    put(directory, 0, table as u64 | PRESENT);
    (root, table)
}

fn load_tables(root: u64) {
    // SAFETY: the tables map all that this guest uses where it was before.
    unsafe { asm!("mov cr3, {root}", root = in(reg) root, options(nostack, preserves_flags)) };
}

fn read() -> u64 {
    // SAFETY: the tables map the window to a frame before anybody reads.
    unsafe { (WINDOW as *const u64).read_volatile() }
}

fn reader() {
    load_tables(ROOT.load(Ordering::SeqCst));
    interrupts::listen();
    while ROOT.load(Ordering::SeqCst) != 0 {
        SEEN.store(read(), Ordering::SeqCst);
        READS.fetch_add(1, Ordering::SeqCst);
    }
}

/// What processor 1 sees from now on.
fn next_seen() -> u64 {
    let before = READS.load(Ordering::SeqCst);
    // The first may have begun before.
    while READS.load(Ordering::SeqCst) < before + 2 {
        core::hint::spin_loop();
    }
    SEEN.load(Ordering::SeqCst)
}

fn main() -> Result<(), String> {
    let rounds: u64 = env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(20);
    let frames = [frame(0), frame(1)];
    let (root, table) = tables();
    put(table, 0, frames[0] as u64 | PRESENT);
    load_tables(root as u64);
    interrupts::listen();
    ROOT.store(root as u64, Ordering::SeqCst);
    let task = processors::spawn_on(1, reader).map_err(|error| alloc::format!("{error}"))?;
    let mut stale = 0;
    for round in 1..=rounds {
        let number = round % 2;
        put(table, 0, frames[number as usize] as u64 | PRESENT);
        stale += u64::from(next_seen() != number);
        tlb::shoot_down(WINDOW);
        let seen = [next_seen(), read()];
        if seen != [number; 2] {
            return Err(alloc::format!(
                "round {round}: {seen:?} instead of {number} after the shoot-down"
            ));
        }
    }
    ROOT.store(0, Ordering::SeqCst);
    task.join();
    println!("{rounds} shoot-downs; {stale} times the old page was seen before one, and never after");
    Ok(())
}

//! What a guest should not do with interrupts, and what a host has to put up with.

use core::arch::asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use chiton_guest::shared::doorbell::Mailbox;
use chiton_guest::shared::interrupts::{CALL, HALT, SET_TIMER};
use chiton_guest::shared::map;
use chiton_guest::shared::virtio::mmio::{Register, aim};
use chiton_guest::time::{self, Instant};
use chiton_guest::{interrupts, println};

/// The gate of the timer, without the library's care.
fn set_timer(stamp: u64) {
    // SAFETY: the gate changes no register and no memory.
    unsafe { asm!("int3", in("rcx") SET_TIMER, in("rax") stamp) };
}

fn set_handler(address: u64) {
    let mailbox = map::MAILBOX as *mut Mailbox;
    // SAFETY: the mailbox is mapped writable; what follows from the value is the point of it.
    unsafe { (&raw mut (*mailbox).interrupts.handler).write_volatile(address) };
}

fn spin() -> ! {
    loop {
        black_box(());
    }
}

pub fn nobody() {
    for processor in [1_u32, 7, 31, 32, 0x7f, 0x1000, 0x7fff_fffe, 0xffff_fffe] {
        // SAFETY: the gate changes no register and no memory.
        unsafe { asm!("int3", in("rcx") CALL, in("eax") processor) };
    }
    println!("nobody answered: {}", !interrupts::take(interrupts::IPI));
}

pub fn elsewhere() {
    let register = (map::device_registers(0) + Register::QueueProcessor as u64) as *mut u32;
    for (queue, processor) in [(0, 2), (1, u16::MAX), (9, 0), (u16::MAX, 1)] {
        // SAFETY: register blocks are mapped by the contract; the write changes no memory.
        unsafe { register.write_volatile(aim(queue, processor)) };
    }
    // SAFETY: as above, and reading has no effect.
    println!("still here, with {} processors", unsafe { register.read_volatile() });
}

pub fn deadlines() {
    for stamp in [1, u64::MAX, u64::MAX - 1, 1 << 63, time::ticks(), time::ticks() - 1, 0] {
        set_timer(stamp);
    }
    interrupts::set_timer(Some(Instant::now() + Duration::MAX));
    interrupts::set_timer(None);
    println!("nothing happened");
}

pub fn burst() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    interrupts::on(interrupts::TIMER, || {
        CALLS.fetch_add(1, Ordering::Relaxed);
    });
    interrupts::listen();
    while CALLS.load(Ordering::Relaxed) < 100 {
        interrupts::set_timer(Some(Instant::now()));
    }
    println!("survived 100 interrupts");
}

pub fn storm() {
    let again = || interrupts::set_timer(Some(Instant::now()));
    interrupts::on(interrupts::TIMER, again);
    interrupts::listen();
    println!("storming");
    again();
    spin();
}

pub fn address() {
    set_handler(0x8000_0000_0000_0000);
    set_timer(1);
    spin();
}

pub fn unmapped() {
    set_handler(0x40_0000_0000);
    set_timer(1);
    spin();
}

pub fn kernel() {
    set_handler(map::INTERRUPT_STUBS);
    set_timer(1);
    spin();
}

pub fn gs() {
    // SAFETY: nothing of this guest uses GS before the host ends it.
    unsafe { asm!("mov gs, {0:x}", in(reg) 0_u16) };
    set_timer(1);
    spin();
}

pub fn stack() {
    interrupts::on(interrupts::TIMER, || ());
    interrupts::listen();
    // SAFETY: the host ends the guest here.
    unsafe {
        asm!("mov rsp, 64", "int3", "2: jmp 2b", in("rcx") SET_TIMER, in("rax") 1_u64, options(noreturn));
    }
}

pub fn gate() {
    // SAFETY: the host ends the guest here.
    unsafe { asm!("int 0x20") };
}

pub fn masked() {
    interrupts::on(interrupts::TIMER, || println!("called all the same"));
    interrupts::listen();
    println!("masked");
    interrupts::masked(|| {
        set_timer(1);
        spin()
    })
}

pub fn cli() {
    println!("cleared");
    // SAFETY: where ring 3 may do this, nothing comes any more; where it may not, it faults.
    unsafe { asm!("cli") };
    spin();
}

pub fn halt() {
    println!("halted");
    loop {
        // SAFETY: the gate changes no register, and no memory of this program.
        unsafe { asm!("int3", in("rcx") HALT) };
    }
}

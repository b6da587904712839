//! Interrupts: a timer, calls from other processors, a vector for each queue.
//!
//! Only a guest that asks for them has them: `uses = &[INTERRUPTS]` in [`entry!`](crate::entry!), or
//! `needs`. The host has set up everything; see the chapter on interrupts in the book.
//!
//! ```no_run
//! use chiton_guest::{interrupts, println, time};
//! use core::time::Duration;
//!
//! interrupts::set_timer(Some(time::Instant::now() + Duration::from_millis(10)));
//! while !interrupts::take(interrupts::TIMER) {
//!     time::wait(None);
//! }
//! println!("ten milliseconds are over");
//! ```
//!
//! An interrupt leaves a mark, which [`take`] finds and removes. That is all, unless there is a
//! handler ([`on`]) and the processor has said that it [listens](listen): then whatever runs there is
//! interrupted, and the handler called. Others that come meanwhile are handled before it goes on.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use chiton_shared::interrupts::{self as gate, AREA, Area, SHOOT_DOWN};
pub use chiton_shared::interrupts::{IPI, Idle, QUEUES, QUEUES_LAST, TIMER};

use crate::processors::{MAX, PerProcessor};
use crate::time::{self, Instant};
use crate::{boot, preempt, processors, tlb};

/// How many vectors there are handlers for.
const VECTORS: usize = QUEUES_LAST as usize + 1;

/// What each vector calls; null for nothing.
static HANDLERS: [AtomicPtr<()>; VECTORS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; VECTORS];

/// What the timer of each processor was [set](set_timer) to, as a time-stamp; 0 for nothing.
static DEADLINES: PerProcessor<AtomicU64> = PerProcessor::new([const { AtomicU64::new(0) }; MAX]);

/// Which processors [listen].
static LISTENING: PerProcessor<AtomicBool> = PerProcessor::new([const { AtomicBool::new(false) }; MAX]);

/// Whether there is more to save than `fxsave` does.
static XSAVE: AtomicBool = AtomicBool::new(false);

/// The interrupt of some queue goes to another processor than the first.
static SPREAD: AtomicBool = AtomicBool::new(false);

/// Whether the guest has interrupts.
#[must_use]
pub fn enabled() -> bool {
    boot::is_set() && boot::page().interrupts != 0
}

/// How a processor waits, if there are interrupts.
#[must_use]
pub fn idle() -> Option<Idle> {
    enabled().then(|| match boot::page().idle {
        1 => Idle::Halt,
        _ => Idle::Doorbell,
    })
}

/// Whether the interrupts of all queues come to this processor, so that it may halt for any of them.
pub(crate) fn hears_all_queues() -> bool {
    processors::current() == 0 && !SPREAD.load(Ordering::SeqCst)
}

/// From now on the interrupt of some queue goes to this processor.
pub(crate) fn spread(processor: u32) {
    if processor != 0 && !SPREAD.swap(true, Ordering::SeqCst) {
        // It may halt for just this queue.
        call(0);
    }
}

/// Sets this processor's timer: [`TIMER`] comes at that time, once; for times more than half an hour
/// ahead after half an hour. `None` disarms it. Without interrupts nothing happens.
pub fn set_timer(deadline: Option<Instant>) {
    let stamp = deadline.map_or(0, time::stamp_of);
    DEADLINES.own().store(stamp, Ordering::Relaxed);
    set_deadline(stamp);
}

/// Interrupts another processor by [`IPI`], if it runs. Without interrupts nothing happens.
pub fn call(processor: u32) {
    if enabled() {
        // SAFETY: the gate of the contract changes no register, and no memory of this processor.
        unsafe { asm!("int3", in("rcx") gate::CALL, in("eax") processor) };
    }
}

/// Whether an interrupt has come to this processor since the last time this was asked. For [`TIMER`]:
/// whether what it was [set](set_timer) to is over.
#[must_use]
pub fn take(vector: u8) -> bool {
    take_mark(vector) && (vector != TIMER || is_due())
}

/// Whether the time has come that the timer was set to, which is said once. If it came for another
/// reason, such as the end of a wait, it is set again.
fn is_due() -> bool {
    match DEADLINES.own().load(Ordering::Relaxed) {
        0 => false,
        stamp if stamp <= time::ticks() => {
            DEADLINES.own().store(0, Ordering::Relaxed);
            true
        }
        stamp => {
            set_deadline(stamp);
            false
        }
    }
}

/// Finds and removes the mark of an interrupt.
fn take_mark(vector: u8) -> bool {
    let mark: u8;
    // SAFETY: the area of this processor is at GS by the contract; nothing else is at this place.
    unsafe {
        asm!("xchg {mark}, gs:[{vector} + {pending}]", mark = inout(reg_byte) 0_u8 => mark,
             vector = in(reg) u64::from(vector), pending = const AREA + offset_of!(Area, pending),
             options(nostack, preserves_flags));
    }
    mark != 0
}

/// Has this function called, with interrupts masked, when the vector comes to a processor that
/// [listens](listen). It must not allocate, print, or wait for a lock: whatever it interrupted may
/// have the lock.
///
/// # Panics
///
/// If no interrupt has this vector.
pub fn on(vector: u8, handler: fn()) {
    assert!(
        (TIMER..=QUEUES_LAST).contains(&vector),
        "vector {vector} is not one of interrupts"
    );
    HANDLERS[usize::from(vector)].store(handler as *mut (), Ordering::Release);
}

/// From now on interrupts call [handlers](on) on this processor, until the work it was given is done.
pub fn listen() {
    if enabled() {
        // What a handler uses of the wide registers belongs to what it interrupts.
        XSAVE.store(has_xsave(), Ordering::Relaxed);
        store_handler(entry as *const () as u64);
        LISTENING.own().store(true, Ordering::SeqCst);
    }
}

/// Whether a processor [listens](listen).
pub(crate) fn listens(processor: u32) -> bool {
    let all = LISTENING.all().nth(processor as usize);
    all.is_some_and(|listening| listening.load(Ordering::SeqCst))
}

/// The work of this processor is over, and what it wanted to hear with it.
pub(crate) fn stop_listening() {
    if LISTENING.own().swap(false, Ordering::SeqCst) {
        store_handler(0);
    }
}

/// Does something with the handlers of this processor masked; what has come meanwhile is handled
/// afterwards.
pub fn masked<T>(work: impl FnOnce() -> T) -> T {
    if read::<{ offset_of!(Area, masked) }>() != 0 {
        return work();
    }
    write::<{ offset_of!(Area, masked) }>(1);
    let result = work();
    unmask();
    result
}

/// Stops this processor until an interrupt comes; one that has come since the last time counts.
/// Where [`idle`] is not [`Idle::Halt`], and without interrupts, it returns at once.
///
/// Handlers are called before this returns.
pub fn halt() {
    if idle() == Some(Idle::Halt) {
        gate_halt();
        if load_handler() != 0 {
            masked(|| ());
        }
    }
}

/// As [`halt`], at most until this time-stamp.
pub(crate) fn halt_until(stamp: u64) {
    let until = earlier(deadline(), stamp);
    if until != deadline() {
        set_deadline(until);
    }
    halt();
    let own = deadline();
    if until != own {
        set_deadline(own);
    }
}

/// When this processor's timer comes, as a time-stamp; 0 for never, or if it has come.
pub(crate) fn deadline() -> u64 {
    if read::<{ offset_of!(Area, pending) + TIMER as usize }>() & 0xff != 0 {
        return 0;
    }
    DEADLINES.own().load(Ordering::Relaxed)
}

/// The earlier of two time-stamps of which 0 is never.
const fn earlier(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, other) | (other, 0) => other,
        _ if a < b => a,
        _ => b,
    }
}

/// Sets the timer as the processor has it.
fn set_deadline(stamp: u64) {
    if enabled() {
        // SAFETY: the gate of the contract changes no register, and no memory.
        unsafe { asm!("int3", in("rcx") gate::SET_TIMER, in("rax") stamp) };
    }
}

fn gate_halt() {
    // SAFETY: the gate of the contract changes no register; what interrupts change in memory while
    // it halts they may change at any time.
    unsafe { asm!("int3", in("rcx") gate::HALT) };
}

/// A field of this processor's area.
fn read<const FIELD: usize>() -> u32 {
    let value: u32;
    // SAFETY: the area of this processor is at GS by the contract.
    unsafe {
        asm!("mov {value:e}, gs:[{field}]", value = out(reg) value, field = const AREA + FIELD,
             options(nostack, preserves_flags));
    }
    value
}

/// Sets a field of this processor's area. The compiler moves no access to memory past it.
fn write<const FIELD: usize>(value: u32) {
    // SAFETY: the area of this processor is at GS by the contract, and made for this.
    unsafe {
        asm!("mov gs:[{field}], {value:e}", value = in(reg) value, field = const AREA + FIELD,
             options(nostack, preserves_flags));
    }
}

fn load_handler() -> u64 {
    let value: u64;
    // SAFETY: as in `read`.
    unsafe {
        asm!("mov {value}, gs:[{field}]", value = out(reg) value, field = const AREA + offset_of!(Area, handler),
             options(nostack, preserves_flags));
    }
    value
}

fn store_handler(address: u64) {
    // SAFETY: as in `write`. From here on interrupts go on at `entry`, which changes nothing that
    // the interrupted code could see.
    unsafe {
        asm!("mov gs:[{field}], {value}", value = in(reg) address, field = const AREA + offset_of!(Area, handler),
             options(nostack, preserves_flags));
    }
}

fn has_xsave() -> bool {
    // OSXSAVE: the host has set XCR0 to what it lists in leaf 0xD.
    core::arch::x86_64::__cpuid(1).ecx & 1 << 27 != 0
}

/// Lets handlers be called again, and handles what has come meanwhile.
fn unmask() {
    let mut switch = false;
    loop {
        write::<{ offset_of!(Area, masked) }>(0);
        if read::<{ offset_of!(Area, deferred) }>() == 0 {
            break;
        }
        write::<{ offset_of!(Area, masked) }>(1);
        write::<{ offset_of!(Area, deferred) }>(0);
        switch |= handle();
    }
    if switch {
        // Only what is interrupted can be switched: so be it, at once.
        set_timer(Some(Instant::now()));
    }
}

/// Calls the handlers of what has come; whether it is time for another task.
fn handle() -> bool {
    let mut switch = false;
    for vector in TIMER..=QUEUES_LAST {
        if !take_marked(vector) {
            continue;
        }
        switch |= vector == TIMER && preempt::is_active();
        if vector == SHOOT_DOWN {
            tlb::serve();
        }
        let handler = HANDLERS[usize::from(vector)].load(Ordering::Acquire);
        if !handler.is_null() {
            // SAFETY: `on` stored a function of this type.
            let handler: fn() = unsafe { core::mem::transmute(handler) };
            handler();
        }
    }
    switch
}

/// [`take`], for a vector that somebody has an interest in; others keep their mark.
fn take_marked(vector: u8) -> bool {
    let wanted =
        !HANDLERS[usize::from(vector)].load(Ordering::Relaxed).is_null() || vector == TIMER && preempt::is_active();
    (wanted || vector == SHOOT_DOWN) && take(vector)
}

/// What was interrupted, as [`entry`] leaves it on its stack.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Context {
    /// Where the wide registers are.
    wide: u64,
    /// R15 to R8, RDI, RSI, RBP, RBX, RDX, RCX, RAX.
    registers: [u64; 15],
    /// RIP, CS, RFLAGS, RSP, SS.
    frame: [u64; 5],
}

impl Context {
    /// Puts the context of a function that has not begun yet on top of a stack, which it has for
    /// itself. Its argument is a pointer.
    ///
    /// # Safety
    ///
    /// The stack has to be memory that is used for nothing else as long as the function runs.
    pub(crate) unsafe fn new(stack_end: u64, function: extern "C" fn(u64) -> !, argument: u64) -> *mut Self {
        let (code, data): (u64, u64);
        // SAFETY: reading selectors and flags has no effect.
        unsafe { asm!("mov {:e}, cs", "mov {:e}, ss", out(reg) code, out(reg) data, options(nostack, nomem)) };
        let end = stack_end & !63;
        let context = end - 256;
        let wide = (context - WIDE as u64) & !63;
        // SAFETY: the caller's promise; 256 bytes hold a context.
        unsafe {
            core::ptr::write_bytes(wide as *mut u8, 0, WIDE);
            // The state at start: the x87 control word and MXCSR (SDM volume 1, section 13.6).
            (wide as *mut u16).write(0x37f);
            ((wide + 24) as *mut u32).write(0x1f80);
            // XSTATE_BV: x87 and SSE are in memory.
            ((wide + 512) as *mut u64).write(0b11);
            let context = context as *mut Self;
            let mut registers = [0; 15];
            registers[8] = argument;
            context.write(Self {
                wide,
                registers,
                // As after a call. Interrupts on, and IOPL as it is for all.
                frame: [function as *const () as u64, code, 0x3202, end - 8, data],
            });
            context
        }
    }
}

/// Room for the wide registers: the legacy area, the header and AVX (SDM volume 1, section 13.4).
const WIDE: usize = 832;

/// Where an interrupt goes on: saves everything, has it [dispatched](dispatch), and goes on with
/// what that says, usually what was interrupted.
///
/// The stub of the host has masked further interrupts. They are on again on the stack of what goes
/// on, and if one comes just then it is as if it had come a moment later.
#[unsafe(naked)]
extern "C" fn entry() {
    naked_asm!(
        // 128 bytes below the stack pointer may be in use. Then room for what `iretq` takes.
        "lea rsp, [rsp - 128 - 40]",
        "push rax",
        "mov rax, gs:[{rip}]",
        "mov [rsp + 8], rax",
        "mov eax, cs",
        "mov [rsp + 16], rax",
        "mov rax, gs:[{rflags}]",
        "mov [rsp + 24], rax",
        "mov rax, gs:[{rsp}]",
        "mov [rsp + 32], rax",
        "mov eax, ss",
        "mov [rsp + 40], rax",
        "push rcx",
        "push rdx",
        "push rbx",
        "push rbp",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push 0",
        "cld",
        // The wide registers.
        "2:",
        "mov rdi, rsp",
        "sub rsp, {wide}",
        "and rsp, -64",
        "mov [rdi], rsp",
        "cmp byte ptr [rip + {xsave}], 0",
        "je 3f",
        // The header has to be zero but for what `xsave` writes.
        "xor eax, eax",
        "mov [rsp + 512], rax",
        "mov [rsp + 520], rax",
        "mov [rsp + 528], rax",
        "mov [rsp + 536], rax",
        "mov [rsp + 544], rax",
        "mov [rsp + 552], rax",
        "mov [rsp + 560], rax",
        "mov [rsp + 568], rax",
        "xor edx, edx",
        "mov eax, 7",
        "xsave64 [rsp]",
        "jmp 4f",
        "3:",
        "fxsave64 [rsp]",
        "4:",
        "call {dispatch}",
        // From here on the context in RAX.
        "mov rbx, rax",
        "mov rcx, [rbx]",
        "cmp byte ptr [rip + {xsave}], 0",
        "je 5f",
        "xor edx, edx",
        "mov eax, 7",
        "xrstor64 [rcx]",
        "jmp 6f",
        "5:",
        "fxrstor64 [rcx]",
        "6:",
        "mov rsp, rbx",
        // On its stack: let interrupts in, unless there are some already.
        "mov dword ptr gs:[{masked}], 0",
        "cmp dword ptr gs:[{deferred}], 0",
        "je 7f",
        "mov dword ptr gs:[{masked}], 1",
        "jmp 2b",
        "7:",
        "pop rax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rbp",
        "pop rbx",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "iretq",
        rip = const AREA + offset_of!(Area, rip),
        rflags = const AREA + offset_of!(Area, rflags),
        rsp = const AREA + offset_of!(Area, rsp),
        masked = const AREA + offset_of!(Area, masked),
        deferred = const AREA + offset_of!(Area, deferred),
        wide = const WIDE,
        xsave = sym XSAVE,
        dispatch = sym dispatch,
    )
}

/// Handles what has come; returns what goes on.
extern "C" fn dispatch(context: *mut Context) -> *mut Context {
    write::<{ offset_of!(Area, deferred) }>(0);
    if handle() { preempt::switch(context) } else { context }
}

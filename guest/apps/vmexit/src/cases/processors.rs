//! Two processors: interrupts from one to the other, and a turn that goes round.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chiton_guest::processors::{SpawnError, Task, spawn_on};
use chiton_guest::time;
use vmexit_cases::{Clock, Done, Meter};

use super::Case;
use super::apic::{interrupt, switch_on};
use super::ports::seconds;
use crate::ring0;

/// The other processor is to end.
static OVER: AtomicBool = AtomicBool::new(false);
/// It has begun.
static READY: AtomicBool = AtomicBool::new(false);
/// Whose turn it is: the first processor's if even.
static TURN: AtomicU64 = AtomicU64::new(0);

pub fn all<C: Clock>() -> [Case; 3] {
    [
        Case::pair("ipi", true, |meter, _| ipi::<C>(meter, false)),
        Case::pair("ipi_halt", true, |meter, _| ipi::<C>(meter, true)),
        Case::pair("ple_round_robin", false, |meter, _| round_robin::<C>(meter)),
    ]
}

/// From sending an interrupt to the other processor to seeing that its handler has run.
fn ipi<C: Clock>(meter: &mut Meter<'_>, halt: bool) -> Done {
    switch_on(None)?;
    let other = start(move || {
        ring0::take_over();
        if switch_on(None).is_err() {
            return;
        }
        READY.store(true, Ordering::SeqCst);
        while !OVER.load(Ordering::SeqCst) {
            // SAFETY: the table has a handler for the one interrupt that comes.
            unsafe {
                if halt {
                    asm!("sti", "hlt", "cli", options(nostack));
                } else {
                    asm!("sti", "pause", "cli", options(nostack));
                }
            }
        }
    })?;
    meter.at_most(2000, 50);
    // Between two of them the other one is given time to halt.
    let pause = if halt { seconds(1) / 100_000 } else { 0 };
    let mut result = Ok(());
    meter.each_after::<C, _>(
        || {
            let until = time::ticks() + pause;
            while time::ticks() < until {}
        },
        |()| {
            let before = ring0::interrupts();
            let limit = time::ticks() + seconds(1);
            interrupt(1);
            while result.is_ok() && ring0::interrupts() == before {
                if time::ticks() > limit {
                    result = Err("an interrupt to the other processor did not come within a second");
                }
            }
        },
    )?;
    OVER.store(true, Ordering::SeqCst);
    interrupt(1);
    other.join();
    result
}

/// The turn goes to the other processor and comes back; who waits for it spins with `pause`.
fn round_robin<C: Clock>(meter: &mut Meter<'_>) -> Done {
    TURN.store(0, Ordering::SeqCst);
    let other = start(|| {
        READY.store(true, Ordering::SeqCst);
        while !OVER.load(Ordering::SeqCst) {
            if TURN.load(Ordering::SeqCst) & 1 == 1 {
                TURN.fetch_add(1, Ordering::SeqCst);
            }
            core::hint::spin_loop();
        }
    })?;
    meter.at_most(2000, 50);
    meter.each::<C>(|| {
        let turn = TURN.load(Ordering::SeqCst);
        TURN.store(turn + 1, Ordering::SeqCst);
        while TURN.load(Ordering::SeqCst) != turn + 2 {
            core::hint::spin_loop();
        }
    })?;
    OVER.store(true, Ordering::SeqCst);
    other.join();
    Ok(())
}

/// Gives the other processor something to do, and waits until it has begun.
fn start(work: impl FnOnce() + Copy + Send + 'static) -> Result<Task<()>, &'static str> {
    const NOT: &str = "the other processor does not start";
    OVER.store(false, Ordering::SeqCst);
    READY.store(false, Ordering::SeqCst);
    let limit = time::ticks() + seconds(5);
    let task = loop {
        match spawn_on(1, work) {
            Ok(task) => break task,
            // It has not parked yet, at the end of the case before.
            Err(SpawnError::Busy(_)) if time::ticks() < limit => core::hint::spin_loop(),
            Err(_) => return Err(NOT),
        }
    };
    while !READY.load(Ordering::SeqCst) {
        if time::ticks() > limit {
            return Err(NOT);
        }
        core::hint::spin_loop();
    }
    Ok(task)
}

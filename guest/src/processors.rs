//! Work on more than one processor.
//!
//! A guest begins on processor 0. The others do nothing, and cost nothing, until they are given
//! work: [`spawn_on`] gives one of them a closure, [`for_each`] shares out a loop among all that are
//! idle. Whoever waits for them sleeps at the host.
//!
//! ```no_run
//! use chiton_guest::{println, processors};
//!
//! let task = processors::spawn_on(1, || (1..=10).sum::<u64>()).expect("run with --cpus 2");
//! println!("processor 1 says {}", task.join());
//! ```
//!
//! Memory is shared, and so are page tables, which the host made and nobody changes: there is
//! nothing to shoot down in any TLB, unless a guest in ring 0 has tables of its own: see
//! [`tlb`](crate::tlb).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::asm;
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use chiton_shared::doorbell::{self, Mailbox};
use chiton_shared::{map, processor};
use spin::Mutex;

use crate::{boot, host, interrupts, time};

/// The greatest number of processors.
pub const MAX: usize = processor::MAX as usize;

/// What a processor is given to do.
type Work = Box<dyn FnOnce() + Send>;

/// Which processors have work; the first always has.
static BUSY: [AtomicBool; MAX] = [const { AtomicBool::new(false) }; MAX];

/// How many processors there are.
#[must_use]
pub fn count() -> u32 {
    boot::page().processors.clamp(1, processor::MAX)
}

/// The number of the processor that runs this, from 0.
#[inline]
#[must_use]
pub fn current() -> u32 {
    let number: u64;
    // SAFETY: the contract has the processor's own mailbox at the base of GS.
    unsafe {
        asm!("mov {}, gs:[{offset}]", out(reg) number, offset = const offset_of!(Mailbox, processor),
             options(nostack, preserves_flags, readonly));
    }
    number as u32
}

/// The mailbox of a processor.
pub(crate) fn mailbox(number: u32) -> *mut Mailbox {
    let page = boot::page();
    let address = match u64::from(number) {
        0 => map::MAILBOX,
        n => page.processor_blocks + (n - 1) * page.processor_stride + processor::MAILBOX,
    };
    address as *mut Mailbox
}

/// The mailbox of the processor that runs this.
pub(crate) fn own_mailbox() -> *mut Mailbox {
    // The first processor may have something to say before there is a boot page.
    if boot::is_set() {
        mailbox(current())
    } else {
        map::MAILBOX as *mut Mailbox
    }
}

/// Why a processor was not given work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnError {
    /// There is no processor of this number beside the first: the host gave the guest so many.
    NoSuchProcessor {
        /// The number asked for.
        number: u32,
        /// How many there are.
        count: u32,
    },
    /// It has work already.
    Busy(u32),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchProcessor { number, count } => {
                write!(
                    f,
                    "there is no processor {number} to give work to: the guest has {count} (see --cpus)"
                )
            }
            Self::Busy(number) => write!(f, "processor {number} has work already"),
        }
    }
}

impl core::error::Error for SpawnError {}

/// Work that another processor does.
#[derive(Debug)]
pub struct Task<T> {
    state: Arc<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    result: Mutex<Option<T>>,
    /// Set when the result is there.
    done: AtomicBool,
    /// Who waits for it: to be woken.
    waiter: AtomicU32,
}

impl<T> Task<T> {
    /// Whether the result is there, so that [`join`](Self::join) does not wait.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state.done.load(Ordering::Acquire)
    }

    /// Waits for the result. There is always one: a panic on any processor ends the guest.
    pub fn join(self) -> T {
        self.state.waiter.store(current(), Ordering::SeqCst);
        while !self.state.done.load(Ordering::SeqCst) {
            time::wait(None);
        }
        self.state
            .result
            .lock()
            .take()
            .expect("done means that there is a result")
    }
}

/// Gives a processor work to do.
///
/// # Errors
///
/// [`SpawnError`], if it does not exist, or has work already.
pub fn spawn_on<T: Send + 'static>(
    number: u32,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Task<T>, SpawnError> {
    let state = Arc::new(State {
        result: Mutex::new(None),
        done: AtomicBool::new(false),
        waiter: AtomicU32::new(current()),
    });
    let other = Arc::clone(&state);
    start(
        number,
        Box::new(move || {
            let result = work();
            *other.result.lock() = Some(result);
            other.done.store(true, Ordering::SeqCst);
            let waiter = other.waiter.load(Ordering::SeqCst);
            drop(other);
            host::ring(doorbell::WAKE, waiter);
        }),
    )?;
    Ok(Task { state })
}

/// Calls `work` for each number below `count`, on this processor and all that are idle, and returns
/// when every call has. Each takes the next number when it is done with one.
pub fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let share = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            break;
        }
        work(number);
    };
    let share: &(dyn Fn() + Sync) = &share;
    // SAFETY: only the lifetime changes. The tasks that hold the reference are joined below, before
    // what it refers to ends; nothing between here and there returns early, and no panic unwinds.
    let lent: &'static (dyn Fn() + Sync) = unsafe { core::mem::transmute(share) };
    let others = 1..self::count().min(count.try_into().unwrap_or(u32::MAX));
    let tasks: Vec<_> = others.filter_map(|number| spawn_on(number, lent).ok()).collect();
    share();
    for task in tasks {
        task.join();
    }
}

/// Has an idle processor do this.
fn start(number: u32, work: Work) -> Result<(), SpawnError> {
    if number == 0 || number >= count() {
        return Err(SpawnError::NoSuchProcessor { number, count: count() });
    }
    if BUSY[number as usize].swap(true, Ordering::Acquire) {
        return Err(SpawnError::Busy(number));
    }
    let entry: extern "C" fn(*mut Work) -> ! = begin;
    let argument = Box::into_raw(Box::new(work));
    // SAFETY: the mailbox is mapped writable by the contract; an idle processor does not use its own,
    // and whoever made it busy is alone here.
    unsafe {
        let text = (&raw mut (*mailbox(number)).text).cast::<u64>();
        text.write_volatile(entry as usize as u64);
        text.add(1).write_volatile(argument as usize as u64);
    }
    host::ring(doorbell::START, number);
    Ok(())
}

/// The first function of a processor that is started.
extern "C" fn begin(work: *mut Work) -> ! {
    // SAFETY: `start` made it from a box, for this processor alone.
    let work = unsafe { Box::from_raw(work) };
    work();
    interrupts::stop_listening();
    BUSY[current() as usize].store(false, Ordering::Release);
    // Whoever starts this processor from now on finds it parked, or the host starts it then.
    host::ring(doorbell::PARK, 0);
    crate::entry::halt()
}

/// One value for each processor.
#[derive(Debug)]
pub struct PerProcessor<T>([T; MAX]);

impl<T: Sync> PerProcessor<T> {
    /// With these values, in the order of the processors.
    pub const fn new(values: [T; MAX]) -> Self {
        Self(values)
    }

    /// The value of the processor that runs this.
    #[must_use]
    pub fn own(&self) -> &T {
        &self.0[current() as usize % MAX]
    }

    /// The values of all processors there are.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().take(count() as usize)
    }
}

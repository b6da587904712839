//! Tasks that share one processor by a timer, whether they like it or not.
//!
//! ```no_run
//! use chiton_guest::preempt::{self, Task};
//! use core::time::Duration;
//!
//! let ran = preempt::run(Duration::from_millis(5), vec![
//!     Task::new(|| { /* computes for a long time */ }),
//!     Task::new(|| { /* so does this */ }),
//! ]);
//! # let _ = ran;
//! ```
//!
//! Each task has a stack of its own. When its slice is over the timer interrupts it wherever it is,
//! and the next one goes on. A task that waits for a lock another one has spins to the end of its
//! slice. [`time::wait`](crate::time::wait) returns at once, so that who waits does not keep the
//! others from running.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use spin::Mutex;

use crate::interrupts::{self, Context};
use crate::processors;
use crate::time::Instant;

/// Size of the stack of a task, unless it says otherwise, in bytes.
pub const STACK: usize = 64 << 10;
/// What a stack has at least, in bytes: room for the contexts of interrupts.
const LEAST_STACK: usize = 16 << 10;

type Work = Box<dyn FnOnce() + Send>;

/// Something to do beside others.
pub struct Task {
    work: Work,
    stack: usize,
}

impl Task {
    /// With a stack of the [usual size](STACK).
    #[must_use]
    pub fn new(work: impl FnOnce() + Send + 'static) -> Self {
        Self {
            work: Box::new(work),
            stack: STACK,
        }
    }

    /// With a stack of so many bytes, 16 KiB at least. It has no guard page.
    #[must_use]
    pub fn stack(mut self, bytes: usize) -> Self {
        self.stack = bytes.max(LEAST_STACK);
        self
    }
}

impl core::fmt::Debug for Task {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Task")
            .field("stack", &self.stack)
            .finish_non_exhaustive()
    }
}

/// Why tasks were not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreemptError {
    /// There is no timer to interrupt them.
    #[error("the guest has no interrupts: add INTERRUPTS to `needs` or `uses` in its entry!")]
    NoInterrupts,
    /// Tasks are running already, here or on another processor.
    #[error("tasks are running already")]
    Running,
}

/// What is running.
struct Scheduler {
    slice: Duration,
    /// Where each task goes on, the one that runs apart; the last entry is whoever called [`run`].
    contexts: Vec<*mut Context>,
    done: Vec<bool>,
    current: usize,
}

// SAFETY: the contexts are on stacks that the scheduler has; only the processor that runs the tasks
// reaches them, with interrupts masked.
unsafe impl Send for Scheduler {}

static SCHEDULER: Mutex<Option<Scheduler>> = Mutex::new(None);
static ACTIVE: AtomicBool = AtomicBool::new(false);
/// How often the processor went from one task to another since the last [`run`] began.
static SWITCHES: AtomicU64 = AtomicU64::new(0);
/// The processor whose tasks they are.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Whether the timer of this processor is for tasks.
pub(crate) fn is_active() -> bool {
    ACTIVE.load(Ordering::Acquire) && OWNER.load(Ordering::Relaxed) == processors::current()
}

/// Runs tasks on this processor until all have returned, each in turn for a slice of time. Returns
/// how often one was interrupted for the next. The processor's timer is used for it.
///
/// # Errors
///
/// [`PreemptError`]; then nothing has run.
pub fn run(slice: Duration, tasks: Vec<Task>) -> Result<u64, PreemptError> {
    if !interrupts::enabled() {
        return Err(PreemptError::NoInterrupts);
    }
    interrupts::listen();
    if ACTIVE.swap(true, Ordering::AcqRel) {
        return Err(PreemptError::Running);
    }
    OWNER.store(processors::current(), Ordering::Relaxed);
    SWITCHES.store(0, Ordering::Relaxed);
    let count = tasks.len();
    let mut stacks = Vec::with_capacity(count);
    let mut contexts = Vec::with_capacity(count + 1);
    for task in tasks {
        let mut stack = vec![0_u128; task.stack / size_of::<u128>()];
        let end = stack.as_mut_ptr_range().end as u64;
        let work = Box::into_raw(Box::new(task.work)) as u64;
        // SAFETY: the stack is this task's alone, and `stacks` keeps it until all have returned.
        contexts.push(unsafe { Context::new(end, begin, work) });
        stacks.push(stack);
    }
    contexts.push(core::ptr::null_mut());
    let mut done = vec![false; count];
    done.push(true);
    interrupts::masked(|| {
        *SCHEDULER.lock() = Some(Scheduler {
            slice,
            contexts,
            done,
            current: count,
        });
    });
    // The first switch is away from here, and the last back.
    while locked(|scheduler| scheduler.unfinished()).unwrap_or(false) {
        switch_now();
    }
    interrupts::set_timer(None);
    let over = interrupts::masked(|| SCHEDULER.lock().take());
    ACTIVE.store(false, Ordering::Release);
    drop((over, stacks));
    Ok(SWITCHES.load(Ordering::Relaxed))
}

/// Does something with the scheduler, which interrupts use too.
fn locked<T>(look: impl FnOnce(&mut Scheduler) -> T) -> Option<T> {
    interrupts::masked(|| SCHEDULER.lock().as_mut().map(look))
}

/// Has the timer come at once, and waits for it.
fn switch_now() {
    let before = SWITCHES.load(Ordering::Relaxed);
    interrupts::set_timer(Some(Instant::now()));
    while SWITCHES.load(Ordering::Relaxed) == before {
        core::hint::spin_loop();
    }
}

/// The first function of a task.
extern "C" fn begin(work: u64) -> ! {
    // SAFETY: `run` made it from a box, for this task alone.
    let work = unsafe { Box::from_raw(work as *mut Work) };
    work();
    locked(|scheduler| {
        let current = scheduler.current;
        scheduler.done[current] = true;
    });
    loop {
        switch_now();
    }
}

/// The timer has come: saves what it interrupted, and chooses what goes on.
pub(crate) fn switch(context: *mut Context) -> *mut Context {
    let mut scheduler = SCHEDULER.lock();
    let Some(scheduler) = scheduler.as_mut() else {
        return context;
    };
    let next = scheduler.next();
    scheduler.contexts[scheduler.current] = context;
    if next != scheduler.current {
        SWITCHES.fetch_add(1, Ordering::Relaxed);
        scheduler.current = next;
    }
    interrupts::set_timer(Some(Instant::now() + scheduler.slice));
    scheduler.contexts[next]
}

impl Scheduler {
    /// The next task in turn that is not done; whoever called, if all are.
    fn next(&self) -> usize {
        let tasks = self.contexts.len() - 1;
        (1..=tasks)
            .map(|ahead| (self.current + ahead) % tasks)
            .find(|task| !self.done[*task])
            .unwrap_or(tasks)
    }

    fn unfinished(&self) -> bool {
        self.done.iter().any(|done| !done)
    }
}

//! A pool of machines that are ready to be called.
//!
//! ```text
//!   Guest ── starts, says that it is ready ──▶ Template ── copies, whose memory is the template's
//!                                                 │        until it is written ──▶ Worker, Worker, …
//!                                                 │                                   ▲
//!   call(request) ── a worker that is idle ───────┼──▶ request in, run, reply out ────┤
//!                                                 └──▶ memory, registers put back ────┘
//! ```
//!
//! | file | what it is about |
//! |---|---|
//! | `template` | a guest that is ready, as a value |
//! | `pristine` | its memory, in a file that nobody can change |
//! | `ready` | its processor |
//! | `machine` | one machine, and one call |
//! | `dirty` | which pages a call has written |
//! | `board`, `devices` | what the processor is plugged into |
//! | `limit`, `keeper` | calls that take too long, and machines that are made ahead |
//!
//! # Example
//!
//! ```no_run
//! use chiton_kvm::{Guest, Pool, PoolOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Pool::new(Guest::open("target/guests/function")?, PoolOptions::default())?;
//! for _ in 0..1000 {
//!     // Each call finds the guest as it was when it was ready.
//!     assert_eq!(pool.call(b"count")?.bytes, b"1");
//! }
//! # Ok(())
//! # }
//! ```

mod board;
mod devices;
mod dirty;
mod keeper;
mod limit;
mod machine;
mod pristine;
mod ready;
mod requests;
mod template;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

pub use machine::Phases;
pub use requests::REQUESTS;

use crate::Error;
use crate::guest::Guest;
use crate::outcome::Ending;
use limit::Limit;
use machine::Worker;
use template::Template;

/// How a pool works.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// How many machines there are at the most: so many calls run at a time, and others wait. They are made ahead,
    /// by a thread of the pool's own.
    pub size: usize,
    /// Whether a machine keeps its state from call to call, which is quicker: a call then finds what the
    /// calls before it on the same machine have left.
    pub keep: bool,
    /// How long the guest has to become ready, and for each call; `None` is for ever.
    pub timeout: Option<Duration>,
    /// Whether each reply has the time that every part of the call took.
    pub timed: bool,
}

impl Default for PoolOptions {
    /// One machine, put back after each call, without a limit of time.
    fn default() -> Self {
        Self {
            size: 1,
            keep: false,
            timeout: None,
            timed: false,
        }
    }
}

/// What a function replied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it printed, up to 1 MiB; what a function prints that fails goes to the guest's log.
    pub console: Vec<u8>,
    /// What the call was spent on, if the pool is [timed](PoolOptions::timed).
    pub phases: Option<Phases>,
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A guest that is called cannot have this.
    #[error("a guest that is called cannot have {0}: `chiton run` gives it to one that runs")]
    Refused(&'static str),
    /// The guest ended before it was ready, or has nothing to do with calls.
    #[error("the guest never became ready to be called: {}", words_of(.0))]
    NotReady(Ending),
    /// The guest was ready, and its record is wrong.
    #[error("the guest is ready to be called with {0}")]
    Record(&'static str),
    /// A device cannot be put back into the state in which it was when the guest was ready.
    #[error("the guest is ready to be called with a device that cannot be put back: {0}")]
    Device(#[from] chiton_core::devices::NotSaved),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] Error),
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request does not fit. The guest was not called.
    #[error("the request has {len} bytes, and the guest has room for {room}")]
    TooLong {
        /// How many it has.
        len: u64,
        /// How many fit.
        room: u64,
    },
    /// The function says that it failed, with this number and these words.
    #[error("the function failed with {code}: {}", String::from_utf8_lossy(.words).escape_debug())]
    Failed {
        /// The function's own number, not 0.
        code: u32,
        /// What it had to say.
        words: Vec<u8>,
    },
    /// The guest ended instead of replying. Another machine takes its place.
    #[error("the guest did not reply: {}", words_of(.0))]
    Ended(Ending),
    /// The guest rang with a record that is wrong. Another machine takes its place.
    #[error("the guest rang for {0}")]
    Record(&'static str),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] Error),
}

impl CallError {
    /// Whether the machine can be called again, once it has been put back.
    const fn leaves_machine(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::Failed { .. })
    }
}

/// An ending in words.
fn words_of(ending: &Ending) -> String {
    match ending {
        Ending::Exit(code) => format!("it ended with code {code}"),
        Ending::Panic { message, place } => format!("it panicked: {message}\n{place}"),
        Ending::Fault { report } => report.clone(),
        Ending::Timeout { limit, place } => format!("its time of {limit:?} was up\n{place}"),
        other => format!("{other:?}"),
    }
}

/// Machines that are ready to be called, from any thread.
pub struct Pool(Arc<Shared>);

/// What callers and the keeper share.
struct Shared {
    template: Arc<Template>,
    options: PoolOptions,
    state: Mutex<State>,
    /// A machine is idle, or there will be none.
    idle: Condvar,
    /// The keeper has something to do.
    work: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Worker>,
    /// Machines that are, or are being made.
    machines: usize,
    limits: Vec<Weak<Limit>>,
    /// Machines that are of no use any more.
    spent: Vec<Worker>,
    /// Why the keeper could not make one.
    failed: Option<Error>,
    closed: bool,
}

impl State {
    fn add(&mut self, worker: Worker) {
        self.limits.push(Arc::downgrade(worker.limit()));
        self.idle.push(worker);
    }

    /// A machine that is idle: the one that this thread used last, if there is one.
    fn take(&mut self) -> Option<Worker> {
        let home = self.idle.iter().rposition(Worker::is_at_home);
        home.map(|index| self.idle.swap_remove(index))
            .or_else(|| self.idle.pop())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Starts the guest, waits until it is ready, and makes the first machine.
    ///
    /// # Errors
    ///
    /// Any [`PoolError`].
    pub fn new(guest: Guest, options: PoolOptions) -> Result<Self, PoolError> {
        let template = Arc::new(Template::new(guest, options.timeout)?);
        let options = PoolOptions {
            size: options.size.max(1),
            ..options
        };
        let mut state = State::default();
        state.add(Worker::new(&template)?);
        state.machines = 1;
        let shared = Arc::new(Shared {
            template,
            options,
            state: Mutex::new(state),
            idle: Condvar::new(),
            work: Condvar::new(),
        });
        keeper::start(&shared)?;
        Ok(Self(shared))
    }

    /// Calls the function, on this thread; waits for a machine if all are at work.
    ///
    /// # Errors
    ///
    /// Any [`CallError`].
    pub fn call(&self, request: &[u8]) -> Result<Reply, CallError> {
        let shared = &*self.0;
        let mut worker = self.take()?;
        let mut result = if shared.options.timed {
            worker.call_timed(request)
        } else {
            worker.call(request).map(|bytes| Reply {
                bytes,
                console: Vec::new(),
                phases: None,
            })
        };
        match &mut result {
            Ok(reply) => reply.console = worker.take_output(),
            Err(_) => shared.template.log.print(&worker.take_output()),
        }
        let replied = result.as_ref().err().is_none_or(CallError::leaves_machine);
        let whole = match (replied, shared.options.keep) {
            (false, _) => false,
            (true, true) => true,
            // Ring 0 has registers in which it could leave something, and that nobody can list.
            (true, false) if shared.template.ring_0 => false,
            (true, false) => {
                let began = Instant::now();
                let pages = worker.put_back();
                if let (
                    Ok(Reply {
                        phases: Some(phases), ..
                    }),
                    Ok(pages),
                ) = (&mut result, &pages)
                {
                    (phases.reset, phases.pages) = (began.elapsed(), *pages);
                }
                pages.is_ok()
            }
        };
        self.give_back(worker, whole);
        result
    }

    /// How many bytes a request may have.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.0.template.call.room
    }

    /// Waits until all machines that the pool may have are made.
    ///
    /// # Errors
    ///
    /// [`CallError::Host`] if one could not be made.
    pub fn fill(&self) -> Result<(), CallError> {
        let shared = &*self.0;
        let mut state = shared.lock();
        while state.idle.len() < shared.options.size {
            if let Some(error) = state.failed.take() {
                // Whoever asks again has the keeper try again.
                shared.work.notify_one();
                return Err(error.into());
            }
            state = shared.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// The first address at which the memory of an idle machine is another than when the guest was ready, if there is
    /// one: for who does not believe it. All of it is read, which takes its time.
    ///
    /// # Errors
    ///
    /// [`CallError::Host`] if there is no machine.
    pub fn first_difference(&self) -> Result<Option<u64>, CallError> {
        let worker = self.take()?;
        let difference = worker.first_difference();
        self.give_back(worker, true);
        Ok(difference)
    }

    fn take(&self) -> Result<Worker, CallError> {
        let shared = &*self.0;
        let mut state = shared.lock();
        loop {
            if let Some(mut worker) = state.take() {
                worker.thread = Some(std::thread::current().id());
                return Ok(worker);
            }
            if state.machines == 0
                && let Some(error) = state.failed.take()
            {
                shared.work.notify_one();
                return Err(error.into());
            }
            state = shared.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, worker: Worker, whole: bool) {
        let mut state = self.0.lock();
        if whole {
            state.idle.push(worker);
            drop(state);
            self.0.idle.notify_all();
            return;
        }
        // It takes its time to take a machine down: nobody who calls waits for it.
        state.machines -= 1;
        state.spent.push(worker);
        drop(state);
        self.0.work.notify_one();
        // If it was the last, and no other can be made, whoever waits is told so.
        self.0.idle.notify_all();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_one();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

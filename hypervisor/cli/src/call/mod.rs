//! `chiton call`: a guest that is a function, called once or many times.

mod jail;
mod options;
mod summary;

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chiton_core::machine::status;
use chiton_kvm::host::stderr;
use chiton_kvm::platform::open_kvm;
use chiton_kvm::{CallError, Ending, Guest, Pool, PoolError, PoolOptions};
use chiton_shared::call;

pub(crate) use options::CallOptions;
use summary::Summary;

/// A request that no guest takes.
#[derive(Debug, thiserror::Error)]
#[error("the request is longer than {} MiB, which is more than any guest takes", call::MAX >> 20)]
struct TooLong;

/// Calls, and tells the status for a shell.
pub(crate) fn run(options: &CallOptions, verbose: u8) -> Result<u8, Box<dyn Error>> {
    let mut words = options.guest.iter();
    let path = Path::new(words.next().map_or("", String::as_str));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let guest = Guest::open(path)?;
    let kvm = open_kvm(&options.kvm)?;
    let kvm_fd = kvm.as_raw_fd();
    let mut guest = guest
        .open_kvm(kvm)
        .memory(options.memory)
        .log(Some(crate::run::level(verbose)), {
            let name = name.clone();
            move |line| stderr::write_line(&format!("{name}: {line}"), Duration::ZERO)
        });
    guest = words.fold(guest, Guest::arg);
    guest = options.env.iter().fold(guest, Guest::env);
    if let Some(ring) = options.ring {
        guest = guest.ring(ring.into());
    }
    let request = request(options)?;
    let work = || calls(options, &name, guest, &request, verbose);
    if options.without_jail() {
        return work();
    }
    jail::run(kvm_fd, || match work() {
        Ok(status) => status,
        Err(error) => {
            crate::report(error.as_ref(), verbose);
            crate::FAILED
        }
    })
}

/// The request's bytes.
fn request(options: &CallOptions) -> Result<Vec<u8>, Box<dyn Error>> {
    if let Some(text) = &options.input {
        return Ok(text.clone().into_bytes());
    }
    let mut bytes = Vec::new();
    let most = call::MAX + 1;
    match &options.file {
        Some(path) => {
            let named = |error: io::Error| format!("cannot read the request {}: {error}", path.display());
            let file = File::open(path).map_err(named)?;
            file.take(most).read_to_end(&mut bytes).map_err(named)?;
        }
        None => {
            io::stdin().lock().take(most).read_to_end(&mut bytes)?;
        }
    }
    if bytes.len() as u64 == most {
        return Err(TooLong.into());
    }
    Ok(bytes)
}

/// The calls of all threads.
fn calls(options: &CallOptions, name: &str, guest: Guest, request: &[u8], verbose: u8) -> Result<u8, Box<dyn Error>> {
    let size = u64::from(options.parallel).min(options.times);
    let pool = Pool::new(
        guest,
        PoolOptions {
            size: size as usize,
            keep: options.warm,
            timeout: options.timeout,
            timed: false,
        },
    );
    let pool = match pool {
        Err(PoolError::NotReady(Ending::Exit(code))) => {
            return Err(NeverReady(name.to_owned(), code).into());
        }
        other => other?,
    };
    if options.times > 1 {
        pool.fill()?;
    }
    let left = AtomicU64::new(options.times);
    let began = Instant::now();
    let one = || {
        let mut summary = Summary::default();
        while left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
        {
            let began = Instant::now();
            let result = pool.call(request);
            summary.add(began.elapsed(), result);
        }
        summary
    };
    let mut summary = thread::scope(|scope| {
        let threads: Vec<_> = (1..size).map(|_| scope.spawn(one)).collect();
        let own = one();
        threads.into_iter().fold(own, |sum, thread| match thread.join() {
            Ok(more) => sum.and(more),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    });
    let took = began.elapsed();
    if let Some(error) = &summary.error {
        crate::report(error, verbose);
    }
    let status = summary.error.as_ref().map_or(0, status_of);
    if options.json {
        crate::say(&format!("{}\n", summary.json(name, options, took)))?;
    } else if let Some(reply) = &summary.reply {
        crate::say_bytes(reply)?;
    }
    Ok(status)
}

/// A guest that ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("{0} ended with code {1} instead of waiting for a call: is it a function? `chiton run` runs any guest")]
struct NeverReady(String, u32);

/// The status for a shell of a call without a reply: a function's own number, else as `chiton run` has it.
fn status_of(error: &CallError) -> u8 {
    match error {
        CallError::Failed { code, .. } => (*code as u8).max(1),
        CallError::Ended(Ending::Exit(_)) | CallError::Record(_) => status::FAULT,
        CallError::Ended(ending) => ending.status(),
        CallError::TooLong { .. } | CallError::Host(_) => crate::FAILED,
    }
}

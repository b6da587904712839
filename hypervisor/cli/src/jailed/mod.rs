//! `chiton run` with a jail round the guest: the whole way, from options to the end.
//!
//! ```text
//!  options ─▶ Source (file, or image and its layers)
//!          ─▶ instance in the record ─▶ supervisor: this process, or with --detach one of its own
//!                                         └─▶ Machine::start: cgroup, network, ids, descriptors
//!                                               └─▶ jail (clone3) ─▶ the guest, in that process
//! ```

mod descriptors;
mod detach;
mod inside;
mod joined;
mod machine;
mod names;
pub(crate) mod options;
mod parts;
mod report;
mod source;
mod start;
mod updates;

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use chiton_container::instance::{Home, Instance, InstanceError, Live, Outputs, Spec, Supervisor};
use serde_json::json;

use crate::options::RunOptions;
use crate::phases;
use machine::Machine;
use source::Source;

pub(crate) use machine::CONTROL;
pub(crate) use parts::{cgroups, ranges, sweep_all};
pub(crate) use start::{RestartOptions, StartOptions, restart, start};
pub(crate) use updates::{remember, words as words_of_update};

/// How many of those that may be dead are looked at before a start: a start takes no longer because many
/// live.
const SWEPT: usize = 16;

/// Makes an instance and runs it. Comes back if it goes on in the background.
pub(crate) fn run(options: RunOptions, verbose: u8, began: Instant) -> Result<(), Box<dyn Error>> {
    let home = crate::instance::open()?;
    parts::sweep(&home, SWEPT)?;
    phases::mark("options, sweep");
    let (spec, source) = specify(&home, &options, !options.jail.detach)?;
    let (instance, live) = if options.jail.detach {
        (home.create(spec)?, None)
    } else {
        let (instance, live) = home.begin(spec)?;
        (instance, Some(live))
    };
    phases::mark("make record");
    // Whoever could not be started is of no use to anybody.
    let undo = |error| {
        let _ = home.remove(&instance);
        error
    };
    supervise(&instance, options, verbose, began, Some(New { source, live })).map_err(undo)?;
    Ok(crate::say(&format!("{}\n", instance.id()))?)
}

/// Of an instance that is new.
struct New {
    /// What was found for it.
    source: Source,
    /// The mark of this process as its supervisor, of one that was [begun](Home::begin) only.
    live: Option<Live>,
}

/// What an instance is to be; `now` if it is to run before the caller's eyes.
fn specify(home: &Home, options: &RunOptions, now: bool) -> Result<(Spec, Source), Box<dyn Error>> {
    let source = Source::of(options, None)?;
    source.check_jail(options)?;
    if !now {
        // Nobody is there any more when the guest's host says what is wrong with it.
        source.check(options)?;
    }
    let name = match &options.jail.name {
        Some(name) => name.clone(),
        None => home.free_name()?,
    };
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let spec = Spec {
        image: source.image_name(),
        image_digest: source.image_digest(),
        command: options.guest.clone(),
        restart: options.jail.restart,
        remove: options.jail.rm,
        labels: options.jail.label.clone(),
        // What is started again is what was asked for, word by word.
        options: json!({ "arguments": arguments, "directory": std::env::current_dir()? }),
        ..Spec::new(name)
    };
    Ok((spec, source))
}

/// Makes an instance, and prints its ID.
pub(crate) fn create_only(options: &RunOptions) -> Result<(), Box<dyn Error>> {
    let home = crate::instance::open()?;
    let (spec, _) = specify(&home, options, false)?;
    let instance = home.create(spec)?;
    Ok(crate::say(&format!("{}\n", instance.id()))?)
}

/// Supervises an instance to its end. Comes back only if that goes on in the background. One that is new and cannot be
/// run is removed.
fn supervise(
    instance: &Instance,
    options: RunOptions,
    verbose: u8,
    began: Instant,
    new: Option<New>,
) -> Result<(), Box<dyn Error>> {
    if let Some(lack) = parts::lack_of_cgroups(&options.jail.limits) {
        crate::complain(&lack);
    }
    if let Some(lack) = new
        .as_ref()
        .map(|new| new.source.lack_of_owners())
        .transpose()?
        .flatten()
    {
        crate::complain(&lack);
    }
    if options.jail.detach {
        return detach::run(verbose, |started| {
            run_here(instance, options, verbose, began, None, new, started)
        });
    }
    let terminal = [dup(&std::io::stdout())?, dup(&std::io::stderr())?];
    let code = run_here(instance, options, verbose, began, Some(terminal), new, Box::new(|| {}))?;
    std::process::exit(code)
}

fn run_here(
    instance: &Instance,
    options: RunOptions,
    verbose: u8,
    began: Instant,
    terminal: Option<[OwnedFd; 2]>,
    new: Option<New>,
    started: Box<dyn FnOnce()>,
) -> Result<i32, Box<dyn Error>> {
    // In the background nobody is told why it could not be run but by its record.
    let forget = new.is_some() && !options.jail.detach;
    let (found, live) = new.map_or((None, None), |new| (Some(new.source), new.live));
    let is_registered = live.is_none();
    let live = live.map_or_else(|| instance.claim(), Ok)?;
    let outputs = Outputs::new(terminal).wait_at_most(options.timeout);
    let mut machine = Machine::new(instance, options, found, verbose, began)?;
    machine.is_registered = is_registered;
    let supervisor = Supervisor::new(instance.clone(), live, outputs)?;
    phases::mark("begin record");
    let exit = supervisor.run(&mut machine, |_| started())?;
    phases::mark("end record");
    phases::tell_of_supervisor();
    machine.tell(&exit);
    if forget && !instance.spec().remove && machine.was_refused(&exit) {
        // It has told why.
        instance.home().remove(instance)?;
    }
    Ok(exit.code)
}

fn dup(fd: &impl AsFd) -> std::io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

/// An instance that runs, by what its user calls it; its process.
pub(crate) fn process_of(target: &str) -> Result<i32, InstanceError> {
    let instance = crate::instance::open()?.find(target)?;
    let state = instance.state()?;
    let pid = state
        .pid
        .filter(|_| state.status.is_live())
        .and_then(|pid| i32::try_from(pid).ok());
    pid.ok_or_else(|| instance.wrong(state.status, "its namespaces are gone; start it first"))
}

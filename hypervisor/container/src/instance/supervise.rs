//! The parent of an instance: from its start, through restarts, to its end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::home::{Mark, Removal};
use super::output::{PIECE, Taken};
use super::spare::Left;
use super::{
    EventKind, Exit, Instance, InstanceError, Killer, Live, Outputs, RestartPolicy, State, Status, Stream, Time,
};

/// How long output is waited for that a process left in its pipes; a process that it leaves behind may
/// hold them open for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How often its pipes are looked at by then, however late this process gets to it: so many pieces are more than they
/// hold.
const LOOKS: usize = (64 << 10) / PIECE + 1;

/// The status of what ended in time, but for its output, which nobody read: as of `timeout(1)`.
const TIMED_OUT: i32 = 124;

/// The signals that are passed on.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// A process that was started for an instance.
#[derive(Debug)]
pub struct Child {
    /// Its number, as the host has it.
    pub pid: u32,
    /// Its descriptor.
    pub pidfd: OwnedFd,
    /// Where its input is written to, if it comes from here.
    pub stdin: Option<OwnedFd>,
    /// Where its output is read from, if it goes here.
    pub stdout: Option<OwnedFd>,
    /// Where its errors are read from, likewise.
    pub stderr: Option<OwnedFd>,
}

/// What runs as an instance.
pub trait Payload {
    /// Why it could not be started, or taken down.
    type Error: From<InstanceError>;

    /// Starts it. The signals that are passed on are blocked in this thread: the new process unblocks them, or reads
    /// them when it is ready to.
    ///
    /// # Errors
    ///
    /// The instance ends then, and no policy starts it again.
    fn start(&mut self, instance: &Instance) -> Result<Child, Self::Error>;

    /// Who killed it; called if it was ended by this signal.
    fn killer(&mut self, signal: i32) -> Killer {
        Killer::Signal(signal)
    }

    /// Who killed what ran in it, if its process ended with this status for that reason: one that minds another says how
    /// that ended by its status alone.
    fn killer_of_minded(&mut self, _status: i32) -> Option<Killer> {
        None
    }

    /// Whether its process keeps both of its outputs open until it ends, so that the end of both is its own.
    fn ends_with_its_output(&self) -> bool {
        false
    }

    /// What is readable when it asks its supervisor for something.
    fn asks(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Answers what it asked, without waiting for anything.
    fn answer(&mut self) {}

    /// Takes down what was made for a start; called after each end, and after a start that failed.
    ///
    /// # Errors
    ///
    /// The instance ends then.
    fn take_down(&mut self, instance: &Instance) -> Result<(), Self::Error>;
}

/// The supervisor of an instance: this process.
#[derive(Debug)]
pub struct Supervisor {
    instance: Instance,
    live: Live,
    outputs: Outputs,
    signals: SignalFd,
    state: State,
    /// What is left of its record, if that is being removed.
    removal: Option<Removal>,
}

impl Supervisor {
    /// Takes over an instance. The signals to be passed on are blocked in the calling thread from now on.
    ///
    /// # Errors
    ///
    /// [`InstanceError::System`].
    pub fn new(instance: Instance, live: Live, outputs: Outputs) -> Result<Self, InstanceError> {
        let mask = PASSED_ON.into_iter().collect::<SigSet>();
        mask.thread_block().map_err(InstanceError::system("block signals"))?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags).map_err(InstanceError::system("read signals"))?;
        instance.mark(Mark::Stop, false)?;
        instance.mark(Mark::Paused, false)?;
        Ok(Self {
            instance,
            live,
            outputs,
            signals,
            state: State {
                supervisor: Some(std::process::id()),
                ..State::default()
            },
            removal: None,
        })
    }

    /// Runs it to its end, and again as long as its policy says; `started` is called when it runs for the
    /// first time.
    ///
    /// # Errors
    ///
    /// Of the payload, or of the record. The instance has ended then, too.
    pub fn run<P: Payload>(mut self, payload: &mut P, started: impl FnOnce(&Instance)) -> Result<Exit, P::Error> {
        let mut started = Some(started);
        let result = self.run_all(payload, &mut started);
        let written = self.outputs.end();
        if let Some(removal) = self.removal.take() {
            self.instance.home().end_removal(&self.instance, removal, self.live)?;
            written?;
            return result;
        }
        if result.is_ok() && self.instance.spec().remove {
            // Its record goes with it.
            self.instance.home().remove_claimed(&self.instance, self.live)?;
            written?;
            return result;
        }
        // However it came to its end, the record says that it did.
        let ended = self.end_record();
        let exit = result?;
        ended.and(written)?;
        self.live.end()?;
        Ok(exit)
    }

    fn run_all<P: Payload>(
        &mut self,
        payload: &mut P,
        started: &mut Option<impl FnOnce(&Instance)>,
    ) -> Result<Exit, P::Error> {
        let mut pause = None;
        loop {
            let began = Instant::now();
            let exit = self.run_once(payload, started)?;
            if self.removal.is_some() {
                return Ok(exit);
            }
            // It may have another name or policy by now.
            self.instance.reload()?;
            let policy = self.instance.spec().restart;
            let again = policy.applies(exit.code, self.state.restarts) && !self.instance.is_marked(Mark::Stop);
            if !again {
                return Ok(exit);
            }
            let wait = RestartPolicy::pause(pause, began.elapsed());
            pause = Some(wait);
            self.state.status = Status::Restarting;
            self.instance.mark(Mark::Paused, false)?;
            self.state.restarts += 1;
            self.instance.set_state(&self.state)?;
            if self.told_to_end(wait)? {
                return Ok(exit);
            }
            self.instance
                .event(EventKind::Restart, self.state.restarts.to_string())?;
        }
    }

    fn run_once<P: Payload>(
        &mut self,
        payload: &mut P,
        started: &mut Option<impl FnOnce(&Instance)>,
    ) -> Result<Exit, P::Error> {
        let child = match payload.start(&self.instance) {
            Ok(child) => child,
            Err(error) => {
                // The first error says why; a second one would only hide it.
                let _ = payload.take_down(&self.instance);
                return Err(error);
            }
        };
        self.state.status = Status::Running;
        self.state.pid = Some(child.pid);
        self.state.started = Some(Time::now());
        let recorded = self
            .outputs
            .begin(&self.instance)
            .and_then(|()| self.instance.set_state(&self.state))
            .and_then(|()| self.instance.event(EventKind::Start, String::new()));
        if let (Ok(()), Some(started)) = (&recorded, started.take()) {
            started(&self.instance);
        }
        if recorded.is_err() {
            let _ = pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
        }
        let (code, signal) = self.attend(child, payload)?;
        let killer = match signal {
            Some(signal) => Some(payload.killer(signal)),
            None => payload.killer_of_minded(code),
        };
        let down = payload.take_down(&self.instance);
        let exit = Exit {
            code,
            killer,
            at: Time::now(),
        };
        if let Some(Killer::OutOfMemory(how)) = &exit.killer {
            self.instance.event(EventKind::Oom, how.clone())?;
        }
        self.instance.event(EventKind::Die, exit.code.to_string())?;
        self.state.exit = Some(exit.clone());
        self.state.pid = None;
        recorded?;
        down?;
        Ok(exit)
    }

    fn end_record(&mut self) -> Result<(), InstanceError> {
        (self.state.status, self.state.pid, self.state.supervisor) = (Status::Exited, None, None);
        if self.state.exit.is_none() {
            // It never ran.
            self.state.status = Status::Created;
        }
        self.instance.mark(Mark::Paused, false)?;
        self.instance.set_state(&self.state)
    }

    /// Begins to remove the record of one that is at its end, if it is to be removed, while the kernel takes down the
    /// process: that has nothing to do with it any more.
    fn part(&mut self, child: &Child) -> Result<(), InstanceError> {
        self.instance.reload()?;
        if self.instance.spec().remove && self.instance.spec().restart == RestartPolicy::No {
            // One that closed its outputs and goes on must not go on unseen. That of one that ends is settled.
            let _ = pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
            self.removal = Some(self.instance.home().begin_removal(&self.instance)?);
        }
        Ok(())
    }

    /// Passes output, input and signals on until the process has ended; its status, and the signal that
    /// ended it.
    fn attend(&mut self, mut child: Child, payload: &mut impl Payload) -> Result<(i32, Option<i32>), InstanceError> {
        const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];
        let mut last = [false; 2];
        let mut open = [child.stdout.take(), child.stderr.take()];
        let mut ended: Option<((i32, Option<i32>), Instant)> = None;
        let (mut told, mut looks) = (false, 0);
        let mut left = Left::of(self.instance.dir());
        loop {
            if let Some((status, at)) = &mut ended {
                let behind = STREAMS.iter().any(|stream| self.outputs.is_behind(*stream));
                if behind && self.outputs.time_is_up() {
                    return Ok((TIMED_OUT, None));
                }
                // Who reads late gets all, unless there is a hurry.
                if behind && !told && status.1.is_none() {
                    (*at, looks) = (Instant::now(), 0);
                } else if !behind && open.iter().all(Option::is_none) || at.elapsed() > LAST_WORDS && looks >= LOOKS {
                    return Ok(*status);
                }
            }
            let idle = left.is_some() && ended.is_none();
            let ready = self.wait(&child, &open, payload.asks(), ended.is_some(), idle)?;
            if ready.nothing && idle {
                left.clear_one();
                continue;
            }
            if ready.asks {
                payload.answer();
            }
            let lead = self.outputs.serve();
            for (stream, fd) in STREAMS.into_iter().zip(&mut open) {
                let at = stream as usize;
                let more = match fd {
                    Some(from) if lead[at] && ready.streams[at] => {
                        let taken = self.outputs.take(from, stream);
                        last[at] = taken == Taken::Last;
                        taken == Taken::Some
                    }
                    _ => lead[at],
                };
                if !more {
                    // Whoever writes more into it hears that nobody reads.
                    *fd = None;
                }
            }
            if ended.is_some() {
                looks += if ready.nothing { LOOKS } else { 1 };
            }
            if let Some(stdin) = &child.stdin {
                self.outputs.feed(stdin);
            }
            while let Ok(Some(signal)) = self.signals.read_signal() {
                if let Some(signal) = rustix::process::Signal::from_named_raw(signal.ssi_signo.cast_signed()) {
                    told |= signal != rustix::process::Signal::WINCH;
                    // It may have ended meanwhile.
                    let _ = pidfd_send_signal(&child.pidfd, signal);
                }
            }
            if payload.ends_with_its_output() && last == [true; 2] && ended.is_none() && self.removal.is_none() {
                last = [false; 2];
                // What goes wrong now is told when it is tried again, at the end.
                let _ = self.part(&child);
            }
            if ended.is_none() && ready.ended {
                ended = Some((reap(&child.pidfd)?, Instant::now()));
            }
        }
    }

    /// Waits for anything to happen, or looks whether it has.
    fn wait(
        &self,
        child: &Child,
        open: &[Option<OwnedFd>; 2],
        asks: Option<BorrowedFd<'_>>,
        ended: bool,
        look: bool,
    ) -> Result<Ready, InstanceError> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if !ended {
            fds.push(PollFd::new(&child.pidfd, PollFlags::IN));
        }
        let streams = [Stream::Stdout, Stream::Stderr].map(|stream| {
            let fd = open[stream as usize].as_ref()?;
            (!self.outputs.is_behind(stream)).then(|| {
                fds.push(PollFd::new(fd, PollFlags::IN));
                fds.len() - 1
            })
        });
        let asks = asks.map(|asks| {
            fds.push(PollFd::from_borrowed_fd(asks, PollFlags::IN));
            fds.len() - 1
        });
        if let Some(stdin) = child.stdin.as_ref().filter(|_| self.outputs.has_input()) {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        fds.extend(
            self.outputs
                .watched()
                .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)),
        );
        let limit = if look {
            Some(Duration::ZERO)
        } else {
            ended.then_some(LAST_WORDS)
        };
        let nothing = match poll(&mut fds, limit.map(timespec).as_ref()) {
            Ok(count) => count == 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(error) => return Err(InstanceError::system("wait for an instance")(error)),
        };
        let is_ready = |at: usize| !fds[at].revents().is_empty();
        Ok(Ready {
            nothing,
            ended: !ended && is_ready(1),
            streams: streams.map(|at| at.is_some_and(is_ready)),
            asks: asks.is_some_and(is_ready),
        })
    }

    /// Waits for so long, or until somebody wants the instance to end.
    fn told_to_end(&self, wait: Duration) -> Result<bool, InstanceError> {
        let end = Instant::now() + wait;
        loop {
            if self.instance.is_marked(Mark::Stop) || matches!(self.signals.read_signal(), Ok(Some(_))) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // Whoever asks for the end does so by a file and then by a signal.
            let mut fds = [PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(InstanceError::system("wait for a restart")(error)),
            }
        }
    }
}

struct Ready {
    /// Nothing has happened.
    nothing: bool,
    ended: bool,
    streams: [bool; 2],
    asks: bool,
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// The status of a process that has ended, as a shell would have it, and the signal that ended it.
fn reap(pidfd: &OwnedFd) -> Result<(i32, Option<i32>), InstanceError> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let signal = status.terminating_signal();
                let code = signal.map_or_else(|| status.exit_status().unwrap_or(0), |signal| 128 + signal);
                return Ok((code, signal));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(InstanceError::system("wait for an instance")(error)),
        }
    }
}

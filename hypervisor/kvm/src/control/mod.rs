//! Control of a running guest.
//!
//! ```text
//!  another thread ── Control (a handle) ──────────────┐
//!                                                     ├──▶ Hub: devices, processors, news
//!  another process ── socket ── Server ── protocol ───┘
//!   (`chiton stats`)            in the device loop's epoll
//! ```
//!
//! A guest that nobody wants to control has neither: no socket, no descriptor, no thread.

mod client;
pub(crate) mod gate;
mod lines;
pub mod protocol;
pub(crate) mod server;
mod state;

pub(crate) use state::kind;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use chiton_core::devices::Limits;
use chiton_shared::virtio::id;

use crate::hub::Hub;
use crate::snapshot::take::{Take, Taken};
pub use client::{Client, ClientError};
pub use lines::Lines;
use protocol::{Answer, ConsoleSize, Parent, Request, Settings, State, ZeroRate};
pub use server::{ControlSocket, ControlSocketError, NamelessControl};

/// Why something was not done to a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The guest has not been started, or has ended.
    #[error("the guest is not running")]
    NotRunning,
    /// There is no such device.
    #[error("there is no {kind} {number}: {}", counted(*.count))]
    NoDevice {
        /// What was looked for.
        kind: &'static str,
        /// Which.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// It is a device without limits.
    #[error("{kind} {number} takes no rate limits")]
    NoLimits {
        /// What it is.
        kind: &'static str,
        /// Which.
        number: usize,
    },
    /// A limit is zero.
    #[error(transparent)]
    ZeroRate(#[from] ZeroRate),
    /// There is no balloon.
    #[error("the guest has no balloon: start it with --balloon")]
    NoBalloon,
    /// More than the guest's memory.
    #[error("the balloon cannot hold {asked} bytes: the guest has {memory}")]
    BalloonSize {
        /// How much was asked for, in bytes.
        asked: u64,
        /// How much there is, in bytes.
        memory: u64,
    },
    /// A console of nothing.
    #[error("a console of {columns} columns and {rows} rows shows nothing: write at least 1 and 1")]
    ConsoleSize {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
}

/// A handle on a guest: got by [`Guest::control`](crate::Guest::control), and usable by any
/// thread from the guest's start to its end.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Mutex<Weak<Hub>>>);

impl Control {
    /// The guest has been started.
    pub(crate) fn attach(&self, hub: &Arc<Hub>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(hub);
    }

    fn hub(&self) -> Result<Arc<Hub>, ControlError> {
        let hub = self.0.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        hub.filter(|hub| !hub.is_over()).ok_or(ControlError::NotRunning)
    }

    /// Replaces the rate limits of a disk.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub fn set_disk_limits(&self, number: usize, limits: Limits) -> Result<(), ControlError> {
        set_limits(&*self.hub()?, id::BLOCK, number, limits)
    }

    /// Replaces the rate limits of a network interface.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub fn set_net_limits(&self, number: usize, limits: Limits) -> Result<(), ControlError> {
        set_limits(&*self.hub()?, id::NET, number, limits)
    }

    /// How much memory the host would like to have in the balloon, in bytes, rounded down to whole
    /// pages. The guest is told, and does as it pleases.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub fn set_balloon(&self, bytes: u64) -> Result<(), ControlError> {
        set_balloon(&*self.hub()?, bytes)
    }

    /// The size of the console from now on, instead of its terminal's.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub fn set_console_size(&self, columns: u16, rows: u16) -> Result<(), ControlError> {
        set_console_size(&*self.hub()?, ConsoleSize { columns, rows })
    }

    /// How things are.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotRunning`].
    pub fn state(&self) -> Result<State, ControlError> {
        Ok(state::of(&*self.hub()?))
    }

    /// Asks the guest to end, and ends it after `timeout` if it has not done so by then.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotRunning`].
    pub fn stop(&self, timeout: Option<Duration>) -> Result<(), ControlError> {
        self.hub()?.ask_to_stop(timeout);
        Ok(())
    }

    /// Holds every processor: each stops at its next exit, which this causes. Devices finish what
    /// they were given. The guest's clocks go on, so that for the guest time jumps.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotRunning`].
    pub fn pause(&self) -> Result<(), ControlError> {
        self.hub()?.pause();
        Ok(())
    }

    /// Lets the processors go on.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotRunning`].
    pub fn resume(&self) -> Result<(), ControlError> {
        self.hub()?.resume();
        Ok(())
    }
}

/// How many devices of a kind there are, in words.
fn counted(count: usize) -> String {
    match count {
        0 => "the guest has none".into(),
        1 => "the guest has one, number 0".into(),
        _ => format!("the guest has {count}, counted from 0"),
    }
}

/// Does what was asked through a socket.
fn answer(hub: &Hub, request: &Request, file: Option<OwnedFd>) -> Answer {
    let done = match request {
        Request::Query {} => return Answer::State(Box::new(state::of(hub))),
        Request::Snapshot { parent, track, stop } => return snapshot(hub, parent.as_ref(), *track, *stop, file),
        Request::Set(settings) => set(hub, settings),
        Request::Stop { timeout_ms } => {
            hub.ask_to_stop(timeout_ms.map(Duration::from_millis));
            Ok(())
        }
        Request::Pause {} => {
            hub.pause();
            Ok(())
        }
        Request::Resume {} => {
            hub.resume();
            Ok(())
        }
    };
    match done {
        Ok(()) => Answer::Done {},
        Err(error) => Answer::Error(error.to_string()),
    }
}

fn snapshot(hub: &Hub, parent: Option<&Parent>, track: bool, stop: bool, file: Option<OwnedFd>) -> Answer {
    let Some(file) = file.map(File::from) else {
        return Answer::Error("no snapshot: no file came with the line".into());
    };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Answer::Error("no snapshot: what came with the line is not a regular file".into());
    }
    let take = Take {
        parent: parent.map(|parent| (parent.id.to_be_bytes(), parent.path.clone())),
        track,
        stop,
    };
    match hub.take_snapshot(&file, &take) {
        Ok(Taken { id, memory, written }) => Answer::Snapshot {
            id: u128::from_be_bytes(id),
            memory,
            written,
        },
        Err(error) => Answer::Error(error.to_string()),
    }
}

/// Changes one thing after the other, up to the first that cannot be changed.
fn set(hub: &Hub, settings: &Settings) -> Result<(), ControlError> {
    for (id, devices) in [(id::BLOCK, &settings.disks), (id::NET, &settings.nets)] {
        for device in devices {
            set_limits(hub, id, device.number, device.limits.try_into()?)?;
        }
    }
    if let Some(bytes) = settings.balloon {
        set_balloon(hub, bytes)?;
    }
    if let Some(size) = settings.console {
        set_console_size(hub, size)?;
    }
    Ok(())
}

fn set_limits(hub: &Hub, id: u32, number: usize, limits: Limits) -> Result<(), ControlError> {
    let kind = state::kind(id);
    let slot = hub.slots_of(id).nth(number);
    let slot = slot.ok_or_else(|| ControlError::NoDevice {
        kind,
        number,
        count: hub.slots_of(id).count(),
    })?;
    match hub.change(slot, |transport| transport.set_limits(limits)) {
        Some(true) => Ok(()),
        _ => Err(ControlError::NoLimits { kind, number }),
    }
}

fn set_balloon(hub: &Hub, bytes: u64) -> Result<(), ControlError> {
    let (slot, balloon) = hub.balloon().ok_or(ControlError::NoBalloon)?;
    let memory = hub.ram.bytes();
    if bytes > memory {
        return Err(ControlError::BalloonSize { asked: bytes, memory });
    }
    balloon.set_target(bytes);
    hub.config_changed(slot);
    Ok(())
}

fn set_console_size(hub: &Hub, ConsoleSize { columns, rows }: ConsoleSize) -> Result<(), ControlError> {
    if columns == 0 || rows == 0 {
        return Err(ControlError::ConsoleSize { columns, rows });
    }
    if let Some((slot, size)) = hub.console_size() {
        size.set(columns, rows);
        hub.config_changed(slot);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_is_not_running_cannot_be_controlled() {
        let control = Control::default();
        let not_running = Err(ControlError::NotRunning);
        assert_eq!(control.stop(None), not_running);
        assert_eq!(control.pause(), not_running);
        assert_eq!(control.resume(), not_running);
        assert_eq!(control.set_balloon(0), not_running);
        assert_eq!(control.set_console_size(80, 25), not_running);
        assert_eq!(control.set_disk_limits(0, Limits::default()), not_running);
        assert_eq!(control.set_net_limits(0, Limits::default()), not_running);
        assert_eq!(control.state(), Err(ControlError::NotRunning));
    }
}

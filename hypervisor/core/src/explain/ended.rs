//! The end of a guest in words: the same whoever ran it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::View;
use crate::machine::End;
use crate::vcpu::Registers;

/// How a guest ended by its own doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exit(u32),
    /// By a panic.
    Panic {
        /// Its words, with the place.
        message: String,
        /// Where it was, as lines for people.
        place: String,
    },
    /// By an exception or something else it may not do; the report says which and where.
    Fault {
        /// Lines for people.
        report: String,
    },
}

/// The backend that ran a guest, where it had to give up.
#[derive(Clone, Copy, Debug)]
pub struct Backend<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it has to say of the guest it cannot go on with.
    pub why: &'a str,
}

impl View<'_> {
    /// Explains an end; `None` for a guest that was stopped, which is the doing of whoever stopped it.
    #[must_use]
    pub fn ended(&self, end: &End, registers: &Registers, backend: Backend<'_>) -> Option<Ended> {
        let place = || self.place(registers).to_string();
        let report = match end {
            End::Exit(code) => return Some(Ended::Exit(*code)),
            End::Panic { message } => {
                return Some(Ended::Panic {
                    message: message.clone(),
                    place: place(),
                });
            }
            End::Stopped | End::Asked => return None,
            End::Trap(frame) => self.fault(frame).to_string(),
            End::TripleFault => format!(
                "a triple fault: the processor could not deliver an exception\n{}",
                place()
            ),
            End::Halted => format!(
                "it executed `hlt`, and nothing can wake it: use wait() or exit()\n{}",
                place()
            ),
            End::Parked => format!(
                "it parked its first processor, and nothing can start it: use wait() or exit()\n{}",
                place()
            ),
            End::Called(_) => format!(
                "it is a function that waits to be called, and nobody calls it: use `chiton call`\n{}",
                place()
            ),
            End::EntryFailed { reason } => {
                let refused = match reason {
                    Some(reason) => format!("the processor refused to enter the guest (hardware reason {reason:#x})"),
                    None => String::from("the processor would refuse to enter the guest, so it was not tried"),
                };
                // What is broken is the backend's to say; KVM has nothing but the number.
                let lines = [refused.as_str(), backend.why.trim_end()];
                let told = lines.into_iter().filter(|line| !line.is_empty());
                format!("{}\n{}", told.collect::<Vec<_>>().join("\n"), place())
            }
            End::Broken(_) => format!("{} cannot go on: {}\n{}", backend.name, backend.why, place()),
        };
        Some(Ended::Fault { report })
    }
}

/// What is said of a guest that panicked.
pub fn panicked(name: &str, message: &str, place: &impl fmt::Display) -> String {
    // Every line but the first is indented: the guest chose the words.
    let message = message.replace('\n', "\n    ");
    format!("chiton: {name} panicked: {message}\n{place}\n")
}

/// What is said of a guest that met a fault.
pub fn met_a_fault(name: &str, report: &str) -> String {
    format!("chiton: {name} met a fault: {report}\n")
}

/// What is said of a guest that had so long and did not end.
pub fn out_of_time(name: &str, limit: Duration, place: &impl fmt::Display) -> String {
    format!("chiton: {name} did not end within {limit:?} and was stopped\n{place}\n")
}

/// What is said of requests that devices answered with a failure.
pub fn requests_failed(name: &str, count: u64) -> String {
    format!("chiton: {count} device requests of {name} failed\n")
}

//! Programs that are timed: in turn, from before `exec` to after their end, in a folder that vanishes.

mod chiton;
mod error;
mod interrupt;
mod place;
mod program;

pub use chiton::{Chiton, Programs, guest};
pub use error::TrialError;
pub use interrupt::Interrupt;
pub use place::Place;
pub use program::{Program, answer, find, interleaved};

/// What an operation of a trial returns.
pub type Result<T> = std::result::Result<T, TrialError>;

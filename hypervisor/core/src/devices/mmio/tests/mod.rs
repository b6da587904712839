//! The register block, as a driver meets it that was written from the specification alone.

mod driver;
mod hostile;
mod preset;
mod queues;
mod refusals;
mod registers;

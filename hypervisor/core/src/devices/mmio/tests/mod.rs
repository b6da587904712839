//! The register block, as a driver meets it that was written from the specification alone.

mod driver;
mod hostile;
mod kinds;
mod order;
mod overlap;
mod packed;
mod preset;
mod processors;
mod queues;
mod refusals;
mod registers;
mod reset;
mod state;

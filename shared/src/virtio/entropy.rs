//! Entropy device (section 5.4): fills the buffers it is given with random bytes. It has neither
//! features nor configuration of its own.

/// Index of the only queue.
pub const REQUEST: usize = 0;
/// How many queues there are.
pub const QUEUES: usize = 1;

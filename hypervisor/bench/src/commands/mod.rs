//! The subcommands, a file or folder each.

pub(crate) mod calls;
pub(crate) mod compare;
pub(crate) mod report;

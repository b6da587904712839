//! The subcommands, a file or folder each.

pub(crate) mod report;

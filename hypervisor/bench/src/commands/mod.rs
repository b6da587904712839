//! The subcommands, a file or folder each.

pub(crate) mod calls;
pub(crate) mod compare;
pub(crate) mod density;
pub(crate) mod exits;
pub(crate) mod jail;
pub(crate) mod machine;
pub(crate) mod nested;
pub(crate) mod report;
pub(crate) mod start;
pub(crate) mod virtio;
pub(crate) mod vs;

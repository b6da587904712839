//! Netlink (netlink(7)): messages, and a socket that sends them to the kernel and reads its answers.
//!
//! ```text
//!  ┌ nlmsghdr ┬ header of the family ┬ attribute ┬ attribute ──────────────┐
//!  │ 16 bytes │ ifinfomsg, nfgenmsg… │ len type… │ len type ┬ attribute │ … │
//!  └──────────┴──────────────────────┴───────────┴──────────┴───────────┴───┘
//! ```

mod message;
mod socket;

pub(super) use message::{Attributes, Message};
pub(super) use socket::{Family, Socket};

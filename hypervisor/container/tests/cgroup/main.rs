//! Cgroups of the machine's own kernel: v1 and hybrid on the one, v2 in the nested machine.
//!
//! They need the right to make cgroups: without it they say so and skip, and fail where
//! CHITON_STRICT is set. On a hybrid host each runs twice: as it is, and as if there were no v2.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod bed;
mod delegation;
mod limits;
mod loop_device;
mod memory;
mod processes;
mod shares;
mod table;

//! What became of many calls.

use std::io::Write;
use std::time::Duration;

use chiton_kvm::{CallError, Reply};
use serde_json::{Value, json};

use super::CallOptions;

/// The calls of one thread, or of all.
#[derive(Default)]
pub(super) struct Summary {
    /// How long each took that was replied to, in nanoseconds.
    took: Vec<u64>,
    failed: u64,
    /// The last reply.
    pub(super) reply: Option<Vec<u8>>,
    /// How many replies were another than the one before.
    changes: u64,
    /// The first failure.
    pub(super) error: Option<CallError>,
}

impl Summary {
    pub(super) fn add(&mut self, took: Duration, result: Result<Reply, CallError>) {
        match result {
            Ok(reply) => {
                self.took.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                self.changes += u64::from(self.reply.as_ref().is_some_and(|last| *last != reply.bytes));
                // Nobody to read it is no reason to stop.
                let _ = std::io::stderr().write_all(&reply.console);
                self.reply = Some(reply.bytes);
            }
            Err(error) => {
                self.failed += 1;
                self.error.get_or_insert(error);
            }
        }
    }

    /// Both together.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.took.extend(other.took);
        self.failed += other.failed;
        self.changes += other.changes;
        self.reply = self.reply.or(other.reply);
        self.error = self.error.or(other.error);
        self
    }

    pub(super) fn json(&mut self, name: &str, options: &CallOptions, took: Duration) -> Value {
        self.took.sort_unstable();
        let replies = self.took.len();
        // The least value that so many of 1000 do not exceed.
        let at = |per_mille: usize| self.took.get((replies * per_mille).div_ceil(1000).saturating_sub(1));
        json!({
            "guest": name,
            "state": if options.warm { "kept" } else { "put back" },
            "threads": options.parallel,
            "calls": replies as u64 + self.failed,
            "failed": self.failed,
            "changes": self.changes,
            "seconds": took.as_secs_f64(),
            "calls_per_second": (replies as f64 / took.as_secs_f64()).round(),
            "latency_ns": {
                "min": self.took.first(),
                "p50": at(500),
                "p90": at(900),
                "p99": at(990),
                "p99.9": at(999),
                "max": self.took.last(),
            },
            "reply": self.reply.as_ref().map(|reply| match std::str::from_utf8(reply) {
                Ok(text) => json!({ "text": text }),
                Err(_) => json!({ "bytes": reply }),
            }),
            "error": self.error.as_ref().map(ToString::to_string),
        })
    }
}

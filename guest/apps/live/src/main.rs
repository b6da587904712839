//! Says what the host changes while it runs: `live [busy]`.
//!
//! It tells when the console has another size, when the host would like to have more or less memory in
//! the balloon, when time has jumped (as it does for a guest that was paused), and when it is asked to
//! end, which it then does. In between it sleeps, or with `busy` never leaves the processor.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::{String, ToString};
use core::time::Duration;

use chiton_guest::balloon::{Balloon, BalloonError};
use chiton_guest::time::{self, Instant};
use chiton_guest::{KIB, console, env, println};

chiton_guest::entry!(main);

/// How often it looks at the clock.
const TICK: Duration = Duration::from_millis(10);

/// What is more than a busy machine takes.
const JUMP: Duration = Duration::from_secs(1);

fn main() -> Result<(), String> {
    let busy = env::args().nth(1) == Some("busy");
    let mut balloon = match Balloon::open() {
        Ok(balloon) => Some(balloon),
        Err(BalloonError::Missing) => None,
        Err(error) => return Err(error.to_string()),
    };
    let mut size = console::size();
    println!("ready");
    let mut last = Instant::now();
    while !env::stop_requested() {
        if !busy {
            time::wait(Some(last + TICK));
        }
        let now = Instant::now();
        if now > last + JUMP {
            println!("time jumped");
        }
        last = now;
        if busy {
            continue;
        }
        let new = console::size();
        if new != size {
            size = new;
            println!("console {}x{}", size.0, size.1);
        }
        if let Some(balloon) = &mut balloon {
            let before = balloon.held();
            balloon.follow().map_err(|error| error.to_string())?;
            if balloon.held() != before {
                println!("balloon {} KiB", balloon.held() as u64 / KIB);
            }
        }
    }
    println!("asked to end");
    Ok(())
}

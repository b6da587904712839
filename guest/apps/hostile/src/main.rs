//! Attacks the host's devices in every way a guest has: `hostile ATTACK [SEED] [ROUNDS]`.
//!
//! A guest that gets through its attack says so in the log and ends with code 0: what is tested is
//! whether the host is still there to hear it, and has not grown. Nothing here uses the drivers of
//! the guest library but `flood`.
#![no_std]
#![no_main]

extern crate alloc;

mod chains;
mod folder;
mod memory;
mod registers;

use chiton_guest::random::Random;
use chiton_guest::shared::doorbell;
use chiton_guest::{ExitCode, console, env, host, log};

chiton_guest::entry!(main, heap = MIB);

/// What an attack works with.
pub struct Attack {
    /// Makes the choices.
    pub random: Random,
    /// How often to try.
    pub rounds: u64,
}

/// Name, description, rounds if not said otherwise, and deed of each attack.
type Entry = (&'static str, &'static str, u64, fn(&mut Attack));

const ATTACKS: &[Entry] = &[
    (
        "rings",
        "scribble over every field of every ring, and kick",
        20_000,
        memory::rings,
    ),
    (
        "loops",
        "chains that come back to themselves, directly and in tables",
        20,
        chains::loops,
    ),
    (
        "range",
        "descriptors of memory that is not there, or not the guest's",
        3,
        chains::range,
    ),
    ("tables", "indirect tables of every wrong kind", 20, chains::tables),
    (
        "indices",
        "available indices that run ahead and heads beyond the table",
        20,
        chains::indices,
    ),
    (
        "requests",
        "well-formed chains that ask for nonsense",
        500,
        chains::requests,
    ),
    (
        "packed",
        "packed queues whose chains are wrong in every way, or anything",
        4,
        chains::packed,
    ),
    (
        "folder",
        "messages to a folder that lead out of it, or are none",
        3,
        folder::folder,
    ),
    (
        "kicks",
        "kick every doorbell with every value, queues that are not ready among them",
        200,
        registers::kicks,
    ),
    (
        "registers",
        "write and read everywhere in the register blocks, in every width",
        20_000,
        registers::scribble,
    ),
    (
        "processors",
        "start and wake processors that are not there",
        1_000,
        memory::processors,
    ),
    (
        "setup",
        "set queues up from random values, and kick",
        200,
        registers::setup,
    ),
    (
        "ports",
        "write and read the doorbells in every width",
        5_000,
        registers::ports,
    ),
    (
        "foreign-ports",
        "write and read all other ports; may end the guest",
        5_000,
        registers::foreign_ports,
    ),
    (
        "mailbox",
        "log lines of impossible length, level and encoding",
        200,
        memory::mailbox,
    ),
    ("flood", "print without end, 1 KiB a round", u64::MAX, flood),
    (
        "waits",
        "wait for no time at all, again and again",
        5_000,
        memory::waits,
    ),
    (
        "trap",
        "report a trap whose frame is not in memory; ends the guest",
        1,
        memory::trap,
    ),
    (
        "panic",
        "panic with a text of impossible length; ends the guest",
        1,
        memory::panic,
    ),
];

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let wanted = args.next().unwrap_or_default();
    let seed = args.next().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let rounds = args.next().and_then(|rounds| rounds.parse().ok());
    let Some((name, _, usual, deed)) = ATTACKS.iter().find(|(name, ..)| *name == wanted) else {
        chiton_guest::println!("usage: hostile ATTACK [SEED] [ROUNDS], where ATTACK is one of");
        for (name, description, rounds, _) in ATTACKS {
            chiton_guest::println!("  {name:<15}{description} ({rounds} rounds)");
        }
        return ExitCode::from(2_u8);
    };
    let rounds = rounds.unwrap_or(*usual);
    deed(&mut Attack {
        random: Random::seeded(seed),
        rounds,
    });
    log::info!("hostile {name}: still here after {rounds} rounds");
    // Past the console driver, whose queue may be in ruins.
    host::ring(doorbell::EXIT, 0);
    ExitCode::FAILURE
}

fn flood(attack: &mut Attack) {
    let mut line = [b'.'; 1024];
    line[1023] = b'\n';
    for _ in 0..attack.rounds {
        if console::write(&line).is_err() {
            return;
        }
    }
    // Nothing comes behind the exit doorbell of `main`, so have it all out here.
    let _ = console::flush();
}
